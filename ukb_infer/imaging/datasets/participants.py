"""``participants.tsv``: what is known of the participants of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ukb_infer.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from ukb_infer.labels.tables import Table

PARTICIPANTS_NAME = "participants.tsv"
_KEYS = ("participant_id", "participant", "subject_id", "subject", "sub", "eid", "id")


def is_participant_key(column: str) -> bool:
    """Whether a column names participants."""
    return column.strip().lower() in _KEYS


def read_participants(path: Path, where: str = "participants") -> dict[str, dict[str, str]]:
    """Read a table with one row per participant (the first, where several sessions have rows).

    Args:
        path: of a TSV, CSV, Parquet or Stata file with a column ``participant_id`` or ``eid``.
        where: begins messages.

    Returns:
        The other columns by participant, as text; decimal commas as points.

    Raises:
        UsageError: unreadable, or without such a column.
    """
    from ukb_infer.labels.tables import read_table

    read = read_table(path, f"`{where}` {path}", is_participant_key)
    frame = read.frame
    keys = [str(column) for column in frame.columns if is_participant_key(str(column))]
    if not keys:
        shown = ", ".join(str(column) for column in list(frame.columns)[:8])
        raise UsageError(f"{path} has no column participant_id or eid (columns: {shown})", field=where)
    key = min(keys, key=lambda name: _KEYS.index(name.strip().lower()))
    found: dict[str, dict[str, str]] = {}
    texts = frame.astype(str).apply(lambda cells: cells if cells.name == key else _with_points(cells, read))
    for row in texts.to_dict("records"):
        others = {str(name): str(value).strip() for name, value in row.items() if name != key}
        found.setdefault(str(row[key]).strip(), others)
    return found


def _with_points(cells: pd.Series[str], read: Table) -> pd.Series[str]:
    """A column of numbers with decimal commas as points; other columns as they are."""
    from ukb_infer.labels.numbers import NumberError, read_numbers

    if not cells.str.contains(",", regex=False).any():
        return cells
    try:
        values = read_numbers(list(cells), decimal_comma=read.decimal_comma).values
    except NumberError:
        return cells
    return cells.where(np.isnan(values), cells.str.replace(",", ".", regex=False))


def find_row(table: Mapping[str, Mapping[str, str]], participant: str) -> Mapping[str, str] | None:
    """A participant's row, written with or without ``sub-`` or ``sub_``.

    Args:
        table: from :func:`read_participants`.
        participant: as folders name it.
    """
    bare = participant.removeprefix("sub-").removeprefix("sub_")
    for name in (participant, bare, f"sub-{bare}", f"sub_{bare}"):
        if name in table:
            return table[name]
    return None
