"""Shards, merging, status, retry, export; a Dask cluster that loses a worker."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from tests.support.faults import config, make_inputs, run, tables
from tests.support.tiny_module import make_tiny_module
from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution import Journal, RunLock
from ukb_infer.execution.cluster import read_cluster_file, run_on_cluster
from ukb_infer.inference import ProjectConfig, StitchConfig, run_predict, run_project, run_stitch
from ukb_infer.inference.retry import run_retry
from ukb_infer.records import ReadingOptions
from ukb_infer.runs.export import run_export
from ukb_infer.runs.merge import run_merge
from ukb_infer.runs.status import RunStatus, commit_rate, run_status


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"), 23)


@pytest.fixture(scope="module")
def single(scans: Path, tiny_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one machine, with two participants excluded."""
    folder = tmp_path_factory.mktemp("single")
    withdrawn = folder / "w0.csv"
    withdrawn.write_text("0000004\n0000007\n")
    run_predict(config(scans, folder / "run", tiny_module, exclude=(withdrawn,)))
    return folder


@pytest.fixture(scope="module")
def shards(scans: Path, single: Path, tiny_module: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    for k in range(1, 5):
        run_predict(config(scans, folder / str(k), tiny_module, exclude=(single / "w0.csv",), shard=f"{k}/4"))
    return [folder / str(k) for k in range(1, 5)]


def test_shards_join_to_the_bytes_of_one_machine(shards: list[Path], single: Path, tmp_path: Path) -> None:
    sizes = [len((s / "scans.csv").read_text().splitlines()) - 1 for s in shards]
    assert sorted(sizes) == [5, 6, 6, 6]
    result = run_merge(list(reversed(shards)), tmp_path / "run")
    assert result.exit_code == 3
    assert result.missing == ()
    assert result.counts == {"ok": 19, "flagged": 0, "failed": 2, "excluded": 2} or sum(result.counts.values()) == 23
    assert tables(tmp_path / "run") == tables(single / "run")


def test_a_merged_run_can_be_continued(
    shards: list[Path], single: Path, scans: Path, tiny_module: Path, tmp_path: Path
) -> None:
    result = run_merge(shards[:3], tmp_path / "run")
    assert result.exit_code == 75
    assert len(result.missing) == 4  # of five, one is excluded
    with (tmp_path / "run/missing.csv").open() as handle:
        assert [r["scan"] for r in csv.DictReader(handle)] == list(result.missing)
    summary = run_predict(config(scans, tmp_path / "run", tiny_module, exclude=(single / "w0.csv",)))
    assert summary.computed == 4
    assert not (tmp_path / "run/missing.csv").exists()
    assert tables(tmp_path / "run") == tables(single / "run")


def test_merging_refuses_what_does_not_belong_together(
    shards: list[Path], scans: Path, tiny_module: Path, tmp_path: Path
) -> None:
    other = make_tiny_module(tmp_path / "other", seed=9)
    run_predict(config(scans, tmp_path / "x", other, shard="1/4"))
    with pytest.raises(UsageError, match="different settings"):
        run_merge([shards[0], tmp_path / "x"], tmp_path / "out")
    run_predict(config(scans, tmp_path / "y", tiny_module, shard="1/4", level=0.9))
    with pytest.raises(UsageError, match="different tables"):
        run_merge([shards[0], tmp_path / "y"], tmp_path / "out")
    with pytest.raises(RunError, match="is not a run"):
        run_merge([shards[0], tmp_path], tmp_path / "out")
    with pytest.raises(UsageError, match="one of the runs"):
        run_merge(shards, shards[0])
    # The same shard twice is fine while its results are equal, and refused when they differ.
    copy = tmp_path / "copy"
    shutil.copytree(shards[0], copy)
    assert run_merge([*shards, copy], tmp_path / "twice").missing == ()
    with Journal(copy) as journal:
        row = next(r for _, r in journal.results() if r is not None and r.payload)
        journal.record([replace(row, payload=bytes(len(row.payload)))])
    with pytest.raises(UsageError, match="1 scans have different results"):
        run_merge([*shards, copy], tmp_path / "conflict")
    with pytest.raises(UsageError, match="already contains a run"):
        run_merge(shards, tmp_path / "twice")
    assert run_merge(shards, tmp_path / "twice", overwrite=True).missing == ()


def test_a_new_withdrawal_moves_no_scan_to_another_shard(
    scans: Path, tiny_module: Path, tmp_path: Path, shards: list[Path]
) -> None:
    before = (shards[1] / "scans.csv").read_text().splitlines()
    more = tmp_path / "w.csv"
    more.write_text("0000004\n0000007\n0000002\n")
    summary = run_predict(config(scans, tmp_path / "s", tiny_module, exclude=(more,), shard="2/4"))
    assert summary.counts["excluded"] == 1 + sum("excluded" in line for line in before[1:]) or summary.computed <= 6
    after = (tmp_path / "s/scans.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in after] == [line.split(",")[0] for line in before]


def test_projections_are_sharded_and_merged_too(scans: Path, tiny_module: Path, tmp_path: Path) -> None:
    base = ProjectConfig((str(scans),), tmp_path / "one", workers=0, reading=ReadingOptions(0))
    for k in (1, 2):
        run_project(replace(base, out=tmp_path / str(k), shard=f"{k}/2"))
    run_project(base)
    run_merge([tmp_path / "1", tmp_path / "2"], tmp_path / "both")
    assert (tmp_path / "both/scans.csv").read_bytes() == (tmp_path / "one/scans.csv").read_bytes()
    names = sorted(p.name for p in (tmp_path / "one").glob("*.npy"))
    assert len(names) == 21
    for name in names:
        assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_status_tells_counts_errors_and_who_works(single: Path) -> None:
    status = run_status(single / "run")
    assert (status.command, status.shard, status.holder, status.unfinished) == ("predict", None, None, 0)
    assert status.counts["excluded"] == 2
    assert status.reasons["unreadable_zip"] == 2
    assert [n.startswith("scan-") for n, _ in status.last_failures] == [True, True]
    shown = run_status(single / "run", log_ids=True)
    assert {n for n, _ in shown.last_failures} == {"0000009_20201_2_0", "0000018_20201_2_0"}
    with RunLock(single / "run"):
        assert f"process {os.getpid()}" in str(run_status(single / "run").holder)
    with pytest.raises(RunError, match="is not a run"):
        run_status(single)


def test_rate_and_time_left() -> None:
    assert commit_rate([]) is None
    assert commit_rate([5.0, 5.0]) is None
    times = [1000.0 + 2.0 * batch for batch in range(10) for _ in range(8)][::-1]  # eight scans every two seconds
    assert commit_rate(times) == pytest.approx(4.0)
    assert commit_rate([*times, *(t - 5000.0 for t in times)]) == pytest.approx(4.0)  # an earlier call does not count
    status = RunStatus(
        command="predict", shard=None, counts={}, reasons={}, unfinished=80, rate=4.0, holder=None, last_failures=()
    )
    assert status.seconds_left == 20.0


def test_partial_tables_can_be_exported_while_a_run_works(single: Path, tmp_path: Path) -> None:
    with RunLock(single / "run"):
        files = run_export(single / "run", tmp_path / "partial")
    assert tables(tmp_path / "partial") == tables(single / "run")
    assert {p.name for p in files} >= {"estimates.csv", "run.json"}
    with pytest.raises(UsageError, match="the run itself"):
        run_export(single / "run", single / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/journal.sqlite").touch()
    with pytest.raises(UsageError, match="contains another run"):
        run_export(single / "run", tmp_path / "other")


def test_retry_works_on_repaired_scans_again(tiny_module: Path, tmp_path: Path) -> None:
    scans = make_inputs(tmp_path, 10)
    out = tmp_path / "run"
    run_predict(config(scans, out, tiny_module))
    # A repaired file is noticed by itself; the same file is not, so only retry works on it again.
    assert run_predict(config(scans, out, tiny_module)).computed == 0
    count, summary = run_retry(out, ["unreadable_zip"])
    assert (count, summary.computed, summary.counts["failed"]) == (1, 1, 1)
    assert run_retry(out, ["slice_missing"])[0] == 0
    assert run_retry(out)[0] == 1
    with pytest.raises(UsageError, match="did you mean unreadable_zip"):
        run_retry(out, ["unreadable_zipp"])
    with pytest.raises(RunError, match="is not a run"):
        run_retry(tmp_path / "nothing")


def test_retry_keeps_the_shard_outside_the_job_array(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")  # holds both broken zips
    given = ProjectConfig((str(scans),), tmp_path / "run", workers=0, reading=ReadingOptions(0), shard="slurm/3")
    first = run_project(given)
    before = (tmp_path / "run/scans.csv").read_bytes()
    for task in (None, "1"):  # on a login node, and in another task
        monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
        if task is not None:
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        count, _ = run_retry(tmp_path / "run")
        assert count == first.counts["failed"] == 2
        assert (tmp_path / "run/scans.csv").read_bytes() == before


def test_a_run_in_use_is_not_overwritten_and_one_taken_over_leaves_the_tables(scans: Path, tmp_path: Path) -> None:
    given = ProjectConfig((str(scans),), tmp_path / "run", workers=0, reading=ReadingOptions(0), lock="file")
    run_project(given)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if not p.name.startswith(".")}
    with RunLock(tmp_path / "run"), pytest.raises(RunError, match="in use by process"):
        run_project(replace(given, overwrite=True))
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if not p.name.startswith(".")} == before

    def take_over(done: int, total: int, failures: int) -> None:
        (tmp_path / "second/.lock-file").write_text('{"process": 1, "host": "elsewhere", "owner": "x"}')

    with pytest.raises(RunError, match="another process took over this run"):
        run_project(replace(given, out=tmp_path / "second"), take_over)
    assert not (tmp_path / "second/scans.csv").exists()


@pytest.mark.slow
def test_the_commands_from_the_shell(scans: Path, tiny_module: Path, tmp_path: Path) -> None:
    import sys

    def call(*arguments: object, code: int, **environment: str) -> str:
        done = run([sys.executable, "-m", "ukb_infer", *map(str, arguments)], **environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    base = ["predict", scans, "--modules", tiny_module, "--device", "cpu", "--batch-size", 4, "--expected-stations", 0]
    array = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "1"}
    call(*base, "--out", tmp_path / "1", "--shard", "slurm/2", code=3, **array)
    assert "--shard slurm/16" in call(*base, "--out", tmp_path / "4", "--shard", "slurm", code=2, **array)
    call(*base, "--out", tmp_path / "2", "--shard", "2/2", code=3)
    assert "shard 1/2" in call("status", tmp_path / "1", code=0)
    assert "0 missing" in call("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "run", code=3)
    assert "12 missing" in call("merge", tmp_path / "2", "--out", tmp_path / "half", code=75)
    assert "merge: not running" in call("status", tmp_path / "run", code=0)
    assert "2 failed scans" not in call("retry", tmp_path / "2", "--code", "unreadable_zip", code=3)
    assert "no command to repeat" in call("retry", tmp_path / "run", code=1)
    assert "estimates.csv" in call("export", tmp_path / "run", "--out", tmp_path / "e", code=0)
    assert "SLURM_ARRAY_TASK_ID" in call(*base, "--out", tmp_path / "3", "--shard", "slurm/2", code=2)


# -- Dask --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as found:
        yield found


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_loses_no_scan(
    cluster: Any, single: Path, scans: Path, tiny_module: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one(done: int, total: int, failures: int) -> None:
        if done >= 5 and not killed:
            victim = next(iter(cluster.workers.values())).pid
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    address = cluster.scheduler_address
    given = config(scans, tmp_path / "run", tiny_module, exclude=(single / "w0.csv",), scheduler=address)
    summary = run_predict(given, kill_one)
    assert killed
    assert summary.exit_code == 3
    assert tables(tmp_path / "run") == tables(single / "run")


@pytest.mark.slow
def test_relative_paths_start_from_the_folder_of_the_command_not_of_the_workers(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = make_inputs(tmp_path, 2, broken=False).name
    monkeypatch.chdir(tmp_path)
    there = {"reading": ReadingOptions(expected_stations=0), "scheduler": cluster.scheduler_address}
    run_project(ProjectConfig((scans,), Path("projections"), **there))  # type: ignore[arg-type]
    run_stitch(StitchConfig((scans,), Path("bodies"), contrasts=("water",), spacing="8", **there))  # type: ignore[arg-type]
    assert len(list((tmp_path / "projections").glob("*.npy"))) == 2
    assert len(list((tmp_path / "bodies").rglob("*.nii.gz"))) == 2


def _square(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    return value * value


@pytest.mark.slow
def test_errors_and_stopping_on_a_cluster(cluster: Any) -> None:
    address = cluster.scheduler_address
    found = dict(run_on_cluster(_square, list(range(40)), scheduler=address))
    assert sorted(found) == list(range(40))
    assert found[39] == 39 * 39
    assert "ValueError: three" in found[3].detail  # type: ignore[union-attr]
    some = []
    for pair in run_on_cluster(_square, list(range(400)), scheduler=address, should_stop=lambda: len(some) >= 10):
        some.append(pair)
    assert 10 <= len(some) < 400


@pytest.mark.slow
def test_waiting_for_the_first_worker_costs_no_item_its_time(caplog: pytest.LogCaptureFixture) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as late:
        starting = Timer(3.0, late.scale, [1])
        starting.start()
        found = dict(run_on_cluster(abs, [-1, -4], scheduler=late.scheduler_address, timeout_s=0.5))
        starting.join()
    assert found == {0: 1, 1: 4}
    assert caplog.messages.count("the cluster has no workers; waiting for them") == 1


def test_a_scheduler_that_is_not_there_and_a_wrong_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Timed out trying to connect")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(RunError, match="cannot be reached"):
        list(run_on_cluster(_square, [1], scheduler="tcp://127.0.0.1:1"))
    path = tmp_path / "cluster.toml"
    path.write_text('kind = "slurm"\njobs = 4\n[options]\ncores = 4\nmemory = "8GB"\n')
    assert read_cluster_file(path) == ("slurm", 4, {"cores": 4, "memory": "8GB"})
    for text, words in (
        ("kind = 'slrum'", "kind is 'slrum'"),
        ("kid = 'pbs'", "did you mean kind"),
        ("jobs", "TOML"),
        ("kind='pbs'\njobs=0", "jobs"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            read_cluster_file(path)
