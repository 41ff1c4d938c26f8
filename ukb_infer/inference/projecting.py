"""``project``: scans in, cached projections out (floor 4, no torch)."""

from __future__ import annotations

import time
from pathlib import Path

from ukb_infer.execution import Journal, RunLock
from ukb_infer.inference.config import ProjectConfig
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.outputs import count_results, write_tables
from ukb_infer.inference.runlog import KEY_NAME, LOG_NAME, RunLog
from ukb_infer.inference.runs import (
    Plan,
    Progress,
    RunSummary,
    StopOnTerminate,
    check_same_run,
    make_plan,
    open_run_folder,
    outcomes,
    still_to_do,
    to_journal_row,
)
from ukb_infer.inference.words import format_duration
from ukb_infer.inference.work import Job, process_scan

OWN_FILES = ("journal.sqlite", "journal.sqlite-journal", "scans.csv", LOG_NAME, KEY_NAME, "missing.csv")
#: Results committed together: one forced write to disk for so many scans.
COMMIT_EVERY = 16


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
    plan = make_plan(config)
    if config.dry_run:
        return _dry_run(config, plan)
    open_run_folder(config.out, overwrite=config.overwrite, own_files=OWN_FILES)
    with (
        StopOnTerminate() as stop,
        RunLock(config.out, config.lock) as lock,
        Journal(config.out, locks=lock.locks_work) as journal,
        RunLog(config.out, show_ids=config.log_ids) as log,
    ):
        check_same_run(journal, config.identity())
        journal.set_inputs(plan.journal_inputs())
        journal.put("command", {"name": "project", "cwd": str(Path.cwd()), "config": config.to_plain()})
        missing = {s.key.scan for s in still_to_do(plan, journal, verify=config.verify)}
        todo = [s for s in plan.included if s.key.scan in missing or not _has_file(config, s, journal)]
        log.write(f"start: {len(todo)} of {len(plan.included)} scans to do")
        try:
            _compute(config, journal, log, lock, stop, todo, len(plan.included), progress)
        finally:
            files = write_tables(config.out, journal)
        counts, reasons, unfinished = count_results(journal)
        log.write(f"{'stopped on request' if stop() else 'end'}: {counts}, {unfinished} unfinished")
    return RunSummary(
        config.out,
        counts,
        reasons,
        len(todo),
        time.monotonic() - started,
        files=tuple(files),
        unfinished=unfinished,
        stopped=stop(),
    )


def _has_file(config: ProjectConfig, scan: ScanInput, journal: Journal) -> bool:
    """Whether a finished scan's projection is still there (or it failed and has none)."""
    row = journal.row(scan.key.scan)
    return row is not None and (row.status == "failed" or (config.out / f"{scan.key.scan}.npy").is_file())


def _compute(
    config: ProjectConfig,
    journal: Journal,
    log: RunLog,
    lock: RunLock,
    stop: StopOnTerminate,
    todo: list[ScanInput],
    total: int,
    progress: Progress | None,
) -> None:
    done, failures = total - len(todo), 0
    jobs = [Job(scan, config.reading, config.out, config.png, config.volumes, config.verify) for scan in todo]
    report = progress or (lambda *_: None)
    report(done, total, failures)
    rows = []
    try:
        for scan, outcome in outcomes(jobs, config, stop):
            rows.append(to_journal_row(scan, outcome))
            if len(rows) >= COMMIT_EVERY:
                batch, rows = rows, []
                lock.refresh()
                journal.record(batch)
                log.failures(batch)
            done += 1
            failures += outcome.image is None
            report(done, total, failures)
    finally:
        journal.record(rows)
        log.failures(rows)


def _expected_time(config: ProjectConfig, readable: list[ScanInput]) -> str:
    """Expected time in words, measured on one scan."""
    if not readable:
        return "nothing to read"
    job = Job(readable[len(readable) // 2], config.reading)
    process_scan(job)
    started = time.monotonic()
    process_scan(job)
    expected = (time.monotonic() - started) * len(readable) / max(1, config.workers)
    return f"about {format_duration(expected)} for {len(readable)} scans, measured on one scan"


def _dry_run(config: ProjectConfig, plan: Plan) -> RunSummary:
    megabytes = 0.2 * len(plan.included) + (110.0 * len(plan.included) if config.volumes else 0.0)
    readable = [s for s in plan.included if s.problem is None]
    notes = (
        f"{len(plan.included)} scans, {len(plan.excluded)} excluded",
        _expected_time(config, readable),
        f"about {megabytes:.0f} MB in {config.out}; nothing was written (--dry-run)",
    )
    counts = {"ok": 0, "flagged": 0, "failed": 0, "excluded": len(plan.excluded)}
    return RunSummary(config.out, counts, {}, 0, 0.0, (), (), True, notes)
