"""From measures to flags: physical limits at once, relative ones against the run's scans of the same body size."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ukb_infer.quality.registry import MEASURES, measure_of
from ukb_infer.reasons import Reason
from ukb_infer.records import Measures

if TYPE_CHECKING:  # with pydantic; how far a run is can be told without it
    from ukb_infer.quality.limits import Limit, QualitySpec

Float64 = NDArray[np.float64]

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
    """What is usual for one column in a run, by body size: (groups,) each, sizes rising.

    Attributes:
        sizes: median of each group; ``medians``: of the measure; ``deviations``: its scaled MAD.
        scans: in all.
    """

    sizes: Float64
    medians: Float64
    deviations: Float64
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
        order = np.lexsort((v, s))
        groups = np.array_split(order, min(max(1, v.size // GROUP), MOST_GROUPS))
        medians = np.array([np.median(v[g]) for g in groups])
        deviations = [MAD_TO_SD * np.median(np.abs(v[g] - m)) for g, m in zip(groups, medians, strict=True)]
        return cls(np.array([np.median(s[g]) for g in groups]), medians, np.array(deviations), v.size)

    def at(self, size: float) -> tuple[float, float]:
        """Median and deviation of scans of a size."""
        return float(np.interp(size, self.sizes, self.medians)), float(np.interp(size, self.sizes, self.deviations))


class Judge:
    """Raises the flags of a run's scans.

    Args:
        spec: the limits.
        scans: measures of the run's usable scans, in any order; needed for relative limits.
    """

    def __init__(self, spec: QualitySpec, scans: Iterable[Measures] = ()) -> None:
        self.spec = spec
        relative = {m for limit in spec.limits.values() if limit.is_relative for m in limit.measures}
        found: dict[str, tuple[array[float], array[float]]] = {}
        for measures in scans if relative else ():
            size = measures.get(SIZE)
            if not isinstance(size, float):
                continue
            for name, value in measures.items():
                if isinstance(value, float) and _is_judged(name) and measure_of(name) in relative:
                    values, sizes = found.setdefault(name, (array("d"), array("d")))
                    values.append(value)
                    sizes.append(size)
        baselines = {name: Baseline.of(*pair) for name, pair in found.items()}
        self.baselines: Mapping[str, Baseline] = {n: b for n, b in baselines.items() if b is not None}

    def flags(self, measures: Measures) -> tuple[Flag, ...]:
        """Flags of a scan, the gravest first."""
        columns: dict[str, list[str]] = {}
        for name, value in measures.items():
            if isinstance(value, float) and _is_judged(name):
                columns.setdefault(measure_of(name), []).append(name)
        raised = []
        for code, limit in self.spec.limits.items():
            if limit.level == "off":
                continue
            names = [n for measure in limit.measures for n in columns.get(measure, ()) if _is_of(n, limit.stations)]
            broken = [words for name in names if (words := self._broken(name, measures, limit))]
            if broken:
                raised.append(Flag(Reason(code), "; ".join(broken), limit))
        return tuple(sorted(raised, key=lambda flag: LEVELS.index(flag.limit.level)))

    def fails(self, flag: Flag) -> bool:
        """Whether a flag is a failure in this run."""
        return self.spec.strict or self.spec.required.covers(flag.reason, flag.limit.level)

    def _broken(self, name: str, measures: Measures, limit: Limit) -> str:
        """Measure, value and limit in words where the limit is broken, else ""."""
        value, size = measures[name], measures.get(SIZE)
        assert isinstance(value, float)
        bounds = [(limit.below, limit.above, "")]
        baseline = self.baselines.get(name)
        if limit.is_relative and baseline is not None and isinstance(size, float):
            median, deviation = baseline.at(size)
            low, high = (
                None if mads is None else median + sign * max(mads * deviation, limit.margin)
                for sign, mads in ((-1, limit.mads_below), (1, limit.mads_above))
            )
            bounds.append((low, high, f"; {median:.3g} is usual in {baseline.scans} scans at this body size"))
        unit = MEASURES[measure_of(name)].unit
        shown = f"{name} is {value:.4g}{' ' * bool(unit)}{unit}"
        for low, high, why in bounds:
            if low is not None and value < low:
                return f"{shown}, expected at least {low:.4g}{why}"
            if high is not None and value > high:
                return f"{shown}, expected at most {high:.4g}{why}"
        return ""


def _is_of(name: str, stations: tuple[int, ...]) -> bool:
    """Whether a column is of one of these stations; of none, any is."""
    return not stations or name in MEASURES or int(name.rpartition("_")[2]) in stations


def _is_judged(name: str) -> bool:
    """Whether limits look at a column: of a station, a seam or the whole scan, not a summary of stations."""
    measure = MEASURES.get(measure_of(name))
    return measure is not None and (measure.per == "scan") == (name in MEASURES)
