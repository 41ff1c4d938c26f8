"""The exceptions that ukb_infer raises on purpose: every one is an :class:`UkbInferError`.

Messages call an option by the name of the library's argument, in backticks: "`batch_size`: got 1, expected at least 2".
Only the command line knows flags, and puts them in place of those names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ukb_infer.reasons import Reason


class UkbInferError(Exception):
    """Base of every error that ukb_infer raises on purpose."""

    def call_options(self, names: Mapping[str, str]) -> None:
        """Say the message in another caller's terms.

        Args:
            names: what this caller calls an option, by the library's name; what is not in it stays as it is.
        """
        said = re.sub(r"`(\w+)`", lambda found: names.get(found[1], found[0]), str(self))
        self.args = (said, *self.args[1:])


class UsageError(UkbInferError):
    """Arguments or configuration contradict each other (exit code 2).

    Args:
        message: one sentence; where there is none, ``got`` and ``expected`` make it.
        field: the argument at fault; it begins the message.
        got: its value.
        expected: what it may be, in words.
    """

    def __init__(self, message: str = "", *, field: str = "", got: Any = None, expected: str = "") -> None:
        said = message or f"got {got!r}, expected {expected}"
        super().__init__(f"`{field}`: {said}" if field else said)
        self.field, self.got, self.expected = field, got, expected


class RunError(UkbInferError):
    """The run itself cannot be done: no inputs, unusable output folder (exit code 1)."""


class ModuleError(RunError):
    """A module cannot be found, read, verified or imported; stops the run (exit code 1)."""


class ScanError(UkbInferError):
    """One scan cannot be used; the run goes on.

    Args:
        reason: the code that goes into ``scans.csv``.
        message: what was found, what was expected and what to do; names stations from 1, never an eid.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason.value}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[ScanError], tuple[Reason, str]]:
        """Pickle across processes."""
        return type(self), (self.reason, self.message)
