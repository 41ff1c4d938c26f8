"""Units of labels: names, sizes, declared conversions."""

from __future__ import annotations

from ukb_infer.errors import UsageError
from ukb_infer.targets import TargetSpec
from ukb_infer.text import suggest

#: Dimension and size of the units that occur in label files.
UNITS: dict[str, tuple[str, float]] = {
    "kg": ("mass", 1.0), "g": ("mass", 1e-3), "mg": ("mass", 1e-6), "lb": ("mass", 0.45359237),
    "m": ("length", 1.0), "cm": ("length", 1e-2), "mm": ("length", 1e-3), "in": ("length", 2.54e-2),
    "L": ("volume", 1.0), "dL": ("volume", 0.1), "mL": ("volume", 1e-3), "cm3": ("volume", 1e-3),
    "mm3": ("volume", 1e-6),
    "%": ("share", 1e-2), "fraction": ("share", 1.0), "permille": ("share", 1e-3),
    "years": ("time", 1.0), "months": ("time", 1.0 / 12.0),
    "L/m2": ("volume over area", 1.0), "mL/m2": ("volume over area", 1e-3),
    "kg/L": ("mass over volume", 1.0), "L/L": ("share", 1.0),
    "bpm": ("rate", 1.0),
}  # fmt: skip
_ALIASES = {
    "kilogram": "kg", "kilograms": "kg", "kgs": "kg", "gram": "g", "grams": "g", "milligrams": "mg", "lbs": "lb",
    "pounds": "lb", "meter": "m", "meters": "m", "metre": "m", "metres": "m", "inch": "in", "inches": "in",
    "l": "L", "litre": "L", "litres": "L", "liter": "L", "liters": "L", "dl": "dL", "ml": "mL", "millilitre": "mL",
    "millilitres": "mL", "milliliters": "mL", "cc": "cm3", "ccm": "cm3", "cm^3": "cm3", "cm³": "cm3", "mm^3": "mm3",
    "mm³": "mm3", "percent": "%", "pct": "%", "share": "fraction", "ratio": "fraction", "year": "years", "yr": "years",
    "yrs": "years", "month": "months", "L/m^2": "L/m2", "L/m²": "L/m2", "l/m2": "L/m2", "mL/m²": "mL/m2",
    "beats/min": "bpm", "1/min": "bpm", "y": "years", "l/m²": "L/m2", "milliliter": "mL", "centimetre": "cm",
    "centimetres": "cm", "centimeter": "cm", "centimeters": "cm",
}  # fmt: skip
#: Advice if a mass is given as a volume or vice versa (ICRP publication 89, table 2.3).
DENSITIES = "about 1.05 g/cm3 for organs and muscle, 0.95 for adipose tissue"


def unit_name(unit: str) -> str:
    """The standard spelling of a unit: ``litres`` is ``L``."""
    return _ALIASES.get(unit, _ALIASES.get(unit.lower(), unit))


def published_unit(text: str) -> str:
    """The unit that a published table means: ``Litres`` and ``[l]`` are ``L``; one not known comes in small letters."""
    plain = text.strip(" []()").replace("^", "")
    lower = plain.casefold()
    return plain if plain in UNITS else {name.casefold(): name for name in UNITS}.get(lower) or unit_name(lower)


def conversion(spec: TargetSpec, unit: str, option: str) -> float:
    """Factor from a declared unit to the target's own.

    Args:
        spec: the target.
        unit: the declared unit, in any known spelling.
        option: names the setting in messages.

    Raises:
        UsageError: unknown unit, or one of another dimension.
    """
    unit = unit_name(unit)
    if unit == spec.unit:
        return 1.0
    if unit not in UNITS:
        raise UsageError(f"{option}: unknown unit {unit!r}{suggest(unit, UNITS)} (choices: {', '.join(UNITS)})")
    own = UNITS.get(spec.unit)
    if own is None or own[0] != UNITS[unit][0]:
        hint = density_hint(own[0] if own else "", UNITS[unit][0])
        raise UsageError(f"{option}: {unit!r} cannot be converted to {spec.name}'s unit {spec.unit!r}{hint}")
    return UNITS[unit][1] / own[1]


def density_hint(own: str, other: str) -> str:
    """Advice on converting masses to volumes or back, if those are the two dimensions; else "".

    Args:
        own: dimension of the target's unit, as in ``UNITS``.
        other: dimension of the values' unit.
    """
    if (own, other) == ("volume", "mass"):
        return f"; divide masses in g by the density ({DENSITIES}), which gives cm3"
    if (own, other) == ("mass", "volume"):
        return f"; multiply volumes in cm3 by the density ({DENSITIES}), which gives g"
    return ""
