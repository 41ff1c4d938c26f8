"""Runs survive what machines do to them: killed, stopped, out of space, frozen, disconnected."""

from __future__ import annotations

import csv
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import command, config, finished_scans, kill_at_random_times, make_inputs, run, start, tables
from ukb_infer.errors import UsageError
from ukb_infer.inference import PredictConfig, run_predict
from ukb_infer.inference.passes import STORAGE_GONE_AFTER
from ukb_infer.inference.work import Job


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"), 24)


@pytest.fixture(scope="module")
def whole(scans: Path, tiny_module: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Tables of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_predict(config(scans, out, tiny_module)).exit_code == 3
    return tables(out)


@pytest.mark.slow
def test_kill_nine_at_random_times(tiny_module: Path, tmp_path: Path) -> None:
    """The short form; `make soak` kills fifty times."""
    kills, finished = kill_at_random_times(make_inputs(tmp_path, 60), tiny_module, tmp_path, kills=4, seed=1)
    assert kills >= 4
    assert finished >= 1


@pytest.mark.slow
def test_sigterm_finishes_the_batch_and_asks_to_be_started_again(
    scans: Path, tiny_module: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    slow = make_inputs(tmp_path, 200, broken=False)
    out = tmp_path / "run"
    process = start(command(slow, out, tiny_module))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and finished_scans(out) < 4:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # the whole group, as a scheduler does
    assert process.wait(60) == 75
    finished = finished_scans(out)
    assert 4 <= finished < 200
    assert len((out / "estimates.csv").read_text().splitlines()) == finished + 1
    assert "stopped on request" in (out / "run.log").read_text()
    done = run(command(slow, out, tiny_module))
    assert done.returncode == 0
    assert f"{200 - finished} processed now" in done.stdout


def test_a_full_disk_loses_nothing_committed(
    scans: Path, tiny_module: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """A limit on the size of files makes the journal fail in the middle of a run, as a full disk does."""
    out = tmp_path / "run"
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from ukb_infer.cli.app import app\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (32768, resource.RLIM_INFINITY))\n"
        "from ukb_infer.__main__ import main\n"
        "sys.argv = sys.argv[0:1] + sys.argv[1:]\nmain()\n"
    )
    done = run([sys.executable, "-c", script, *command(scans, out, tiny_module)[3:]])
    assert done.returncode == 1, done.stderr
    assert "journal.sqlite: cannot be written" in done.stderr or "tables cannot be written" in done.stderr
    assert "kept" in done.stderr
    assert finished_scans(out) < 24
    summary = run_predict(config(scans, out, tiny_module))
    assert summary.exit_code == 3
    assert tables(out) == whole


@pytest.mark.slow
def test_a_really_full_file_system_and_exhausted_inodes(
    scans: Path, tiny_module: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    for number, options in enumerate(("size=32k", "size=8m,nr_inodes=4")):
        disk = tmp_path / f"disk{number}"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=False).returncode:
            pytest.skip("mounting a tmpfs needs root; the limit on file sizes above stands for it")
        try:
            done = run(command(scans, disk / "run", tiny_module))
            assert done.returncode in (1, 2), done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=1000", disk], check=True)
            assert run(command(scans, disk / "run", tiny_module)).returncode == 3
            assert tables(disk / "run") == whole
        finally:
            subprocess.run(["umount", disk], check=True)


def test_an_output_that_cannot_be_written_is_named(scans: Path, tiny_module: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(command(scans, tmp_path / "file", tiny_module))
    assert done.returncode == 1
    assert "cannot be used as a folder" in done.stderr


@pytest.mark.slow
def test_a_frozen_worker_is_replaced_and_its_scan_fails_or_succeeds_later(
    scans: Path, tiny_module: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """SIGSTOP to a worker: its scan times out, the run goes on; the same command then finishes it."""
    out = tmp_path / "run"
    many = make_inputs(tmp_path, 150, broken=False)
    process = start(command(many, out, tiny_module, "--timeout", 3))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and finished_scans(out) < 4:
        time.sleep(0.05)
    frozen = _children(process.pid)[-1]
    os.kill(frozen, signal.SIGSTOP)
    assert process.wait(120) in (0, 3)
    again = run(command(many, out, tiny_module))
    assert again.returncode == 0
    assert len((out / "estimates.csv").read_text().splitlines()) == 151


def _children(process: int) -> list[int]:
    """Worker processes of a command (its resource tracker is left out)."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        found += [int(c) for c in (task / "children").read_text().split()]
    return [c for c in found if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def _failing(times: dict[str, int], error: int = errno.EIO) -> Any:
    """`Job.make` whose storage fails the given number of times for each scan."""
    from ukb_infer.inference import work

    original = work.Job.make

    def project(job: Job) -> Any:
        name = job.scan.key.scan
        if times.get(name, 0) > 0:
            times[name] -= 1
            raise OSError(error, os.strerror(error))
        return original(job)

    return project


def test_failures_of_the_storage_are_tried_again_with_growing_waits(
    scans: Path, tiny_module: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {f"{k:07d}_20201_2_0": 2 for k in (2, 3, 11)}
    monkeypatch.setattr("ukb_infer.inference.work.Job.make", _failing(times))
    started = time.monotonic()
    summary = run_predict(config(scans, tmp_path / "run", tiny_module, retry_waits_s=(0.2, 0.4)))
    assert time.monotonic() - started >= 0.6
    assert summary.exit_code == 3
    assert tables(tmp_path / "run") == whole


def test_a_vanished_mount_ends_with_75_and_the_same_command_finishes(
    scans: Path, tiny_module: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the fifth scan on everything fails: after some failures in a row the rest is not even tried."""
    gone = {f"{k:07d}_20201_2_0": 99 for k in range(5, 25)}
    calls = dict(gone)
    monkeypatch.setattr("ukb_infer.inference.work.Job.make", _failing(calls, errno.ESTALE))
    summary = run_predict(config(scans, tmp_path / "run", tiny_module, retry_waits_s=(0.01, 0.01)))
    assert summary.exit_code == 75
    assert sum(99 - left for left in calls.values()) <= 3 * STORAGE_GONE_AFTER
    assert summary.reasons["storage_failed"] == STORAGE_GONE_AFTER
    assert (summary.computed, summary.unfinished) == (4 + STORAGE_GONE_AFTER, 20 - STORAGE_GONE_AFTER)
    monkeypatch.undo()
    assert run_predict(config(scans, tmp_path / "run", tiny_module)).exit_code == 3
    assert tables(tmp_path / "run") == whole


def test_verify_notices_a_change_that_size_and_time_hide(tiny_module: Path, tmp_path: Path) -> None:
    source = make_inputs(tmp_path, 6, broken=False)
    for link in source.iterdir():
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)
    out = tmp_path / "run"
    assert run_predict(config(source, out, tiny_module, verify=True)).computed == 6
    assert run_predict(config(source, out, tiny_module, verify=True)).computed == 0
    assert run_predict(config(source, out, tiny_module)).computed == 0
    changed = source / "0000003_20201_2_0.zip"
    stat, content = changed.stat(), bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 0xFF
    changed.write_bytes(bytes(content))
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run_predict(config(source, out, tiny_module)).computed == 0
    assert run_predict(config(source, out, tiny_module, verify=True)).computed == 1
    os.utime(changed)  # and a new time alone is enough without
    assert run_predict(config(source, out, tiny_module)).computed == 1


def test_a_changed_slice_in_a_folder_is_noticed(tmp_path: Path) -> None:
    from ukb_infer.inference.fingerprints import content_digest
    from ukb_infer.inference.inputs import resolve_inputs

    folder = tmp_path / "0000001_20201_2_0"
    folder.mkdir()
    for k in range(3):
        (folder / f"{k}.dcm").write_bytes(b"\0" * 128 + b"DICM" + bytes([k]))
    (scan,) = resolve_inputs([str(folder)])
    before = scan.fingerprint, content_digest(folder)
    (folder / "1.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"x")
    os.utime(folder / "1.dcm", (1e9, 2e9))
    assert scan.fingerprint != before[0]
    assert content_digest(folder) != before[1]


def test_names_in_the_log_are_keyed(scans: Path, tiny_module: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        run_predict(config(scans, tmp_path / name, tiny_module))
        texts.append((tmp_path / name / "run.log").read_text())
        assert (tmp_path / name / ".log-key").stat().st_mode & 0o777 == 0o600
        assert "0000009" not in texts[-1]
        assert texts[-1].count("unreadable_zip") == 2
    names = [{w for w in t.split() if w.startswith("scan-")} for t in texts]
    assert len(names[0]) == 2
    assert names[0].isdisjoint(names[1])
    run_predict(config(scans, tmp_path / "c", tiny_module, log_ids=True))
    assert "0000009_20201_2_0 failed: unreadable_zip" in (tmp_path / "c/run.log").read_text()


def test_a_dry_run_estimates_time_and_disk(scans: Path, tiny_module: Path, tmp_path: Path) -> None:
    notes = "\n".join(run_predict(config(scans, tmp_path / "run", tiny_module, dry_run=True)).notes)
    assert "for 22 scans, measured on one scan" in notes or "for 24 scans, measured on one scan" in notes
    assert "MB in" in notes
    assert not (tmp_path / "run").exists()


def test_the_table_of_a_run_lists_every_scan_once(whole: dict[str, bytes]) -> None:
    rows = list(csv.DictReader(whole["scans.csv"].decode().splitlines()))
    assert [r["scan"] for r in rows] == [f"{k:07d}_20201_2_0" for k in range(1, 25)]
    assert sum(r["status"] == "failed" for r in rows) == 2


def test_options_that_contradict_are_refused(scans: Path, tiny_module: Path, tmp_path: Path) -> None:
    for changes, words in (({"shard": "4/3"}, "`shard`"), ({"lock": "nfs"}, "`lock`")):
        with pytest.raises(UsageError, match=words):
            config(scans, tmp_path, tiny_module, **changes)


def test_configurations_survive_the_journal(scans: Path, tiny_module: Path, tmp_path: Path) -> None:
    paths = {"exclude": (tmp_path / "w.csv",), "root": tmp_path, "projections": tmp_path / "p"}
    full = config(scans, tmp_path, tiny_module, shard="1/2", **paths)
    assert PredictConfig.from_journal(json.loads(json.dumps(full.to_plain()))) == full


def test_open_files_and_memory_do_not_grow(scans: Path, tiny_module: Path, tmp_path: Path) -> None:
    """The short form of the soak run: descriptors of this process before and after five runs."""
    counts = []
    for k in range(5):
        run_predict(config(scans, tmp_path / str(k), tiny_module))
        counts.append(len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0)
    assert counts[-1] == counts[1]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > counts[-1]
