"""Ctrl-C and SIGTERM at any moment of a command: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

#: Exit codes: of Ctrl-C, as shells give it, and "start the same command again" (EX_TEMPFAIL).
EXIT_INTERRUPTED, EXIT_AGAIN = 130, 75
_AGAIN = "run the same command again to continue"


def prepare_signals() -> None:
    """Answer Ctrl-C and SIGTERM in words; what the caller's shell ignores stays ignored.

    A run that is under way handles SIGTERM itself, and finishes its batch.
    """
    process = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            _say(f"Stopped; {_AGAIN}.")
        os._exit(EXIT_AGAIN)  # nothing was begun, or what was begun survives a kill

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process and not _is_importing(frame):
            _say(f"Interrupted: what is finished is kept; {_AGAIN}.")
            raise KeyboardInterrupt
        if os.getpid() == process:
            _say("Interrupted before the work began.")
        os._exit(EXIT_INTERRUPTED)  # an exception amid the import of a compiled library aborts the process

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
    """To stderr, past its buffer, which the signal may have found half written."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
