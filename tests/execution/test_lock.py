"""Locks, with and without a file system whose locks work, and where containers share names and numbers."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ukb_infer.errors import RunError
from ukb_infer.execution import Journal, RunLock, current_holder
from ukb_infer.execution.lock import STALE_AFTER_S

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom ukb_infer.execution import RunLock\n"
    "with RunLock(Path(sys.argv[1]), sys.argv[2]):\n    print('held', flush=True)\n    time.sleep(60)\n"
)
#: The same on a file system without locks.
HOLD_WITHOUT_LOCKS = (
    "import errno, fcntl\ndef none(*_):\n    raise OSError(errno.ENOLCK, 'No locks available')\nfcntl.flock = none\n"
) + HOLD
#: A process of its own number space, as in a container; the host name stays the same.
CONTAINER = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]


def _start(folder: Path, mode: str, program: str = HOLD, within: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*within, sys.executable, "-c", program, str(folder), mode], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)


@pytest.mark.parametrize("mode", ["flock", "file"])
def test_a_second_process_is_refused_and_a_killed_one_leaves_nothing(tmp_path: Path, mode: str) -> None:
    process = _start(tmp_path, mode)
    try:
        for other in ("auto", "flock", "file"):
            with pytest.raises(RunError, match=f"in use by process {process.pid} on "), RunLock(tmp_path, other):  # type: ignore[arg-type]
                pass
        assert f"process {process.pid}" in str(current_holder(tmp_path))
    finally:
        _kill(process)
    assert current_holder(tmp_path) is None
    with RunLock(tmp_path, mode):  # type: ignore[arg-type]
        assert current_holder(tmp_path) is not None
    assert not (tmp_path / ".lock-file").exists()


def test_without_locks_a_second_process_is_refused_and_a_killed_one_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = _start(tmp_path, "auto", HOLD_WITHOUT_LOCKS)
    _no_locks(monkeypatch)
    try:
        with pytest.raises(RunError, match=rf"process {process.pid} on .*heartbeat is \d s old"), RunLock(tmp_path):
            pass
        assert f"process {process.pid}" in str(current_holder(tmp_path))
    finally:
        _kill(process)
    assert current_holder(tmp_path) is None
    with RunLock(tmp_path) as lock:
        assert "has no locks" in lock.note


def test_auto_falls_back_where_locks_do_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunLock(tmp_path) as lock:
        assert lock.locks_work
        assert lock.note == ""
    _no_locks(monkeypatch)
    with RunLock(tmp_path) as lock:
        assert not lock.locks_work
        assert "is stale 15 minutes after" in lock.note
        with Journal(tmp_path, locks=lock.locks_work) as journal:
            journal.put("identity", 1)
        lock.refresh()
    with pytest.raises(RunError, match="cannot be locked"), RunLock(tmp_path, "flock"):
        pass


# -- lock files of others ----------------------------------------------------------------------------------------------


def _left(folder: Path, age_s: float, **facts: Any) -> Path:
    """A lock file as an earlier version, or a process elsewhere, left it."""
    path = folder / ".lock-file"
    path.write_text(json.dumps({"process": 1, "host": socket.gethostname(), "owner": "x"} | facts))
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    return path


def _dead_number() -> int:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("mode", ["auto", "file"])
@pytest.mark.parametrize(
    "facts",
    [
        {"host": "elsewhere"},
        {"process": "ours"},  # in another container of the same name
        {"process": "dead"},  # here; there it may live
        {"process": "ours", "boot": "another", "namespace": "pid:[1]", "started": 5, "device": 7},
        {"process": "x", "host": 3, "started": -1},
    ],
    ids=["host", "our number", "dead number", "boot", "nonsense"],
)
def test_a_holder_that_cannot_be_asked_is_believed_by_its_signs_of_life_only(
    tmp_path: Path, mode: Any, facts: dict[str, Any]
) -> None:
    numbers: dict[object, object] = {"ours": os.getpid(), "dead": _dead_number()}
    facts = facts | {"process": numbers.get(facts.get("process"), facts.get("process", 1))}
    path = _left(tmp_path, STALE_AFTER_S - 60, **facts)
    with pytest.raises(RunError, match=r"in use by process .*84\d s old.*If it is gone"), RunLock(tmp_path, mode):
        pass
    assert current_holder(tmp_path) is not None
    assert path.exists()
    _left(tmp_path, STALE_AFTER_S + 60, **facts)
    assert current_holder(tmp_path) is None
    with RunLock(tmp_path, mode) as lock:
        lock.refresh()


def _record_of_a_live_holder(folder: Path) -> dict[str, Any]:
    with RunLock(folder, "file"):
        return json.loads((folder / ".lock-file").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize(("change", "free"), [({}, False), ({"started": 1}, True), ({"namespace": "pid:[1]"}, False)])
def test_without_locks_a_number_of_this_kernel_is_told_by_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], free: bool
) -> None:
    """Our own number: we are alive, a process started earlier under it is not, one of another container is unknown."""
    record = _record_of_a_live_holder(tmp_path)
    _no_locks(monkeypatch)
    _left(tmp_path, 60, **(record | change))
    if free:
        with RunLock(tmp_path, "file"):
            pass
    else:
        words = "in another container" if change else "process"
        with pytest.raises(RunError, match=words), RunLock(tmp_path, "file"):
            pass


def test_a_held_system_lock_outweighs_numbers_and_silence(tmp_path: Path) -> None:
    process = _start(tmp_path, "file")
    try:
        record = json.loads((tmp_path / ".lock-file").read_text())
        _left(tmp_path, 10 * STALE_AFTER_S, **(record | {"process": _dead_number(), "namespace": "pid:[1]"}))
        for mode in ("auto", "flock", "file"):
            with pytest.raises(RunError, match="in use by process"), RunLock(tmp_path, mode):  # type: ignore[arg-type]
                pass
        assert current_holder(tmp_path) is not None
    finally:
        _kill(process)


def test_a_released_system_lock_of_this_kernel_outweighs_the_number(tmp_path: Path) -> None:
    """The first process of a container is killed and the next one has its number: nothing to wait for."""
    record = _record_of_a_live_holder(tmp_path)
    _left(tmp_path, 1, **(record | {"process": os.getpid(), "namespace": "pid:[1]"}))
    with RunLock(tmp_path, "file"):
        pass
    _left(tmp_path, 1, **(record | {"namespace": "pid:[1]", "device": record["device"] + 1}))  # another mount
    with pytest.raises(RunError, match="in another container"), RunLock(tmp_path, "file"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "file"])
def test_real_containers_of_one_name(tmp_path: Path, mode: str) -> None:
    """Number 1 in both, neither sees the other's processes."""
    if shutil.which("unshare") is None or subprocess.run([*CONTAINER, "true"], check=False).returncode:
        pytest.skip("needs unshare and namespaces of users and processes; the tests above stand for it")
    process = _start(tmp_path, mode, within=tuple(CONTAINER))
    second = [*CONTAINER, sys.executable, "-c", HOLD.replace("sleep(60)", "sleep(0)"), str(tmp_path), mode]
    try:
        refused = subprocess.run(second, capture_output=True, text=True, check=False)
        assert "in use by process 1 on" in refused.stderr
        with pytest.raises(RunError, match="in use by process 1 on"), RunLock(tmp_path, mode):  # type: ignore[arg-type]
            pass
    finally:
        _kill(process)
    _wait(lambda: current_holder(tmp_path) is None)
    assert subprocess.run(second, capture_output=True, text=True, check=False).stdout == "held\n"


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)


# -- heartbeat ---------------------------------------------------------------------------------------------------------


def test_a_holder_gives_signs_of_life_while_it_commits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ukb_infer.execution.lock.HEARTBEAT_S", 0.02)
    path = tmp_path / ".lock-file"
    with RunLock(tmp_path, "file"):
        os.utime(path, (1e9, 1e9))
        _wait(lambda: path.stat().st_mtime > 1e9 + 1)


def test_a_holder_that_lost_its_lock_stops(tmp_path: Path) -> None:
    with RunLock(tmp_path, "file") as lock:
        lock.refresh()
        _left(tmp_path, 0, host="elsewhere")
        with pytest.raises(RunError, match="took over"):
            lock.refresh()
    assert (tmp_path / ".lock-file").exists()  # the other's is left alone
    (tmp_path / ".lock-file").unlink()
    with RunLock(tmp_path, "file") as lock:
        (tmp_path / ".lock-file").unlink()
        with pytest.raises(RunError, match="took over"):
            lock.refresh()


def test_of_two_that_find_a_lock_left_behind_one_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other machine is quicker between our look and our move: its new lock file stays."""
    _no_locks(monkeypatch)
    _left(tmp_path, STALE_AFTER_S + 60, host="elsewhere")
    judge = RunLock._is_stale

    def slow(lock: RunLock, now: float | None = None) -> bool:
        found = judge(lock, now)
        _left(tmp_path, 0, host="quicker", owner="y")
        return found

    monkeypatch.setattr(RunLock, "_is_stale", slow)
    with pytest.raises(RunError, match="in use by process 1 on quicker"), RunLock(tmp_path, "file"):
        pass
    assert json.loads((tmp_path / ".lock-file").read_text())["owner"] == "y"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".lock-file.")] == []
