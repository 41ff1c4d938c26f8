"""``calibrate``: fit a module's calibration on out-of-fold predictions (floor 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ukb_infer.errors import UsageError
from ukb_infer.evaluation.crossvalidation import CrossValidation, read_cross_validation
from ukb_infer.modules import Calibration, ModuleManifest, ModuleTarget, find_module, read_manifest, update_manifest
from ukb_infer.regression import (
    conformal_table,
    gaussian_quantile,
    variance_factor_closed_form,
    variance_factor_coverage,
)
from ukb_infer.training.run import UNCALIBRATED

#: The conformal method also scales the variance, by coverage, so that the sd in the tables is calibrated as well.
METHODS = ("conformal", "coverage", "closed-form")


@dataclass(frozen=True)
class CalibratedTarget:
    """What was fitted for one target.

    Attributes:
        name: of the target.
        labels: number of labels used.
        factor: multiplies the variance.
        half_width95: half width of the 95 % interval in raw standard deviations (1.96 before calibration).
    """

    name: str
    labels: int
    factor: float
    half_width95: float


def run_calibrate(
    folder: Path,
    module: str | Path,
    *,
    method: str = "conformal",
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> list[CalibratedTarget]:
    """Fit and write the calibration of every target of a module.

    Args:
        folder: of ``cross-validate``.
        module: name or folder; its manifest is replaced.
        method: ``conformal`` (cross-conformal half widths on residuals divided by the predicted sd), or a variance
            factor alone: ``coverage`` (published: no signed area under the calibration curve) or ``closed-form``
            (minimal NLL).
        dry_run: fit, but write nothing.
        say: receives lines for people.

    Returns:
        What was fitted.

    Raises:
        UsageError: an unknown method, too few labels, or targets that were not cross-validated.
        RunError: the folder is damaged.
        ModuleError: no module, or it cannot be written.
    """
    if method not in METHODS:
        raise UsageError(f"--method: got {method!r}, expected {', '.join(METHODS)}")
    found = read_cross_validation(folder)
    home = find_module(module)
    manifest = read_manifest(home)
    _check(found, manifest, folder, say)
    fitted, targets = [], []
    for target in manifest.targets:
        calibrated, result = _fit(found, target, method)
        targets.append(calibrated)
        fitted.append(result)
    warning = manifest.warning.replace(UNCALIBRATED, "").strip()
    if not dry_run:
        update_manifest(home, replace(manifest, targets=tuple(targets), warning=warning))
    return fitted


def _check(found: CrossValidation, manifest: ModuleManifest, folder: Path, say: Callable[[str], None]) -> None:
    missing = [t.name for t in manifest.targets if t.name not in found.targets]
    if missing:
        raise UsageError(
            f"{folder} has no predictions of {', '.join(missing[:6])}; cross-validate all of the module's targets"
        )
    units = {t["name"]: t["unit"] for t in found.facts["targets"]}
    for target in manifest.targets:
        if units[target.name] != target.unit:
            raise UsageError(
                f"{target.name}: cross-validated in {units[target.name]!r}, the module has {target.unit!r}"
            )
    members = len(manifest.members)
    if found.members != members:
        say(
            f"note: out-of-fold predictions are mixtures of {found.members} network(s), the module's of {members}; "
            f"intervals are exact for equal numbers and too wide for more. `cross-validate --members {members}` makes "
            "them alike"
        )
    backbone = found.facts.get("config", {}).get("backbone")
    if backbone != manifest.backbone:
        say(f"note: cross-validated with {backbone}, the module is {manifest.backbone}: they fit another network")


def _fit(found: CrossValidation, target: ModuleTarget, method: str) -> tuple[ModuleTarget, CalibratedTarget]:
    place = found.targets.index(target.name)
    label, mean = found.labels[:, place], found.predictions.mean[:, place]
    variance = found.predictions.total_variance[:, place]
    count = int(np.isfinite(label).sum())
    note = f"{count} out-of-fold predictions, {found.facts['folds']} folds by participant"
    try:
        fit = variance_factor_closed_form if method == "closed-form" else variance_factor_coverage
        factor = fit(label, mean, variance)
        half = gaussian_quantile(0.95) * float(np.sqrt(factor))
        calibration = Calibration("variance-factor", factor, (), note)
        if method == "conformal":
            widths = conformal_table(label, mean, variance * factor)
            calibration = Calibration("conformal", factor, tuple(sorted(widths.items())), note)
            half = widths.get(0.95, float("inf")) * float(np.sqrt(factor))
    except UsageError as error:
        raise UsageError(f"{target.name}: {error}") from error
    return replace(target, calibration=calibration), CalibratedTarget(target.name, count, calibration.factor, half)
