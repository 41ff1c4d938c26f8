"""User-defined targets, declared in a small TOML file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from ukb_infer.errors import UsageError
from ukb_infer.targets import TARGETS, TargetSpec
from ukb_infer.text import suggest

_KEYS = ("unit", "kind", "field", "lower", "upper", "plausible_min", "plausible_max")
MAX_BYTES = 1 << 20


def read_definitions(path: Path) -> dict[str, TargetSpec]:
    """Read user-defined targets.

    Args:
        path: TOML with one table per target::

            [targets.liverIron]
            unit = "mg/g"
            lower = 0.0           # physical limits, optional
            plausible_max = 30.0  # for the unit check, optional

    Returns:
        The targets by name.

    Raises:
        UsageError: unreadable, misspelled or contradictory.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"`define` {path}: larger than {MAX_BYTES} bytes, expected a small TOML file")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"`define` {path}: cannot be read as TOML ({error})") from error
    tables = content.get("targets")
    if set(content) != {"targets"} or not isinstance(tables, dict) or not tables:
        raise UsageError(f"`define` {path}: expected tables [targets.NAME] and nothing else")
    return {name: _definition(path, name, table) for name, table in tables.items()}


def _definition(path: Path, name: str, table: Any) -> TargetSpec:
    where = f"`define` {path}: [targets.{name}]"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name):
        raise UsageError(f"{where}: invalid name, expected a letter, then letters, digits and _ only")
    if name in TARGETS:
        raise UsageError(f"{where}: this name belongs to a target of the registry; choose another")
    if not isinstance(table, dict):
        raise UsageError(f"{where}: expected a table")
    for key in table:
        if key not in _KEYS:
            raise UsageError(f"{where}: unknown key {key!r}{suggest(key, _KEYS)} (choices: {', '.join(_KEYS)})")
    unit, field = table.get("unit", ""), str(table.get("field", ""))
    if not isinstance(unit, str) or (field and not field.isdigit()):
        raise UsageError(f"{where}: expected text as unit and a UK Biobank field number as field")
    kind = table.get("kind", "continuous")
    if kind not in ("continuous", "binary"):
        raise UsageError(f"{where}: kind is {kind!r}, expected continuous or binary")
    limits = {key: _number(where, key, table) for key in _KEYS[3:]}
    if kind == "binary":
        limits |= {"lower": 0.0, "upper": 1.0}
    for low, high in (("lower", "upper"), ("plausible_min", "plausible_max")):
        a, b = limits[low], limits[high]
        if a is not None and b is not None and a >= b:
            raise UsageError(f"{where}: {low} is {a:g}, expected less than {high}, {b:g}")
    lower, upper, least, most = (limits[key] for key in _KEYS[3:])
    return TargetSpec(name, field, unit, "own", kind, lower, upper, least, most)


def _number(where: str, key: str, table: dict[str, Any]) -> float | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e100:
        raise UsageError(f"{where}: {key} is {value!r}, expected a number")
    return float(value)
