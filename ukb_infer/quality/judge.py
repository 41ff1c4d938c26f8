"""From measures to flags: physical limits at once, relative ones against the run's scans of the same body size."""

from __future__ import annotations

from array import array
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ukb_infer.quality.registry import MEASURES, measure_of
from ukb_infer.quality.swaps import uncorrected
from ukb_infer.reasons import Reason
from ukb_infer.records import Measures

if TYPE_CHECKING:  # with pydantic; how far a run is can be told without it
    from ukb_infer.quality.limits import Limit, QualitySpec

#: How grave a flag is, the gravest first.
LEVELS = ("unusable", "targets", "note")
#: What body size is told by.
SIZE = "body_volume"
#: A run of fewer scans has no relative limits; median and deviation are taken in groups of this many of like size, in
#: at most so many groups.
FEWEST_SCANS, GROUP, MOST_GROUPS = 20, 50, 8
#: From a median absolute deviation to the standard deviation of a Gaussian.
MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class Flag:
    """A limit that a scan breaks.

    Attributes:
        reason: of the limit.
        message: which measure, value and limit.
        limit: that is broken.
    """

    reason: Reason
    message: str
    limit: Limit


@dataclass(frozen=True)
class Baseline:
    """What is usual for one column in a run, by body size: a value a group, sizes rising.

    Attributes:
        sizes: median of each group; ``medians``: of the measure; ``deviations``: its scaled MAD.
        scans: in all.
    """

    sizes: tuple[float, ...]
    medians: tuple[float, ...]
    deviations: tuple[float, ...]
    scans: int

    @classmethod
    def of(cls, values: Sequence[float], sizes: Sequence[float]) -> Baseline | None:
        """Fit to a run, whatever the order of its scans; None for too few.

        Args:
            values: of the column.
            sizes: of the same scans.
        """
        v, s = np.asarray(values, np.float64), np.asarray(sizes, np.float64)
        if v.size < FEWEST_SCANS:
            return None
        groups = np.array_split(np.lexsort((v, s)), min(max(1, v.size // GROUP), MOST_GROUPS))
        medians = [float(np.median(v[g])) for g in groups]
        deviations = [MAD_TO_SD * float(np.median(np.abs(v[g] - m))) for g, m in zip(groups, medians, strict=True)]
        return cls(tuple(float(np.median(s[g])) for g in groups), tuple(medians), tuple(deviations), v.size)

    def at(self, size: float) -> tuple[float, float]:
        """Median and deviation of scans of a size, linear between groups; without NumPy, which is slower here."""
        k = bisect(self.sizes, size)
        if k in (0, len(self.sizes)):
            return self.medians[min(k, len(self.sizes) - 1)], self.deviations[min(k, len(self.sizes) - 1)]
        share = (size - self.sizes[k - 1]) / (self.sizes[k] - self.sizes[k - 1])
        below, above = (self.medians[k - 1], self.deviations[k - 1]), (self.medians[k], self.deviations[k])
        return below[0] + share * (above[0] - below[0]), below[1] + share * (above[1] - below[1])


class Judge:
    """Raises the flags of a run's scans.

    Args:
        spec: the limits.
        scans: measures of the run's usable scans, in any order; needed for relative limits.
    """

    def __init__(self, spec: QualitySpec, scans: Iterable[Measures] = ()) -> None:
        self.spec = spec
        self._codes: dict[str, tuple[str, ...]] = {}
        found: dict[str, tuple[array[float], array[float]]] = {}
        wanted: dict[str, bool] = {}
        for measures in scans if any(limit.is_relative for limit in spec.limits.values()) else ():
            size = measures.get(SIZE)
            if not isinstance(size, float):
                continue
            for name, value in measures.items():
                if name not in wanted:
                    wanted[name] = any(spec.limits[c].is_relative for c in self._judging(name))
                if wanted[name] and isinstance(value, float):
                    values, sizes = found.setdefault(name, (array("d"), array("d")))
                    values.append(value)
                    sizes.append(size)
        baselines = {name: Baseline.of(*pair) for name, pair in found.items()}
        self.baselines: Mapping[str, Baseline] = {n: b for n, b in baselines.items() if b is not None}

    def flags(self, measures: Measures) -> tuple[Flag, ...]:
        """Flags of a scan, the gravest first."""
        broken: dict[str, list[str]] = {}
        for name, value in measures.items():
            if isinstance(value, float):
                for code in self._judging(name):
                    if words := self._broken(name, value, measures.get(SIZE), self.spec.limits[code]):
                        broken.setdefault(code, []).append(words)
        codes = [code for code in self.spec.limits if code in broken]
        raised = [Flag(Reason(code), "; ".join(broken[code]), self.spec.limits[code]) for code in codes]
        return tuple(sorted(raised, key=lambda flag: LEVELS.index(flag.limit.level)))

    def lacks(self, measures: Measures) -> bool:
        """Whether a swap was left that this run requires to be absent."""
        return any(reason.value in self.spec.required.reasons for reason in uncorrected(measures))

    def fails(self, flag: Flag) -> bool:
        """Whether a flag is a failure in this run."""
        return self.spec.strict or self.spec.required.covers(flag.reason, flag.limit.level)

    def _judging(self, column: str) -> tuple[str, ...]:
        """Codes of the limits that look at a column: of a station, a seam or the scan, not a summary of stations."""
        if column not in self._codes:
            name = measure_of(column)
            measure, number = MEASURES.get(name), column.removeprefix(f"{name}_")
            judged = measure is not None and (measure.per == "scan") == (column == name)
            self._codes[column] = tuple(
                code
                for code, limit in self.spec.limits.items()
                if judged and limit.level != "off" and name in limit.measures
                and (not limit.stations or column == name or int(number) in limit.stations)
            )  # fmt: skip
        return self._codes[column]

    def _broken(self, name: str, value: float, size: float | str | None, limit: Limit) -> str:
        """Measure, value and limit in words where the limit is broken, else ""."""
        bounds = [(limit.below, limit.above, "")]
        baseline = self.baselines.get(name)
        if limit.is_relative and baseline is not None and isinstance(size, float):
            median, deviation = baseline.at(size)
            low, high = (
                None if mads is None else median + sign * max(mads * deviation, limit.margin)
                for sign, mads in ((-1, limit.mads_below), (1, limit.mads_above))
            )
            bounds.append((low, high, f"; {median:.3g} is usual in {baseline.scans} scans at this body size"))
        for low, high, why in bounds:
            end, words = (low, "least") if low is not None and value < low else (high, "most")
            if end is not None and (value < end if words == "least" else value > end):
                unit = MEASURES[measure_of(name)].unit
                return f"{name} is {value:.4g}{' ' * bool(unit)}{unit}, expected at {words} {end:.4g}{why}"
        return ""
