"""Run by hand (`make soak`): kills in earnest, and 5,000 scans with flat memory, open files and rate."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.faults import command, finished_scans, kill_at_random_times, make_inputs


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_fifty_kills_over_sixty_scans(tiny_module: Path, tmp_path: Path) -> None:
    kills, finished = kill_at_random_times(make_inputs(tmp_path, 60), tiny_module, tmp_path, kills=50, seed=7)
    print(f"\n{kills} kills, {finished} runs got to their end, all with the bytes of the undisturbed run")
    assert kills >= 50
    assert finished >= 1


def _memory_mb(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def _with_workers(process: int) -> list[int]:
    found = [process]
    for task in Path(f"/proc/{process}/task").iterdir():
        found += [int(c) for c in (task / "children").read_text().split()]
    return found


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_memory_files_and_rate_stay_flat_over_five_thousand_scans(tiny_module: Path, tmp_path: Path) -> None:
    scans = make_inputs(tmp_path, 5000)
    out = tmp_path / "run"
    null = subprocess.DEVNULL
    process = subprocess.Popen(command(scans, out, tiny_module), stdout=null, stderr=null)
    samples = []
    while process.poll() is None:
        try:
            done = finished_scans(out)
            everyone = _with_workers(process.pid)
            memory = [_memory_mb(p) for p in everyone]
            files = [len(list(Path(f"/proc/{p}/fd").iterdir())) for p in everyone]
            samples.append((time.monotonic(), done, memory[0], max(memory[1:], default=0.0), max(files)))
        except OSError:  # a process that has just ended
            pass
        time.sleep(1.0)
    assert process.returncode == 3
    table = np.array(samples)
    table = table[table[:, 1] > 200]
    first, last = table[: len(table) // 4], table[-len(table) // 4 :]

    def rate(part: np.ndarray) -> float:
        return float((part[-1, 1] - part[0, 1]) / (part[-1, 0] - part[0, 0]))

    growth = [float(last[:, c].max() / first[:, c].max()) for c in (2, 3, 4)]
    ratio = rate(last) / rate(first)
    print(
        f"\n5,000 scans: memory of the command {first[:, 2].max():.0f} -> {last[:, 2].max():.0f} MB, of a worker "
        f"{first[:, 3].max():.0f} -> {last[:, 3].max():.0f} MB, open files {first[:, 4].max():.0f} -> "
        f"{last[:, 4].max():.0f}, rate {rate(first):.1f} -> {rate(last):.1f} scans/s (first and last quarter, "
        f"{os.cpu_count()} cores)"
    )
    assert max(growth[:2]) <= 1.05
    assert growth[2] <= 1.0
    assert ratio >= 0.8
