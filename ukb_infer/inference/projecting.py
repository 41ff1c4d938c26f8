"""``project``: scans in, cached projections out (floor 4, no torch)."""

from __future__ import annotations

import time

from ukb_infer.execution import Journal, RunLock
from ukb_infer.inference.config import ProjectConfig
from ukb_infer.inference.inputs import ScanInput, resolve_inputs
from ukb_infer.inference.runs import (
    Plan,
    Progress,
    RunSummary,
    check_same_run,
    count_statuses,
    make_plan,
    open_run_folder,
    outcomes,
    still_to_do,
    to_journal_row,
)
from ukb_infer.inference.tables import scan_rows, write_scans
from ukb_infer.inference.work import Job

OWN_FILES = ("journal.sqlite", "journal.sqlite-journal", "scans.csv")


def run_project(config: ProjectConfig, progress: Progress | None = None) -> RunSummary:
    """Project every scan, continuing what is there.

    Args:
        config: of the run.
        progress: told how far it is.

    Returns:
        Counts, reasons and the exit code.

    Raises:
        UsageError: contradictory options, two files of one key, or another run in ``--out``.
        RunError: no inputs, an unusable folder, a locked run.
    """
    started = time.monotonic()
    plan = make_plan(resolve_inputs(config.inputs, config.root), config.exclude)
    if config.dry_run:
        return _dry_run(config, plan)
    open_run_folder(config.out, overwrite=config.overwrite, own_files=OWN_FILES)
    with RunLock(config.out), Journal(config.out) as journal:
        check_same_run(journal, config.identity())
        todo = [
            scan
            for scan in plan.included
            if scan in set(still_to_do(plan, journal)) or not _has_file(config, scan, journal)
        ]
        try:
            _compute(config, journal, todo, len(plan.included), progress)
        finally:
            rows = scan_rows(plan, journal)
            table = write_scans(config.out, rows)
        counts, reasons = count_statuses(rows)
    return RunSummary(config.out, counts, reasons, len(todo), time.monotonic() - started, files=(table,))


def _has_file(config: ProjectConfig, scan: ScanInput, journal: Journal) -> bool:
    """Whether a finished scan's projection is still there (or it failed and has none)."""
    row = journal.row(scan.key.scan)
    return row is not None and (row.status == "failed" or (config.out / f"{scan.key.scan}.npy").is_file())


def _compute(
    config: ProjectConfig, journal: Journal, todo: list[ScanInput], total: int, progress: Progress | None
) -> None:
    done, failures = total - len(todo), 0
    jobs = [Job(scan, config.reading, config.out, config.png, config.volumes) for scan in todo]
    report = progress or (lambda *_: None)
    report(done, total, failures)
    for scan, outcome in outcomes(jobs, config.workers, config.timeout_s):
        journal.record([to_journal_row(scan, outcome)])
        done += 1
        failures += outcome.image is None
        report(done, total, failures)


def _dry_run(config: ProjectConfig, plan: Plan) -> RunSummary:
    megabytes = 0.2 * len(plan.included) + (110.0 * len(plan.included) if config.volumes else 0.0)
    notes = (
        f"{len(plan.included)} scans, {len(plan.excluded)} excluded",
        f"about {megabytes:.0f} MB in {config.out}; nothing was written (--dry-run)",
    )
    counts = {"ok": 0, "flagged": 0, "failed": 0, "excluded": len(plan.excluded)}
    return RunSummary(config.out, counts, {}, 0, 0.0, (), (), True, notes)
