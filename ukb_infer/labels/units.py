"""Units of labels: declared conversions and the check that refuses labels off by a power of ten (floor 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.targets import TargetSpec, suggest

#: Dimension and size of the units that occur in label files.
UNITS: dict[str, tuple[str, float]] = {
    "kg": ("mass", 1.0), "g": ("mass", 1e-3), "mg": ("mass", 1e-6),
    "m": ("length", 1.0), "cm": ("length", 1e-2), "mm": ("length", 1e-3),
    "L": ("volume", 1.0), "dL": ("volume", 0.1), "mL": ("volume", 1e-3), "cm3": ("volume", 1e-3),
    "mm3": ("volume", 1e-6),
    "%": ("share", 1e-2), "fraction": ("share", 1.0), "permille": ("share", 1e-3),
    "years": ("time", 1.0), "months": ("time", 1.0 / 12.0),
    "L/m2": ("volume over area", 1.0), "mL/m2": ("volume over area", 1e-3),
    "kg/L": ("mass over volume", 1.0), "L/L": ("share", 1.0),
    "bpm": ("rate", 1.0),
}  # fmt: skip
#: Median labels outside the plausible range by a factor in this range are taken for a wrong unit.
FACTORS = (10.0, 100.0, 1000.0, 1e4, 1e5, 1e6)
_ALIASES = {"l": "L", "ml": "mL", "litre": "L", "litres": "L", "percent": "%", "grams": "g", "gram": "g", "cm^3": "cm3"}


def conversion(spec: TargetSpec, unit: str, option: str) -> float:
    """Factor from a declared unit to the target's own.

    Raises:
        UsageError: unknown unit, or one of another dimension.
    """
    unit = _ALIASES.get(unit, unit)
    if unit == spec.unit:
        return 1.0
    if unit not in UNITS:
        raise UsageError(f"{option}: unknown unit {unit!r}{suggest(unit, UNITS)} (choices: {', '.join(UNITS)})")
    own = UNITS.get(spec.unit)
    if own is None or own[0] != UNITS[unit][0]:
        raise UsageError(f"{option}: {unit!r} cannot be converted to {spec.name}'s unit {spec.unit!r}")
    return UNITS[unit][1] / own[1]


def check_plausible(spec: TargetSpec, column: str, values: NDArray[np.float64]) -> None:
    """Refuse labels whose median lies outside the plausible range, saying which unit they seem to be in.

    Args:
        spec: target with its plausible range; without one nothing is checked.
        column: name in the file.
        values: (n,) finite labels, after conversion.

    Raises:
        UsageError: off by a factor of 10 or more, or no plausible value at all.
    """
    low, high = spec.plausible_min, spec.plausible_max
    if values.size == 0 or spec.is_binary or low is None or high is None:
        return
    median = float(np.median(values))
    if low <= median <= high:
        return
    problem = f"column {column}: the median of {spec.name} is {median:g}, expected {low:g} to {high:g} {spec.unit}"
    fitting = [scale for f in FACTORS for scale in (f, 1.0 / f) if low <= median / scale <= high]
    guess = _guess(spec, column, fitting)
    raise UsageError(f"{problem}; {guess or 'check that the column holds what its name says'}")


def _guess(spec: TargetSpec, column: str, scales: list[float]) -> str:
    """Words for labels that are one of ``scales`` times too large: a unit of that size where there is one."""
    own = UNITS.get(spec.unit)
    for scale in scales:
        for name, (kind, size) in UNITS.items():
            if own is not None and kind == own[0] and abs(own[1] / size / scale - 1.0) < 1e-6:
                return f"the values seem to be in {name}: pass --unit {column}={name}"
    if not scales:
        return ""
    times = f"{scales[0]:g} times too large" if scales[0] > 1 else f"{1.0 / scales[0]:g} times too small"
    return f"the values seem to be {times}: convert them to {spec.unit}"
