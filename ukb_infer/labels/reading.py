"""Read a table of labels and line it up with scans (floor 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.labels.columns import LabelColumn, key_of, parse_column
from ukb_infer.labels.units import check_plausible, conversion
from ukb_infer.records import ScanKey
from ukb_infer.targets import TARGETS, TargetSpec, suggest

Float64 = NDArray[np.float64]

#: Words that exported tables hold instead of codes.
_WORDS = {"female": 0.0, "male": 1.0, "no": 0.0, "yes": 1.0, "false": 0.0, "true": 1.0}
_MISSING = {"", "na", "nan", "n/a", "null", "none", "."}


@dataclass(frozen=True)
class LabelSummary:
    """What reading a target's labels found: values, special codes and non-finite values made missing."""

    target: str
    columns: tuple[str, ...]
    present: int
    special_codes: int
    not_finite: int

    def __str__(self) -> str:
        """One line for people."""
        dropped = []
        if self.special_codes:
            dropped.append(f"{self.special_codes} special codes made missing")
        if self.not_finite:
            dropped.append(f"{self.not_finite} non-finite values made missing")
        tail = f" ({', '.join(dropped)})" if dropped else ""
        return f"{self.target}: {self.present} values from {', '.join(self.columns)}{tail}"


@dataclass(frozen=True)
class Labels:
    """Values by scan or by participant and visit, in the targets' units.

    Attributes:
        targets: names, in the order asked for.
        specs: of the targets, the user's own included.
        by_scan: values of rows that name a scan.
        by_visit: values by (eid, instance); instance None holds for every visit.
        summaries: one a target.
    """

    targets: tuple[str, ...]
    specs: Mapping[str, TargetSpec]
    by_scan: Mapping[str, Float64]
    by_visit: Mapping[tuple[str, int | None], Float64]
    summaries: tuple[LabelSummary, ...] = field(default=())

    def of(self, key: ScanKey) -> Float64:
        """(T,) labels of one scan, NaN where missing."""
        found = np.full(len(self.targets), np.nan)
        candidates = [self.by_scan.get(key.scan)]
        if key.eid:
            candidates += [self.by_visit.get((key.eid, key.instance)), self.by_visit.get((key.eid, None))]
        for values in candidates:
            if values is not None:
                found = np.where(np.isnan(found), values, found)
        return found

    def matrix(self, keys: Sequence[ScanKey]) -> Float64:
        """(N, T) labels of scans, NaN where missing."""
        return np.array([self.of(key) for key in keys]).reshape(len(keys), len(self.targets))


def read_labels(
    path: Path,
    targets: Sequence[str] = (),
    *,
    units: Mapping[str, str] | None = None,
    definitions: Mapping[str, TargetSpec] | None = None,
) -> Labels:
    """Read labels.

    Args:
        path: CSV, TSV or Parquet keyed by ``scan``, or by ``eid`` and possibly ``instance``.
        targets: names wanted; empty for every target the file has.
        units: unit of a column or target, where it is not the target's own.
        definitions: own targets by name.

    Returns:
        The labels, NaN where missing.

    Raises:
        UsageError: unreadable, without keys, an unknown target, a target without column, twice the same row or value,
            text where a number belongs, or values in another unit.
    """
    known = {**TARGETS, **(definitions or {})}
    table = _read_table(path)
    _check_keys(path, table)
    columns = _choose_columns(path, table, targets, known)
    names = tuple(targets) if targets else tuple(t for t in known if any(c.target == t for c in columns))
    factors = _factors(path, units or {}, columns, known)
    by_scan: dict[str, Float64] = {}
    by_visit: dict[tuple[str, int | None], Float64] = {}
    summaries = []
    keys = _row_keys(path, table)
    for place, name in enumerate(names):
        chosen = [c for c in columns if c.target == name]
        counts = Counter[str]()
        for column in chosen:
            values = _numbers(path, table, column, known[name], factors[column.column], counts)
            check_plausible(known[name], column.column, values[np.isfinite(values)])
            _spread(keys, column, values, place, len(names), by_scan, by_visit)
        summaries.append(
            LabelSummary(name, tuple(c.column for c in chosen), counts["present"], counts["code"], counts["infinite"])
        )
    return Labels(names, {n: known[n] for n in names}, by_scan, by_visit, tuple(summaries))


# -- the table -------------------------------------------------------------------------------------------------------


def _read_table(path: Path) -> pd.DataFrame:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path).astype(object)
        else:
            separator = "\t" if suffix in (".tsv", ".tab") else ","
            with path.open(encoding="utf-8-sig") as handle:
                header = handle.readline().rstrip("\r\n").split(separator)
            twice = [name for name, count in Counter(h.strip().strip('"') for h in header).items() if count > 1]
            if twice:
                raise UsageError(f"--labels {path}: the column {twice[0]!r} occurs twice; keep one")
            table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ImportError as error:
        raise UsageError(f'--labels {path}: Parquet needs pyarrow: pip install "ukb-infer[parquet]"') from error
    except (OSError, ValueError, pd.errors.ParserError) as error:
        text = " ".join(str(error).split())[:200]
        raise UsageError(f"--labels {path}: cannot be read as {suffix or 'a CSV'} table ({text})") from error
    table.columns = [str(c) for c in table.columns]
    return table


def _key_column(table: pd.DataFrame, key: str) -> str | None:
    return next((str(c) for c in table.columns if key_of(str(c)) == key), None)


def _check_keys(path: Path, table: pd.DataFrame) -> None:
    if _key_column(table, "scan") is None and _key_column(table, "eid") is None:
        shown = ", ".join(list(table.columns)[:8])
        raise UsageError(f"--labels {path}: no column scan or eid says whose values these are (columns: {shown} ...)")
    if len(table) == 0:
        raise UsageError(f"--labels {path}: has no rows")


def _text(value: Any) -> str:
    """A key as text: eids and visits that came as numbers lose no digit and gain no decimal point."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    text = str(value).strip()
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


@dataclass(frozen=True)
class _RowKey:
    scan: str
    eid: str
    instance: int | None


def _row_keys(path: Path, table: pd.DataFrame) -> list[_RowKey]:
    columns = {key: _key_column(table, key) for key in ("scan", "eid", "instance")}
    texts = {
        key: [""] * len(table) if column is None else [_text(v) for v in table[column].tolist()]
        for key, column in columns.items()
    }
    keys, seen = [], set()
    for row, (scan, eid, visit) in enumerate(zip(texts["scan"], texts["eid"], texts["instance"], strict=True)):
        if visit and not visit.isdigit():
            raise UsageError(f"--labels {path}: row {row + 2}: instance is {visit!r}, expected 2 or 3")
        key = _RowKey(scan, "" if scan else eid, None if scan or not visit else int(visit))
        if not scan and not eid:
            raise UsageError(f"--labels {path}: row {row + 2} names neither scan nor eid")
        if key in seen:
            what = "scan" if scan else "eid and instance"
            raise UsageError(f"--labels {path}: row {row + 2} repeats the {what} of an earlier row; keep one of them")
        seen.add(key)
        keys.append(key)
    return keys


# -- the columns -----------------------------------------------------------------------------------------------------


def _choose_columns(
    path: Path, table: pd.DataFrame, targets: Sequence[str], known: Mapping[str, TargetSpec]
) -> list[LabelColumn]:
    for name in targets:
        if name not in known:
            raise UsageError(
                f"--targets: unknown target {name!r}{suggest(name, known)} (`ukb-infer targets` lists all)"
            )
    if len(set(targets)) != len(targets):
        raise UsageError("--targets: a target is named twice")
    parsed = [c for name in table.columns if key_of(name) is None and (c := parse_column(name, known)) is not None]
    columns = [c for c in parsed if c.array == 0 and (not targets or c.target in targets)]
    for name in targets:
        if not any(c.target == name for c in columns):
            spec = known[name]
            forms = f"{name} or p{spec.field}_i2" if spec.field else name
            near = suggest(name, table.columns)
            raise UsageError(f"--labels {path}: no column for {name} (looked for {forms}){near}")
    if not columns:
        unknown = [str(c) for c in table.columns if key_of(str(c)) is None][:5]
        hints = "; ".join(f"{u}{suggest(u, known)}" for u in unknown)
        raise UsageError(f"--labels {path}: no column is a known target: {hints}")
    twice = [k for k, n in Counter((c.target, c.instance) for c in columns).items() if n > 1]
    if twice:
        names = ", ".join(c.column for c in columns if (c.target, c.instance) == twice[0])
        raise UsageError(f"--labels {path}: columns {names} all hold {twice[0][0]}; keep one of them")
    _refuse_near_misses(path, table, targets, known)
    return columns


def _refuse_near_misses(
    path: Path, table: pd.DataFrame, targets: Sequence[str], known: Mapping[str, TargetSpec]
) -> None:
    """Without ``--targets`` a misspelled target would silently not be learned."""
    if targets:
        return
    for column in map(str, table.columns):
        if key_of(column) is None and parse_column(column, known) is None and not _is_field(column):
            raise UsageError(
                f"--labels {path}: unknown column {column!r}{suggest(column, known)}; to use a table with other "
                "columns as well, name the targets wanted with --targets"
            )


def _is_field(column: str) -> bool:
    """A UK Biobank column of a field that is no target."""
    return (
        parse_column(column, {}) is None and any(ch.isdigit() for ch in column) and column.lstrip("pf.")[:1].isdigit()
    )


def _factors(
    path: Path, units: Mapping[str, str], columns: Sequence[LabelColumn], known: Mapping[str, TargetSpec]
) -> dict[str, float]:
    factors = {c.column: 1.0 for c in columns}
    for name, unit in units.items():
        matching = [c for c in columns if name in (c.column, c.target)]
        if not matching:
            near = suggest(name, [c.column for c in columns] + [c.target for c in columns])
            raise UsageError(f"--unit {name}={unit}: {path} has no such column among those used{near}")
        for column in matching:
            factors[column.column] = conversion(known[column.target], unit, f"--unit {name}={unit}")
    return factors


# -- the values ------------------------------------------------------------------------------------------------------


def _numbers(
    path: Path, table: pd.DataFrame, column: LabelColumn, spec: TargetSpec, factor: float, counts: Counter[str]
) -> Float64:
    """(rows,) values in the target's unit; what is no measurement becomes NaN and is counted."""
    raw = table[column.column].tolist()
    values = np.array([_number(path, column.column, row, value, spec) for row, value in enumerate(raw)], np.float64)
    infinite = np.isinf(values)
    written_nan = np.array([isinstance(v, str) and v.strip().lower() == "nan" for v in raw], bool)
    # UK Biobank codes "do not know", "prefer not to answer" ... as negative whole numbers (Coding 100291 and others).
    special = (values < 0) & (values == np.round(values)) & (spec.lower is not None and spec.lower >= 0)
    values[infinite | special] = np.nan
    values *= factor
    _check_limits(path, column.column, spec, values)
    counts["infinite"] += int(infinite.sum() + written_nan.sum())
    counts["code"] += int(special.sum())
    counts["present"] += int(np.isfinite(values).sum())
    return values


def _number(path: Path, column: str, row: int, value: Any, spec: TargetSpec) -> float:
    if value is None or value is pd.NA:
        return float("nan")
    if isinstance(value, (int, float, np.integer, np.floating)):
        return float(value)
    text = str(value).strip()
    if text.lower() in _MISSING:
        return float("nan")
    if spec.is_binary and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--labels {path}: row {row + 2}, column {column}: {text[:30]!r} is no number") from None


def _check_limits(path: Path, column: str, spec: TargetSpec, values: Float64) -> None:
    """Refuse values outside the physical limits; a binary target holds 0 and 1 only."""
    finite = values[np.isfinite(values)]
    if spec.is_binary and not np.isin(finite, (0.0, 1.0)).all():
        raise UsageError(f"--labels {path}: column {column}: {spec.name} takes 0 and 1 (or No/Yes, Female/Male) only")
    low = spec.lower if spec.lower is not None else -np.inf
    outside = int((finite < low).sum())
    if outside:
        raise UsageError(
            f"--labels {path}: column {column}: {outside} values below {spec.name}'s physical limit {low:g} {spec.unit}"
        )


def _spread(
    keys: Sequence[_RowKey],
    column: LabelColumn,
    values: Float64,
    place: int,
    width: int,
    by_scan: dict[str, Float64],
    by_visit: dict[tuple[str, int | None], Float64],
) -> None:
    """Put a column's values where they belong."""
    for key, value in zip(keys, values, strict=True):
        if np.isnan(value):
            continue
        if key.scan:
            if column.instance is not None and ScanKey.from_name(key.scan).instance not in (None, column.instance):
                continue
            by_scan.setdefault(key.scan, np.full(width, np.nan))[place] = value
            continue
        if key.instance is not None and column.instance not in (None, key.instance):
            continue
        visit = column.instance if key.instance is None else key.instance
        by_visit.setdefault((key.eid, visit), np.full(width, np.nan))[place] = value
