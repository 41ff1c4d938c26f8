"""Check that labels are in their declared unit, by the distribution of each column.

A column can be in another unit entirely (all masses in grams) or partly (a third of the rows in grams, from another
site or year), or hold something else. All are refused: a label 1,000 times too large dominates what a network learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ukb_infer.labels.units import UNITS, density_hint
from ukb_infer.targets import TargetSpec

Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Powers of ten reported for a median that no unit explains.
FACTORS = (10.0, 100.0, 1000.0, 1e4, 1e5, 1e6)
#: Units that nobody uses for single values: a value that only they explain is an outlier.
_RARE = frozenset({"dL", "permille", "lb", "in", "L/L"})
#: Up to this share of values in the declared unit, the whole column counts as in the other unit.
_FEW = 0.02
#: Largest number and share of implausible values that count as outliers.
_FEW_OUTLIERS, _MOST_OUTLIERS = 2, 0.1
#: Fewest values of a group, and largest share of values between two groups in different units.
_LEAST_GROUP, _MOST_BETWEEN = 3, 0.25
#: Fewest percentages, all at most 1, that count as fractions.
_LEAST_SHARES = 5
_SHOWN_ROWS = 5


@dataclass(frozen=True)
class DeclaredUnit:
    """Unit of a column: its name and the factor to the target's unit."""

    name: str
    factor: float = 1.0


@dataclass(frozen=True)
class _Column:
    """A column to check; ``raw`` (rows,) as written, NaN where missing."""

    spec: TargetSpec
    name: str
    raw: Float64
    unit: DeclaredUnit
    first_row: int

    @property
    def values(self) -> Float64:
        """(rows,) in the target's unit."""
        return self.raw * self.unit.factor

    @property
    def range(self) -> tuple[float, float]:
        """Plausible values."""
        assert self.spec.plausible_min is not None
        assert self.spec.plausible_max is not None
        return self.spec.plausible_min, self.spec.plausible_max

    @property
    def expected(self) -> str:
        """The plausible range in words."""
        low, high = self.range
        return f"expected {low:g} to {high:g} {self.spec.unit}"

    def inside(self, values: Float64) -> Mask:
        """Which of ``values``, in the target's unit, are plausible."""
        low, high = self.range
        return (values >= low) & (values <= high)


def find_implausible(spec: TargetSpec, column: str, raw: Float64, unit: DeclaredUnit, first_row: int = 2) -> str:
    """Check the distribution of a column.

    Args:
        spec: target with its plausible range; without one nothing is checked.
        column: name in the file.
        raw: (rows,) values as written, NaN where missing.
        unit: declared unit.
        first_row: number of the first row in the file.

    Returns:
        The problem: another unit, mixed units, too many implausible values; "" if there is none.
    """
    if spec.is_binary or spec.plausible_min is None or spec.plausible_max is None or not np.isfinite(raw).any():
        return ""
    judged = _Column(spec, column, raw, unit, first_row)
    return _in_two_units(judged) or _in_another_unit(judged) or _too_many_outliers(judged)


def _other_units(column: _Column, *, rare: bool) -> list[tuple[str, float]]:
    """(name, factor to the target's unit) of other units that the values may be in, each size once."""
    own = UNITS.get(column.spec.unit)
    found: dict[float, str] = {}
    for name, (kind, size) in UNITS.items():
        if own is not None and kind == own[0] and (rare or name not in _RARE):
            found.setdefault(size / own[1], name)
    return [(name, factor) for factor, name in found.items() if not np.isclose(factor, column.unit.factor)]


# -- two units ---------------------------------------------------------------------------------------------------------


def _in_two_units(column: _Column) -> str:
    """Message for a column with mixed units."""
    for name, factor in _other_units(column, rare=False):
        others = _outside_but_fitting(column, factor)
        own = column.inside(column.values)
        if not others.any() or own.sum() <= _FEW * (own.sum() + others.sum()):
            others = _far_group(column, factor)
            own = np.isfinite(column.raw) & ~others
        if others.any() and own.any():
            rows = np.flatnonzero(others if others.sum() <= own.sum() else own)
            return (
                f"column {column.name} has mixed units: {own.sum()} values of {column.spec.name} seem to be in "
                f"{column.unit.name} and {others.sum()} in {name} (the smaller group: {_rows(column, rows)}), "
                f"{column.expected}; convert them to one unit, or empty these cells{_hint(column)}"
            )
    return ""


def _rows(column: _Column, places: Sequence[int] | NDArray[np.int64]) -> str:
    shown = ", ".join(str(column.first_row + int(k)) for k in places[:_SHOWN_ROWS])
    return f"row{'s' if len(places) > 1 else ''} {shown}{' ...' if len(places) > _SHOWN_ROWS else ''}"


def _outside_but_fitting(column: _Column, factor: float) -> Mask:
    """(rows,) values that are implausible, but plausible and closer to the rest in another unit."""
    values, converted = column.values, column.raw * factor
    inside = column.inside(values)
    found = np.asarray(~inside & column.inside(converted) & (values > 0), bool)
    middle = float(np.median(values[inside])) if inside.any() else 0.0
    if found.any() and middle > 0:
        logs, centre, shift = _logs(values), np.log(middle), np.log(factor / column.unit.factor)
        found &= np.abs(logs + shift - centre) < np.abs(logs - centre)
        if _between(logs, centre, shift) > _MOST_BETWEEN * found.sum():  # the tail of one group
            found[:] = False
    return found


def _logs(values: Float64) -> Float64:
    """(rows,) natural logarithms, NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    return np.where(np.isfinite(logs), logs, np.nan)


def _between(logs: Float64, centre: float, shift: float) -> int:
    """Values midway between a group and its position in another unit."""
    return int((np.abs(logs - (centre - shift / 2)) < np.abs(shift) / 12).sum())


def _far_group(column: _Column, factor: float) -> Mask:
    """(rows,) values that form a separate group at the distance of another unit; used if the range does not decide.

    Ranges that begin at 0, such as liver fat in percent, include fractions too. Two units show as two groups whose
    distance on the logarithmic scale is that of the units, with almost nothing midway between them; one group with a
    long tail has as many values there as beyond.
    """
    logs, shift = _logs(column.values), np.log(factor / column.unit.factor)
    positive = np.isfinite(logs)
    nothing = np.zeros(column.raw.shape, bool)
    for start in (np.nanmedian(logs), np.nanmedian(logs) + shift) if positive.any() else ():
        centre, others = float(start), nothing
        for _ in range(20):
            before, others = others, np.asarray(np.abs(logs + shift - centre) < np.abs(logs - centre), bool)
            if np.array_equal(before, others):
                break
            centre = float(np.median(np.where(others, logs + shift, logs)[positive]))
        smaller = min(others.sum(), (positive & ~others).sum())
        if (
            smaller >= max(_LEAST_GROUP, 0.01 * positive.sum())
            and _between(logs, centre, shift) <= _MOST_BETWEEN * smaller
            and column.inside(column.raw * factor)[others].mean() >= 1 - _MOST_OUTLIERS
        ):
            return others
    return nothing


# -- one other unit ----------------------------------------------------------------------------------------------------


def _in_another_unit(column: _Column) -> str:
    """Message for a column whose median is implausible, with the unit that explains it, if any."""
    finite = column.raw[np.isfinite(column.raw)]
    median = float(np.median(finite * column.unit.factor))
    fractions = column.spec.unit == "%" and finite.size >= _LEAST_SHARES and bool((finite <= 1).all() and finite.any())
    if column.inside(np.array([median]))[0] and not (fractions and column.unit.factor == 1.0):
        return ""
    problem = f"column {column.name}: the median of {column.spec.name} is {median:g}, {column.expected}"
    for name, factor in _other_units(column, rare=True):
        if column.inside(np.array([np.median(finite) * factor]))[0]:
            return (
                f"{problem}; the values seem to be in {name}: pass `units` {column.name}={name}"
                f"{_hint(column) if factor < column.unit.factor else ''}"
            )
    low, high = column.range
    scale = next((s for f in FACTORS for s in (f, 1.0 / f) if low <= median / s <= high), None)
    if scale is None:
        return f"{problem}; check that this is the right column"
    times = f"{scale:g} times too large" if scale > 1 else f"{1.0 / scale:g} times too small"
    return f"{problem}; the values seem to be {times}: convert them to {column.spec.unit}"


def _hint(column: _Column) -> str:
    """Advice on converting between masses and volumes, for tissues."""
    kind = UNITS.get(column.spec.unit, ("",))[0]
    if not column.spec.group.startswith(("Body Composition", "Abdominal Organs")):
        return ""
    if kind == "volume":
        return f" (cm3 and mL are the same); if they are masses in g{density_hint(kind, 'mass')}"
    if kind == "mass":
        return f"; if they are volumes in cm3{density_hint(kind, 'volume')}"
    return ""


def _too_many_outliers(column: _Column) -> str:
    """Message for a column with too many implausible values, although the median is plausible."""
    present = np.isfinite(column.raw)
    outside = np.flatnonzero(present & ~column.inside(column.values))
    if outside.size <= max(_FEW_OUTLIERS, _MOST_OUTLIERS * present.sum()):
        return ""
    return (
        f"column {column.name}: {outside.size} of {present.sum()} values of {column.spec.name} are implausible "
        f"({_rows(column, outside)}), {column.expected}; check them, and empty cells that are not measurements"
    )
