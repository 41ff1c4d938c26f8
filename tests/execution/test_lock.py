"""Locks, with and without a file system whose locks work."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ukb_infer.errors import RunError
from ukb_infer.execution import Journal, RunLock, current_holder
from ukb_infer.execution.lock import STALE_AFTER_S

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom ukb_infer.execution import RunLock\n"
    "with RunLock(Path(sys.argv[1]), sys.argv[2]):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


@pytest.mark.parametrize("mode", ["flock", "file"])
def test_a_second_process_is_refused_and_a_killed_one_leaves_nothing(tmp_path: Path, mode: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), mode], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        for other in ("auto", mode):
            with pytest.raises(RunError, match=f"in use by process {process.pid} on "), RunLock(tmp_path, other):  # type: ignore[arg-type]
                pass
        assert f"process {process.pid}" in str(current_holder(tmp_path))
    finally:
        process.kill()
        process.wait()
    assert current_holder(tmp_path) is None
    with RunLock(tmp_path, mode):  # type: ignore[arg-type]
        assert current_holder(tmp_path) is not None
    assert not (tmp_path / ".lock-file").exists()


def test_auto_falls_back_where_locks_do_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with RunLock(tmp_path) as lock:
        assert not lock.locks_work
        with Journal(tmp_path, locks=lock.locks_work) as journal:
            journal.put("identity", 1)
        lock.refresh()
    with pytest.raises(RunError, match="cannot be locked"), RunLock(tmp_path, "flock"):
        pass


def _lock_of(folder: Path, host: str, age_s: float) -> Path:
    path = folder / ".lock-file"
    path.write_text(json.dumps({"process": 1, "host": host, "owner": "x"}))
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    return path


def test_a_lock_file_of_another_machine_is_stale_after_a_while_only(tmp_path: Path) -> None:
    _lock_of(tmp_path, "elsewhere", STALE_AFTER_S - 60)
    with pytest.raises(RunError, match="process 1 on elsewhere"), RunLock(tmp_path, "file"):
        pass
    _lock_of(tmp_path, "elsewhere", STALE_AFTER_S + 60)
    with RunLock(tmp_path, "file"):
        pass


def test_a_lock_file_of_a_dead_process_here_is_stale_at_once(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    path = tmp_path / ".lock-file"
    path.write_text(json.dumps({"process": int(done.stdout), "host": socket.gethostname(), "owner": "x"}))
    with RunLock(tmp_path, "file"):
        pass


def test_a_holder_that_lost_its_lock_stops(tmp_path: Path) -> None:
    with RunLock(tmp_path, "file") as lock:
        lock.refresh()
        _lock_of(tmp_path, "elsewhere", 0)
        with pytest.raises(RunError, match="took over"):
            lock.refresh()
    assert (tmp_path / ".lock-file").exists()  # the other's is left alone
