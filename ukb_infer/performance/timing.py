"""Measuring: alternate what is compared, take medians, run whole commands in processes of their own."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sample:
    """Times of one thing, s: median, quartiles, number."""

    median_s: float
    low_s: float
    high_s: float
    count: int

    @classmethod
    def of(cls, times: Sequence[float]) -> Sample:
        """Summarize at least two times."""
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
        return cls(median, low, high, len(times))


def alternate(functions: Sequence[Callable[[int], Any]], repeats: int, warm_up: int = 2) -> list[Sample]:
    """Time functions in turn, so that a slow machine affects all alike.

    Args:
        functions: each called with the number of the round.
        repeats: measured rounds.
        warm_up: rounds before them.
    """
    times: list[list[float]] = [[] for _ in functions]
    for round_ in range(warm_up + repeats):
        for k, function in enumerate(functions):
            started = time.perf_counter()
            function(round_)
            if round_ >= warm_up:
                times[k].append(time.perf_counter() - started)
    return [Sample.of(t) for t in times]


def on_one_core() -> None:
    """Keep this process to one of its cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB.

    Linux keeps the figure of ``getrusage`` across fork and exec, so that a small child of a large parent looks large;
    the high-water mark of the address space does not have this flaw.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024.0
    scale = 1024.0 if sys.platform != "darwin" else 1024.0**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def cpu_seconds() -> float:
    """CPU time of this process and its ended children, s."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def in_process(module: str, function: str, **arguments: Any) -> Any:
    """Call a function of the package in a fresh interpreter and return its JSON-able result.

    Args:
        module: full name.
        function: its name in the module.
        arguments: by name, JSON-able.

    Raises:
        RuntimeError: it failed; contains its last line of output.
    """
    script = (
        "import json, sys\n"
        f"from {module} import {function} as call\n"
        "if __name__ == '__main__':\n"
        "    print('RESULT ' + json.dumps(call(**json.loads(sys.argv[1]))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{function} failed: {done.stderr.strip().splitlines()[-1:]}")
    line = next(text for text in reversed(done.stdout.splitlines()) if text.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))
