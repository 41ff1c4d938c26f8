"""A run whose results are files, some a scan: what ``project`` and ``stitch`` have in common."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ukb_infer.execution import Journal
from ukb_infer.inference.config import CommonConfig
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.passes import outcomes
from ukb_infer.inference.plan import (
    TRANSIENT,
    Plan,
    count_words,
    empty_summary,
    left_to_do,
    make_plan,
    seconds_of,
    still_to_do,
    time_words,
)
from ukb_infer.inference.session import Session, journal_row, open_session
from ukb_infer.inference.work import Outcome, ScanJob, process_scan
from ukb_infer.records import ScanKey
from ukb_infer.runs.summary import Progress, RunSummary

#: Results committed together: one forced write to disk for so many scans.
COMMIT_EVERY = 16


@dataclass(frozen=True, kw_only=True)
class FileRun:
    """A command that makes files of scans.

    Attributes:
        name: of the command.
        config: of the run.
        identity: settings that affect the results.
        job: what to do with a scan.
        try_job: the same without writing into the run's folder, for ``--dry-run``.
        files: what a finished scan must have.
        all_files: what an earlier result of the scan may have left.
        megabytes: about what a scan takes.
        prepare: called when the folder is there.
    """

    name: str
    config: CommonConfig
    identity: dict[str, Any]
    job: Callable[[ScanInput], ScanJob]
    try_job: Callable[[ScanInput], ScanJob]
    files: Callable[[ScanKey], list[Path]]
    all_files: Callable[[ScanKey], list[Path]]
    megabytes: float
    prepare: Callable[[], None] = lambda: None


def run_scan_files(run: FileRun, progress: Progress | None = None) -> RunSummary:
    """Work on every scan, continuing what is there.

    Args:
        run: the command.
        progress: told how far it is.

    Returns:
        Counts, reasons and the exit code.

    Raises:
        UsageError: contradictory options, two files of one key, or another run in ``--out``.
        RunError: no inputs, an unusable folder, a locked run.
    """
    started = time.monotonic()
    run.config.quality_spec()  # complains before the folder is touched
    plan = make_plan(run.config)
    if run.config.dry_run:
        return _dry_run(run, plan)
    with open_session(run.config, plan) as session:
        session.begin(run.name, run.identity)
        run.prepare()
        todo = _unfinished(run, plan, session.journal)
        with session.working_on(todo):
            _work(run, session, todo, progress)
        return session.end(started)


def _unfinished(run: FileRun, plan: Plan, journal: Journal) -> list[ScanInput]:
    """Scans without a result, and those whose files are gone."""
    missing = {s.key.scan for s in still_to_do(plan, journal, verify=run.config.verify)}
    return [s for s in plan.included if s.key.scan in missing or not _has_files(run, s, journal)]


def _has_files(run: FileRun, scan: ScanInput, journal: Journal) -> bool:
    """Whether a finished scan's files are still there (or it failed and has none)."""
    row = journal.row(scan.key.scan)
    return row is not None and (row.result.status == "failed" or all(p.is_file() for p in run.files(scan.key)))


def _work(run: FileRun, session: Session, todo: list[ScanInput], progress: Progress | None) -> None:
    """Work through scans, committing some at a time, and what is left also when something ends the run."""
    total = len(session.plan.included)
    done, failures = total - len(todo), 0
    report = progress or (lambda *_: None)
    report(done, total, failures)
    rows = []
    try:
        for scan, outcome in outcomes([run.job(scan) for scan in todo], run.config, session.stop):
            rows.append(journal_row(scan, outcome))
            if len(rows) >= COMMIT_EVERY:
                batch, rows = rows, []
                session.commit(batch)
            done += 1
            if outcome.result.status == "failed":
                failures += 1
                _remove_outdated(run, scan, outcome)
            report(done, total, failures)
    finally:
        session.commit(rows)


def _remove_outdated(run: FileRun, scan: ScanInput, outcome: Outcome) -> None:
    """Remove the files of an earlier input file, except after machine failures."""
    if not TRANSIENT.intersection(outcome.result.reasons):
        for path in run.all_files(scan.key):
            with contextlib.suppress(OSError, ValueError):  # missing, or an invalid file name
                path.unlink()


def _dry_run(run: FileRun, plan: Plan) -> RunSummary:
    todo = left_to_do(run.config, plan, run.identity, lambda journal: _unfinished(run, plan, journal))
    notes = (
        count_words(plan, todo),
        _expected_time(run, [s for s in todo if s.problem is None]),
        f"about {max(1.0, run.megabytes * len(todo)):.0f} MB in {run.config.out}; nothing was written",
    )
    return empty_summary(run.config, plan, notes)


def _expected_time(run: FileRun, readable: list[ScanInput]) -> str:
    """Expected time in words, measured on one scan."""
    if not readable:
        return "nothing to read"
    job = run.try_job(readable[len(readable) // 2])
    seconds = seconds_of(lambda: process_scan(job)) * len(readable) / max(1, run.config.workers)
    return time_words(seconds, len(readable), "one scan")
