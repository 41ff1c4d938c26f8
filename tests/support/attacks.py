"""Attacks on the tables of a summary: what someone who has one or two of them can learn about a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ukb_infer.epidemiology.summary import ALL, COUNTS, QUANTILES, STATISTICS

Tables = Mapping[str, pd.DataFrame]
Cell = tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """What an attacker knows of a count: it lies between two numbers."""

    low: float
    high: float

    def minus(self, other: Interval) -> Interval:
        return Interval(self.low - other.high, self.high - other.low)


def shown_counts(tables: Tables, dimensions: list[str], base: int) -> dict[Cell, Interval]:
    """Counts by cell; rounding to multiples of ``base`` (1: none) makes them intervals."""
    table = tables[COUNTS]
    table = table[table["participants"] != ""]
    half = (base - 1) / 2
    return {
        tuple(row[d] for d in dimensions): Interval(max(row["participants"] - half, base), row["participants"] + half)
        for row in table.to_dict("records")
    }


def small_cells_shown(tables: Tables, smallest: int) -> list[object]:
    """Counts below the smallest in any table."""
    found: list[object] = []
    for column in ("participants", "n"):
        for table in tables.values():
            if column in table:
                numbers = pd.to_numeric(table[column], errors="coerce")
                found += numbers[(numbers > 0) & (numbers < smallest)].tolist()
    return found


def counts_by_difference(
    parents: Mapping[Cell, Interval], children: Mapping[Cell, Interval], lines: Mapping[Cell, list[Cell]], smallest: int
) -> dict[Cell, int]:
    """Hidden cells whose count follows from a margin minus the other cells of its line.

    Args:
        parents: margins; ``children``: cells, of the same or another summary.
        lines: cells of each margin.
        smallest: hidden cells have fewer people.
    """
    found = {}
    for margin, cells in lines.items():
        hidden = [cell for cell in cells if cell not in children]
        if len(hidden) != 1 or margin not in parents:
            continue
        left = parents[margin]
        for cell in set(cells) - set(hidden):
            left = left.minus(children[cell])
        low, high = max(left.low, 0), min(left.high, smallest - 1)
        if np.ceil(low) == np.floor(high):
            found[hidden[0]] = int(np.ceil(low))
    return found


def lines_of(levels: list[list[str]]) -> dict[Cell, list[Cell]]:
    """Cells of every margin over one dimension."""
    cells = [()]  # type: list[Cell]
    for names in levels:
        cells = [(*cell, name) for cell in cells for name in [ALL, *names]]
    return {
        cell: [(*cell[:d], name, *cell[d + 1 :]) for name in names]
        for cell in cells
        for d, names in enumerate(levels)
        if cell[d] == ALL
    }


def value_by_difference(with_one: Tables, without: Tables, target: str, counts: tuple[int, int]) -> Interval:
    """The value of the person by whom two summaries differ, from the mean of everyone.

    Args:
        with_one: tables of everyone; ``without``: of all but one.
        target: of the estimate.
        counts: true numbers of people behind both means: more than an attacker should know.
    """
    ends = []
    for tables, count in zip((with_one, without), counts, strict=True):
        table = tables[STATISTICS]
        row = table[(table["target"] == target) & (table["sex"] == ALL) & (table["age"] == ALL)]
        row = row[row[table.columns[4]] == ALL] if "by" in row else row
        mean, step = (float(row.iloc[0][name]) for name in ("mean", "mean_step")) if len(row) else (np.nan, np.inf)
        ends.append(Interval(count * (mean - step / 2), count * (mean + step / 2)))
    return ends[0].minus(ends[1])


def numbers_of(tables: Tables) -> Iterator[float]:
    """Every number that is not a count."""
    for name in (STATISTICS, QUANTILES):
        table = tables[name].select_dtypes("number").drop(columns=["n"], errors="ignore")
        yield from table.to_numpy(float).ravel()
