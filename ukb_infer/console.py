"""Robust standard streams: closed, without a reader, or in another encoding."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Errors without a reader: nothing is lost.
_NO_READER = {errno.EPIPE, errno.ECONNRESET, errno.EBADF}


class _LenientFile(io.FileIO):
    """A file that drops what cannot be written; ``failure`` keeps the first real error."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None

    def write(self, data: ReadableBuffer) -> int:
        """Write some of the data; returns the number of bytes consumed."""
        try:
            while (written := super().write(data)) is None:  # a full non-blocking pipe
                select.select([], [self], [])
        except OSError as error:
            if error.errno not in _NO_READER and self.failure is None:
                self.failure = error
            return memoryview(data).nbytes
        return written


_files: dict[str, _LenientFile] = {}
_demanded = False


def prepare_streams() -> None:
    """Make the standard streams of this process robust; for commands and worker processes only.

    Closed ones (``2>&-``) are replaced by the null device; otherwise files opened later could get their descriptors and
    receive messages. A missing reader (``| head -1``) is not an error, and characters missing in the terminal's
    encoding are escaped.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 (for the life of the process)
    sys.stdout = _lenient("stdout", sys.stdout, 1)
    sys.stderr = _lenient("stderr", sys.stderr, 2)


def _lenient(name: str, stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper) or isinstance(getattr(stream.buffer, "raw", None), _LenientFile):
        return stream  # replaced by the caller, or already prepared
    with contextlib.suppress(OSError, ValueError):
        if stream.fileno() == descriptor:
            stream.flush()
            _files[name] = _LenientFile(descriptor)
            return io.TextIOWrapper(
                io.BufferedWriter(_files[name]),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering or stream.write_through,  # PYTHONUNBUFFERED
            )
    return stream


def demand_output() -> None:
    """Declare that stdout is the result of this command; :func:`lost_output` then reports losses."""
    global _demanded
    _demanded = True


def lost_output() -> OSError | None:
    """Error that lost demanded output; None if nothing was lost."""
    return _files["stdout"].failure if _demanded and "stdout" in _files else None


def say_to_stderr(text: str) -> None:
    """Write a line to stderr if possible; for progress in library code."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)


def stderr_is_terminal() -> bool:
    """Whether stderr is a terminal."""
    return _is_terminal(sys.stderr)


def stdout_is_terminal() -> bool:
    """Whether stdout is a terminal."""
    return _is_terminal(sys.stdout)


def _is_terminal(stream: TextIO | None) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return stream is not None and stream.isatty()
    return False
