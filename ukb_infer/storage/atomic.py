"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _sync_folder(folder: Path) -> None:
    """Flush a rename to disk; file systems that cannot open folders are left to themselves."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write to the path given, then rename it over ``path``; on an error what was there stays.

    Args:
        path: final file; its folder exists.

    Yields:
        A temporary file name in the same folder and with the same suffix.
    """
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing.

    Args:
        path: final file; its folder exists.
        data: its whole content.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or nothing.

    Args:
        path: final file; its folder exists.
        text: its whole content; line ends stay as given.
    """
    atomic_write_bytes(path, text.encode("utf-8"))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
