"""What ``project`` and ``predict`` share: the run folder, resuming, shards, retries, stopping (floor 4)."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ukb_infer.errors import Reason, RunError, UsageError
from ukb_infer.execution import Failure, Journal, JournalInput, JournalRow, Shard, parse_shard, run_in_workers
from ukb_infer.execution.journal import JOURNAL_NAME
from ukb_infer.inference.config import CommonConfig
from ukb_infer.inference.inputs import ScanInput, content_digest, is_excluded, read_exclusions, resolve_inputs
from ukb_infer.inference.work import Job, Outcome, failed, from_failure, process_scan

#: Called with (finished scans, scans in all, failed scans so far).
Progress = Callable[[int, int, int], None]

#: Failures of the machine rather than of the scan: the same command tries these scans again.
TRANSIENT = frozenset(
    {
        Reason.WORKER_DIED,
        Reason.TIMED_OUT,
        Reason.INTERNAL_ERROR,
        Reason.INPUT_MISSING,
        Reason.STORAGE_FAILED,
    }
)
#: Failures of the storage in a row after which it is taken for gone and waited for.
STORAGE_GONE_AFTER = 16
#: Scans that a merge found no result of.
MISSING_NAME = "missing.csv"
#: Exit code of a run that stopped before its end and should be started again (EX_TEMPFAIL).
EXIT_AGAIN = 75


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Attributes:
        out: its folder.
        counts: scans by status: ok, flagged, failed, excluded.
        reasons: scans by reason code.
        computed: scans worked on now; the others were finished before.
        seconds: wall time.
        warnings: of the modules used.
        files: written, by name.
        dry_run: nothing was written.
        notes: lines for the user.
        unfinished: scans without a result, because the run was asked to stop or the storage failed.
        stopped: whether it was asked to stop (SIGTERM).
    """

    out: Path
    counts: dict[str, int]
    reasons: dict[str, int]
    computed: int
    seconds: float
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    dry_run: bool = False
    notes: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    unfinished: int = 0
    stopped: bool = False

    @property
    def exit_code(self) -> int:
        """0: every scan was used or excluded; 3: some or all failed; 75: start the same command again."""
        if self.stopped or self.unfinished or self.reasons.get(Reason.STORAGE_FAILED, 0):
            return EXIT_AGAIN
        return 3 if self.counts.get("failed", 0) else 0


@dataclass(frozen=True)
class Plan:
    """The scans of a run and which of them are to be worked on.

    Attributes:
        scans: all that the inputs name, in key order, whatever the shard.
        excluded: names of those left out.
        shard: part of the work that is this run's; None for all. Decided before exclusions, so that a new withdrawal
            moves no scan to another shard.
    """

    scans: tuple[ScanInput, ...]
    excluded: frozenset[str]
    shard: Shard | None = None

    @property
    def mine(self) -> list[ScanInput]:
        """Scans of this shard, excluded ones too."""
        return [s for k, s in enumerate(self.scans) if self.shard is None or self.shard.holds(k)]

    @property
    def included(self) -> list[ScanInput]:
        """Scans of this shard that are not excluded, in key order."""
        return [s for s in self.mine if s.key.scan not in self.excluded]

    def journal_inputs(self) -> Iterator[JournalInput]:
        """All scans, for the journal."""
        for position, s in enumerate(self.scans):
            mine = self.shard is None or self.shard.holds(position)
            key, excluded = s.key, s.key.scan in self.excluded
            yield JournalInput(key.scan, key.eid, key.instance, key.array, s.given, excluded, mine)


def make_plan(config: CommonConfig) -> Plan:
    """Find the scans, apply the exclusion lists and the shard.

    Raises:
        UsageError: inputs, lists or shard make no sense.
        RunError: there is no scan.
    """
    scans = resolve_inputs(config.inputs, config.root)
    exclusions = read_exclusions(config.exclude)
    excluded = frozenset(s.key.scan for s in scans if is_excluded(s.key, exclusions))
    return Plan(tuple(scans), excluded, parse_shard(config.shard))


def open_run_folder(out: Path, *, overwrite: bool, own_files: Sequence[str]) -> None:
    """Create the run folder, or make sure it is one of ours.

    Raises:
        RunError: it holds other files, or cannot be written.
    """
    try:
        if overwrite and (out / JOURNAL_NAME).exists():
            for name in own_files:
                target = out / name
                if target.is_dir():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        present = [p.name for p in out.iterdir() if not p.name.startswith(".")]
    except (OSError, FileExistsError) as error:
        raise RunError(f"--out {out}: cannot be used as a folder ({error}); choose another") from error
    if present and not (out / JOURNAL_NAME).exists():
        raise RunError(
            f"--out {out}: holds other files ({', '.join(sorted(present)[:3])} …); choose an empty or new folder"
        )


def check_same_run(journal: Journal, identity: dict[str, Any]) -> None:
    """Make sure that a folder is continued with what it was begun with.

    Raises:
        UsageError: spells out the differences.
    """
    before = journal.get("identity")
    if before is None:
        journal.put("identity", identity)
        return
    differences = identity_differences(before, identity)
    if differences:
        raise UsageError(
            f"--out holds a run made with other settings ({differences}); "
            "use the same settings, another --out, or --overwrite"
        )


def identity_differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two identities, in words; "" where nothing does."""
    keys = [k for k in sorted(set(before) | set(now)) if before.get(k) != now.get(k)]
    return "; ".join(f"{k}: {before.get(k)!r} before, {now.get(k)!r} now" for k in keys)


def still_to_do(plan: Plan, journal: Journal, *, verify: bool = False) -> list[ScanInput]:
    """Scans without a result: new ones, changed inputs, and those that failed for reasons of the machine.

    Args:
        plan: of the run.
        journal: of the run.
        verify: notice changes by the SHA-256 of the content instead of size and time of change.
    """
    finished = journal.fingerprints()
    todo, unsure = [], []
    for scan in plan.included:
        known = finished.get(scan.key.scan)
        if known is None or (known[2] == "failed" and set(known[3].split(";")) & TRANSIENT):
            todo.append(scan)
        elif verify and scan.problem is None:
            unsure.append((scan, known[1]))
        elif known[0] != scan.fingerprint:
            todo.append(scan)
    if unsure:
        with ThreadPoolExecutor(8) as pool:
            digests = pool.map(lambda pair: content_digest(pair[0].path), unsure)
            todo += [scan for (scan, before), now in zip(unsure, digests, strict=True) if now != before]
        todo.sort(key=lambda s: s.key.sort_key)
    return todo


class StopOnTerminate:
    """While entered, SIGTERM asks the run to stop after its batch instead of ending the process."""

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> StopOnTerminate:
        """Install the handler; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.requested

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the handler from before back."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


def outcomes(
    jobs: Sequence[Job], config: CommonConfig, stop: Callable[[], bool]
) -> Iterator[tuple[ScanInput, Outcome]]:
    """Work on scans; each comes back at most once, in order of completion.

    Failures of the storage are tried again with growing waits; when many come in a row, the rest is not tried before
    the wait is over. What is still failing at the end comes back as failed; what was not reached does not come back.

    Args:
        jobs: what to do.
        config: workers or scheduler, time limit, waits.
        stop: asked now and then; True ends the work.
    """
    left = {job.scan.key.scan: job for job in jobs}
    for job in jobs:
        if job.scan.problem is not None:
            del left[job.scan.key.scan]
            yield job.scan, failed(job.scan.problem)
    tried: dict[str, Outcome] = {}
    in_a_row = [0]

    def pause_or_stop() -> bool:
        return stop() or in_a_row[0] >= STORAGE_GONE_AFTER

    for wait_s in (0.0, *config.retry_waits_s):
        _pause(wait_s, stop)
        tried.clear()
        in_a_row[0] = 0
        for job, outcome in _one_pass(list(left.values()), config, pause_or_stop):
            if outcome.reasons == (Reason.STORAGE_FAILED.value,):
                in_a_row[0] += 1
                tried[job.scan.key.scan] = outcome
                continue
            in_a_row[0] = 0
            del left[job.scan.key.scan]
            yield job.scan, outcome
        if not left or stop():
            return
    for name, outcome in tried.items():
        yield left[name].scan, outcome


def _pause(seconds: float, stop: Callable[[], bool]) -> None:
    """Wait, unless the run should stop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop():
        time.sleep(min(0.2, max(0.0, end - time.monotonic())))


def _one_pass(jobs: Sequence[Job], config: CommonConfig, stop: Callable[[], bool]) -> Iterator[tuple[Job, Outcome]]:
    """Every job once, here or on a cluster."""
    if not jobs:
        return
    if config.scheduler:
        from ukb_infer.execution.cluster import run_on_cluster

        results = run_on_cluster(
            process_scan, jobs, scheduler=config.scheduler, timeout_s=config.timeout_s, should_stop=stop
        )
    else:
        results = run_in_workers(
            process_scan, jobs, workers=config.workers, timeout_s=config.timeout_s, should_stop=stop
        )
    for index, result in results:
        yield jobs[index], from_failure(result) if isinstance(result, Failure) else result


def to_journal_row(scan: ScanInput, outcome: Outcome, payload: bytes = b"") -> JournalRow:
    """Row of a finished scan."""
    return JournalRow(
        scan.key.scan,
        scan.fingerprint,
        outcome.status,
        ";".join(outcome.reasons),
        outcome.message,
        outcome.stations,
        payload,
        outcome.digest,
    )
