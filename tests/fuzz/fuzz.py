"""Fuzz every reader (``make fuzz``): no crash, no hang over 10 s, no more than 1 GB.

    python tests/fuzz/fuzz.py --count 100000 --start 0

A finding is printed as ``target number``; keep its bytes, ``mutant(target, number)``, as
``regressions/<target>-<what>.bin`` beside this file, where the tests replay them, and mend the reader.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.mutants import SHARES, TARGETS, read_mutant
from ukb_infer.execution import Failure, run_in_workers

LIMIT_S, LIMIT_BYTES, CHUNK = 10, 1 << 30, 50
_ready = False


class HangError(Exception):
    """A mutant took longer than the limit."""


def _too_long(number: int, frame: FrameType | None) -> None:
    raise HangError(f"longer than {LIMIT_S} s")


def _prepare() -> None:
    """Once a process: import everything, read one good input of each kind, then limit the memory."""
    global _ready
    if _ready:
        return
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        for target in TARGETS:
            read_mutant(target, 0, Path(name) / "x")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + LIMIT_BYTES, size + LIMIT_BYTES))
    signal.signal(signal.SIGALRM, _too_long)
    _ready = True


def work_through(job: tuple[str, int, int]) -> tuple[Counter[str], list[tuple[str, int, str]], float]:
    """Mutants ``first`` to ``last`` of a target: outcomes, findings, the longest time."""
    target, first, last = job
    _prepare()
    outcomes: Counter[str] = Counter()
    findings = []
    longest = 0.0
    with tempfile.TemporaryDirectory(prefix="ukb-infer-fuzz-") as name:
        for number in range(first, last):
            started = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
            try:
                outcomes[read_mutant(target, number, Path(name) / "x")] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(place.filename).name}:{place.lineno}"
                findings.append((target, number, f"{type(error).__name__}: {error} ({where})"[:300]))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            longest = max(longest, time.monotonic() - started)
    return outcomes, findings, longest


def jobs_of(count: int, start: int) -> list[tuple[str, int, int]]:
    """Chunks of work: every target by its share."""
    total = sum(SHARES.values())
    jobs = []
    for target in TARGETS:
        last = start + max(1, count * SHARES[target] // total)
        jobs += [(target, first, min(first + CHUNK, last)) for first in range(start, last, CHUNK)]
    return jobs


def main() -> int:
    """Fuzz, print findings; the exit code is 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="mutants in all")
    parser.add_argument("--start", type=int, default=0, help="number of the first mutant of each target")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    jobs = jobs_of(given.count, given.start)
    outcomes: dict[str, Counter[str]] = {t: Counter() for t in TARGETS}
    findings, longest, done = [], 0.0, 0
    started = time.monotonic()
    for index, result in run_in_workers(work_through, jobs, workers=given.workers, timeout_s=20 * LIMIT_S):
        target, first, last = jobs[index]
        done += last - first
        if isinstance(result, Failure):
            findings.append((target, first, f"up to {last - 1}: {result.detail}"))
        else:
            outcomes[target].update(result[0])
            findings += result[1]
            longest = max(longest, result[2])
        if index % 100 == 0:
            print(f"{done} of {given.count}, {len(findings)} findings", file=sys.stderr, flush=True)
    for target, counts in outcomes.items():
        print(f"{target}: {sum(counts.values())} mutants, " + ", ".join(f"{n} {k}" for k, n in counts.most_common()))
    seconds = time.monotonic() - started
    memory = f"limit of memory {LIMIT_BYTES >> 20} MB above the libraries"
    print(f"{done} mutants in {seconds:.0f} s, longest {longest:.2f} s, {memory}")
    for target, number, words in findings:
        print(f"FINDING {target} {number}  {words}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
