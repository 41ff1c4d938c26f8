"""Read a table of labels and match it to scans."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.labels.cells import clean, is_missing
from ukb_infer.labels.columns import LabelColumn, is_row_number, key_of, parse_column, parse_field
from ukb_infer.labels.ids import IdError, parse_id, participant_of, plain_eid, plain_scan
from ukb_infer.labels.numbers import NumberError, read_numbers
from ukb_infer.labels.plausibility import DeclaredUnit, find_implausible
from ukb_infer.labels.tables import Table, read_table
from ukb_infer.labels.units import conversion, unit_name
from ukb_infer.records import ScanKey
from ukb_infer.targets import TARGETS, TargetSpec, fields_of
from ukb_infer.text import suggest

Float64 = NDArray[np.float64]
_Key = TypeVar("_Key")

#: A visit: ``2``, ``2.0``, ``i2``, ``Instance 2``.
_VISIT = re.compile(r"^(?:i|instance\s*)?([0-9]+)(?:[.,]0*)?$", re.IGNORECASE)


@dataclass(frozen=True)
class LabelSummary:
    """Counts for one target: values, and special codes and non-finite values made missing."""

    target: str
    columns: tuple[str, ...]
    present: int
    special_codes: int
    not_finite: int

    def __str__(self) -> str:
        """The counts in one line."""
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
        specs: of the targets, including user-defined ones.
        by_scan: values of rows with a scan, eids without leading zeros.
        by_visit: values by (eid without leading zeros, instance); instance None applies to every visit.
        summaries: one per target.
    """

    targets: tuple[str, ...]
    specs: Mapping[str, TargetSpec]
    by_scan: Mapping[str, Float64]
    by_visit: Mapping[tuple[str, int | None], Float64]
    summaries: tuple[LabelSummary, ...] = field(default=())

    def of(self, key: ScanKey) -> Float64:
        """(T,) labels of one scan, NaN where missing."""
        found = np.full(len(self.targets), np.nan)
        candidates = [self.by_scan.get(plain_scan(key.scan))]
        if key.eid:
            eid = plain_eid(key.eid)
            candidates += [self.by_visit.get((eid, key.instance)), self.by_visit.get((eid, None))]
        if person := participant_of(key.scan):  # the table names participants, the run sessions of theirs
            candidates += [self.by_scan.get(person), self.by_visit.get((plain_eid(person), None))]
        for values in candidates:
            if values is not None:
                found = np.where(np.isnan(found), values, found)
        return found

    def count_matches(self, keys: Sequence[ScanKey]) -> tuple[int, int]:
        """(participants and scans that have labels, those of them that are among ``keys``)."""
        of_sessions = {name for k in keys if (name := participant_of(k.scan))}
        scans = {plain_scan(k.scan) for k in keys} | of_sessions
        people = {plain_eid(k.eid) for k in keys if k.eid} | set(map(plain_eid, of_sessions))
        labelled = {eid for eid, _ in self.by_visit}
        return len(self.by_scan) + len(labelled), len(scans & self.by_scan.keys()) + len(people & labelled)

    def matrix(self, keys: Sequence[ScanKey]) -> Float64:
        """(N, T) labels of scans, NaN where missing."""
        return np.array([self.of(key) for key in keys]).reshape(len(keys), len(self.targets))


def read_labels(
    path: Path,
    targets: Sequence[str] = (),
    *,
    units: Mapping[str, str] | None = None,
    definitions: Mapping[str, TargetSpec] | None = None,
    option: str = "labels",
) -> Labels:
    """Read labels.

    Args:
        path: CSV with any separator, Parquet or Stata file, keyed by ``scan``, or by ``eid`` and possibly ``instance``.
        targets: names wanted; empty for every target the file has.
        units: unit of a column or target, if not the target's own.
        definitions: user-defined targets by name.
        option: names the file in messages.

    Returns:
        The labels, NaN where missing.

    Raises:
        UsageError: unreadable, without keys, an unknown target, a target without column, repeated rows or values,
            text instead of a number, or values in another unit.
    """
    known = {**TARGETS, **(definitions or {})}
    where = f"`{option}` {path}"
    table = read_table(path, where)
    keys = row_keys(where, table)
    columns = _choose_columns(where, table.frame, targets, known)
    names = tuple(targets) if targets else tuple(t for t in known if any(c.target == t for c in columns))
    declared = _declared_units(where, units or {}, columns, known)
    by_scan: dict[str, Float64] = {}
    by_visit: dict[tuple[str, int | None], Float64] = {}
    summaries: list[LabelSummary] = []
    problems: list[str] = []
    for place, name in enumerate(names):
        chosen = [c for c in columns if c.target == name]
        counts = Counter[str]()
        for column in chosen:
            raw = _numbers(where, table, column, known[name], counts)
            unit = declared[column.column]
            values = raw * unit.factor
            _check_limits(where, column.column, known[name], values)
            problems += filter(None, [find_implausible(known[name], column.column, raw, unit, table.first_row)])
            _spread(keys, column, values, place, len(names), by_scan, by_visit)
        summaries.append(
            LabelSummary(name, tuple(c.column for c in chosen), counts["present"], counts["code"], counts["infinite"])
        )
    if problems:
        raise UsageError(f"{where}: " + "; and ".join(problems))
    return Labels(names, {n: known[n] for n in names}, by_scan, by_visit, tuple(summaries))


# -- the rows --------------------------------------------------------------------------------------------------------


def _key_column(where: str, table: pd.DataFrame, key: str) -> str | None:
    found = [str(c) for c in table.columns if key_of(str(c)) == key]
    exact = [c for c in found if c.strip().lower() == key]
    if len(found) > 1 and len(exact) != 1 and key != "array":
        raise UsageError(f"{where}: columns {', '.join(found)} all contain the {key}; keep one of them")
    return next(iter(exact or found), None)


def _check_keys(where: str, table: pd.DataFrame) -> None:
    if _key_column(where, table, "scan") is None and _key_column(where, table, "eid") is None:
        shown = ", ".join(list(table.columns)[:8])
        raise UsageError(
            f"{where}: no column scan or eid (columns: {shown} ...); name the column of participants "
            "eid, and separate cells by commas, semicolons or tabs"
        )
    if len(table) == 0:
        raise UsageError(f"{where}: has no rows")


def _text(value: Any) -> str:
    """A cell as text; integers in Parquet and Stata files without exponent or decimals."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    text = clean(str(value))
    return "" if is_missing(text) else text


@dataclass(frozen=True)
class RowKey:
    """What a row belongs to: a scan, or a participant and possibly a visit; in the plain form."""

    scan: str
    eid: str
    instance: int | None


def row_keys(where: str, table: Table) -> list[RowKey]:
    """Keys of the rows: scan, or participant and visit, in the plain form.

    Args:
        where: begins the messages.
        table: as read.

    Raises:
        UsageError: no column of participants or scans, no rows, a row without key, or one that repeats another.
    """
    frame = table.frame
    _check_keys(where, frame)
    columns = {key: _key_column(where, frame, key) for key in ("scan", "eid", "instance")}
    texts = {
        key: [""] * len(frame) if column is None else [_text(v) for v in frame[column].tolist()]
        for key, column in columns.items()
    }
    keys, seen = [], set()
    for place, (scan, eid, visit) in enumerate(zip(texts["scan"], texts["eid"], texts["instance"], strict=True)):
        row = table.row_number(place)
        try:
            key = _row_key(scan, eid, visit)
        except IdError as problem:
            raise UsageError(f"{where}: row {row}: {problem}") from None
        if key in seen:
            what = "scan" if scan else "eid and instance"
            raise UsageError(f"{where}: row {row} repeats the {what} of an earlier row; keep one of them")
        seen.add(key)
        keys.append(key)
    return keys


def _row_key(scan: str, eid: str, visit: str) -> RowKey:
    """Key of a row; a scan's name, also in the column of participants, has priority."""
    named = parse_id(scan or eid)
    if named is None:
        raise IdError("has neither scan nor eid; complete or remove it")
    if scan or not named.eid:
        return RowKey(plain_scan(named.scan), "", None)
    if not visit:
        return RowKey("", named.eid, None)
    number = _VISIT.match(visit)
    if number is None:
        raise IdError(f"instance is {visit[:30]!r}, expected 2 or 3")
    return RowKey("", named.eid, int(number[1]))


# -- the columns -----------------------------------------------------------------------------------------------------


def _choose_columns(
    where: str, table: pd.DataFrame, targets: Sequence[str], known: Mapping[str, TargetSpec]
) -> list[LabelColumn]:
    for name in targets:
        if name not in known:
            raise UsageError(
                f"`targets`: unknown target {name!r}{suggest(name, known)} (`ukb-infer targets` lists all)"
            )
    if len(set(targets)) != len(targets):
        raise UsageError("`targets`: a target is named twice")
    parsed = [c for name in table.columns if key_of(name) is None and (c := parse_column(name, known)) is not None]
    columns = [c for c in parsed if c.array == 0 and (not targets or c.target in targets)]
    for name in targets:
        if not any(c.target == name for c in columns):
            spec = known[name]
            forms = " or ".join([name, *(f"p{field}_i2" for field in fields_of(spec))])
            near = suggest(name, table.columns)
            raise UsageError(f"{where}: no column for {name} (looked for {forms}){near}")
    if not columns:
        unknown = [str(c) for c in table.columns if key_of(str(c)) is None][:5]
        hints = "; ".join(f"{u}{suggest(u, known)}" for u in unknown)
        raise UsageError(f"{where}: no column is a known target: {hints}")
    twice = [k for k, n in Counter((c.target, c.instance) for c in columns).items() if n > 1]
    if twice:
        names = ", ".join(c.column for c in columns if (c.target, c.instance) == twice[0])
        raise UsageError(f"{where}: columns {names} all hold {twice[0][0]}; keep one of them")
    _refuse_near_misses(where, table, targets, known)
    return columns


def _refuse_near_misses(
    where: str, table: pd.DataFrame, targets: Sequence[str], known: Mapping[str, TargetSpec]
) -> None:
    """Refuse misspelled targets, which without ``targets`` would silently be ignored."""
    if targets:
        return
    for column in map(str, table.columns):
        wanted = key_of(column) is not None or parse_column(column, known) is not None
        if not wanted and parse_field(column) is None and not is_row_number(column):
            raise UsageError(
                f"{where}: unknown column {column!r}{suggest(column, known)}; to use a table with "
                "other columns, name the wanted `targets`"
            )


def _declared_units(
    where: str, units: Mapping[str, str], columns: Sequence[LabelColumn], known: Mapping[str, TargetSpec]
) -> dict[str, DeclaredUnit]:
    """Unit of every column: the target's own, or that in ``units``."""
    declared = {c.column: DeclaredUnit(known[c.target].unit) for c in columns}
    for name, unit in units.items():
        matching = [c for c in columns if name in (c.column, c.target)]
        if not matching:
            near = suggest(name, [c.column for c in columns] + [c.target for c in columns])
            raise UsageError(f"`units` {name}={unit}: {where} has no such column among those used{near}")
        for column in matching:
            factor = conversion(known[column.target], unit, f"`units` {name}={unit}")
            declared[column.column] = DeclaredUnit(unit_name(unit), factor)
    return declared


# -- the values ------------------------------------------------------------------------------------------------------


def _numbers(where: str, table: Table, column: LabelColumn, spec: TargetSpec, counts: Counter[str]) -> Float64:
    """(rows,) values as written; anything that is not a measurement becomes NaN and is counted."""
    cells = table.frame[column.column].tolist()
    try:
        found = read_numbers(cells, decimal_comma=table.decimal_comma, binary=spec.is_binary)
    except NumberError as error:
        row = table.row_number(error.row)
        raise UsageError(f"{where}: row {row}, column {column.column}: {error}") from None
    values = found.values
    # UK Biobank codes "do not know", "prefer not to answer" ... as negative whole numbers (Coding 100291 and others).
    special = (values < 0) & (values == np.round(values)) & (spec.lower is not None and spec.lower >= 0)
    special &= np.isfinite(values)
    values[found.not_finite | special] = np.nan
    counts["infinite"] += int(found.not_finite.sum())
    counts["code"] += int(special.sum() + found.codes.sum())
    counts["present"] += int(np.isfinite(values).sum())
    return values


def _check_limits(where: str, column: str, spec: TargetSpec, values: Float64) -> None:
    """Refuse values outside the physical limits; a binary target has only 0 and 1."""
    finite = values[np.isfinite(values)]
    if spec.is_binary and not np.isin(finite, (0.0, 1.0)).all():
        raise UsageError(f"{where}: column {column}: {spec.name} must be 0 or 1 (or No/Yes, Female/Male)")
    low = spec.lower if spec.lower is not None else -np.inf
    outside = int((finite < low).sum())
    if outside:
        raise UsageError(
            f"{where}: column {column}: {outside} values below {spec.name}'s physical limit {low:g} {spec.unit}"
        )


def _spread(
    keys: Sequence[RowKey],
    column: LabelColumn,
    values: Float64,
    place: int,
    width: int,
    by_scan: dict[str, Float64],
    by_visit: dict[tuple[str, int | None], Float64],
) -> None:
    """Assign a column's values to their rows."""
    for key, value in zip(keys, values.tolist(), strict=True):
        if value != value:  # NaN; np.isnan is slow for single numbers
            continue
        if key.scan:
            if column.instance is not None and ScanKey.from_name(key.scan).instance not in (None, column.instance):
                continue
            _row_of(by_scan, key.scan, width)[place] = value
            continue
        if key.instance is not None and column.instance not in (None, key.instance):
            continue
        visit = column.instance if key.instance is None else key.instance
        _row_of(by_visit, (key.eid, visit), width)[place] = value


def _row_of(rows: dict[_Key, Float64], key: _Key, width: int) -> Float64:
    """(width,) values of a key, NaN if it is new."""
    row = rows.get(key)
    if row is None:
        row = rows[key] = np.full(width, np.nan)
    return row
