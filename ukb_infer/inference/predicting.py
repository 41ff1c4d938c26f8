"""``predict``: scans in, tables of estimates out (floor 4).

Projecting runs in worker processes, inference in this one as batches fill, so the two overlap. Every finished batch is
committed to the journal before the next; the tables are written from the journal, so they are the same whether the run
was interrupted or not, and whatever the number of workers or the order of the inputs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer._version import __version__
from ukb_infer.errors import Reason, UsageError
from ukb_infer.execution import Journal, JournalRow, RunLock
from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.device import choose_batch_size, choose_device, choose_precision, prepare_device
from ukb_infer.inference.engine import Engine, Launched, OutputTarget, resolve_modules
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.outputs import OutputSpec, WrittenTarget, count_results, write_tables
from ukb_infer.inference.runlog import KEY_NAME, LOG_NAME, RunLog
from ukb_infer.inference.runs import (
    MISSING_NAME,
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
from ukb_infer.inference.tables import require_parquet, write_run_json
from ukb_infer.inference.words import format_duration
from ukb_infer.inference.work import Job, Outcome

OWN_FILES = (
    "journal.sqlite", "journal.sqlite-journal", "estimates.csv", "scans.csv", "dictionary.csv", "run.json",
    "estimates.parquet", "scans.parquet", LOG_NAME, KEY_NAME, MISSING_NAME,
)  # fmt: skip


def run_predict(config: PredictConfig, progress: Progress | None = None) -> RunSummary:
    """Predict every scan of a run, continuing what is there.

    Args:
        config: of the run.
        progress: told how far it is.

    Returns:
        Counts, reasons, files and the exit code.

    Raises:
        UsageError: contradictory options, two files of one key, or another run in ``--out``.
        RunError: no inputs, an unusable folder, a locked run.
        ModuleError: a module does not load.
    """
    started = time.monotonic()
    if config.parquet:
        require_parquet()
    plan = make_plan(config)
    engine = load_engine(config)
    selected = engine.select(config.targets)
    spec = output_spec(config, engine, selected)
    loaded = time.monotonic()
    if config.dry_run:
        return _dry_run(config, plan, engine, selected)
    open_run_folder(config.out, overwrite=config.overwrite, own_files=OWN_FILES)
    with (
        StopOnTerminate() as stop,
        RunLock(config.out, config.lock) as lock,
        Journal(config.out, locks=lock.locks_work) as journal,
        RunLog(config.out, show_ids=config.log_ids) as log,
    ):
        check_same_run(journal, run_identity(config, engine))
        facts = _facts(config, engine, selected)
        _keep_command(journal, plan, config, spec, facts)
        todo = still_to_do(plan, journal, verify=config.verify)
        log.write(f"start: {len(todo)} of {len(plan.included)} scans to do")
        try:
            _Computation(config, engine, journal, log, lock, stop).run(todo, len(plan.included), progress)
        finally:
            files = write_tables(config.out, journal)
        counts, reasons, unfinished = count_results(journal)
        if not unfinished:
            (config.out / MISSING_NAME).unlink(missing_ok=True)  # of a merge that this run has completed
        timings = {"load_s": round(loaded - started, 3), "total_s": round(time.monotonic() - started, 3)}
        now = {"counts": counts, "reasons": reasons, "unfinished": unfinished, "computed_now": len(todo)}
        files.append(write_run_json(config.out, facts | now | {"timings": timings}))
        log.write(f"{'stopped on request' if stop() else 'end'}: {counts}, {unfinished} unfinished")
    return RunSummary(
        config.out,
        counts,
        reasons,
        len(todo),
        time.monotonic() - started,
        engine.warnings,
        tuple(files),
        timings=timings,
        unfinished=unfinished,
        stopped=stop(),
    )


def _keep_command(journal: Journal, plan: Plan, config: PredictConfig, spec: OutputSpec, facts: dict[str, Any]) -> None:
    """Put into the journal what ``status``, ``retry``, ``merge`` and ``export`` need."""
    journal.set_inputs(plan.journal_inputs())
    journal.put("output", spec.to_plain())
    journal.put("facts", facts)
    journal.put("command", {"name": "predict", "cwd": str(Path.cwd()), "config": config.to_plain()})


def load_engine(config: PredictConfig) -> Engine:
    """Modules on the device the configuration names."""
    folders = resolve_modules(config.modules)
    device = choose_device(config.device)
    prepare_device(device)
    return Engine(
        folders,
        device,
        choose_precision(config.precision, device),
        choose_batch_size(config.batch_size, device),
        config.backend,
    )


def run_identity(config: PredictConfig, engine: Engine) -> dict[str, Any]:
    """Everything that decides the estimates; intervals, targets and formats can change between calls."""
    return config.base_identity() | {
        "modules": {m.manifest.name: m.hash for m in engine.modules},
        "targets": [t.spec.name for t in engine.targets],
        "device": engine.device.type,
        "backends": {m.manifest.name: m.backend for m in engine.modules},
        "precision": engine.precision,
        "batch_size": engine.batch_size,
    }


def output_spec(config: PredictConfig, engine: Engine, selected: Sequence[OutputTarget]) -> OutputSpec:
    """How the results become tables.

    Raises:
        ModuleError: a calibration does not reach the level asked for.
    """
    written = tuple(
        WrittenTarget(
            t.spec.name, t.spec.unit, t.spec.field, t.spec.kind, t.spec.lower, t.spec.upper,
            engine.half_width(t, config.level),
        )
        for t in selected
    )  # fmt: skip
    stored = tuple(t.spec.name for t in engine.targets)
    return OutputSpec(stored, written, config.level, config.level_name, config.uncertainty, config.parquet)


# -- computing ---------------------------------------------------------------------------------------------------------


@dataclass
class _Computation:
    """Works through scans, a batch at a time; every batch is committed before the next."""

    config: PredictConfig
    engine: Engine
    journal: Journal
    log: RunLog
    lock: RunLock
    stop: StopOnTerminate
    _pending: tuple[list[tuple[ScanInput, Outcome]], Launched | None, list[JournalRow]] | None = None

    def run(self, todo: Sequence[ScanInput], total: int, progress: Progress | None) -> None:
        """Until all is done, or the run is asked to stop."""
        config, engine = self.config, self.engine
        done, failures = total - len(todo), 0
        if config.projections is not None:
            config.projections.mkdir(parents=True, exist_ok=True)
        ready: list[tuple[ScanInput, Outcome]] = []
        broken: list[JournalRow] = []
        report = progress or (lambda *_: None)
        report(done, total, failures)
        for scan, outcome in outcomes([_job(config, scan) for scan in todo], config, self.stop):
            if outcome.image is None:
                failures += 1
                broken.append(to_journal_row(scan, outcome))
            else:
                ready.append((scan, outcome))
            done += 1
            if len(ready) == engine.batch_size or len(broken) >= 64:
                failures += self._batch(ready, broken)
                ready, broken = [], []
            report(done, total, failures)
        failures += self._batch(ready, broken)
        failures += self._commit()
        report(done, total, failures)

    def _batch(self, ready: list[tuple[ScanInput, Outcome]], broken: list[JournalRow]) -> int:
        """Launch a batch and commit it; on a GPU the one before it is committed while it runs."""
        launched = None
        if ready:
            launched = self.engine.launch([outcome.image for _, outcome in ready if outcome.image is not None])
        failures = self._commit() if self.engine.can_overlap else 0
        self._pending = (ready, launched, broken)
        return failures if self.engine.can_overlap else self._commit()

    def _commit(self) -> int:
        """Collect the batch that was launched last and commit it; returns how many of it failed."""
        if self._pending is None:
            return 0
        ready, launched, broken = self._pending
        self._pending = None
        rows = list(broken)
        failures = 0
        if launched is not None:
            values = self.engine.collect(launched)
            for (scan, outcome), estimate in zip(ready, values, strict=True):
                judged = _judge(outcome, estimate, self.engine.targets, strict=self.config.reading.strict)
                failures += judged.image is None
                rows.append(to_journal_row(scan, judged, b"" if judged.image is None else estimate.tobytes()))
        self.lock.refresh()
        self.journal.record(rows)
        self.log.failures(rows)
        return failures


def _job(config: PredictConfig, scan: ScanInput) -> Job:
    """Use the cached projection of a scan where there is one, else make it (and cache it)."""
    if config.projections is None or scan.kind == "projection" or scan.problem is not None:
        return Job(scan, config.reading, digest=config.verify)
    return Job(scan, config.reading, cache=config.projections, digest=config.verify)


def _judge(
    outcome: Outcome, estimate: NDArray[np.float64], targets: Sequence[OutputTarget], *, strict: bool
) -> Outcome:
    """Fail estimates that are not finite; flag means outside their physical limits.

    A 0/1 regression is reported as a probability, clipped; its mean passes 0 or 1 by a little in half the scans and is
    not flagged for that.
    """
    if not np.isfinite(estimate).all():
        text = "the networks returned NaN or infinity; try --precision fp32"
        return Outcome(None, (Reason.NON_FINITE_ESTIMATE.value,), text, outcome.stations)
    outside = [
        t.spec.name
        for t, mean in zip(targets, estimate[:, 0], strict=True)
        if t.spec.kind == "continuous" and not _within(float(mean), t.spec.lower, t.spec.upper)
    ]
    if not outside:
        return outcome
    code = Reason.MEAN_OUTSIDE_LIMITS.value
    message = f"mean outside its physical limits: {', '.join(outside)}"
    if strict:
        return Outcome(None, (code,), f"{message} (a failure because of --strict)", outcome.stations)
    joined = "; ".join(part for part in (outcome.message, message) if part)
    return replace(outcome, reasons=(*outcome.reasons, code), message=joined)


def _within(value: float, lower: float | None, upper: float | None) -> bool:
    return (lower is None or value >= lower) and (upper is None or value <= upper)


# -- facts -------------------------------------------------------------------------------------------------------------


def _facts(config: PredictConfig, engine: Engine, targets: Sequence[OutputTarget]) -> dict[str, Any]:
    """What ``run.json`` says of the run before it has done anything."""
    return {
        "versions": package_versions(),
        "configuration": run_identity(config, engine) | {
            "inputs": len(config.inputs),
            "workers": config.workers,
            "uncertainty": config.uncertainty,
            "timeout_s": config.timeout_s,
        },
        "modules": [
            {
                "name": m.manifest.name, "version": m.manifest.version, "sha256": m.hash,
                "members": len(m.members), "warning": m.manifest.warning,
            }
            for m in engine.modules
        ],
        "targets": [
            {"name": t.spec.name, "unit": t.spec.unit, "field": t.spec.field, "kind": t.spec.kind} for t in targets
        ],
        "level": config.level,
        "level_name": config.level_name,
    }  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions that decide the numbers."""
    import platform
    from importlib.metadata import version

    names = ("torch", "torchvision", "numpy", "scipy", "pandas", "nibabel", "pydicom", "safetensors", "numba")
    return {"ukb-infer": __version__, "python": platform.python_version()} | {name: version(name) for name in names}


def _dry_run(config: PredictConfig, plan: Plan, engine: Engine, targets: Sequence[OutputTarget]) -> RunSummary:
    """What a run would do, without writing anything; the time is measured on one scan and one batch."""
    kinds: dict[str, int] = {}
    for scan in plan.included:
        name = scan.problem.value if scan.problem is not None else str(scan.kind)
        kinds[name] = kinds.get(name, 0) + 1
    todo = plan.included
    if (config.out / "journal.sqlite").exists():
        with Journal(config.out, read_only=True) as journal:
            todo = still_to_do(plan, journal, verify=config.verify)
    megabytes = len(plan.included) * (len(engine.targets) * 24 + 4 * 12 * len(targets)) / 1e6
    if config.projections is not None:
        megabytes += 0.2 * len(plan.included)
    notes = (
        f"{len(plan.included)} scans ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}), "
        f"{len(plan.excluded)} excluded, {len(plan.included) - len(todo)} finished before",
        f"{len(targets)} targets from {', '.join(m.manifest.name for m in engine.modules)} on {engine.device} "
        f"({engine.precision}, batches of {engine.batch_size}, {config.workers} workers)",
        _expected_time(config, todo, engine),
        f"about {megabytes:.1f} MB in {config.out}; nothing was written (--dry-run)",
    )
    counts = {"ok": 0, "flagged": 0, "failed": 0, "excluded": len(plan.excluded)}
    return RunSummary(config.out, counts, {}, 0, 0.0, engine.warnings, (), True, notes)


def _expected_time(config: PredictConfig, todo: Sequence[ScanInput], engine: Engine) -> str:
    """Expected time of what is left, in words."""
    from ukb_infer.inference.work import process_scan

    readable = [s for s in todo if s.problem is None]
    if not readable:
        return "nothing to read"
    job = Job(readable[len(readable) // 2], config.reading)
    blank = [np.zeros((3, 256, 256), np.uint8)] * engine.batch_size
    seconds = []
    for call in (lambda: process_scan(job), lambda: engine.predict(blank)):
        call()
        started = time.monotonic()
        call()
        seconds.append(time.monotonic() - started)
    project, infer = seconds[0] / max(1, config.workers), seconds[1] / engine.batch_size
    each = max(project, infer) if engine.device.type == "cuda" else project + infer
    return (
        f"about {format_duration(each * len(readable))} for {len(readable)} scans, measured on one scan and one batch"
    )


def check_usable(config: PredictConfig) -> None:
    """Refuse a cache folder that is a file.

    Raises:
        UsageError: names the option.
    """
    if config.projections is not None and config.projections.is_file():
        raise UsageError(f"--projections {config.projections}: is a file, expected a folder")
