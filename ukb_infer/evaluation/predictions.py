"""Predictions of any run: ours, out-of-fold ones, or the published system's ``predictions.csv`` (floor 3)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.errors import RunError, UsageError
from ukb_infer.evaluation.crossvalidation import is_cross_validation, read_cross_validation
from ukb_infer.labels.units import conversion
from ukb_infer.records import ScanKey
from ukb_infer.regression import gaussian_quantile, prediction_interval
from ukb_infer.targets import TARGETS, TargetSpec, find_target

Float64 = NDArray[np.float64]

_MIMIR_MEAN = re.compile(r"^(?P<name>.+)_mean_in_(?P<unit>.+)$")
#: Level of intervals where the predictions bring none of their own.
DEFAULT_LEVEL = 0.95


@dataclass(frozen=True)
class PredictedTarget:
    """(N,) arrays in the target's unit; NaN where a scan has no estimate."""

    spec: TargetSpec
    mean: Float64
    sd: Float64
    lower: Float64
    upper: Float64
    level: float


@dataclass(frozen=True)
class Predictions:
    """Estimates of a run.

    Attributes:
        source: what was read, for tables.
        keys: (N,) scans.
        targets: by name.
        warning: of the modules that made them, to be shown.
        notes: what was converted or left out on the way.
    """

    source: str
    keys: tuple[ScanKey, ...]
    targets: dict[str, PredictedTarget]
    warning: str = ""
    notes: tuple[str, ...] = field(default=())


def read_predictions(path: Path) -> Predictions:
    """Read predictions.

    Args:
        path: a folder of ``predict`` or ``cross-validate``, or a ``predictions.csv`` of the published system (or the
            folder that holds it).

    Raises:
        RunError: nothing of the kind, or damaged.
    """
    if path.is_dir() and is_cross_validation(path):
        return _from_cross_validation(path)
    if path.is_dir() and (path / "estimates.csv").is_file():
        return _from_run(path)
    table = path / "predictions.csv" if path.is_dir() else path
    if table.is_file():
        return _from_mimir(table)
    raise RunError(
        f"{path}: no predictions; expected a folder of `predict` or `cross-validate`, or a predictions.csv with the "
        "columns name, <Name>_mean_in_<Unit>, <Name>_variance_in_<Unit>"
    )


def _spec(name: str, facts: dict[str, Any]) -> TargetSpec:
    """Registry entry, or one made of what the run says about a target of the user's own."""
    if name in TARGETS:
        return TARGETS[name]
    kind: Literal["continuous", "binary"] = "binary" if facts.get("kind") == "binary" else "continuous"
    field, unit = str(facts.get("field", "")), str(facts.get("unit", ""))
    return TargetSpec(name, field, unit, "own", kind, facts.get("lower"), facts.get("upper"))


def _gaussian(spec: TargetSpec, mean: Float64, variance: Float64) -> PredictedTarget:
    sd = np.sqrt(variance)
    low, high = prediction_interval(mean, sd, gaussian_quantile(DEFAULT_LEVEL), spec.lower, spec.upper)
    return PredictedTarget(spec, mean, sd, low, high, DEFAULT_LEVEL)


def _from_cross_validation(folder: Path) -> Predictions:
    found = read_cross_validation(folder)
    total = found.predictions.total_variance
    targets = {
        facts["name"]: _gaussian(_spec(facts["name"], facts), found.predictions.mean[:, k], total[:, k])
        for k, facts in enumerate(found.facts["targets"])
    }
    return Predictions(f"cross-validation {folder}", found.keys, targets, str(found.facts.get("warning", "")))


def _from_run(folder: Path) -> Predictions:
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        text = {"eid": str, "instance": str, "array": str, "scan": str}
        table = pd.read_csv(folder / "estimates.csv", dtype=text, keep_default_na=False, na_values=[""])
        level, column = float(facts["level"]), str(facts["level_name"])
        targets = {}
        for target in facts["targets"]:
            name = target["name"]
            mean, sd, low, high = (
                np.asarray(table[f"{name}_{suffix}"], np.float64)
                for suffix in ("mean", "sd", f"{column}_lower", f"{column}_upper")
            )
            targets[name] = PredictedTarget(_spec(name, target), mean, sd, low, high, level)
        keys = tuple(ScanKey.from_name(str(scan).removeprefix("'")) for scan in table["scan"])
        warning = "; ".join(m["warning"] for m in facts.get("modules", []) if m.get("warning"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{folder}: damaged ({type(error).__name__}: {error}); run the same `predict` command again"
        ) from error
    return Predictions(f"run {folder}", keys, targets, warning)


def _from_mimir(path: Path) -> Predictions:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise RunError(f"{path}: cannot be read as a CSV table ({error})") from error
    names = [(c, m) for c in map(str, table.columns) if (m := _MIMIR_MEAN.match(c))]
    if "name" not in table.columns or not names:
        raise RunError(f"{path}: expected the columns name, <Name>_mean_in_<Unit>, <Name>_variance_in_<Unit>")
    targets, notes = {}, []
    for column, match in names:
        variance = f"{match['name']}_variance_in_{match['unit']}"
        spec = find_target(match["name"])
        if spec is None or variance not in table.columns:
            notes.append(f"{column}: no known target, left out" if spec is None else f"{variance} is missing, left out")
            continue
        factor = _unit_factor(spec, match["unit"], column, notes)
        mean, spread = (pd.to_numeric(table[c], errors="coerce").to_numpy(np.float64) for c in (column, variance))
        targets[spec.name] = _gaussian(spec, mean * factor, spread * factor * factor)
    keys = tuple(ScanKey.from_name(Path(str(name)).name.removesuffix(".zip")) for name in table["name"])
    return Predictions(f"published system's {path}", keys, targets, notes=tuple(notes))


def _unit_factor(spec: TargetSpec, unit: str, column: str, notes: list[str]) -> float:
    try:
        factor = conversion(spec, unit, column)
    except UsageError:
        return 1.0  # spelled differently: bpm, binary, years
    if factor != 1.0:
        notes.append(f"{column}: converted to {spec.unit}")
    return factor
