"""Wording helpers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def shown(text: str | Path) -> str:
    r"""Make a name or message printable in every terminal, table and journal.

    Bytes that are not UTF-8 (names made on Windows, unpacked on Linux) and control characters become ``\xNN``; UTF-8
    names are unchanged, even in a C locale.

    Args:
        text: as returned by the operating system.
    """
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        raw = str(text).encode("utf-8", "backslashreplace")
    plain = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in plain)


def format_duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def suggest(name: str, choices: Iterable[str]) -> str:
    """Sentence part that names the nearest choices, for error messages.

    Args:
        name: the unknown name.
        choices: the known names.
    """
    import difflib

    near = difflib.get_close_matches(name, list(choices), n=3, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else ""
