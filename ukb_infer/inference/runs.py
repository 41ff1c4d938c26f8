"""What ``project`` and ``predict`` share: the run folder, resuming, exclusions, progress (floor 4)."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ukb_infer.errors import Reason, RunError, UsageError
from ukb_infer.execution import Failure, Journal, JournalRow, run_in_workers
from ukb_infer.execution.journal import JOURNAL_NAME
from ukb_infer.inference.inputs import ScanInput, is_excluded, read_exclusions
from ukb_infer.inference.work import Job, Outcome, failed, from_failure, process_scan

#: Called with (finished scans, scans in all, failed scans so far).
Progress = Callable[[int, int, int], None]

#: Failures of the machine rather than of the scan: the same command tries these scans again.
TRANSIENT = frozenset({Reason.WORKER_DIED, Reason.TIMED_OUT, Reason.INTERNAL_ERROR, Reason.INPUT_MISSING})


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

    @property
    def exit_code(self) -> int:
        """0 where every scan was used or excluded, 3 where some or all failed."""
        return 3 if self.counts.get("failed", 0) else 0


@dataclass(frozen=True)
class Plan:
    """The scans of a run, split by what is to be done with them."""

    scans: tuple[ScanInput, ...]
    excluded: frozenset[str]

    @property
    def included(self) -> list[ScanInput]:
        """Scans that are not excluded, in key order."""
        return [s for s in self.scans if s.key.scan not in self.excluded]


def make_plan(scans: Sequence[ScanInput], exclude: Sequence[Path]) -> Plan:
    """Apply the exclusion lists."""
    exclusions = read_exclusions(exclude)
    return Plan(tuple(scans), frozenset(s.key.scan for s in scans if is_excluded(s.key, exclusions)))


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
    keys = [k for k in sorted(set(before) | set(identity)) if before.get(k) != identity.get(k)]
    if keys:
        lines = "; ".join(f"{k}: {before.get(k)!r} before, {identity.get(k)!r} now" for k in keys)
        raise UsageError(
            f"--out holds a run made with other settings ({lines}); "
            "use the same settings, another --out, or --overwrite"
        )


def still_to_do(plan: Plan, journal: Journal) -> list[ScanInput]:
    """Scans without a result: new ones, changed inputs, and those that failed for reasons of the machine."""
    finished = journal.fingerprints()
    todo = []
    for scan in plan.included:
        if finished.get(scan.key.scan) != scan.fingerprint:
            todo.append(scan)
            continue
        row = journal.row(scan.key.scan)
        if row is not None and row.status == "failed" and set(row.reasons.split(";")) & TRANSIENT:
            todo.append(scan)
    return todo


def outcomes(jobs: Sequence[Job], workers: int, timeout_s: float) -> Iterator[tuple[ScanInput, Outcome]]:
    """Work on scans in worker processes; every scan comes back exactly once, in order of completion."""
    readable = [job for job in jobs if job.scan.problem is None]
    for job in jobs:
        if job.scan.problem is not None:
            yield job.scan, failed(job.scan.problem)
    if not readable:
        return
    for index, result in run_in_workers(process_scan, readable, workers=workers, timeout_s=timeout_s):
        yield readable[index].scan, from_failure(result) if isinstance(result, Failure) else result


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
    )


def count_statuses(rows: Sequence[dict[str, str]]) -> tuple[dict[str, int], dict[str, int]]:
    """Counts by status and by reason of the rows of ``scans.csv``."""
    statuses = Counter({"ok": 0, "flagged": 0, "failed": 0, "excluded": 0})
    reasons: Counter[str] = Counter()
    for row in rows:
        statuses[row["status"]] += 1
        reasons.update(code for code in row["reasons"].split(";") if code)
    return dict(statuses), dict(sorted(reasons.items()))
