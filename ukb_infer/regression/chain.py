"""The numerical steps after the network: small functions, each with one meaning and one variance rule.

============================  ====================  ==================================================================
function                      meaning               rule for the variance
============================  ====================  ==================================================================
:func:`combine_members`       members -> ensemble   mean of variances (aleatoric) + variance of means (epistemic)
:func:`destandardize`         z-scores -> labels    times sd squared
:func:`calibrate`             stated -> observed    times the calibration factor
:func:`convert_units`         labels -> natural     divided by the divisor squared
:func:`combine_modules`       modules -> target     as combine_members, over all members of all modules
:func:`prediction_interval`   sd -> interval        none: half width times sd, clipped to the physical limits
============================  ====================  ==================================================================

All float64 NumPy. Before them, the network gives mean and log-variance of each member (``variance_from_raw``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """Mean and the two parts of the total variance; any shape, all equal.

    Attributes:
        mean: of the mixture.
        aleatoric: mean of the members' variances.
        epistemic: variance of the members' means (population variance, as in the deep-ensemble rule).
    """

    mean: Float64
    aleatoric: Float64
    epistemic: Float64

    @property
    def total_variance(self) -> Float64:
        """Aleatoric + epistemic."""
        return self.aleatoric + self.epistemic

    def select(self, chosen: Any) -> Mixture:
        """Some of the numbers, by an index of NumPy."""
        return Mixture(self.mean[chosen], self.aleatoric[chosen], self.epistemic[chosen])


def combine_members(means: Float64, variances: Float64) -> Mixture:
    """Deep-ensemble rule (Lakshminarayanan et al. 2017): the moments of an equal mixture of Gaussians.

    Args:
        means: (K, ...) members' means.
        variances: (K, ...) members' variances.

    Returns:
        ``mean = mean(mu_k)``; ``total = mean(sigma_k^2 + mu_k^2) - mean^2``, computed without cancellation, so that
        identical members add exactly no epistemic variance.
    """
    first = means[0]
    offset = means - first
    centre = offset.mean(axis=0)
    return Mixture(first + centre, variances.mean(axis=0), np.square(offset - centre).mean(axis=0))


def destandardize(mixture: Mixture, mean: Float64, sd: Float64) -> Mixture:
    """Standardized to label units: ``m * sd + mean``; both variances times ``sd^2``.

    Args:
        mixture: (..., T) standardized.
        mean: (T,) of the labels.
        sd: (T,) of the labels.
    """
    square = np.square(sd)
    return Mixture(mixture.mean * sd + mean, mixture.aleatoric * square, mixture.epistemic * square)


def calibrate(mixture: Mixture, factor: Float64) -> Mixture:
    """Multiply both parts of the variance by the calibration factor; the mean stays.

    Args:
        mixture: (..., T).
        factor: (T,) or a single one.
    """
    return Mixture(mixture.mean, mixture.aleatoric * factor, mixture.epistemic * factor)


def convert_units(mixture: Mixture, divisor: Float64) -> Mixture:
    """Label units to natural units: ``mean / d``; both variances divided by ``d^2``.

    Args:
        mixture: (..., T) in label units.
        divisor: (T,) label units per natural unit.
    """
    square = np.square(divisor)
    return Mixture(mixture.mean / divisor, mixture.aleatoric / square, mixture.epistemic / square)


def combine_modules(mixtures: Sequence[Mixture], members: Sequence[int]) -> Mixture:
    """Join modules that predict the same target, in natural units, as one mixture of all their members.

    Args:
        mixtures: one per module, equal shapes.
        members: number of members of each; every member weighs the same.

    Returns:
        The mixture; the spread between modules counts as epistemic.
    """
    if len(mixtures) == 1:
        return mixtures[0]
    weights = np.asarray(members, np.float64) / float(sum(members))
    base = mixtures[0].mean
    offsets = [m.mean - base for m in mixtures]
    centre = sum(w * o for w, o in zip(weights, offsets, strict=True))
    between = sum(w * np.square(o - centre) for w, o in zip(weights, offsets, strict=True))
    aleatoric = sum(w * m.aleatoric for w, m in zip(weights, mixtures, strict=True))
    within = sum(w * m.epistemic for w, m in zip(weights, mixtures, strict=True))
    return Mixture(np.asarray(base + centre), np.asarray(aleatoric), np.asarray(within + between))


def gaussian_quantile(level: float) -> float:
    """Half width, in standard deviations, of the central Gaussian interval of a level in (0, 1)."""
    return float(ndtri(0.5 + 0.5 * level))


def prediction_interval(
    mean: Float64, sd: Float64, half_width: Float64 | float, lower: float | None, upper: float | None
) -> tuple[Float64, Float64]:
    """Interval ``mean ± half_width * sd``, clipped to the physical limits; the mean is never clipped.

    Args:
        mean: (N,).
        sd: (N,) total standard deviation.
        half_width: in standard deviations, from :func:`gaussian_quantile` or a conformal calibration.
        lower: physical limit or None.
        upper: physical limit or None.

    Returns:
        Lower and upper ends, (N,) each.
    """
    low, high = mean - half_width * sd, mean + half_width * sd
    if lower is not None or upper is not None:
        low, high = np.clip(low, lower, upper), np.clip(high, lower, upper)
    return low, high
