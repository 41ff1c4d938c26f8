"""``calibrate RUN --labels``: fit a module's calibration again, on labelled scans of where it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import RunError, ScanError, UsageError
from ukb_infer.imaging.datasets.cases import Case, read_cases
from ukb_infer.imaging.volumes.read import read_volume
from ukb_infer.labels import read_definitions, read_labels
from ukb_infer.labels.ids import participant_of
from ukb_infer.modules import Calibration, ModuleManifest, ModuleTarget, copy_module, find_module, read_manifest
from ukb_infer.modules import update_manifest as write_in_place
from ukb_infer.modules.calibration import half_width_of
from ukb_infer.modules.manifest import VolumeInput
from ukb_infer.records import ScanKey
from ukb_infer.regression import Mixture
from ukb_infer.runs import Run, read_run
from ukb_infer.targets import TARGETS, TargetSpec
from ukb_infer.training.calibrate import CalibratedTarget, check_method, fit_module
from ukb_infer.training.ensemble import UNCALIBRATED, UNCALIBRATED_CLASS

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RecalibrateConfig:
    """What to fit on.

    Attributes:
        run: folder of ``predict`` with this module alone, in its present state.
        module: name or folder.
        labels: table of labels; for heads also a folder of cases in the finetuning layout.
        out: folder of the new module; None changes the module in place.
        targets: names, empty for all that have labels.
        units, define: as for training.
        method: as for :func:`ukb_infer.training.calibrate.run_calibrate`.
        overwrite: replace an existing module in ``out``.
        dry_run: fit, but write nothing.
    """

    run: Path
    module: str | Path
    labels: Path
    out: Path | None = None
    targets: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    define: Path | None = None
    method: str = "conformal"
    overwrite: bool = False
    dry_run: bool = False


def run_recalibrate(config: RecalibrateConfig, say: Callable[[str], None] = print) -> list[CalibratedTarget]:
    """Fit intervals and probabilities on the estimates of a run and labels of its scans; weights and means stay.

    Of a participant with several scans the first counts, as the guarantee of conformal intervals is over participants.
    A target with too few labels for a 95 % interval keeps its calibration.

    Args:
        config: what to fit on.
        say: receives messages.

    Returns:
        What was fitted.

    Raises:
        UsageError: the run is of other modules, no scan has a label, or too few for every target; no such module, or
            ``out`` exists.
        RunError: the run has no estimates.
        ModuleError: it cannot be written.
    """
    check_method(config.method)
    home = find_module(config.module)
    manifest, run = read_manifest(home), read_run(config.run)
    _check_run(run, manifest)
    estimates, labels = _estimates(run, manifest), local_labels(config, run.keys, manifest, say)
    labels = one_scan_each(run.keys, np.where(np.isfinite(estimates.mean), labels, np.nan), say)
    calibrated, fitted = _fit(manifest, estimates, labels, config.method, say)
    done = [target for target in fitted if target.fitted]
    if not done:
        listed = "; ".join(f"{t.name}: {t.problem}" for t in fitted[:6] if t.labels)
        listed = listed or "no scan with an estimate has a label"
        raise UsageError(f"no target can be calibrated on {config.labels} ({listed})", field="labels")
    for target in done:
        place = manifest.target_names.index(target.name)
        say(_before(run, manifest.targets[place], calibrated.targets[place], labels[:, place]))
    if not config.dry_run:
        _write(home, calibrated, config, done)
    return done


def _check_run(run: Run, manifest: ModuleManifest) -> None:
    """Refuse estimates of anything but this module as it is."""
    _, facts = run.estimated
    made_by = [str(module.get("sha256")) for module in facts.modules]
    if made_by != [manifest.hash]:
        names = ", ".join(str(module.get("name")) for module in facts.modules) or "unknown modules"
        state = "in another state (calibrated since?)" if names == manifest.name else "or not by it alone"
        raise UsageError(
            f"{run.folder} was not made by {manifest.name} as it is, {state}: its modules are {names}; `predict` the "
            f"scans with {manifest.name} alone, then calibrate"
        )


def _estimates(run: Run, manifest: ModuleManifest) -> Mixture:
    """(N, T) means and calibrated variances of a run."""
    mean = np.full((len(run.keys), len(manifest.targets)), np.nan)
    variance = mean.copy()
    for target in run.estimated[1].targets:
        place, found = manifest.target_names.index(target.name), run.estimates(target.name)
        mean[:, place], variance[:, place] = found.mean, np.square(found.sd)
    return Mixture(mean, variance, np.zeros_like(variance))


def _fit(
    manifest: ModuleManifest, estimates: Mixture, labels: Float64, method: str, say: Callable[[str], None]
) -> tuple[ModuleManifest, list[CalibratedTarget]]:
    """The manifest with the calibrations that could be fitted, and all fits."""
    fresh, found = fit_module(manifest, estimates, labels, method=method, note="local labels")
    fitted = [replace(target, fitted=not target.problem) for target in found]  # a fit that has no interval is none
    targets = []
    for old, new, target in zip(manifest.targets, fresh.targets, fitted, strict=True):
        targets.append(replace(new, calibration=_after(old.calibration, new.calibration)) if target.fitted else old)
        if target.problem and target.labels:
            say(f"WARNING: {target.name}: {target.problem}; it keeps its calibration")
    without = [target.name for target in fitted if not target.labels]
    if without:
        more = f" and {len(without) - 6} more" if len(without) > 6 else ""
        say(f"without labels, so their calibration stays: {', '.join(without[:6])}{more}")
    return manifest.with_targets(targets), fitted


def _after(old: Calibration, new: Calibration) -> Calibration:
    """The new fit was made on variances that the old factor had multiplied."""
    return replace(new, factor=old.factor * new.factor)


def _before(run: Run, old: ModuleTarget, new: ModuleTarget, label: Float64) -> str:
    """How well the module was calibrated for these scans, and what changes."""
    found, level = run.estimates(old.name), run.estimated[1].level
    rows = np.isfinite(label) & np.isfinite(found.mean)
    if old.kind == "binary":
        mean = found.probability[rows].mean()
        return f"{old.name}: mean probability {mean:.2f} before, {label[rows].mean():.2f} of {rows.sum()} have it"
    inside = int(((label >= found.lower) & (label <= found.upper))[rows].sum())
    halves = [half_width_of(target.calibration, level) for target in (old, new)]
    if halves[0] is None:
        return f"{old.name}: no {100 * level:g} % interval before"
    words = f"{old.name}: {inside} of {rows.sum()} labels within the {100 * level:g} % interval before"
    if halves[1] is None:
        return words
    wider = halves[1] / halves[0] * float(np.sqrt(new.calibration.factor / old.calibration.factor))
    return f"{words}; intervals become {wider:.2f} times as wide"


def _write(home: Path, manifest: ModuleManifest, config: RecalibrateConfig, fitted: Sequence[CalibratedTarget]) -> None:
    """The module in place, or a copy with a name of its own."""
    warning = manifest.warning
    for note in (UNCALIBRATED, UNCALIBRATED_CLASS):
        warning = warning.replace(note, "")
    manifest = replace(manifest, warning=warning.strip())
    if config.out is None:
        write_in_place(home, manifest)
        return
    counts = ", ".join(f"{target.name} on {target.labels} local labels" for target in fitted)
    words = f"Calibrated again from {manifest.name}: {counts}."
    manifest = replace(manifest, name=config.out.name, provenance=f"{manifest.provenance} {words}".strip())
    copy_module(home, config.out, manifest, note=words, overwrite=config.overwrite)


# -- labels ------------------------------------------------------------------------------------------------------------


def local_labels(
    config: RecalibrateConfig, keys: Sequence[ScanKey], manifest: ModuleManifest, say: Callable[[str], None]
) -> Float64:
    """(N, T) labels of scans in natural units, NaN where missing.

    Args:
        config: where they are.
        keys: of the scans.
        manifest: of the module.
        say: receives counts.

    Raises:
        UsageError: unusable labels, or targets that the module does not have.
    """
    unknown = [name for name in config.targets if name not in manifest.target_names]
    if unknown:
        raise UsageError(field="targets", got=unknown[0], expected=f"one of {', '.join(manifest.target_names[:12])}")
    if config.labels.is_dir():
        for name in ("targets", "units", "define"):
            if getattr(config, name):
                raise UsageError("is for tables; a folder of cases says by itself what its labels are", field=name)
        return _from_folder(config.labels, keys, manifest)
    heads = isinstance(manifest.input, VolumeInput)  # their age is not the cohort's
    definitions = {t.name: _spec(t) for t in manifest.targets if heads or t.name not in TARGETS}
    definitions |= read_definitions(config.define) if config.define else {}
    wanted = config.targets or (manifest.target_names if len(manifest.targets) == 1 else ())
    labels = read_labels(config.labels, wanted, units=config.units, definitions=definitions)
    for summary in labels.summaries:
        say(str(summary))
    values = labels.matrix(keys)
    places = {name: k for k, name in enumerate(labels.targets)}
    nothing = np.full(len(keys), np.nan)
    return np.stack([values[:, places[n]] if n in places else nothing for n in manifest.target_names], axis=1)


def _spec(target: ModuleTarget) -> TargetSpec:
    return TargetSpec(target.name, target.field, target.unit, "own", target.kind, target.lower, target.upper)


def _from_folder(folder: Path, keys: Sequence[ScanKey], manifest: ModuleManifest) -> Float64:
    """Labels of cases: ``label.txt``, a column of ``participants.tsv``, or the volumes of ``seg.nii.gz``."""
    if not isinstance(manifest.input, VolumeInput):
        raise UsageError(field="labels", got=f"the folder {folder}", expected="a table, as the module takes bodies")
    segments = manifest.network.head == "segmentation"
    column = "" if segments else manifest.targets[0].name
    values = {}
    for case in read_cases(folder, manifest.input.modalities, column=column):
        name = "_".join(part for part in (case.participant, case.session) if part)
        values[name] = _volumes(case, len(manifest.targets)) if segments else [case.value]
    nothing = [None] * len(manifest.targets)
    return np.array([values.get(key.scan, nothing) for key in keys], np.float64).reshape(len(keys), -1)


def _volumes(case: Case, count: int) -> list[float | None]:
    """Volumes of the labels of an outline, ml."""
    if case.label is None or ".nii" not in case.label.name:
        return [None] * count
    try:
        return list(read_volume(case.label, labels=True).label_volumes_ml(count))
    except ScanError as error:
        raise RunError(f"{case.label}: {error}; repair or remove it") from error


def one_scan_each(keys: Sequence[ScanKey], labels: Float64, say: Callable[[str], None]) -> Float64:
    """Labels of each participant's first labelled scan; those of others become NaN.

    Args:
        keys: of the scans.
        labels: (N, T) NaN where missing.
        say: told how many were left out.
    """
    labels, seen, left_out = labels.copy(), set[str](), 0
    for row, key in enumerate(keys):
        if not np.isfinite(labels[row]).any():
            continue
        person = key.eid or participant_of(key.scan) or key.scan
        if person in seen:
            labels[row], left_out = np.nan, left_out + 1
        seen.add(person)
    if left_out:
        say(f"{left_out} further scans of the same participants are left out")
    return labels
