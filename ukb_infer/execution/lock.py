"""Lock of a run folder: one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Literal, NoReturn

from ukb_infer.errors import RunError
from ukb_infer.execution.identity import ProcessIdentity

LockMode = Literal["auto", "flock", "file"]
#: A lock file whose holder cannot be checked is stale after this long without a heartbeat, s.
STALE_AFTER_S = 900.0
#: Interval of the heartbeat of a lock file, s.
HEARTBEAT_S = 30.0
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
#: `status` holds the system's lock for a moment; a run that starts meanwhile tries again.
_LOOKS, _BETWEEN_LOOKS_S = 3, 0.1


class RunLock:
    """Lock on a run folder.

    The system's advisory lock (``flock``) on ``.lock`` is taken in every mode if the file system has it: the kernel
    releases it when its holder dies, and it is the same in every container of a machine. ``flock`` requires it,
    ``auto`` falls back on a lock file if there is none. ``file`` always makes the lock file, for network file systems
    whose locks hold on one machine only. It is created exclusively, contains the holder's identity, and its
    modification time is the heartbeat.

    A lock file is stale only while the system's lock is free and its holder held that lock on this kernel, is known to
    be dead (:class:`ProcessIdentity`), or has had no heartbeat for 15 minutes.

    Args:
        folder: the run folder; exists.
        mode: as above.

    Attributes:
        locks_work: whether the file system's own locks work; the journal needs to know.

    Raises:
        RunError: on entry, another process holds the lock.
    """

    def __init__(self, folder: Path, mode: LockMode = "auto") -> None:
        self.path = folder / ".lock"
        self.file_path = folder / ".lock-file"
        self.mode = mode
        self.locks_work = mode != "file"
        self._handle: IO[str] | None = None
        self._owner = ""
        self._released = threading.Event()

    @property
    def note(self) -> str:
        """What the user should know about the lock, or ""."""
        if not self._owner or self.mode == "file":
            return ""
        return (
            f"{self.path.parent}: its file system has no locks; {self.file_path.name} is used instead, and is stale "
            f"{STALE_AFTER_S / 60:.0f} minutes after its holder's last heartbeat"
        )

    def __enter__(self) -> RunLock:
        """Take the lock."""
        try:
            self._take_system_lock()
            if self._handle is None or self.mode == "file":
                self.locks_work = False
                self._take_file()
            elif self.file_path.exists() and not self._is_stale():
                self._refuse_for_file()
        except OSError as error:
            self._release()
            raise RunError(f"{self.path}: cannot be locked ({error.strerror}); see `lock` in docs/hpc.md") from error
        except RunError:
            self._release()
            raise
        return self

    # -- the system's lock ---------------------------------------------------------------------------------------------

    def _take_system_lock(self) -> None:
        """Lock ``.lock``; without effect if the file system has no locks and the mode allows that."""
        handle = self.path.open("a+", encoding="utf-8", errors="replace")
        try:
            _lock_soon(handle)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read(200).strip() or "another process"
            handle.close()
            self._refuse(f"{holder}; wait for it, stop it, or choose another `out`")
        except OSError as error:
            handle.close()
            if self.mode == "flock" or error.errno not in _NO_LOCKS:
                raise
            return
        self._handle = handle
        handle.truncate(0)
        handle.write(f"{ProcessIdentity.of_this_process()}, since {time.strftime('%Y-%m-%d %H:%M:%S %z')}")
        handle.flush()

    def _refuse(self, words: str) -> NoReturn:
        raise RunError(f"{self.path.parent} is in use by {words}")

    # -- the lock file -------------------------------------------------------------------------------------------------

    def _take_file(self) -> None:
        if self.file_path.exists():
            judged = self._read()
            if not self._is_stale():
                self._refuse_for_file()
            self._remove_stale(judged)
        self._owner = secrets.token_hex(16)
        content = asdict(ProcessIdentity.of_this_process()) | {"owner": self._owner, "device": self._device()}
        try:
            with self.file_path.open("x", encoding="utf-8") as handle:
                handle.write(json.dumps(content))
                handle.flush()
                os.fsync(handle.fileno())
        except FileExistsError:
            self._owner = ""
            self._refuse_for_file()
        threading.Thread(target=self._send_heartbeats, args=(self.file_path.absolute(),), daemon=True).start()

    def _remove_stale(self, judged: dict[str, object]) -> None:
        """Remove the stale lock file, unless another process has replaced it meanwhile."""
        aside = self.file_path.with_name(f"{self.file_path.name}.{secrets.token_hex(4)}")
        self.file_path.replace(aside)
        try:
            if _read_json(aside) != judged:
                os.link(aside, self.file_path)
                self._refuse_for_file()
        finally:
            aside.unlink()

    def _device(self) -> int:
        """Number of the mounted file system whose lock we hold, 0 if none; other mounts do not see that lock."""
        return 0 if self._handle is None else os.fstat(self._handle.fileno()).st_dev

    def _read(self) -> dict[str, object]:
        return _read_json(self.file_path)

    def _is_stale(self, now: float | None = None) -> bool:
        """Whether the holder of the lock file is gone; call it while the system's lock is held or does not exist.

        Args:
            now: the time; by default that of the file system, whose clock may differ from this machine's.
        """
        found = self._read()
        holder = ProcessIdentity.from_plain(found)
        if holder.shares_our_kernel and self._device() and found.get("device") == self._device():
            return True  # the kernel has released its lock, which we now hold
        if holder.lives is not None:
            return not holder.lives
        return self._heartbeat_age_s(now) > STALE_AFTER_S

    def _heartbeat_age_s(self, now: float | None = None) -> float:
        """Seconds since the last heartbeat."""
        try:
            if now is None:
                os.utime(self.path)
                now = self.path.stat().st_mtime
            return now - self.file_path.stat().st_mtime
        except OSError:
            return 0.0

    def _refuse_for_file(self) -> NoReturn:
        holder, silence = ProcessIdentity.from_plain(self._read()), max(0.0, self._heartbeat_age_s())
        then = "" if holder.lives else (
            f" If it is gone: {self.file_path} is stale {STALE_AFTER_S / 60:.0f} minutes after the last heartbeat, or "
            "may be deleted"
        )  # fmt: skip
        self._refuse(
            f"{holder}, whose last heartbeat is {silence:.0f} s old; wait for it, stop it, or choose another `out`."
            f"{then}"
        )

    def _send_heartbeats(self, path: Path) -> None:
        """Touch the lock file until the lock is released or lost; storage failures are retried."""
        while not self._released.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                if _read_json(path).get("owner") == self._owner:
                    os.utime(path)

    def refresh(self) -> None:
        """Check that the lock is still ours; call it before committing results.

        Raises:
            RunError: another process took the lock meanwhile.
            OSError: the storage failed.
        """
        if not self._owner:
            return
        try:
            content = _parse(self.file_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            content = {}
        if content.get("owner") != self._owner:
            raise RunError(f"{self.file_path}: another process took over this run, so this one stops")
        os.utime(self.file_path)

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._release()

    def _release(self) -> None:
        self._released.set()
        with contextlib.suppress(OSError):
            if self._owner and self._read().get("owner") == self._owner:
                self.file_path.unlink(missing_ok=True)
        self._owner = ""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._handle.truncate(0)
            self._handle.close()
            self._handle = None


def _lock_soon(handle: IO[str]) -> None:
    """Take the system's lock, trying a few times.

    Raises:
        BlockingIOError: another process holds it.
        OSError: there are no locks here.
    """
    for look in range(_LOOKS):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if look == _LOOKS - 1:
                raise
            time.sleep(_BETWEEN_LOOKS_S)


def _read_json(path: Path) -> dict[str, object]:
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _parse(text: str) -> dict[str, object]:
    try:
        content = json.loads(text)
    except ValueError:  # empty: its holder is just creating it
        return {}
    return content if isinstance(content, dict) else {}


def current_holder(folder: Path) -> str | None:
    """Holder of a run folder's lock, or None; does not take the lock."""
    lock = RunLock(folder)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # there is no .lock, or the file system has no locks
            handle = stack.enter_context(lock.path.open("r", encoding="utf-8", errors="replace"))
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return handle.read(200).strip() or "another process"
            lock._handle = handle
        if lock.file_path.exists() and not lock._is_stale(time.time()):
            return str(ProcessIdentity.from_plain(lock._read()))
    return None
