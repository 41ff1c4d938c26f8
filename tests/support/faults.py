"""Real commands in real processes, and ways to hurt them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ukb_infer.errors import RunError
from ukb_infer.execution import Journal
from ukb_infer.inference import PredictConfig
from ukb_infer.phantom import write_cohort
from ukb_infer.records import ReadingOptions

TABLES = ("estimates.csv", "scans.csv", "dictionary.csv")


def finished_scans(out: Path) -> int:
    """Scans that the journal of a run records; 0 while it cannot be read yet."""
    try:
        with Journal(out, read_only=True) as journal:
            return len(journal.finished())
    except (RunError, sqlite3.Error):  # not there yet, or just being made
        return 0


def make_inputs(folder: Path, count: int, *, broken: bool = True) -> Path:
    """`count` scans: links to four small synthetic zips and, for every ninth name, to one that is no zip."""
    source = folder / "source"
    write_cohort(source, 4, 21, size="small")
    zips = sorted(source.glob("*.zip"))
    bad = source / "bad.zip"
    bad.write_bytes(b"not a zip")
    scans = folder / "scans"
    scans.mkdir()
    for k in range(1, count + 1):
        target = bad if broken and k % 9 == 0 else zips[k % 4]
        (scans / f"{k:07d}_20201_2_0.zip").symlink_to(target)
    return scans


def command(scans: Path, out: Path, module: Path, *more: object) -> list[str]:
    return [
        sys.executable, "-m", "ukb_infer", "predict", str(scans), "--out", str(out), "--modules", str(module),
        "--device", "cpu", "--batch-size", "4", "--workers", "2", "--expected-stations", "0", *(str(m) for m in more),
    ]  # fmt: skip


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=600
    )


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


def kill_at_random_times(scans: Path, module: Path, folder: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill the command with everything it started, again and again, until it got through; repeat until enough kills.

    Returns:
        Kills, and runs that got to their end; every one's tables equal those of an undisturbed run.
    """
    rng = random.Random(seed)
    whole = folder / "whole"
    assert run(command(scans, whole, module)).returncode == 3  # the broken zips
    expected = tables(whole)
    done, finished = 0, 0
    while done < kills or finished == 0:
        out = folder / f"cut{finished}"
        if done >= kills:
            assert run(command(scans, out, module)).returncode == 3
            code = 3
        else:
            process = start(command(scans, out, module))
            # Half of the kills fall into start-up and the first batches, half anywhere.
            wait_until = time.monotonic() + rng.choice((rng.uniform(0.5, 4.0), rng.uniform(2.0, 9.0)))
            while time.monotonic() < wait_until and process.poll() is None:
                time.sleep(0.01)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
                continue
            code = process.returncode
        assert code == 3
        assert tables(out) == expected, f"after {done} kills"
        finished += 1
        shutil.rmtree(out)
    return done, finished


def config(scans: Path, out: Path, module: Path, **changes: Any) -> PredictConfig:
    """A run in this process."""
    base = PredictConfig(
        (str(scans),), out, modules=(str(module),), workers=0, batch_size=4, device="cpu", reading=ReadingOptions(0)
    )
    return replace(base, **changes)
