"""``project``: from scans to cached projections."""

from __future__ import annotations

import contextlib
import time

from ukb_infer.execution import Journal
from ukb_infer.inference.config import ProjectConfig
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
from ukb_infer.inference.work import Job, Outcome, process_scan
from ukb_infer.runs.files import projection_files
from ukb_infer.runs.summary import Progress, RunSummary

#: Results per commit, each a forced write to disk.
COMMIT_EVERY = 16


def run_project(config: ProjectConfig, progress: Progress | None = None) -> RunSummary:
    """Project every scan, resuming an existing run.

    Args:
        config: of the run.
        progress: receives the progress.

    Returns:
        Counts, reasons and the exit code.

    Raises:
        UsageError: contradictory options, two files with the same key, or another run in ``out``.
        RunError: no inputs, an unusable folder, a locked run.
    """
    started = time.monotonic()
    config.quality_spec()  # complains before the folder is touched
    plan = make_plan(config)
    if config.dry_run:
        return _dry_run(config, plan)
    with open_session(config, plan) as session:
        session.begin("project", config.identity())
        todo = _unfinished(config, plan, session.journal)
        with session.working_on(todo):
            _project_scans(config, session, todo, progress)
        return session.end(todo, started)


def _unfinished(config: ProjectConfig, plan: Plan, journal: Journal) -> list[ScanInput]:
    """Scans without a result, and those whose projection is missing."""
    missing = {s.key.scan for s in still_to_do(plan, journal, verify=config.verify)}
    return [s for s in plan.included if s.key.scan in missing or not _has_file(config, s, journal)]


def _has_file(config: ProjectConfig, scan: ScanInput, journal: Journal) -> bool:
    """Whether a finished scan's projection is still there (or it failed and has none)."""
    row = journal.row(scan.key.scan)
    return row is not None and (
        row.result.status == "failed" or projection_files(config.out, scan.key.scan)[0].is_file()
    )


def _project_scans(config: ProjectConfig, session: Session, todo: list[ScanInput], progress: Progress | None) -> None:
    """Process scans, committing in groups, and the last group also if something ends the run."""
    total = len(session.plan.included)
    done, failures = total - len(todo), 0
    jobs = [
        Job(scan, config.reading, config.recipe, config.out, config.png, config.volumes, config.verify) for scan in todo
    ]
    report = progress or (lambda *_: None)
    report(done, total, failures)
    rows = []
    try:
        for scan, outcome in outcomes(jobs, config, session.stop):
            rows.append(journal_row(scan, outcome))
            if len(rows) >= COMMIT_EVERY:
                batch, rows = rows, []
                session.commit(batch)
            done += 1
            if outcome.image is None:
                failures += 1
                _remove_outdated(config, scan, outcome)
            report(done, total, failures)
    finally:
        session.journal.record(rows)
        session.log.failures(rows)


def _remove_outdated(config: ProjectConfig, scan: ScanInput, outcome: Outcome) -> None:
    """Remove the projection of an earlier input file, except after machine failures."""
    if not TRANSIENT.intersection(outcome.result.reasons):
        for path in projection_files(config.out, scan.key.scan):
            with contextlib.suppress(OSError, ValueError):  # missing, or an invalid file name
                path.unlink()


def _expected_time(config: ProjectConfig, readable: list[ScanInput]) -> str:
    """Expected time in words, measured on one scan."""
    if not readable:
        return "nothing to read"
    job = Job(readable[len(readable) // 2], config.reading, config.recipe)
    seconds = seconds_of(lambda: process_scan(job)) * len(readable) / max(1, config.workers)
    return time_words(seconds, len(readable), "one scan")


def _dry_run(config: ProjectConfig, plan: Plan) -> RunSummary:
    todo = left_to_do(config, plan, config.identity(), lambda journal: _unfinished(config, plan, journal))
    megabytes = (110.2 if config.volumes else 0.2) * len(todo)
    notes = (
        count_words(plan, todo),
        _expected_time(config, [s for s in todo if s.problem is None]),
        f"about {max(1.0, megabytes):.0f} MB in {config.out}; nothing was written",
    )
    return empty_summary(config, plan, notes)
