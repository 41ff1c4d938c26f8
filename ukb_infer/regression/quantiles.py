"""Central intervals of a mixture of predictive distributions.

Several modules that predict one target, without data to calibrate them together, give one distribution: the mixture of
their calibrated ones, weighted by members. Its interval is taken between quantiles, not from mean and sd, because a
mixture of two Gaussians is not Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Float64 = NDArray[np.float64]
#: Halvings of the bracket of a quantile: far below float32.
_HALVINGS = 60


@dataclass(frozen=True)
class Shape:
    """A symmetric distribution with sd 1, by the half widths of its central intervals.

    Attributes:
        levels: rising, in (0, 1); none for a Gaussian.
        widths: half widths at those levels, in standard deviations. In between they are interpolated; beyond the last
            the tail is Gaussian, stretched to be continuous.
        weight: share in the mixture, relative to the others'.
    """

    levels: tuple[float, ...] = ()
    widths: tuple[float, ...] = ()
    weight: float = 1.0

    def below(self, z: Float64) -> Float64:
        """Distribution function: probability below z, any shape."""
        if not self.levels:
            return np.asarray(ndtr(z))
        size = np.abs(z)
        last, level = self.widths[-1], self.levels[-1]
        inside = np.interp(size, (0.0, *self.widths), (0.0, *self.levels))
        stretch = ndtri(0.5 + 0.5 * level) / last
        covered = np.where(size > last, 2.0 * ndtr(size * stretch) - 1.0, inside)
        return np.asarray(0.5 + 0.5 * np.sign(z) * covered)


def mixture_interval(means: Float64, sds: Float64, shapes: Sequence[Shape], level: float) -> tuple[Float64, Float64]:
    """Central interval of a mixture, by bisection.

    Args:
        means: (K, N) of each part.
        sds: (K, N) of each part.
        shapes: K.
        level: in (0, 1).

    Returns:
        Lower and upper end, (N,) each: the quantiles (1 - level)/2 and (1 + level)/2.
    """
    weights = np.array([s.weight for s in shapes]) / sum(s.weight for s in shapes)

    def below(value: Float64) -> Float64:
        parts = [w * s.below((value - m) / d) for w, s, m, d in zip(weights, shapes, means, sds, strict=True)]
        return np.asarray(np.sum(parts, axis=0))

    reach = 50.0 * sds.max(axis=0)
    ends = []
    for wanted in (0.5 - 0.5 * level, 0.5 + 0.5 * level):
        low, high = means.min(axis=0) - reach, means.max(axis=0) + reach
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            short = below(middle) < wanted
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        ends.append(0.5 * (low + high))
    return ends[0], ends[1]
