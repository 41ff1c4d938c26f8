"""One process per run folder (floor 1)."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import IO

from ukb_infer.errors import RunError


class RunLock:
    """Advisory lock on a run folder; the kernel releases it when its holder dies, so no lock goes stale.

    Args:
        folder: the run folder; exists.

    Raises:
        RunError: on entry, where another process holds the lock.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._handle: IO[str] | None = None

    def __enter__(self) -> RunLock:
        """Take the lock."""
        handle = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read(200).strip() or "another process"
            handle.close()
            raise RunError(
                f"{self.path.parent} is in use by {holder}; wait for it, stop it, or choose another --out"
            ) from error
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        if self._handle is not None:
            self._handle.truncate(0)
            self._handle.close()
            self._handle = None
