"""Attacks on the tables of a summary: what someone who has one or two of them can learn about a person.

Those on coefficients assume more than anyone should know: the covariates of everyone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.epidemiology.curves import Curve
from ukb_infer.epidemiology.summary import ALL, COUNTS, QUANTILES, STATISTICS

Tables = Mapping[str, pd.DataFrame]
Float64 = NDArray[np.float64]
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


def value_by_coefficients(
    with_one: pd.DataFrame, without: pd.DataFrame, estimator: str, design: Float64, person: int
) -> Interval:
    """The outcome of the person by whom two linear models differ, from the shift of each coefficient.

    Leaving a person out moves the coefficients by ``inverse(X'X) x e / (1 - h)``, of which only e is unknown.

    Args:
        with_one: rows of associations of everyone; ``without``: of all but one.
        estimator: whose rows to use.
        design: (N, p) of the people behind the first.
        person: row of the design.
    """
    both = [t[t["estimator"] == estimator].set_index("term") for t in (with_one, without)]
    inverse = np.linalg.inv(design.T @ design)
    own = design[person]
    weight = inverse @ own / (1.0 - own @ inverse @ own)
    low, high = -np.inf, np.inf
    for factor, term in zip(weight, both[0].index, strict=True):
        moved = both[0]["estimate"][term] - both[1]["estimate"][term]
        slack = (both[0]["estimate_step"][term] + both[1]["estimate_step"][term]) / 2
        ends = sorted(((moved - slack) / factor, (moved + slack) / factor))
        if np.isfinite(ends).all():
            low, high = max(low, ends[0]), min(high, ends[1])
    fitted = float(own @ both[1]["estimate"].fillna(0.0).to_numpy())
    return Interval(fitted + low, fitted + high)


def residual_by_curves(with_one: Curve, without: Curve, columns: Float64, person: int) -> float:
    """The residual, in sds, of the person by whom two curves differ, from the shift of the mean's coefficients.

    Args:
        with_one: curve of everyone; ``without``: of all but one.
        columns: (N, p) design of the people behind the first.
        person: row of the design.
    """
    own = columns[person]
    inverse = np.linalg.inv(columns.T @ columns)
    spread = np.sqrt(np.diag(inverse))
    scale = np.exp(0.5 * own @ without.first.log_variance)
    weight = inverse @ own / (1.0 - own @ inverse @ own) / spread
    moved = (np.array(with_one.first.mean) - np.array(without.first.mean)) / scale / spread
    return float(weight @ moved / (weight @ weight))
