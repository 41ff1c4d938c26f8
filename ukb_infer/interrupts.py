"""Ctrl-C and SIGTERM at any moment of a command: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

#: Exit codes: of Ctrl-C, as in shells, and of "run the same command again" (EX_TEMPFAIL).
EXIT_INTERRUPTED, EXIT_AGAIN = 130, 75
_AGAIN = "run the same command again to continue"


def prepare_signals() -> None:
    """Handle Ctrl-C and SIGTERM with a message; signals ignored by the caller's shell stay ignored.

    A run in progress handles SIGTERM itself and finishes its batch.
    """
    process = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            _say(f"Stopped; {_AGAIN}.")
        os._exit(EXIT_AGAIN)  # nothing has started, or it survives a kill

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process and not _is_importing(frame):
            _say(f"Interrupted: finished work is kept; {_AGAIN}.")
            raise KeyboardInterrupt
        if os.getpid() == process:
            _say("Interrupted before the work started.")
        os._exit(EXIT_INTERRUPTED)  # an exception during the import of a compiled library aborts the process

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _say(text: str) -> None:
    """Write to stderr directly, since the signal may have interrupted its buffer."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
