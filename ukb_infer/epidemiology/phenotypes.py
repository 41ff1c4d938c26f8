"""Tables of phenotypes: any columns of a platform export, lined up with the scans of a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ukb_infer.errors import UsageError
from ukb_infer.labels.cells import clean, is_missing
from ukb_infer.labels.columns import is_row_number, key_of, parse_column, parse_field
from ukb_infer.labels.ids import plain_eid, plain_scan
from ukb_infer.labels.numbers import SPECIAL_CODES, NumberError, read_numbers
from ukb_infer.labels.reading import RowKey, read_labels, row_keys
from ukb_infer.labels.tables import Table, read_table
from ukb_infer.records import ScanKey
from ukb_infer.targets import TARGETS
from ukb_infer.text import suggest

#: A column of one visit: ``bmi_i2``, ``p21001_i2_a0``; the platform's entity in front is ignored.
_VISIT = re.compile(r"^(?:\w+\.)?(?P<name>\w+?)(?:_i(?P<instance>[0-9]+))?(?:_a(?P<array>[0-9]+))?$")
_Row = tuple[str, str, int | None]


def phenotype_names(path: Path) -> frozenset[str]:
    """Names under which a formula may use the columns of a table: targets, names without visit, fields, and as written.

    Raises:
        UsageError: the table cannot be read.
    """
    found: set[str] = set()
    for column in read_table(path, f"`phenotypes` {path}").frame.columns:
        if key_of(str(column)) is None:
            found |= {clean(str(column)), *_names_of(str(column))}
    return frozenset(found)


def column_names(path: Path) -> tuple[str, ...]:
    """One name for each column of a table (of several visits together): of its target, or without entity and visit.

    Raises:
        UsageError: the table cannot be read.
    """
    names = []
    for column in map(str, read_table(path, f"`phenotypes` {path}").frame.columns):
        parts = _VISIT.match(clean(column))
        if key_of(column) is None and not is_row_number(column) and parts:
            names.append(_target_of(column) or parts["name"])
    return tuple(dict.fromkeys(names))


def target_names(path: Path) -> tuple[str, ...]:
    """Targets of which a table has columns.

    Raises:
        UsageError: the table cannot be read.
    """
    columns = map(str, read_table(path, f"`labels` {path}").frame.columns)
    return tuple(dict.fromkeys(t for c in columns if key_of(c) is None and (t := _target_of(c))))


def _names_of(column: str) -> set[str]:
    """Names of a column: with and without entity, visit and array; of its target; of its field."""
    target, field, parts = parse_column(column, TARGETS), parse_field(column), _VISIT.match(clean(column))
    names = {clean(column).rsplit(".", 1)[-1]} | ({parts["name"]} if parts else set())
    return names | ({target.target} if target else set()) | ({f"p{field.field}"} if field and field.field else set())


def read_phenotypes(
    path: Path,
    names: Sequence[str],
    keys: Sequence[ScanKey],
    units: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> pd.DataFrame:
    """Values of phenotypes for scans.

    A target (age, sex ...) is recognized and checked as in a label table. Any other name means the columns of that name
    (``bmi``), of a visit (``bmi_i2``) or of a field (``p21001`` for ``p21001_i2``); a name with its visit
    (``p21001_i0``) means that visit for every scan. "Do not know" and the like are missing, and so are -1
    and -3 in a UK Biobank field without other negative values.

    Args:
        path: CSV, TSV, Parquet or Stata file keyed by ``scan``, or by ``eid`` and possibly ``instance``.
        names: used in the formula.
        keys: (N,) of the scans.
        units: of the targets' columns, if not the targets' own.
        say: receives notes.

    Returns:
        (N, names) numbers, or text for columns that are not numbers; NaN and None where missing.

    Raises:
        UsageError: unreadable, or no column of that name.
    """
    where = f"`phenotypes` {path}"
    table = read_table(path, where)
    columns = [str(c) for c in table.frame.columns if key_of(str(c)) is None]
    targets = [n for n in names if n in TARGETS and any(_target_of(c) == n for c in columns)]
    frame = pd.DataFrame(index=range(len(keys)))
    if targets:
        values = read_labels(path, targets, units=units, option="phenotypes").matrix(keys)
        frame[targets] = values
    others = [n for n in names if n not in targets]
    rows = row_keys(where, table) if others else []
    for name in others:
        chosen = [c for c in columns if name in _names_of(c) or name == clean(c)]
        exact = [c for c in chosen if name in (clean(c), clean(c).rsplit(".", 1)[-1])]
        if not chosen:
            raise UsageError(
                f"{where}: no column for {name!r}{suggest(name, columns)}; the model needs a column {name}, {name}_i2 "
                "... or a target of the run"
            )
        found = _spread(where, table, rows, exact[:1] or chosen, is_exact=bool(exact))
        found = _without_codes(name, exact[:1] or chosen, found, say)
        frame[name] = _lined_up(found, keys)
    return frame[list(names)]


def _target_of(column: str) -> str | None:
    found = parse_column(column, TARGETS)
    return found.target if found else None


def _spread(
    where: str, table: Table, rows: Sequence[RowKey], columns: Sequence[str], *, is_exact: bool
) -> dict[_Row, Any]:
    """Values by (scan, eid, instance)."""
    cells = {column: _values(table, column) for column in columns}
    if any(isinstance(v, list) for v in cells.values()):  # one visit's column has text: so have all
        cells = {column: _words(table.frame[column].tolist()) for column in columns}
    values: dict[_Row, Any] = {}
    for column in columns:
        parts, field = _VISIT.match(clean(column)), parse_field(column)
        array = field.array if field else int(parts["array"] or 0) if parts else 0
        visit = None if is_exact else field.instance if field else parts and parts["instance"]
        if array and not is_exact:
            continue
        for row, value in zip(rows, cells[column], strict=True):
            if value is None or value != value:
                continue
            instance = row.instance if row.instance is not None or visit is None else int(visit)
            if row.instance is not None and visit is not None and int(visit) != row.instance:
                continue
            values[row.scan, row.eid, instance] = value
    return values


def _without_codes(
    name: str, columns: Sequence[str], values: dict[_Row, Any], say: Callable[[str], None]
) -> dict[_Row, Any]:
    """Values of a UK Biobank field without its codes for "do not know" and "prefer not to answer" (Coding 100291)."""
    codes = [row for row, value in values.items() if value in (-1.0, -3.0)]
    is_field = all(parse_field(column) for column in columns)
    if (
        not codes
        or not is_field
        or any(not isinstance(v, str) and v < 0 and v not in (-1, -3) for v in values.values())
    ):
        return values
    say(f"{name}: {len(codes)} values of -1 or -3 (do not know, prefer not to answer) made missing")
    return {row: value for row, value in values.items() if value not in (-1.0, -3.0)}


def _values(table: Table, column: str) -> Any:
    """Numbers of a column, or a list of words if it is not numeric."""
    cells = table.frame[column].tolist()
    try:
        numbers = read_numbers(cells, decimal_comma=table.decimal_comma).values
    except NumberError:
        return _words(cells)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _words(cells: Sequence[Any]) -> list[str | None]:
    texts = ["" if c is None or c is pd.NA or c != c else clean(str(c)) for c in cells]
    return [None if is_missing(text) or text.lower() in SPECIAL_CODES else text for text in texts]


def _lined_up(values: Mapping[_Row, Any], keys: Sequence[ScanKey]) -> list[Any]:
    """(N,) values of the scans, None where missing."""
    found = []
    for key in keys:
        eid = plain_eid(key.eid) if key.eid else ""
        tried = ((plain_scan(key.scan), "", None), ("", eid, key.instance), ("", eid, None))
        found.append(next((values[t] for t in tried if t in values and (t[0] or eid)), None))
    return found
