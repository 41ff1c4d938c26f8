"""A run folder in use by this process: locked, with its journal and log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ukb_infer.execution import Journal, JournalRow, RunLock
from ukb_infer.inference.config import CommonConfig
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.passes import StopOnTerminate
from ukb_infer.inference.plan import Plan
from ukb_infer.inference.work import Outcome
from ukb_infer.runs.files import MISSING, open_run_folder
from ukb_infer.runs.identity import check_same_run
from ukb_infer.runs.log import RunLog
from ukb_infer.runs.quality import SPEC_KEY
from ukb_infer.runs.summary import RunSummary, count_results
from ukb_infer.runs.tables import write_facts, write_tables
from ukb_infer.text import shown


def journal_row(scan: ScanInput, outcome: Outcome, payload: bytes = b"") -> JournalRow:
    """Row of a finished scan.

    Args:
        scan: the scan.
        outcome: its outcome.
        payload: its estimates as bytes.
    """
    result = replace(outcome.result, message=shown(outcome.result.message))
    return JournalRow(scan=scan.key.scan, result=result, payload=payload)


@dataclass(kw_only=True)
class Session:
    """A run in progress; created by :func:`open_session`."""

    config: CommonConfig
    plan: Plan
    lock: RunLock
    journal: Journal
    log: RunLog
    stop: StopOnTerminate
    facts: dict[str, Any] | None = None
    files: list[Path] = field(default_factory=list)
    #: Scans recorded by this call.
    computed: int = 0

    def begin(
        self, name: str, identity: dict[str, Any], *,
        output: dict[str, Any] | None = None, facts: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Record in the journal what the tables, ``status``, ``retry``, ``merge`` and ``export`` need.

        Args:
            name: of the command.
            identity: settings that affect its results.
            output: layout of the estimates; None for projections.
            facts: of ``run.json``; None for projections.

        Raises:
            UsageError: the folder has a run with another identity, or a file of quality limits is invalid.
        """
        quality = self.config.quality_spec().to_plain()
        check_same_run(self.journal, identity)
        self.journal.put(SPEC_KEY, quality)
        facts = None if facts is None else facts | {"quality": quality}
        self.facts = facts
        self.journal.set_inputs(self.plan.journal_inputs())
        if output is not None:
            self.journal.put("output", output)
            self.journal.put("facts", facts)
        given_in = str(self.config.base.absolute())
        self.journal.put("command", {"name": name, "cwd": given_in, "config": self.config.to_plain()})

    @contextmanager
    def working_on(self, todo: Sequence[ScanInput]) -> Iterator[None]:
        """Log the start; write the tables at the end, whatever ends it."""
        for line in (*self.plan.notes, *self.plan.warnings):
            self.log.write(line)
        self.log.write(f"start: {len(todo)} of {len(self.plan.included)} scans to process")
        try:
            yield
        finally:
            self.lock.refresh()  # a process that lost the run leaves the tables to the new one
            self.files = write_tables(self.config.out, self.journal)

    def commit(self, rows: Sequence[JournalRow]) -> None:
        """Record finished scans in one transaction."""
        self.lock.refresh()
        self.journal.record(rows)
        self.computed += len(rows)
        self.log.failures(rows)

    def end(self, started: float, *, loaded: float = 0.0, warnings: tuple[str, ...] = ()) -> RunSummary:
        """Count, write ``run.json``, log the end.

        Args:
            started: start of the command; monotonic, s.
            loaded: time at which its modules were loaded; monotonic, s.
            warnings: of the modules.
        """
        counts = count_results(self.journal)
        seconds = time.monotonic() - started
        timings = {}
        if not counts.unfinished:
            (self.config.out / MISSING).unlink(missing_ok=True)  # of a merge that this run completed
        if self.facts is not None:
            timings = {"load_s": round(loaded - started, 3), "total_s": round(seconds, 3)}
            now = {**counts.to_plain(), "computed_now": self.computed, "timings": timings}
            self.files.append(write_facts(self.config.out, self.facts | now))
        stopped = self.stop()
        self.log.write(
            f"{'stopped on request' if stopped else 'end'}: {counts.statuses}, {counts.unfinished} unfinished"
        )
        return RunSummary(
            out=self.config.out, counts=counts.statuses, reasons=counts.reasons, levels=counts.levels,
            computed=self.computed, seconds=seconds, warnings=self.plan.warnings + warnings, files=tuple(self.files),
            notes=(*([self.lock.note] if self.lock.note else []), *self.plan.notes), timings=timings,
            unfinished=counts.unfinished, stopped=stopped, trouble=counts.trouble,
        )  # fmt: skip


@contextmanager
def open_session(config: CommonConfig, plan: Plan) -> Iterator[Session]:
    """Open and lock the run folder; SIGTERM then stops the run.

    Args:
        config: of the run.
        plan: its scans.

    Raises:
        RunError: the folder is unusable, or in use by another process.
    """
    open_run_folder(config.out, overwrite=config.overwrite, lock=config.lock)
    with (
        StopOnTerminate() as stop,
        RunLock(config.out, config.lock) as lock,
        Journal(config.out, locks=lock.locks_work) as journal,
        RunLog(config.out, show_ids=config.log_ids) as log,
    ):
        yield Session(config=config, plan=plan, lock=lock, journal=journal, log=log, stop=stop)
