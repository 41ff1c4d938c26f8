"""Fairness over groups of participants: the mean over attributes of 1 - (best group - worst group)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
#: Groups of an attribute with numbers, as equal in size as ties allow.
NUMBER_GROUPS = 4
#: An attribute with more different values is a number to be grouped, if its values are numbers.
_MOST_NAMES = 8
_UNKNOWN = ("", "nan", "none", "n/a", "na")


@dataclass(frozen=True, kw_only=True)
class GroupValue:
    """A metric within one group."""

    attribute: str
    group: str
    count: int
    value: float


def grouped(values: Sequence[str]) -> list[str]:
    """Names of groups: the values themselves, or quarters if they are many numbers; "" where unknown.

    >>> grouped(["F", "M", "n/a"])
    ['F', 'M', '']
    """
    known = ["" if v.strip().lower() in _UNKNOWN else v.strip() for v in values]
    names = {v for v in known if v}
    try:
        numbers = np.array([float(v) if v else np.nan for v in known])
    except ValueError:
        return known
    if len(names) <= _MOST_NAMES:
        return known
    edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, NUMBER_GROUPS + 1)))
    place = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    return [f"{edges[k]:g} to {edges[k + 1]:g}" if v else "" for k, v in zip(place, known, strict=True)]


def fairness(
    measure: Callable[[NDArray[np.bool_], Float64], Float64], groups: Mapping[str, Sequence[str]], weights: Float64
) -> tuple[Float64, list[GroupValue]]:
    """Fairness for every row of weights, and the metric of every group in the first row.

    Groups in which the metric is not defined (one class, two cases) are left out, as are attributes with fewer than two
    groups that define it.

    Args:
        measure: from the (n,) members of a group and their (rows, members) weights to the metric, (rows,), NaN where it
            is not defined; larger is better.
        groups: (n,) names by attribute, "" where unknown.
        weights: (rows, n), the first all ones.

    Returns:
        (rows,) scores, NaN without attributes; values by group.
    """
    gaps, values = [], []
    for attribute, names in groups.items():
        rows = []
        for group in sorted({name for name in names if name}):
            member = np.array([name == group for name in names])
            found = measure(member, weights[:, member])
            values.append(GroupValue(attribute=attribute, group=group, count=int(member.sum()), value=float(found[0])))
            rows.append(found)
        judged = [row for row in rows if np.isfinite(row[0])]
        if len(judged) >= 2:
            gaps.append(np.ptp(judged, axis=0))  # NaN where a replicate lacks a group
    score = 1.0 - np.mean(gaps, axis=0) if gaps else np.full(len(weights), np.nan)
    return np.asarray(score), values
