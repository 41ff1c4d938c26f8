"""The job scripts on a real one-node Slurm (Debian: slurm-wlm and munge; needs root), and the platform script."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.support.faults import command, finished_scans, make_inputs, run, tables
from ukb_infer.runs.merge import run_merge
from ukb_infer.runs.read import read_run

ROOT = Path(__file__).parents[2]
SLURM = all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch", "munged")) and os.geteuid() == 0
needs_slurm = pytest.mark.skipif(not SLURM, reason="needs root and Debian's slurm-wlm and munge")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A one-node cluster on loopback; yields the environment its commands need."""
    home = tmp_path / "slurm"
    home.mkdir(mode=0o755)
    key, sock = home / "munge.key", home / "munge.socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    host = socket.gethostname().split(".")[0]
    config = home / "slurm.conf"
    config.write_text(
        f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={_free_port()}
SlurmdPort={_free_port()}
AuthType=auth/munge
AuthInfo=socket={sock}
CredType=cred/munge
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
KillWait=20
SchedulerParameters=batch_sched_delay=0,sched_interval=1
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
    )
    for name in ("state", "spool"):
        (home / name).mkdir()
    environment = os.environ | {"SLURM_CONF": str(config)}
    daemons = [
        subprocess.Popen(["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={sock}",
                          f"--pid-file={home}/munge.pid", f"--log-file={home}/munge.log",
                          f"--seed-file={home}/munge.seed"]),
    ]  # fmt: skip
    try:
        _wait(sock.exists, 20)
        daemons.append(subprocess.Popen(["slurmctld", "-D", "-f", str(config)], env=environment))
        daemons.append(subprocess.Popen(["slurmd", "-D", "-f", str(config), "-N", host], env=environment))
        _wait(lambda: "idle" in _slurm(environment, "sinfo", "--noheader", "--format=%t"), 60)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _wait(condition: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.2)


def _slurm(environment: dict[str, str], *arguments: str) -> str:
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False).stdout


def _queue(environment: dict[str, str], job: str) -> str:
    return _slurm(environment, "squeue", "--noheader", f"--jobs={job}", "--format=%i %T")


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_array_whose_tasks_are_killed_and_requeued_ends_like_one_machine(
    slurm: dict[str, str], tiny_module: Path, tmp_path: Path
) -> None:
    scans = make_inputs(tmp_path, 240)
    options = "--batch-size 4 --expected-stations 0"
    whole = tmp_path / "whole"
    assert run(command(scans, whole, tiny_module)).returncode == 3
    variables = {
        "SHARDS": "2", "INPUT": str(scans), "OUT": str(tmp_path / "out"), "MODULES": str(tiny_module),
        "OPTIONS": options,
    }  # fmt: skip
    environment = slurm | variables | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sbatch", "--parsable", "--array=1-2", "--cpus-per-task=1", "--mem=0", "--export=ALL",
         f"--output={tmp_path}/%A_%a.log", str(ROOT / "scripts/hpc/slurm_array.sh")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    shards = [tmp_path / f"out/shard-{k:05d}" for k in (1, 2)]
    _wait(lambda: all(finished_scans(s) >= 4 for s in shards), 180)
    # Task 1 is asked to stop as at its time limit; what task 2 runs is killed outright.
    _slurm(environment, "scancel", "--signal=TERM", "--batch", f"{job}_1")
    victims = subprocess.run(["pgrep", "-f", f"{shards[1]} --shard"], capture_output=True, text=True, check=True)
    os.kill(int(victims.stdout.split()[0]), signal.SIGKILL)
    _wait(lambda: _queue(environment, job).strip() == "", 600)
    logs = "".join(p.read_text() for p in tmp_path.glob(f"{job}_*.log"))
    assert "exit code 75: requeued" in logs
    assert "exit code 137: requeued" in logs
    result = run_merge(shards, tmp_path / "merged")
    assert result.missing == ()
    assert tables(tmp_path / "merged") == tables(whole)
    # Task 2 alone, submitted again elsewhere, does the scans of the first submission.
    done = subprocess.run(
        ["sbatch", "--wait", "--array=2", "--cpus-per-task=1", "--mem=0", "--export=ALL",
         f"--output={tmp_path}/again.log", str(ROOT / "scripts/hpc/slurm_array.sh")],
        env=environment | {"OUT": str(tmp_path / "again")}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + (tmp_path / "again.log").read_text()
    assert tables(tmp_path / "again/shard-00002") == tables(shards[1])


def test_the_array_script_needs_the_total(tmp_path: Path) -> None:
    script = ["bash", str(ROOT / "scripts/hpc/slurm_array.sh")]
    variables = {"INPUT": str(tmp_path), "OUT": str(tmp_path / "out"), "SLURM_ARRAY_TASK_ID": "3"}
    environment = variables | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    without = run(script, **environment)
    assert without.returncode != 0
    assert "set SHARDS to the number of tasks of the whole array" in without.stderr
    assert not (tmp_path / "out").exists()
    outside = run(script, SHARDS="2", COMMAND="project", **environment)
    assert outside.returncode == 2
    assert "SLURM_ARRAY_TASK_ID is 3, expected 1 to 2" in outside.stderr


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_gpu_script_consumes_cached_projections(slurm: dict[str, str], tiny_module: Path, tmp_path: Path) -> None:
    """On the CPU here: what differs on a GPU node is DEVICE and --gres."""
    scans = make_inputs(tmp_path, 8, broken=False)
    python = str(Path(sys.executable).parent)
    out = str(tmp_path / "p")
    project = [sys.executable, "-m", "ukb_infer", "project", str(scans), "--out", out, "--expected-stations", "0"]
    assert run(project).returncode == 0
    environment = slurm | {
        "PROJECTIONS": str(tmp_path / "p"), "OUT": str(tmp_path / "run"), "MODULES": str(tiny_module), "DEVICE": "cpu",
        "PATH": f"{python}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        ["sbatch", "--wait", "--gres=none", "--cpus-per-task=1", "--mem=0", "--export=ALL",
         f"--output={tmp_path}/gpu.log", str(ROOT / "scripts/hpc/slurm_gpu.sh")],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + (tmp_path / "gpu.log").read_text()
    assert len((tmp_path / "run/estimates.csv").read_text().splitlines()) == 9


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_dask_jobs_that_slurm_cancels_are_submitted_again(slurm: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    scans = make_inputs(tmp_path, 40, broken=False)
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(f"""
        kind = "slurm"
        jobs = 1
        [options]
        cores = 1
        memory = "1GB"
        walltime = "00:30:00"
        interface = "lo"
        log_directory = "{tmp_path}"
    """)
    arguments = ["project", str(scans), "--out", str(tmp_path / "p"), "--expected-stations", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ukb_infer", *arguments, "--scheduler", str(cluster)],
        env=slurm, cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _wait(lambda: any((tmp_path / "p").glob("*.npy")), 120)
        _slurm(slurm, "scancel", "--user=root")
        _, errors = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "the cluster has no workers; waiting for them" in errors
    assert len(list((tmp_path / "p").glob("*.npy"))) == 40


@pytest.mark.slow
def test_the_platform_script_marks_batches_and_leaves_marked_ones_alone(tiny_module: Path, tmp_path: Path) -> None:
    scans = make_inputs(tmp_path, 10)
    uploaded = tmp_path / "project/results"
    upload = tmp_path / "upload"
    upload.write_text('#!/bin/bash\nset -eu\nfolder="$PROJECT$1"; shift; mkdir -p "$folder"; cp "$@" "$folder"\n')
    upload.chmod(0o755)
    environment = {
        "MOUNT": str(scans), "TARGET": "/results", "DONE": str(uploaded), "BATCH": "4", "UPLOAD": str(upload),
        "PROJECT": str(tmp_path / "project"), "MODULES": str(tiny_module), "DEVICE": "cpu",
        "OPTIONS": "--expected-stations 0 --batch-size 4",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    script = ["bash", str(ROOT / "scripts/hpc/rap_applet.sh")]
    first = run(script, SHARD="1/2", **environment)
    assert first.returncode == 0, first.stderr
    names = [f"batch-0000{k}{suffix}" for k in (1, 3) for suffix in ("", ".done")]
    assert sorted(p.name for p in uploaded.iterdir()) == names
    stamp = (uploaded / "batch-00001/estimates.csv").stat().st_mtime_ns
    second = run(script, SHARD="1/1", **environment)
    assert second.returncode == 0, second.stderr
    assert (uploaded / "batch-00001/estimates.csv").stat().st_mtime_ns == stamp
    for wrong in ("3", "0/2", "3/2", "slurm/2"):
        refused = run(script, SHARD=wrong, **environment)
        assert refused.returncode == 2
        assert "expected I/N" in refused.stderr
    others = run(script, SHARD="1/1", **(environment | {"BATCH": "5"}))
    assert others.returncode == 2
    assert "batch-00001: is marked as complete for other scans" in others.stderr
    result = run_merge(sorted(uploaded.glob("batch-0000?")), tmp_path / "merged")
    assert sum(result.counts.values()) == 10
    assert result.missing == ()
    keys = [path.stem for path in sorted(scans.iterdir())][:4]
    (tmp_path / "keys.txt").write_text("\n".join(keys))
    suffix = next(scans.iterdir()).suffix
    listed = {"LIST": str(tmp_path / "keys.txt"), "ROOT": str(scans / f"{{scan}}{suffix}"), "DONE": str(tmp_path / "d")}
    formed = run(script, SHARD="1/1", **(environment | listed | {"MOUNT": "", "TARGET": "/others"}))
    assert formed.returncode == 0, formed.stderr
    assert len((tmp_path / "project/others/batch-00001/estimates.csv").read_text().splitlines()) == 5


DX = """#!/bin/bash
# A stand-in for the platform's dx: its project is the folder $PROJECT.
set -eu
command=$1; shift
folder=; recursive=; files=()
while [ $# -gt 0 ]; do
    case $1 in
        --path | --output) folder=$2; shift 2 ;;
        --recursive) recursive=-r; shift ;;
        --brief | --parents | --overwrite | --no-progress) shift ;;
        -*) echo "unknown option $1" >&2; exit 3 ;;
        *) files+=("$1"); shift ;;
    esac
done
case $command in
    upload) mkdir -p "$PROJECT$folder"; cp "${files[@]}" "$PROJECT$folder" ;;
    download) mkdir -p "$folder"; cp $recursive "$PROJECT${files[0]}" "$folder" ;;
    *) exit 3 ;;
esac
"""


@pytest.mark.slow
def test_the_platform_script_downloads_modules_and_merges_batches_with_dx(tiny_module: Path, tmp_path: Path) -> None:
    scans, project = make_inputs(tmp_path, 6), tmp_path / "project"
    (scans / "0000099_20201_2_0.zip").write_bytes(b"broken")  # a failed scan keeps no table back
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dx").write_text(DX)
    (tmp_path / "bin/dx").chmod(0o755)
    project.mkdir()
    with tarfile.open(project / "modules.tar.gz", "w:gz") as archive:
        archive.add(tiny_module, "tiny")
    environment = {
        "MOUNT": str(scans), "TARGET": "/results", "DONE": str(project / "results"), "BATCH": "4", "DEVICE": "cpu",
        "PROJECT": str(project), "MODULES_TAR": "/modules.tar.gz", "OPTIONS": "--expected-stations 0 --batch-size 4",
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}", "SHARD": "1/1",
    }  # fmt: skip
    script = ["bash", str(ROOT / "scripts/hpc/rap_applet.sh")]
    early = run(script, **(environment | {"MERGE": "1"}))
    assert early.returncode == 2
    assert "no marked batches" in early.stderr
    first = run(script, **environment)
    assert first.returncode == 0, first.stderr
    merged = run(script, **(environment | {"MERGE": "1"}))
    assert merged.returncode == 0, merged.stderr
    whole = pd.read_parquet(project / "results/merged/estimates.parquet")
    assert len(whole) == 6
    assert_spark_reads_all_columns(project / "results/merged/estimates.parquet")
    assert read_run(project / "results/merged").usable().table is not None


def assert_spark_reads_all_columns(path: Path) -> None:
    """Spark knows no unsigned integers, halves, nanoseconds or dictionaries without values, and few column names."""
    schema = pq.read_schema(path)
    kinds = {str(kind) for kind in schema.types}
    assert kinds <= {"string", "large_string", "int32", "int64", "float", "double", "bool"}, kinds
    assert not [name for name in schema.names if set(name) & set(" ,;{}()=\t\n")]
