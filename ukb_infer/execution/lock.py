"""One process per run folder (floor 1)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

from ukb_infer.errors import RunError

LockMode = Literal["auto", "flock", "file"]
#: A lock file whose holder is on another machine counts as stale after this long without a sign of life, s.
STALE_AFTER_S = 900.0
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class RunLock:
    """Lock on a run folder.

    ``flock``: an advisory lock that the kernel releases when its holder dies, so that none goes stale. ``file``: for
    network file systems whose locks do not work, a file made exclusively, with the holder's name inside and its time
    of change as the sign of life (:meth:`refresh`); a dead process of this machine, or 15 minutes without a sign from
    another, make it stale. ``auto`` takes ``flock`` where it works.

    Args:
        folder: the run folder; exists.
        mode: as above.

    Attributes:
        locks_work: whether the file system's own locks are in use; the journal needs to know.

    Raises:
        RunError: on entry, where another process holds the lock.
    """

    def __init__(self, folder: Path, mode: LockMode = "auto") -> None:
        self.path = folder / ".lock"
        self.file_path = folder / ".lock-file"
        self.mode = mode
        self.locks_work = mode != "file"
        self._handle: IO[str] | None = None
        self._owner = ""

    def __enter__(self) -> RunLock:
        """Take the lock."""
        if self.mode != "file":
            try:
                self._take_flock()
                return self
            except OSError as error:
                if self.mode == "flock" or error.errno not in _NO_LOCKS:
                    raise RunError(f"{self.path}: cannot be locked ({error.strerror})") from error
            self.locks_work = False
        self._take_file()
        return self

    def _take_flock(self) -> None:
        if self.file_path.exists() and not self._is_stale():
            self._refuse(self._holder())
        handle = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read(200).strip() or "another process"
            handle.close()
            self._refuse(holder)
        except OSError:
            handle.close()
            raise
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        self._handle = handle

    def _refuse(self, holder: str) -> None:
        raise RunError(f"{self.path.parent} is in use by {holder}; wait for it, stop it, or choose another --out")

    # -- the lock file -------------------------------------------------------------------------------------------------

    def _take_file(self) -> None:
        if self.file_path.exists() and self._is_stale():
            stale = self.file_path.with_name(f"{self.file_path.name}.{secrets.token_hex(4)}")
            self.file_path.replace(stale)  # only one of several that found it stale succeeds in taking it away
            stale.unlink()
        self._owner = secrets.token_hex(16)
        content = json.dumps({"process": os.getpid(), "host": socket.gethostname(), "owner": self._owner})
        try:
            with self.file_path.open("x", encoding="utf-8") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
        except FileExistsError:
            self._owner = ""
            self._refuse(self._holder())

    def _read(self) -> dict[str, object]:
        try:
            content = json.loads(self.file_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _holder(self) -> str:
        found = self._read()
        return f"process {found.get('process', '?')} on {found.get('host', 'another machine')}"

    def _is_stale(self) -> bool:
        found = self._read()
        process = found.get("process")
        if found.get("host") == socket.gethostname() and isinstance(process, int):
            return not _is_alive(process)
        try:
            return time.time() - self.file_path.stat().st_mtime > STALE_AFTER_S
        except OSError:
            return False

    def refresh(self) -> None:
        """Give a sign of life; call it now and then while holding the lock.

        Raises:
            RunError: another process took the lock meanwhile.
        """
        if not self._owner:
            return
        if self._read().get("owner") != self._owner:
            raise RunError(f"{self.file_path}: another process took over this run; this one stops")
        os.utime(self.file_path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        if self._handle is not None:
            self._handle.truncate(0)
            self._handle.close()
            self._handle = None
        if self._owner and self._read().get("owner") == self._owner:
            self.file_path.unlink(missing_ok=True)
        self._owner = ""


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def current_holder(folder: Path) -> str | None:
    """Who holds the lock of a run folder, or None; takes nothing."""
    lock = RunLock(folder)
    if lock.file_path.exists() and not lock._is_stale():
        return lock._holder()
    try:
        with lock.path.open("r", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return handle.read(200).strip() or "another process"
    except OSError:
        return None
    return None
