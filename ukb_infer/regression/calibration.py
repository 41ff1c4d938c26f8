"""Fitting calibration on predictions for scans that training did not see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

from ukb_infer.errors import UsageError

Float64 = NDArray[np.float64]

#: Nominal levels of the published coverage curve.
PUBLISHED_LEVELS = np.linspace(0.0, 1.0, 11)
#: Levels at which conformal half widths are kept; interpolated in between, refused beyond.
CONFORMAL_LEVELS = (0.5, 0.6, 0.68, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.98, 0.99, 0.995, 0.999)


def _scores(label: Float64, mean: Float64, variance: Float64) -> Float64:
    """|label - mean| / sd of the labels present, ascending, so that sums do not depend on row order.

    Raises:
        UsageError: fewer than 10 labels, or invalid predictions.
    """
    present = np.isfinite(label)
    if present.sum() < 10:
        raise UsageError(f"calibration needs at least 10 labels of a target, got {int(present.sum())}")
    if not np.isfinite(mean[present]).all() or not ((variance[present] > 0) & np.isfinite(variance[present])).all():
        raise UsageError("calibration needs finite means and finite variances above 0; check the training")
    return np.sort(np.abs(label - mean)[present] / np.sqrt(variance[present]))


def variance_factor_closed_form(label: Float64, mean: Float64, variance: Float64) -> float:
    """Factor that minimizes the Gaussian NLL: the mean squared standardized residual (Levi et al. 2022).

    Args:
        label: (N,) NaN where missing.
        mean: (N,) predictions.
        variance: (N,) total variance.

    Raises:
        UsageError: too few labels, or all of them predicted without any error.
    """
    return _factor(float(np.square(_scores(label, mean, variance)).mean()), "all")


def _factor(value: float, share: str) -> float:
    """The factor, if it is not 0 (an sd of 0 is invalid)."""
    if value == 0:
        raise UsageError(
            f"calibration: {share} of the labels are predicted exactly, so no factor fits; check the labels"
        )
    return value


def coverage_area(scores: Float64, factor: float) -> float:
    """Signed area between observed and nominal coverage over the published levels; > 0 if intervals are too wide.

    Args:
        scores: (n,) |label - mean| / sd.
        factor: of the variance.
    """
    half = ndtri(0.5 + 0.5 * PUBLISHED_LEVELS[1:-1]) * np.sqrt(factor)
    observed = np.concatenate([[0.0], (scores[:, None] <= half[None, :]).mean(axis=0), [1.0]])
    return float(np.trapezoid(observed - PUBLISHED_LEVELS, PUBLISHED_LEVELS))


def variance_factor_coverage(label: Float64, mean: Float64, variance: Float64) -> float:
    """As published: the factor at which the coverage curve has no signed area, by a monotone root search.

    The area grows with the factor, in steps of 1/N; the search is on the logarithm and around the median score, so
    that it does not depend on the unit.

    Args:
        label: (N,) NaN where missing.
        mean: (N,) predictions.
        variance: (N,) total variance.

    Raises:
        UsageError: too few labels, or most of them predicted without any error.
    """
    scores = _scores(label, mean, variance)
    middle = float(np.median(scores))
    centre = 2.0 * np.log(_factor(middle, "more than half") / ndtri(0.75))
    root = brentq(lambda x: coverage_area(scores, float(np.exp(centre + x))), -60.0, 60.0, xtol=1e-6)
    return float(np.exp(centre + root))


def conformal_half_width(scores: Float64, level: float) -> float:
    """Split-conformal half width in standard deviations: the ceil((n + 1) level)-th smallest score.

    It guarantees coverage of at least ``level`` for exchangeable scans (Vovk et al. 2005; Lei et al. 2018).

    Args:
        scores: (n,) |label - mean| / sd on calibration scans.
        level: in (0, 1).

    Returns:
        Half width; infinite if n is too small for the level.
    """
    rank = max(1, int(np.ceil((scores.size + 1) * level - 1e-9)))
    return float(np.sort(scores)[rank - 1]) if rank <= scores.size else float("inf")


def conformal_table(label: Float64, mean: Float64, variance: Float64) -> dict[float, float]:
    """Half widths at :data:`CONFORMAL_LEVELS`, without levels for which there are too few labels.

    Args:
        label: (N,) NaN where missing.
        mean: (N,) predictions.
        variance: (N,) total variance, calibrated.
    """
    scores = _scores(label, mean, variance)
    widths = {level: conformal_half_width(scores, level) for level in CONFORMAL_LEVELS}
    return {level: width for level, width in widths.items() if np.isfinite(width)}
