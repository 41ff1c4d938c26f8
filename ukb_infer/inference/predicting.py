"""``predict``: scans in, tables of estimates out (floor 4).

Projecting runs in worker processes, inference in this one as batches fill, so the two overlap. Every finished batch is
committed to the journal before the next; the tables are written from the journal, so they are the same whether the run
was interrupted or not, and whatever the number of workers or the order of the inputs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer._version import __version__
from ukb_infer.errors import Reason, RunError, UsageError
from ukb_infer.execution import Journal, JournalRow, RunLock
from ukb_infer.inference.config import PredictConfig, reading_identity
from ukb_infer.inference.device import choose_batch_size, choose_device, choose_precision, prepare_device
from ukb_infer.inference.engine import Engine, OutputTarget, resolve_modules
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
from ukb_infer.inference.tables import (
    Column,
    format_float32,
    require_parquet,
    scan_rows,
    write_dictionary,
    write_estimates,
    write_parquet,
    write_run_json,
    write_scans,
)
from ukb_infer.inference.work import Job, Outcome
from ukb_infer.records import ScanKey
from ukb_infer.regression import prediction_interval, probability_and_class

OWN_FILES = (
    "journal.sqlite", "journal.sqlite-journal", "estimates.csv", "scans.csv", "dictionary.csv", "run.json",
    "estimates.parquet", "scans.parquet",
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
    plan = make_plan(resolve_inputs(config.inputs, config.root), config.exclude)
    engine = load_engine(config)
    selected = engine.select(config.targets)
    for target in selected:
        engine.half_width(target, config.level)
    loaded = time.monotonic()
    if config.dry_run:
        return _dry_run(config, plan, engine, selected)
    open_run_folder(config.out, overwrite=config.overwrite, own_files=OWN_FILES)
    with RunLock(config.out), Journal(config.out) as journal:
        check_same_run(journal, run_identity(config, engine))
        todo = still_to_do(plan, journal)
        try:
            _compute(config, engine, journal, todo, len(plan.included), progress)
        finally:
            rows = scan_rows(plan, journal)
            files = _write_tables(config, plan, journal, engine, selected, rows)
        counts, reasons = count_statuses(rows)
        timings = {"load_s": round(loaded - started, 3), "total_s": round(time.monotonic() - started, 3)}
        files.append(write_run_json(config.out, _facts(config, engine, selected, counts, reasons, len(todo), timings)))
    return RunSummary(
        config.out,
        counts,
        reasons,
        len(todo),
        time.monotonic() - started,
        engine.warnings,
        tuple(files),
        timings=timings,
    )


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
    return reading_identity(config.reading) | {
        "modules": {m.manifest.name: m.hash for m in engine.modules},
        "targets": [t.spec.name for t in engine.targets],
        "device": engine.device.type,
        "backends": {m.manifest.name: m.backend for m in engine.modules},
        "precision": engine.precision,
        "batch_size": engine.batch_size,
    }


# -- computing ---------------------------------------------------------------------------------------------------------


def _compute(
    config: PredictConfig,
    engine: Engine,
    journal: Journal,
    todo: Sequence[ScanInput],
    total: int,
    progress: Progress | None,
) -> None:
    """Work through the scans, a batch at a time."""
    done, failures = total - len(todo), 0
    if config.projections is not None:
        config.projections.mkdir(parents=True, exist_ok=True)
    jobs = [_job(config, scan) for scan in todo]
    ready: list[tuple[ScanInput, Outcome]] = []
    broken: list[JournalRow] = []
    report = progress or (lambda *_: None)
    report(done, total, failures)
    for scan, outcome in outcomes(jobs, config.workers, config.timeout_s):
        if outcome.image is None:
            failures += 1
            broken.append(to_journal_row(scan, outcome))
        else:
            ready.append((scan, outcome))
        done += 1
        if len(ready) == engine.batch_size or len(broken) >= 64:
            failures += _finish(engine, journal, ready, broken, strict=config.reading.strict)
            ready, broken = [], []
        report(done, total, failures)
    failures += _finish(engine, journal, ready, broken, strict=config.reading.strict)
    report(done, total, failures)


def _job(config: PredictConfig, scan: ScanInput) -> Job:
    """Use the cached projection of a scan where there is one, else make it (and cache it)."""
    if config.projections is None or scan.kind == "projection" or scan.problem is not None:
        return Job(scan, config.reading)
    return Job(scan, config.reading, cache=config.projections)


def _finish(
    engine: Engine,
    journal: Journal,
    ready: Sequence[tuple[ScanInput, Outcome]],
    broken: Sequence[JournalRow],
    *,
    strict: bool,
) -> int:
    """Predict one batch and commit it; returns how many of it failed."""
    rows = list(broken)
    failures = 0
    if ready:
        values = engine.predict([outcome.image for _, outcome in ready if outcome.image is not None])
        for (scan, outcome), estimate in zip(ready, values, strict=True):
            judged = _judge(outcome, estimate, engine.targets, strict=strict)
            failures += judged.image is None
            rows.append(to_journal_row(scan, judged, b"" if judged.image is None else estimate.tobytes()))
    journal.record(rows)
    return failures


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


# -- tables ------------------------------------------------------------------------------------------------------------


def estimate_columns(config: PredictConfig, targets: Sequence[OutputTarget]) -> list[Column]:
    """Columns after the key, with their lines of the dictionary."""
    columns = []
    percent = f"{100 * config.level:g} %"
    for target in targets:
        spec = target.spec
        limits = _limits_text(spec.lower, spec.upper)
        entries = [
            ("mean", "estimate (mean of the predictive distribution); never clipped"),
            ("sd", "total standard deviation of the predictive distribution"),
            (f"{config.level_name}_lower", f"lower end of the {percent} prediction interval{limits}"),
            (f"{config.level_name}_upper", f"upper end of the {percent} prediction interval{limits}"),
        ]
        if config.uncertainty == "full":
            entries += [
                ("sd_aleatoric", "part of the sd from the members' own variances (noise in the data)"),
                ("sd_epistemic", "part of the sd from the spread between members (what the networks do not know)"),
            ]
        for suffix, meaning in entries:
            columns.append(Column(f"{spec.name}_{suffix}", f"{spec.name}: {meaning}", spec.unit, spec.field, spec.name))
        if spec.kind == "binary":
            columns += [
                Column(f"{spec.name}_probability", f"{spec.name}: mean clipped to 0-1", "", spec.field, spec.name),
                Column(
                    f"{spec.name}_class",
                    f"{spec.name}: 1 where the probability is at least 0.5",
                    "",
                    spec.field,
                    spec.name,
                ),
            ]
    return columns


def _limits_text(lower: float | None, upper: float | None) -> str:
    if lower is None and upper is None:
        return ""
    low, high = "-" if lower is None else f"{lower:g}", "-" if upper is None else f"{upper:g}"
    return f", clipped to the physical limits [{low}, {high}]"


def _cells(
    config: PredictConfig,
    engine: Engine,
    targets: Sequence[OutputTarget],
    widths: Sequence[float],
    values: NDArray[np.float64],
) -> list[str]:
    """Cells of one scan: (targets of the run, 3) float64 -> text."""
    place = {t.spec.name: k for k, t in enumerate(engine.targets)}
    cells: list[str] = []
    for target, width in zip(targets, widths, strict=True):
        mean, aleatoric, epistemic = values[place[target.spec.name]]
        sd = np.sqrt(aleatoric + epistemic)
        low, high = prediction_interval(np.array([mean]), np.array([sd]), width, target.spec.lower, target.spec.upper)
        numbers = [mean, sd, low[0], high[0]]
        if config.uncertainty == "full":
            numbers += [np.sqrt(aleatoric), np.sqrt(epistemic)]
        cells += [format_float32(n) for n in numbers]
        if target.spec.kind == "binary":
            probability, positive = probability_and_class(np.array([mean]))
            cells += [format_float32(probability[0]), str(positive[0])]
    return cells


def _estimate_rows(
    config: PredictConfig, plan: Plan, journal: Journal, engine: Engine, targets: Sequence[OutputTarget]
) -> Iterator[tuple[ScanKey, list[str]]]:
    widths = [engine.half_width(t, config.level) for t in targets]
    for scan in plan.included:
        row = journal.row(scan.key.scan)
        if row is None or not row.payload:
            continue
        values = np.frombuffer(row.payload, np.float64).reshape(len(engine.targets), 3)
        yield scan.key, _cells(config, engine, targets, widths, values)


def _write_tables(
    config: PredictConfig,
    plan: Plan,
    journal: Journal,
    engine: Engine,
    targets: Sequence[OutputTarget],
    rows: Sequence[dict[str, str]],
) -> list[Path]:
    columns = estimate_columns(config, targets)
    try:
        files = [
            write_estimates(config.out, columns, _estimate_rows(config, plan, journal, engine, targets)),
            write_scans(config.out, rows),
            write_dictionary(config.out, columns),
        ]
        if config.parquet:
            files += [write_parquet(config.out / "estimates.csv"), write_parquet(config.out / "scans.csv")]
    except OSError as error:
        raise RunError(
            f"--out {config.out}: the tables cannot be written ({error.strerror}); free space or restore access and "
            "run the same command again: what is finished is kept in the journal"
        ) from error
    return files


def _facts(
    config: PredictConfig,
    engine: Engine,
    targets: Sequence[OutputTarget],
    counts: dict[str, int],
    reasons: dict[str, int],
    computed: int,
    timings: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
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
        "targets": [{"name": t.spec.name, "unit": t.spec.unit, "field": t.spec.field} for t in targets],
        "level": config.level,
        "level_name": config.level_name,
        "counts": counts,
        "reasons": reasons,
        "computed_now": computed,
        "timings": timings,
    }  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions that decide the numbers."""
    import platform
    from importlib.metadata import version

    names = ("torch", "torchvision", "numpy", "scipy", "pandas", "nibabel", "pydicom", "safetensors", "numba")
    return {"ukb-infer": __version__, "python": platform.python_version()} | {name: version(name) for name in names}


def _dry_run(config: PredictConfig, plan: Plan, engine: Engine, targets: Sequence[OutputTarget]) -> RunSummary:
    """What a run would do, without writing anything."""
    kinds: dict[str, int] = {}
    for scan in plan.included:
        name = scan.problem.value if scan.problem is not None else str(scan.kind)
        kinds[name] = kinds.get(name, 0) + 1
    finished = 0
    if (config.out / "journal.sqlite").exists():
        with Journal(config.out) as journal:
            finished = len(plan.included) - len(still_to_do(plan, journal))
    megabytes = len(plan.included) * (len(engine.targets) * 24 + 4 * 12 * len(targets)) / 1e6
    notes = (
        f"{len(plan.included)} scans ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}), "
        f"{len(plan.excluded)} excluded, {finished} finished before",
        f"{len(targets)} targets from {', '.join(m.manifest.name for m in engine.modules)} on {engine.device} "
        f"({engine.precision}, batches of {engine.batch_size}, {config.workers} workers)",
        f"about {megabytes:.1f} MB in {config.out}; nothing was written (--dry-run)",
    )
    counts = {"ok": 0, "flagged": 0, "failed": 0, "excluded": len(plan.excluded)}
    return RunSummary(config.out, counts, {}, 0, 0.0, engine.warnings, (), True, notes)


def check_usable(config: PredictConfig) -> None:
    """Refuse a cache folder that is a file.

    Raises:
        UsageError: names the option.
    """
    if config.projections is not None and config.projections.is_file():
        raise UsageError(f"--projections {config.projections}: is a file, expected a folder")
