"""Standard streams that never end a command: closed, without a reader, or of another encoding."""

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

#: Nobody wants to read on; that is no loss.
_NO_READER = {errno.EPIPE, errno.ECONNRESET, errno.EBADF}


class _LenientFile(io.FileIO):
    """A descriptor to write to; what it cannot take is dropped, and ``failure`` keeps the first real error."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None

    def write(self, data: ReadableBuffer) -> int:
        """Write some of the data; returns how many bytes are done with."""
        try:
            while (written := super().write(data)) is None:  # a pipe set not to block, and full
                select.select([], [self], [])
        except OSError as error:
            if error.errno not in _NO_READER and self.failure is None:
                self.failure = error
            return memoryview(data).nbytes
        return written


_files: dict[str, _LenientFile] = {}
_demanded = False


def prepare_streams() -> None:
    """Make the standard streams of this process safe to write to; for commands and worker processes only.

    Closed ones (``2>&-``) are replaced by the null device, which also keeps files opened later from getting their
    numbers, where a library's message would be written into them. A reader that is gone (``| head -1``) is no error
    any more, and characters that the terminal's encoding lacks are written as escapes.
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
        return stream  # somebody's own, or prepared before
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
    """What this command prints is its result: :func:`lost_output` tells where some of it did not arrive."""
    global _demanded
    _demanded = True


def lost_output() -> OSError | None:
    """Why output that was demanded did not arrive, although somebody wanted it; None where all did."""
    return _files["stdout"].failure if _demanded and "stdout" in _files else None


def say_to_stderr(text: str) -> None:
    """Write a line to stderr where there is one that takes it; for progress in library code."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)


def stderr_is_terminal() -> bool:
    """Whether somebody watches stderr."""
    return _is_terminal(sys.stderr)


def stdout_is_terminal() -> bool:
    """Whether somebody watches stdout."""
    return _is_terminal(sys.stdout)


def _is_terminal(stream: TextIO | None) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return stream is not None and stream.isatty()
    return False
