"""``predict``: from scans to tables of estimates.

Projecting runs in worker processes, inference in this process as batches fill, so that the two overlap. Every finished
batch is committed to the journal before the next; the tables are written from the journal, so they do not depend on
interruptions, the number of workers or the order of the inputs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer._version import __version__
from ukb_infer.errors import ModuleError, ScanError, UsageError
from ukb_infer.execution import JournalRow
from ukb_infer.imaging.readers.projection_file import load_projection
from ukb_infer.imaging.recipe import ImageForm, Recipe
from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.dry_run import dry_run
from ukb_infer.inference.engine import Engine, Launched, OutputTarget, resolve_modules
from ukb_infer.inference.inputs import ScanInput, resolve_inputs
from ukb_infer.inference.jobs import make_job
from ukb_infer.inference.layout import interval_warnings, output_spec
from ukb_infer.inference.passes import outcomes
from ukb_infer.inference.plan import FindScans, make_plan, still_to_do
from ukb_infer.inference.session import Session, journal_row, open_session
from ukb_infer.inference.volumes import SessionFinder, write_mask
from ukb_infer.inference.work import Outcome
from ukb_infer.modules.manifest import MANIFEST_NAME, VolumeInput, read_manifest
from ukb_infer.networks.device import choose_batch_size, choose_device, choose_precision, prepare_device
from ukb_infer.reasons import Reason
from ukb_infer.runs.columns import OutputSpec
from ukb_infer.runs.files import mask_path
from ukb_infer.runs.summary import Progress, RunSummary
from ukb_infer.runs.tables import require_parquet


def run_predict(config: PredictConfig, progress: Progress | None = None) -> RunSummary:
    """Predict every scan of a run, resuming an existing one.

    Args:
        config: of the run.
        progress: receives the progress.

    Returns:
        Counts, reasons, files and the exit code.

    Raises:
        UsageError: contradictory options, two files with the same key, or another run in ``out``.
        RunError: no inputs, an unusable folder, a locked run.
        ModuleError: a module does not load.
    """
    started = time.monotonic()
    if config.parquet:
        require_parquet()
    config.quality_spec()  # complains before anything is loaded
    plan = make_plan(config, scans_finder(config))
    engine = load_engine(config)
    check_cache(config, engine.recipe)
    spec = output_spec(config, engine)
    loaded = time.monotonic()
    if config.dry_run:
        return dry_run(config, plan, engine, spec, run_identity(config, engine))
    warnings = engine.warnings + interval_warnings(spec, sets_wanted=config.prediction_sets)
    with open_session(config, plan) as session:
        facts = run_facts(config, engine, spec)
        session.begin("predict", run_identity(config, engine), output=spec.to_plain(), facts=facts)
        todo = still_to_do(plan, session.journal, verify=config.verify)
        with session.working_on(todo):
            Batches(config, engine, session).run(todo, len(plan.included), progress)
        return session.end(started, loaded=loaded, warnings=warnings)


def scans_finder(config: PredictConfig) -> FindScans:
    """What finds the scans that the modules take; that of projections where no module can be read."""
    try:
        folders = resolve_modules([_place_of(name, config) for name in config.modules])
        reads = [read for folder in folders if isinstance(read := read_manifest(folder).input, VolumeInput)]
    except ModuleError:  # said when the modules are loaded
        return resolve_inputs
    return SessionFinder(reads[0].modalities) if reads else resolve_inputs


def load_engine(config: PredictConfig) -> Engine:
    """Load the modules on the configured device."""
    folders = resolve_modules([_place_of(name, config) for name in config.modules])
    device = choose_device(config.device)
    prepare_device(device)
    precision, dimension = choose_precision(config.precision, device), read_manifest(folders[0]).network.dimension
    batch_size = choose_batch_size(config.batch_size, device, dimension)
    return Engine(folders, device, precision, batch_size, config.backend)


def _place_of(module: str, config: PredictConfig) -> str:
    """A module's folder if the name is a path from the run's base; else the name."""
    try:
        return str(folder) if ((folder := config.at(module)) / MANIFEST_NAME).is_file() else module
    except (OSError, ValueError):  # an invalid file name
        return module


def _refuse_options_of_bodies(config: PredictConfig) -> None:
    """Refuse what has no meaning for heads."""
    if config.projections is not None:
        raise UsageError("the modules take volumes, which are not projected; leave it out", field="projections")
    if config.swaps == "correct":
        raise UsageError("the modules take volumes without water and fat images; leave it out", field="swaps")


def check_cache(config: PredictConfig, recipe: ImageForm) -> None:
    """Refuse a cache folder that is a file or of another recipe, and for heads the options of bodies.

    Args:
        config: of the run.
        recipe: of the modules.

    Raises:
        UsageError: with the option's name.
    """
    if not isinstance(recipe, Recipe):
        _refuse_options_of_bodies(config)
        return
    if config.projections is None:
        return
    folder = config.at(config.projections)
    if folder.is_file():
        raise UsageError(f"{folder} is a file, expected a folder", field="projections")
    for path in islice(folder.glob("*.npy"), 1):
        try:
            load_projection(path, (recipe,))
        except ScanError:
            raise UsageError(
                f"{folder} holds projections of another recipe than the modules' {recipe.name} ({recipe.form}); "
                "choose another folder",
                field="projections",
            ) from None


def run_identity(config: PredictConfig, engine: Engine) -> dict[str, Any]:
    """All settings that affect the estimates; intervals, targets and formats may change between calls.

    Args:
        config: of the run.
        engine: the loaded modules.
    """
    names = [m.manifest.name for m in engine.modules]
    unique = [n if names.count(n) == 1 else f"{n} {m.hash[:8]}" for n, m in zip(names, engine.modules, strict=True)]
    together = {"combination": engine.combination_hash or "mixture"}
    return (
        config.base_identity(engine.recipe.name)
        | (together if engine.has_combined else {})
        | {
            "modules": {n: m.hash for n, m in zip(unique, engine.modules, strict=True)},
            "targets": [t.spec.name for t in engine.targets],
            "device": engine.device.type,
            "backends": {n: m.backend for n, m in zip(unique, engine.modules, strict=True)},
            "precision": engine.precision,
            "batch_size": engine.batch_size,
        }
        | ({"outliers": engine.outlier_hashes, "ood_threshold": config.ood_threshold} if engine.outlier_hashes else {})
    )


# -- computing ---------------------------------------------------------------------------------------------------------


@dataclass
class Batches:
    """Processes scans in batches; every batch is committed before the next."""

    config: PredictConfig
    engine: Engine
    session: Session
    _pending: tuple[list[tuple[ScanInput, Outcome]], Launched | None, list[JournalRow]] | None = None

    def run(self, todo: Sequence[ScanInput], total: int, progress: Progress | None) -> None:
        """Process all scans, or until asked to stop.

        Args:
            todo: scans to process.
            total: scans of the run, including finished ones.
            progress: called with finished, all and failed scans, or None.
        """
        config, engine = self.config, self.engine
        done, failures = total - len(todo), 0
        if config.projections is not None:
            config.at(config.projections).mkdir(parents=True, exist_ok=True)
        ready: list[tuple[ScanInput, Outcome]] = []
        broken: list[JournalRow] = []
        report = progress or (lambda *_: None)
        report(done, total, failures)
        jobs = [make_job(config, scan, engine.modules[0].manifest) for scan in todo]
        for scan, outcome in outcomes(jobs, config, self.session.stop):
            if outcome.image is None:
                failures += 1
                broken.append(journal_row(scan, outcome))
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
        """Launch a batch and commit it; on a GPU the previous one is committed while it runs."""
        launched = None
        if ready:
            launched = self.engine.launch([outcome.image for _, outcome in ready if outcome.image is not None])
        failures = self._commit() if self.engine.can_overlap else 0
        self._pending = (ready, launched, broken)
        return failures if self.engine.can_overlap else self._commit()

    def _commit(self) -> int:
        """Collect and commit the last launched batch; returns its number of failures."""
        if self._pending is None:
            return 0
        ready, launched, broken = self._pending
        self._pending = None
        rows = list(broken)
        failures = 0
        if launched is not None:
            values, masks = self.engine.collect(launched), self.engine.probabilities(launched)
            for k, ((scan, outcome), estimate) in enumerate(zip(ready, values, strict=True)):
                judged = _judge(outcome, estimate, self.engine, self.config)
                failures += judged.image is None
                if masks is not None and judged.image is not None and outcome.grid is not None:
                    write_mask(masks[k], outcome.grid, mask_path(self.config.out, scan.key.scan))
                rows.append(journal_row(scan, judged, b"" if judged.image is None else estimate.tobytes()))
        self.session.commit(rows)
        return failures


def _judge(outcome: Outcome, estimate: NDArray[np.float64], engine: Engine, config: PredictConfig) -> Outcome:
    """Fail estimates that are not finite; flag means outside their physical limits, and outliers.

    A 0/1 regression is reported as a clipped probability; its mean is slightly outside 0-1 in half the scans and is not
    flagged for that.
    """
    result = outcome.result
    if not np.isfinite(estimate).all():
        text = "the networks returned NaN or infinity; try precision fp32"
        return _refused(outcome, Reason.NON_FINITE_ESTIMATE, text)
    found = [
        (reason, text)
        for reason, text in (
            (Reason.MEAN_OUTSIDE_LIMITS, _outside_limits(estimate, engine.targets)),
            (Reason.IMPLAUSIBLE_ESTIMATES, _implausible(engine.contradictions(estimate))),
            (Reason.OUT_OF_DISTRIBUTION, _unlike(estimate, engine, config.ood_threshold)),
        )
        if text
    ]
    if not found:
        return outcome
    message = "; ".join(text for _, text in found)
    if config.reading.strict:
        return _refused(outcome, found[0][0], f"{message} (strict: a flag is a failure)")
    joined = "; ".join(part for part in (result.message, message) if part)
    return outcome.changed(
        status="flagged", reasons=(*result.reasons, *(reason for reason, _ in found)), message=joined
    )


def _outside_limits(estimate: NDArray[np.float64], targets: Sequence[OutputTarget]) -> str:
    """Names of the targets whose mean is outside, as a sentence; "" for none."""
    outside = [
        t.spec.name
        for t, mean in zip(targets, estimate[0 : 3 * len(targets) : 3], strict=True)
        if t.spec.kind == "continuous" and not _within(float(mean), t.spec.lower, t.spec.upper)
    ]
    return f"mean outside its physical limits: {', '.join(outside)}" if outside else ""


def _implausible(contradictions: Sequence[str]) -> str:
    """The first contradictions as a sentence; "" for none."""
    if not contradictions:
        return ""
    more = f" and {len(contradictions) - 3} more" if len(contradictions) > 3 else ""
    return f"estimates that contradict each other: {'; '.join(contradictions[:3])}{more}"


def _unlike(estimate: NDArray[np.float64], engine: Engine, threshold: float) -> str:
    """That the scan is an outlier, as a sentence; "" where it is not, or no module can tell."""
    if not engine.outlier_hashes or threshold >= 100.0 or estimate[-1] < threshold:
        return ""
    return f"more unusual than {estimate[-1]:.4g} % of ordinary scans (limit {threshold:g} %)"


def _refused(outcome: Outcome, reason: Reason, message: str) -> Outcome:
    """A scan that was read and projected but has no estimate."""
    return replace(outcome.changed(status="failed", reasons=(reason,), message=message), image=None)


def _within(value: float, lower: float | None, upper: float | None) -> bool:
    return (lower is None or value >= lower) and (upper is None or value <= upper)


# -- facts -------------------------------------------------------------------------------------------------------------


def run_facts(config: PredictConfig, engine: Engine, spec: OutputSpec) -> dict[str, Any]:
    """Content of ``run.json`` at the start of the run.

    Args:
        config: of the run.
        engine: the loaded modules.
        spec: layout of the tables.
    """
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
                # Whether the module saw a scan decides which analyses of its estimates are valid.
                "training": {k: v for k, v in m.manifest.training.items() if k in ("targets", "scans", "scan_list")},
            }
            for m in engine.modules
        ],
        "targets": [
            {"name": t.name, "unit": t.unit, "field": t.field, "kind": t.kind} for t in spec.targets
        ],
        "level": config.level,
        "level_name": config.level_name,
    }  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions that affect the numbers."""
    import platform
    from importlib.metadata import version

    names = ("torch", "torchvision", "numpy", "scipy", "pandas", "nibabel", "pydicom", "safetensors", "numba")
    return {"ukb-infer": __version__, "python": platform.python_version()} | {name: version(name) for name in names}
