"""Predictions of any run: ours, out-of-fold ones, or the published system's ``predictions.csv``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import NotARunError, RunError, UsageError
from ukb_infer.evaluation.cross_validation import is_cross_validation, read_cross_validation
from ukb_infer.labels.ids import IdError, parse_id
from ukb_infer.labels.numbers import NumberError, read_numbers
from ukb_infer.labels.tables import Table, read_table
from ukb_infer.labels.units import UNITS, conversion, published_unit
from ukb_infer.records import ScanKey
from ukb_infer.regression import gaussian_quantile, prediction_interval
from ukb_infer.runs import read_run
from ukb_infer.runs.files import holds_estimates
from ukb_infer.targets import TARGETS, TargetSpec, find_target

Float64 = NDArray[np.float64]

_MIMIR_MEAN = re.compile(r"^(?P<name>.+)_mean_in_(?P<unit>.+)$")
#: Targets whose label unit in the published system is unknown.
_UNKNOWN_SOURCES = ("liverVolume", "kidneyParenchymalVolume", "DxaVatVolume")
#: Level of intervals for predictions without their own.
DEFAULT_LEVEL = 0.95


@dataclass(frozen=True)
class PredictedTarget:
    """(N,) arrays in the target's unit; NaN where a scan has no estimate.

    A binary target of a run has ``probability`` and no sd or interval (NaN); one of another source has None there.
    """

    spec: TargetSpec
    mean: Float64
    sd: Float64
    lower: Float64
    upper: Float64
    level: float
    probability: Float64 | None = None


@dataclass(frozen=True)
class Predictions:
    """Estimates of a run.

    Attributes:
        source: what was read, for tables.
        keys: (N,) scans.
        targets: by name.
        warning: of the modules that made them.
        notes: what was converted or ignored.
    """

    source: str
    keys: tuple[ScanKey, ...]
    targets: dict[str, PredictedTarget]
    warning: str = ""
    notes: tuple[str, ...] = field(default=())


def read_predictions(path: Path, divisors: Mapping[str, float] | None = None) -> Predictions:
    """Read predictions.

    Args:
        path: a folder of ``predict`` or ``cross-validate``, or a ``predictions.csv`` of the published system (or the
            folder that holds it).
        divisors: unit divisors of targets of the published system that are not known here.

    Raises:
        RunError: no predictions, or damaged ones.
        UsageError: a divisor that is not above 0, or not of a target in a table of the published system.
    """
    _check_divisors(path, divisors or {})
    if path.is_dir() and is_cross_validation(path):
        return _from_cross_validation(path)
    if path.is_dir() and holds_estimates(path):
        return _from_run(path)
    table = path / "predictions.csv" if path.is_dir() else path
    if table.is_file():
        return _from_mimir(table, divisors or {})
    raise NotARunError(
        f"{path}: no predictions; expected a folder of `predict` or `cross-validate`, or a predictions.csv with the "
        "columns name, <Name>_mean_in_<Unit>, <Name>_variance_in_<Unit>"
    )


def _check_divisors(path: Path, divisors: Mapping[str, float]) -> None:
    for name, value in divisors.items():
        if not 0 < value < np.inf:
            raise UsageError(f"`divisors` {name}={value:g}: expected a number above 0")
    ours = path.is_dir() and (is_cross_validation(path) or holds_estimates(path))
    if divisors and ours:
        raise UsageError(
            f"`divisors`: {path} is not a table of the published system: its variances need no correction, omit it"
        )


def _spec(name: str, facts: dict[str, Any], *, of_heads: bool = False) -> TargetSpec:
    """Registry entry, or one made from what the run says of a target that is user-defined or of heads.

    The registry's limits, such as plausible ages, are those of the cohort whose bodies were scanned.
    """
    if name in TARGETS and not of_heads:
        return TARGETS[name]
    kind: Literal["continuous", "binary"] = "binary" if facts.get("kind") == "binary" else "continuous"
    field, unit = str(facts.get("field", "")), str(facts.get("unit", ""))
    return TargetSpec(name, field, unit, "own", kind, facts.get("lower"), facts.get("upper"))


def _gaussian(spec: TargetSpec, mean: Float64, variance: Float64) -> PredictedTarget:
    sd = np.sqrt(np.where(variance >= 0, variance, np.nan))
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
    run = read_run(folder)
    _, facts = run.estimated
    targets = {}
    for target in facts.targets:
        found, spec = run.estimates(target.name), _spec(target.name, asdict(target), of_heads=facts.of_heads)
        targets[target.name] = PredictedTarget(
            spec, found.mean, found.sd, found.lower, found.upper, facts.level,
            found.probability if target.kind == "binary" else None,
        )  # fmt: skip
    return Predictions(f"run {folder}", run.keys, targets, facts.warning)


def _from_mimir(path: Path, divisors: Mapping[str, float]) -> Predictions:
    try:
        table = read_table(path, str(path), lambda column: column.lower() == "name")
    except UsageError as error:
        raise RunError(str(error)) from error
    columns = table.frame.columns
    names = [(c, m) for c in map(str, columns) if (m := _MIMIR_MEAN.match(c))]
    if "name" not in columns or not names:
        raise RunError(f"{path}: expected the columns name, <Name>_mean_in_<Unit>, <Name>_variance_in_<Unit>")
    targets, notes = {}, []
    corrected: dict[float, list[str]] = {}
    unknown: list[str] = []
    for column, match in names:
        variance = f"{match['name']}_variance_in_{match['unit']}"
        spec = find_target(match["name"])
        if spec is None or variance not in columns:
            notes.append(f"{column}: unknown target, ignored" if spec is None else f"{variance} is missing, left out")
            continue
        unit = published_unit(match["unit"])
        factor = _unit_factor(spec, unit, column, notes)
        mean, spread = (_published_numbers(path, table, c) for c in (column, variance))
        divisor = divisors.get(spec.name, published_divisor(spec, unit))
        if divisor is None:
            unknown.append(spec.name)
        elif divisor != 1.0:
            corrected.setdefault(divisor, []).append(spec.name)
        spread = spread / (np.nan if divisor is None else divisor)
        targets[spec.name] = _gaussian(spec, mean * factor, spread * factor * factor)
    strange = [name for name in divisors if name not in targets]
    if strange:
        raise UsageError(f"`divisors` {strange[0]}: {path} has no such target ({', '.join(list(targets)[:8])})")
    notes += [
        f"variances divided by {divisor:g} again, because the published system divides them only once: {', '.join(t)}"
        for divisor, t in corrected.items()
    ]
    if unknown:
        notes.append(
            f"no sd of {', '.join(unknown)}: the published system divides variances by its unit divisor only once, and "
            f"the divisor is unknown; give it with `divisors` {unknown[0]}=N (from the module's metadata.txt)"
        )
    keys = tuple(_named_scan(path, table.row_number(k), str(name)) for k, name in enumerate(table.frame["name"]))
    return Predictions(f"published system's {path}", keys, targets, notes=tuple(notes))


def _published_numbers(path: Path, table: Table, column: str) -> Float64:
    """(rows,) numbers of a column, NaN where missing or not finite."""
    try:
        found = read_numbers(table.frame[column].tolist(), decimal_comma=table.decimal_comma)
    except NumberError as error:
        raise RunError(f"{path}: row {table.row_number(error.row)}, column {column}: {error}") from None
    return np.where(np.isfinite(found.values), found.values, np.nan)


def _named_scan(path: Path, row: int, name: str) -> ScanKey:
    """Scan of a row, which may be named by a path."""
    try:
        named = parse_id(name)
    except IdError as problem:
        raise RunError(f"{path}: row {row}: name is {problem}") from None
    if named is None:
        raise RunError(f"{path}: row {row} has no name, expected the scan's name; complete or remove the row")
    return ScanKey(named.scan, None, None, named.scan) if named.eid else ScanKey.from_name(named.scan)


def published_divisor(spec: TargetSpec, unit: str) -> float | None:
    """Divisor of the published system between the unit of its labels and the unit of a column.

    UK Biobank's columns have the registry's units, except DXA masses, which are in grams. Targets without field and the
    DXA volume were labelled from other sources, whose unit is unknown.

    Args:
        spec: of the target.
        unit: as the column states it.

    Returns:
        The divisor; None if unknown.
    """
    if spec.group == "own" or spec.name in _UNKNOWN_SOURCES:
        return None
    by_dxa = spec.group.startswith("Body Composition, DXA")
    stored = "g" if by_dxa and spec.unit == "kg" else spec.unit
    unit = published_unit(unit)
    if unit == stored or UNITS.get(spec.unit, ("other",))[0] not in ("mass", "length", "volume"):
        return 1.0
    if unit != spec.unit:
        return None  # a unit that no published module uses
    return round(UNITS[spec.unit][1] / UNITS[stored][1], 9)


def _unit_factor(spec: TargetSpec, unit: str, column: str, notes: list[str]) -> float:
    try:
        factor = conversion(spec, unit, column)
    except UsageError:
        if spec.unit in UNITS and UNITS[spec.unit][0] in ("mass", "length", "volume"):
            notes.append(f"{column}: unknown unit {unit!r}; the means are assumed to be in {spec.unit}")
        return 1.0  # spelled differently: binary, per square metre
    if factor != 1.0:
        notes.append(f"{column}: converted to {spec.unit}")
    return factor
