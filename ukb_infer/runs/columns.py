"""The columns of the estimates: how stored results become text, and their meaning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import RunError
from ukb_infer.regression import prediction_interval
from ukb_infer.regression.probability import apply_curve, prediction_set
from ukb_infer.regression.quantiles import Shape, mixture_interval
from ukb_infer.storage import from_plain

Float64 = NDArray[np.float64]


#: Column of the outlier percentile.
OOD_PERCENTILE = "ood_percentile"


@dataclass(frozen=True)
class Column:
    """A column of ``estimates.csv`` and its line in ``dictionary.csv``."""

    name: str
    meaning: str
    unit: str = ""
    field: str = ""
    target: str = ""


@dataclass(frozen=True)
class WrittenPart:
    """The contribution of one module to a target.

    Attributes:
        weight: its members.
        levels: of its half widths, ascending; empty for a Gaussian.
        widths: half widths at those levels, in standard deviations.
        curve: (mean, probability) knots of a binary target; empty if its probability is not calibrated.
    """

    weight: float
    levels: tuple[float, ...] = ()
    widths: tuple[float, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class WrittenTarget:
    """A target of the tables.

    Attributes:
        name, unit, field, kind, lower, upper: as in the module.
        half_width: of its intervals, in total standard deviations; None if there is none.
        interval: description of the interval or probability, or why there is none, for the dictionary.
        parts: contributions of the modules, for mixtures and probabilities.
        tail: offset of the modules' own means and variances after the stored targets; -1 for a single module.
        sets: lowest probability with which class 0 and class 1 are in the prediction set; None without sets.
    """

    name: str
    unit: str
    field: str
    kind: str
    lower: float | None
    upper: float | None
    half_width: float | None
    interval: str = ""
    parts: tuple[WrittenPart, ...] = ()
    tail: int = -1
    sets: tuple[float, float] | None = None

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval at the run's level."""
        return self.kind != "binary" and (self.half_width is not None or self.tail >= 0)


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """Layout of the tables, stored in the journal.

    Attributes:
        stored: names of the targets in the order of the stored results.
        targets: to be written.
        level: of the intervals; ``level_name``: as in the columns.
        uncertainty: total or full.
        parquet: also write Parquet.
        outliers: what the outlier percentile is, or why there is none; "" in runs from before there was one.
        has_percentile: whether it is the last of a scan's stored numbers.
    """

    stored: tuple[str, ...]
    targets: tuple[WrittenTarget, ...]
    level: float
    level_name: str
    uncertainty: str
    parquet: bool
    outliers: str = ""
    has_percentile: bool = False

    def to_plain(self) -> dict[str, Any]:
        """Values for the journal."""
        return asdict(self)

    @classmethod
    def from_journal(cls, plain: dict[str, Any]) -> OutputSpec:
        """Read from the journal, also of earlier versions.

        Raises:
            RunError: it is damaged.
        """
        try:
            return from_plain(cls, plain)
        except ValueError as error:
            raise RunError(f"the journal's layout of the tables is damaged ({error}); use `overwrite`") from error


def estimate_columns(spec: OutputSpec) -> list[Column]:
    """Columns after the key, with their lines of the dictionary."""
    columns = []
    if spec.outliers:
        meaning = "share of ordinary scans that are less unusual to the networks than this one"
        columns.append(Column(OOD_PERCENTILE, f"{meaning}; {spec.outliers}", "%"))
    for target in spec.targets:
        entries = _binary_entries(target) if target.kind == "binary" else _continuous_entries(spec, target)
        name, field = target.name, target.field
        columns += [Column(f"{name}_{s}", f"{name}: {meaning}", unit, field, name) for s, meaning, unit in entries]
    return columns


def _continuous_entries(spec: OutputSpec, target: WrittenTarget) -> list[tuple[str, str, str]]:
    """(suffix, meaning, unit) of every column."""
    percent = f"{100 * spec.level:g} %"
    note = _limits_text(target.lower, target.upper) + (f"; {target.interval}" if target.interval else "")
    entries = [
        ("mean", "estimate (mean of the predictive distribution); never clipped"),
        ("sd", "total standard deviation of the predictive distribution"),
        (f"{spec.level_name}_lower", f"lower end of the {percent} prediction interval{note}"),
        (f"{spec.level_name}_upper", f"upper end of the {percent} prediction interval{note}"),
    ]
    if spec.uncertainty == "full":
        entries += [
            ("sd_aleatoric", "part of the sd from the members' own variances (noise in the data)"),
            ("sd_epistemic", "part of the sd from the spread between members (what the networks do not know)"),
        ]
    return [(suffix, meaning, target.unit) for suffix, meaning in entries]


def _binary_entries(target: WrittenTarget) -> list[tuple[str, str, str]]:
    """As above, for a 0/1 target: a probability instead of an interval."""
    entries = [
        ("mean", "raw output of the 0/1 regression; for ranking, not a probability", target.unit),
        ("probability", f"probability of 1; {target.interval or 'not calibrated: the mean clipped to 0-1'}", ""),
        ("class", "1 if the probability is at least 0.5", ""),
    ]
    if target.sets is not None:
        words = (
            "classes that cannot be ruled out at the run's level (0, 1, 0;1 or none), by class-conditional conformal"
        )
        entries.append(("set", f"{words} prediction", ""))
    return entries


def format_float32(value: float) -> str:
    """Shortest decimal that reproduces the float32; empty for NaN."""
    return "" if np.isnan(value) else str(np.float32(value))


def _limits_text(lower: float | None, upper: float | None) -> str:
    if lower is None and upper is None:
        return ""
    low, high = "-" if lower is None else f"{lower:g}", "-" if upper is None else f"{upper:g}"
    return f", clipped to the physical limits [{low}, {high}]"


def _continuous_cells(spec: OutputSpec, target: WrittenTarget, first: int, values: Float64) -> list[list[str]]:
    """Cells of a continuous target for every scan. ``first`` is the index of its mean in ``values``."""
    mean, aleatoric, epistemic = values[:, first : first + 3].T
    sd = np.sqrt(aleatoric + epistemic)
    low, high = np.full((2, len(mean)), np.nan)
    if target.half_width is not None:
        low, high = prediction_interval(mean, sd, target.half_width, target.lower, target.upper)
    elif target.tail >= 0:
        own = values[:, target.tail : target.tail + 2 * len(target.parts)]
        shapes = [Shape(part.levels, part.widths, part.weight) for part in target.parts]
        ends = mixture_interval(own[:, 0::2].T, np.sqrt(own[:, 1::2].T), shapes, spec.level)
        low, high = (np.clip(end, target.lower, target.upper) for end in ends)
    columns = [mean, sd, low, high]
    if spec.uncertainty == "full":
        columns += [np.sqrt(aleatoric), np.sqrt(epistemic)]
    return [[format_float32(v) for v in column] for column in columns]


def _binary_cells(target: WrittenTarget, first: int, values: Float64) -> list[list[str]]:
    """Cells of a 0/1 target. The probability is the average of the modules', weighted by members."""
    mean = values[:, first]
    parts = target.parts or (WrittenPart(1.0),)
    means = [mean] if target.tail < 0 else [values[:, target.tail + 2 * k] for k in range(len(parts))]
    weights = [part.weight for part in parts]
    probability = np.average(
        [apply_curve(p.curve, m) for p, m in zip(parts, means, strict=True)], axis=0, weights=weights
    )
    columns = [[format_float32(v) for v in mean], [format_float32(v) for v in probability]]
    columns.append([str(int(v >= 0.5)) for v in probability])
    if target.sets is not None:
        columns.append([prediction_set(float(v), *target.sets) for v in probability])
    return columns


def estimate_cells(spec: OutputSpec, values: Float64) -> list[tuple[str, ...]]:
    """Cells of some scans, one row per scan.

    Args:
        spec: of the columns.
        values: (N, stored numbers), natural units: mean, aleatoric and epistemic variance of each stored target, then
            mean and variance by module of targets with several modules, and last the outlier percentile if any.
    """
    place = {name: 3 * k for k, name in enumerate(spec.stored)}
    columns: list[list[str]] = []
    if spec.outliers:
        columns.append([f"{v:.4g}" if spec.has_percentile and np.isfinite(v) else "" for v in values[:, -1]])
    for target in spec.targets:
        first = place[target.name]
        if target.kind == "binary":
            columns += _binary_cells(target, first, values)
        else:
            columns += _continuous_cells(spec, target, first, values)
    return list(zip(*columns, strict=True))
