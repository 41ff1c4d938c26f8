"""Probabilities of 0/1 targets: from the regressed mean to a calibrated probability, and prediction sets.

Platt: logistic regression on the mean, with Platt's smoothed labels (Platt 1999). Isotonic: the best ascending step
function (Zadrozny & Elkan 2002), interpolated linearly; it needs more labels. Prediction sets: class-conditional split
conformal (Vovk 2012): the level holds for each class separately.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit

from ukb_infer.errors import UsageError
from ukb_infer.regression.calibration import CONFORMAL_LEVELS, conformal_half_width

Float64 = NDArray[np.float64]
#: Knots of a curve from mean to probability: (mean, probability), both ascending.
Curve = tuple[tuple[float, float], ...]
#: Fewest labels for isotonic regression, in all and of the rarer class.
ISOTONIC_LABELS, ISOTONIC_RARER = 1000, 100
#: Fewest labels of each class for any calibration.
FEWEST_OF_A_CLASS = 5
#: Change of the log odds over the whole range of the mean that is left where labels speak against it. The order of the
#: scans stays: a few unlucky labels must not make every scan alike.
_LEAST_SLOPE = 0.1
#: Knots at which a logistic curve is stored; linear interpolation is accurate to 1e-4.
_PLATT_KNOTS = np.linspace(-1.0, 2.0, 301)


def fit_probability(label: Float64, mean: Float64) -> tuple[str, Curve]:
    """Fit the curve from the regressed mean to the probability of class 1.

    Args:
        label: (N,) 0 or 1, NaN where missing.
        mean: (N,) predictions for scans that training did not see.

    Returns:
        ``platt`` or ``isotonic``, and the curve.

    Raises:
        UsageError: fewer than :data:`FEWEST_OF_A_CLASS` labels of a class.
    """
    present = np.isfinite(label) & np.isfinite(mean)
    y, m = label[present], mean[present]
    order = np.lexsort((y, m))  # row order must not matter
    y, m = y[order], m[order]
    rarer = int(min(y.sum(), y.size - y.sum()))
    if rarer < FEWEST_OF_A_CLASS:
        raise UsageError(
            f"a probability needs at least {FEWEST_OF_A_CLASS} labels of each class, got {rarer} of the rarer"
        )
    if y.size >= ISOTONIC_LABELS and rarer >= ISOTONIC_RARER:
        return "isotonic", _isotonic(y, m)
    return "platt", _platt(y, m)


def _platt(y: Float64, m: Float64) -> Curve:
    positive = y.sum()
    negative = y.size - positive
    smooth = np.where(y == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(parameters: Float64) -> tuple[float, Float64]:
        z = parameters[0] * (m - 0.5) + parameters[1]
        value = np.logaddexp(0.0, z).sum() - (smooth * z).sum()
        slope = expit(z) - smooth
        return float(value), np.array([(slope * (m - 0.5)).sum(), slope.sum()])

    slope, intercept = map(float, minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x)
    if slope < _LEAST_SLOPE:  # nothing shows that the mean tells the class: nearly its share, in the mean's order
        slope = _LEAST_SLOPE
        intercept = float(logit(smooth.mean()) - slope * (m.mean() - 0.5))
    probability = expit(slope * (_PLATT_KNOTS - 0.5) + intercept)
    return tuple(zip(_PLATT_KNOTS.tolist(), probability.tolist(), strict=True))


def _isotonic(y: Float64, m: Float64) -> Curve:
    values, where, counts = np.unique(m, return_inverse=True, return_counts=True)
    share = np.bincount(where, y) / counts
    fitted = isotonic_regression(share, weights=counts).x
    edge = 1.0 / (y.size + 2)
    fitted = np.clip(fitted, edge, 1.0 - edge)
    ends = np.flatnonzero(np.diff(fitted, prepend=np.nan, append=np.nan) != 0)  # both ends of every step
    keep = np.unique(np.concatenate([ends, ends - 1]).clip(0, fitted.size - 1))
    return tuple(zip(values[keep].tolist(), fitted[keep].tolist(), strict=True))


def apply_curve(curve: Curve, mean: Float64) -> Float64:
    """Probability of class 1: the curve, or the mean clipped to 0-1 where there is none.

    Args:
        curve: of :func:`fit_probability`; empty for none.
        mean: any shape.
    """
    if not curve:
        return np.clip(mean, 0.0, 1.0)
    knots, values = zip(*curve, strict=True)
    return np.asarray(np.interp(mean, knots, values))


def fit_sets(label: Float64, probability: Float64) -> tuple[tuple[float, float, float], ...]:
    """Limits of the prediction sets.

    Args:
        label: (N,) 0 or 1, NaN where missing.
        probability: (N,) of class 1.

    Returns:
        (level, lowest probability of class 0, lowest probability of class 1) with which a class is in the set, at the
        levels that both classes have enough labels for.
    """
    scores = (probability[label == 0], 1.0 - probability[label == 1])
    found = []
    for level in CONFORMAL_LEVELS:
        zero, one = (conformal_half_width(s, level) for s in scores)
        if np.isfinite(zero) and np.isfinite(one):
            found.append((level, 1.0 - zero, 1.0 - one))
    return tuple(found)


def prediction_set(probability: float, zero: float, one: float) -> str:
    """``0``, ``1``, ``0;1`` or nothing.

    Args:
        probability: of class 1.
        zero: lowest probability of class 0 with which it is in the set.
        one: the same for class 1.
    """
    return ";".join([*(["0"] if 1.0 - probability >= zero else []), *(["1"] if probability >= one else [])])
