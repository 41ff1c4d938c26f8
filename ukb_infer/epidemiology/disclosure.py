"""Statistics that show no one person: what counts, means, sds and quantiles must pass before they leave.

Three rules, each against one attack. People of a small cell are in no number at all, so that no margin minus its other
cells gives that cell. Counts are rounded to multiples of the smallest count, so that two tables of nested groups do not
give it either. Means, sds and quantiles are rounded to steps larger than any one person's part in them, so that two
summaries that differ by one person do not give that person's value. Sources: Hundepool et al., Statistical Disclosure
Control (2012), chapters 4 and 5; UK Biobank allows no counts below 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.errors import UsageError

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Fewest people behind any number.
SMALLEST_COUNT = 5
#: Values further from the median than so many robust sds are moved there.
CLIP = 8.0
#: Steps of means and quantiles, and of sds, in robust sds over people. No one's part in a mean exceeds the first; the
#: second is the part in the sd of a person at the limit, in a group that is spread like everyone.
_MEAN_STEP, _SD_STEP = 2.0 * CLIP, 0.5 * CLIP**2
#: Fewest people of a mean, of an sd, and beyond a quantile, in smallest counts.
_FOR_MEAN, _FOR_SD, _BEYOND = 8, 40, 3

#: Most characters of a word, and what may name one person.
_LONGEST = 40
_REVEALING = re.compile(r"[0-9]{6,}|[/\\@]")


def refuse_revealing(words: Iterable[str], where: str) -> None:
    """Refuse words that may be free text or name one person.

    Args:
        words: levels of a column.
        where: the option and column, for the message.

    Raises:
        UsageError: without the word.
    """
    if any(len(word) > _LONGEST or _REVEALING.search(word) for word in words):
        raise UsageError(
            f"{where} has a value longer than {_LONGEST} characters, or one like a number, path or address of one "
            "person; use a column of a few codes"
        )


def rounded_count(count: int, smallest: int) -> int:
    """A count as it may be shown: 0 (suppressed) below the smallest, else rounded to its multiples.

    >>> [rounded_count(n, 5) for n in (4, 5, 7, 8, 12)]
    [0, 5, 5, 10, 10]
    """
    return 0 if count < smallest else smallest * int(count / smallest + 0.5)


def in_large_cells(cells: pd.Series, smallest: int) -> Bool:
    """(N,) people whose cell, all dimensions taken together, has enough people; missing cells have not.

    Args:
        cells: (N,) cell of each person.
        smallest: count.
    """
    return np.asarray(cells.map(cells.value_counts()).fillna(0) >= smallest, bool)


def robust_scale(values: Float64) -> float:
    """Interquartile range of (N,) values as an sd, to one significant digit; 0 for fewer than 20 values."""
    if len(values) < 4 * SMALLEST_COUNT:
        return 0.0
    low, high = np.quantile(values, [0.25, 0.75])
    return float(f"{(high - low) / 1.349:.1g}")


def clipped(values: Float64, scale: float) -> Float64:
    """(N,) values without extremes.

    Args:
        values: (N,).
        scale: robust sd.
    """
    middle = np.median(values)
    return np.clip(values, middle - CLIP * scale, middle + CLIP * scale)


def step_of(least: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is not below ``least``.

    >>> [step_of(x) for x in (0.3, 0.02, 60.0)]
    [0.5, 0.02, 100.0]
    """
    power = 10.0 ** np.floor(np.log10(least))
    return float(f"{next(m for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9)) * power:.1g}")


def one_digit_up(value: float) -> float:
    """A positive value rounded up to one digit.

    >>> [one_digit_up(x) for x in (0.31, 0.02, 96.0)]
    [0.4, 0.02, 100.0]
    """
    unit = 10.0 ** np.floor(np.log10(value))
    return float(f"{np.ceil(value / unit * (1 - 1e-9)) * unit:.1g}")


def to_step(value: float, step: float) -> float:
    """A value rounded to multiples of a step."""
    return float(f"{round(value / step) * step:.10g}")


def mean_and_sd(values: Float64, scale: float, smallest: int) -> dict[str, float]:
    """``mean``, ``mean_step``, ``sd``, ``sd_step`` of a group, NaN where the group is too small for them.

    Args:
        values: (N,) clipped.
        scale: robust sd of everyone.
        smallest: count.
    """
    found = dict.fromkeys(("mean", "mean_step", "sd", "sd_step"), np.nan)
    count = rounded_count(len(values), smallest)
    for name, fewest, step, of in (("mean", _FOR_MEAN, _MEAN_STEP, np.mean), ("sd", _FOR_SD, _SD_STEP, np.std)):
        if count >= fewest * smallest and scale > 0:
            width = step_of(step * scale / count)
            found |= {name: to_step(float(of(values)), width), f"{name}_step": width}
    return found


def quantile(values: Float64, level: float, scale: float, smallest: int) -> float:
    """A quantile as the mean of its neighbours, NaN where too few people lie beyond it.

    Args:
        values: (N,) ascending and clipped.
        level: such as 0.05.
        scale: robust sd of everyone.
        smallest: count; as many neighbours on each side are averaged.
    """
    rank = round(level * len(values))
    if min(rank, len(values) - rank) < _BEYOND * smallest or scale <= 0:
        return float("nan")
    around = values[rank - smallest : rank + smallest]
    return to_step(float(around.mean()), step_of(_MEAN_STEP * scale / rounded_count(len(values), smallest)))
