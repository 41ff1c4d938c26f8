"""The exceptions of ukb_infer; all derive from :class:`UkbInferError`.

Messages name an option like the library's argument, in backticks: "`batch_size`: got 1, expected at least 2".
Only the command line knows flags, and replaces these names by them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ukb_infer.reasons import Reason


class UkbInferError(Exception):
    """Base of all deliberate errors of ukb_infer."""

    def call_options(self, names: Mapping[str, str]) -> None:
        """Replace the names of options in the message.

        Args:
            names: name of an option for this caller, by the library's name; others stay unchanged.
        """
        said = re.sub(r"`(\w+)`", lambda found: names.get(found[1], found[0]), str(self))
        self.args = (said, *self.args[1:])


class UsageError(UkbInferError):
    """Arguments or configuration contradict each other (exit code 2).

    Args:
        message: one sentence; if empty, it is made from ``got`` and ``expected``.
        field: the wrong argument; it begins the message.
        got: its value.
        expected: allowed values, in words.
    """

    def __init__(self, message: str = "", *, field: str = "", got: Any = None, expected: str = "") -> None:
        said = message or f"got {got!r}, expected {expected}"
        super().__init__(f"`{field}`: {said}" if field else said)
        self.field, self.got, self.expected = field, got, expected


class RunError(UkbInferError):
    """The run cannot be done: no scan in the inputs, a folder that cannot be written (exit code 1)."""


class ModuleError(RunError):
    """A module cannot be read, verified or imported; stops the run (exit code 1)."""


class NotARunError(RunError, UsageError):
    """What was given as a run, or as predictions, does not exist or is something else (exit code 2)."""


class UnknownModuleError(ModuleError, UsageError):
    """No module of this name or in this folder, or none was named (exit code 2)."""


class ScanError(UkbInferError):
    """One scan cannot be used; the run continues.

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
