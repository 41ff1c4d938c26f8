"""``calibrate``: fit the calibration of a module, or of several jointly, on out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.evaluation.cross_validation import CrossValidation, read_cross_validation
from ukb_infer.modules import Calibration, ModuleManifest, ModuleTarget, find_module, read_manifest, update_manifest
from ukb_infer.modules.calibration import METHODS, fit_target, half_width_of, labels_needed
from ukb_infer.modules.combination import combination_key, write_combination
from ukb_infer.records import ScanKey
from ukb_infer.regression import Mixture, calibrate, combine_modules
from ukb_infer.training.ensemble import UNCALIBRATED
from ukb_infer.training.recipe import recipe_differences

#: Default level of `predict`.
DEFAULT_LEVEL = 0.95


@dataclass(frozen=True)
class CalibratedTarget:
    """The fit of one target.

    Attributes:
        name: of the target.
        labels: number of labels used.
        factor: multiplies the variance.
        half_width95: half width of the 95 % interval in raw standard deviations (1.96 before calibration); NaN for a
            target without interval.
        binary: whether a probability was fitted instead of an interval.
        problem: why there is no interval or probability; "" if there is one.
        fitted: whether there is any calibration, possibly only for lower levels.
    """

    name: str
    labels: int
    factor: float
    half_width95: float
    binary: bool = False
    problem: str = ""
    fitted: bool = True


def run_calibrate(
    folder: Path,
    module: str | Path,
    *,
    method: str = "conformal",
    accept: Sequence[str] = (),
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> list[CalibratedTarget]:
    """Fit and write the calibration of every target of a module.

    A target with too few labels for a level has no interval at that level; other targets are unaffected.

    Args:
        folder: of ``cross-validate``.
        module: name or folder; its manifest is replaced.
        method: ``conformal`` (cross-conformal half widths on residuals divided by the predicted sd), or a variance
            factor alone: ``coverage`` (as published: no signed area under the calibration curve) or ``closed-form``
            (minimal NLL). Binary targets get a calibrated probability (Platt or isotonic) in any case.
        accept: names of settings in which the cross-validated networks may differ from the module's.
        dry_run: fit, but write nothing.
        say: receives messages.

    Returns:
        What was fitted.

    Raises:
        UsageError: an unknown method, too few labels of every target, targets that were not cross-validated, or
            networks of another kind than the module's.
        RunError: the folder is damaged.
        ModuleError: no module, or it cannot be written.
    """
    check_method(method)
    home = find_module(module)
    manifest = read_manifest(home)
    found = _read(folder, manifest, accept, say)
    places = [found.targets.index(target.name) for target in manifest.targets]
    note = f"out-of-fold predictions, {found.facts['folds']} folds by participant"
    calibrated, fitted = fit_module(
        manifest, found.predictions.select((slice(None), places)), found.labels[:, places], method=method, note=note
    )
    _tell(fitted, folder, say)
    if not dry_run:
        update_manifest(home, replace(calibrated, warning=manifest.warning.replace(UNCALIBRATED, "").strip()))
    return fitted


def fit_module(
    manifest: ModuleManifest, predictions: Mixture, labels: NDArray[np.float64], *, method: str = "conformal", note: str
) -> tuple[ModuleManifest, list[CalibratedTarget]]:
    """Fit the calibration of every target on predictions for scans that no network saw.

    Args:
        manifest: of the module, uncalibrated.
        predictions: (N, T) in natural units, targets as in the manifest.
        labels: (N, T) in natural units, NaN where missing.
        method: as for :func:`run_calibrate`.
        note: description of the data, for the manifest; the number of labels is prepended.

    Returns:
        The manifest with calibrations, and the fits; a target that cannot be fitted says why.
    """
    targets, fitted = [], []
    for k, target in enumerate(manifest.targets):
        mean, variance = predictions.mean[:, k], predictions.total_variance[:, k]
        calibration, result = _fit(target, labels[:, k], mean, variance, method, note)
        targets.append(replace(target, calibration=calibration))
        fitted.append(result)
    return manifest.with_targets(targets), fitted


def run_combine(
    folders: Sequence[Path],
    modules: Sequence[str | Path],
    *,
    method: str = "conformal",
    accept: Sequence[str] = (),
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> list[CalibratedTarget]:
    """Fit a joint calibration of modules that predict the same targets, and write it next to each of them.

    The modules' out-of-fold predictions are combined as ``predict`` combines estimates, on the scans that all folders
    have; the calibration is fitted on the result. It is valid for exactly these modules in their present state.

    Args:
        folders: of ``cross-validate``, one per module.
        modules: names or folders, in the order of the folders.
        method: as for :func:`run_calibrate`.
        accept: as for :func:`run_calibrate`, for all modules.
        dry_run: fit, but write nothing.
        say: receives messages.

    Returns:
        The fits, for targets of two or more of the modules.

    Raises:
        UsageError: as for :func:`run_calibrate`; or folders and modules do not match, share no target or no scan, or
            have different labels.
        RunError: a folder is damaged.
        ModuleError: no module, or it cannot be written.
    """
    check_method(method)
    if len(folders) != len(modules) or len(modules) < 2:
        raise UsageError(
            f"got {len(folders)} folders of cross-validate and {len(modules)} modules, expected two or more of each, "
            "in the same order",
            field="combine",
        )
    homes = [find_module(m).resolve() for m in modules]
    manifests = [read_manifest(home) for home in homes]
    if len({m.hash for m in manifests}) != len(manifests):
        raise UsageError("the same module is given twice; give every module once", field="combine")
    pairs = zip(folders, manifests, strict=True)
    sources = [_Source(folder, _read(folder, manifest, accept, say), manifest) for folder, manifest in pairs]
    names = [t.name for m in manifests for t in m.targets]
    shared = [n for n in dict.fromkeys(names) if names.count(n) > 1]
    if not shared:
        raise UsageError("no target is predicted by two of the modules; calibrate each on its own", field="combine")
    fitted, groups = [], dict[tuple[int, ...], dict[str, Calibration]]()
    for name in shared:
        having = tuple(k for k, s in enumerate(sources) if name in {t.name for t in s.manifest.targets})
        calibration, result = _fit_together(name, [sources[k] for k in having], method)
        groups.setdefault(having, {})[name] = calibration
        fitted.append(result)
    _tell(fitted, folders[0], say)
    if not dry_run:
        for having, calibrations in groups.items():
            key = combination_key([manifests[k].hash for k in having])
            write_combination([homes[k] for k in having], key, calibrations)
    return fitted


@dataclass(frozen=True)
class _Source:
    """Out-of-fold predictions and their module."""

    folder: Path
    found: CrossValidation
    manifest: ModuleManifest

    def target(self, name: str) -> ModuleTarget:
        """Of the module."""
        return next(t for t in self.manifest.targets if t.name == name)

    def estimates(self, name: str, keys: Sequence[ScanKey]) -> tuple[Mixture, np.ndarray]:
        """The target's out-of-fold predictions, calibrated as the module is, and its labels.

        Args:
            name: of the target.
            keys: scans, in this order.
        """
        place = self.found.targets.index(name)
        rows = {key: row for row, key in enumerate(self.found.keys)}
        chosen = np.array([rows[key] for key in keys])
        factor = np.asarray(self.target(name).calibration.factor)
        return calibrate(self.found.predictions.select((chosen, place)), factor), self.found.labels[chosen, place]


def _fit_together(name: str, sources: Sequence[_Source], method: str) -> tuple[Calibration, CalibratedTarget]:
    """Fit one target of several modules on the scans that all their folders have."""
    common = set(sources[0].found.keys).intersection(*(s.found.keys for s in sources[1:]))
    keys = [k for k in sources[0].found.keys if k in common]
    if not keys:
        listed = ", ".join(str(s.folder) for s in sources)
        raise UsageError(f"{listed} have no scan in common; cross-validate the modules on the same scans")
    parts, labels = zip(*(s.estimates(name, keys) for s in sources), strict=True)
    for source, other in zip(sources[1:], labels[1:], strict=True):
        differ = ~np.isclose(labels[0], other, rtol=1e-6, equal_nan=True)
        if differ.any():
            raise UsageError(
                f"the labels of {name} differ between {sources[0].folder} and {source.folder} for "
                f"{int(differ.sum())} of {len(keys)} scans; cross-validate the modules on the same labels"
            )
    whole = combine_modules(list(parts), [len(s.manifest.members) for s in sources])
    note = f"out-of-fold predictions of {len(sources)} modules together"
    return _fit(sources[0].target(name), labels[0], whole.mean, whole.total_variance, method, note)


def _fit(
    target: ModuleTarget, label: np.ndarray, mean: np.ndarray, variance: np.ndarray, method: str, note: str
) -> tuple[Calibration, CalibratedTarget]:
    """Calibration of one target, and its summary."""
    binary = target.kind == "binary"
    calibration, problem = fit_target(label, mean, variance, binary=binary, method=method, note=note)
    fitted, count = not problem, int(np.isfinite(label).sum())
    half = None if binary else half_width_of(calibration, DEFAULT_LEVEL)
    if half is None and not binary and not problem:
        highest = 100 * calibration.half_widths[-1][0]
        problem = (
            f"{count} labels support intervals up to {highest:g} %; {100 * DEFAULT_LEVEL:g} % needs "
            f"{labels_needed(DEFAULT_LEVEL)}"
        )
    width = np.nan if half is None else half * float(np.sqrt(calibration.factor))
    return calibration, CalibratedTarget(target.name, count, calibration.factor, width, binary, problem, fitted)


def check_method(method: str) -> None:
    """Refuse an unknown method.

    Raises:
        UsageError: it is none of :data:`ukb_infer.modules.calibration.METHODS`.
    """
    if method not in METHODS:
        raise UsageError(field="method", got=method, expected=" or ".join(METHODS))


def _tell(fitted: Sequence[CalibratedTarget], folder: Path, say: Callable[[str], None]) -> None:
    """Refuse if nothing can be calibrated; warn of every target that `predict` will leave empty."""
    if not any(f.fitted for f in fitted):
        listed = "; ".join(f"{f.name}: {f.problem}" for f in fitted[:6])
        raise UsageError(f"{folder}: no target can be calibrated ({listed})")
    for f in fitted:
        if f.problem:
            what = "no calibrated probability" if f.binary else f"no {100 * DEFAULT_LEVEL:g} % interval"
            say(f"WARNING: {f.name} gets {what}: {f.problem}")


def _read(folder: Path, manifest: ModuleManifest, accept: Sequence[str], say: Callable[[str], None]) -> CrossValidation:
    """Read out-of-fold predictions and check that they fit the module."""
    found = read_cross_validation(folder)
    _check_targets(found, manifest, folder)
    _check_recipe(found, manifest, folder, accept, say)
    return found


def _check_targets(found: CrossValidation, manifest: ModuleManifest, folder: Path) -> None:
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


def _check_recipe(
    found: CrossValidation, manifest: ModuleManifest, folder: Path, accept: Sequence[str], say: Callable[[str], None]
) -> None:
    """Refuse to calibrate with the errors of networks made differently.

    Raises:
        UsageError: names every difference that was not accepted.
    """
    differences = recipe_differences(found.facts.get("recipe") or {}, manifest.training)
    for name in accept:
        if name not in differences:
            known = f"they differ in {', '.join(differences)}" if differences else "nothing differs"
            raise UsageError(f"{name!r} does not differ ({known})", field="accept")
        say(f"difference accepted: {name}: {differences[name]}")
    refused = {name: words for name, words in differences.items() if name not in accept}
    if refused:
        listed = "; ".join(f"{name}: {words}" for name, words in refused.items())
        options = " ".join(f"`accept` {name}" for name in refused)
        raise UsageError(
            f"the networks of {folder} were made differently from those of {manifest.name} ({listed}), so their errors "
            "may differ too: cross-validate with the settings of `train`, or accept the difference with "
            f"{options}"
        )
