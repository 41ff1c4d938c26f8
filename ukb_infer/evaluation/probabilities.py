"""How well probabilities of 0/1 targets are calibrated (NumPy only).

Log loss; expected calibration error (Naeini et al. 2015); slope and intercept of a logistic regression of the label on
the logit of the probability (Cox 1958): 1 and 0 for calibrated probabilities, a slope below 1 for overconfident ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Float64 = NDArray[np.float64]
#: Probabilities are kept this far from 0 and 1, where logarithms diverge.
EDGE = 1e-6
_STEPS = 30
#: A steeper regression means separated classes, and has no slope.
_STEEPEST = 1e3


def log_loss(label: Float64, probability: Float64, weights: Float64) -> Float64:
    """Mean negative log likelihood, (rows,).

    Args:
        label: (n,) 0 or 1.
        probability: (n,) of 1.
        weights: (rows, n).
    """
    p = np.clip(probability, EDGE, 1.0 - EDGE)
    loss = -(label * np.log(p) + (1.0 - label) * np.log1p(-p))
    return np.asarray(weights @ loss / weights.sum(axis=1))


def calibration_error(label: Float64, probability: Float64, weights: Float64, bins: int) -> Float64:
    """Expected calibration error over bins of equal width, (rows,).

    Args:
        label: (n,) 0 or 1.
        probability: (n,) of 1.
        weights: (rows, n).
        bins: number of them.
    """
    member = np.minimum((probability * bins).astype(np.int64), bins - 1)[:, None] == np.arange(bins)[None, :]
    gap = weights @ (member * (probability - label)[:, None])
    return np.asarray(np.abs(gap).sum(axis=1) / weights.sum(axis=1))


def calibration_line(label: Float64, probability: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """Slope and intercept of the label's logistic regression on the logit, by Newton's method.

    Args:
        label: (n,) 0 or 1.
        probability: (n,) of 1.
        weights: (rows, n).

    Returns:
        (rows,) slopes and intercepts; NaN where one class, one value or separated classes leave them undefined.
    """
    x = logit(np.clip(probability, EDGE, 1.0 - EDGE))
    slope, intercept = np.ones(len(weights)), np.zeros(len(weights))
    with np.errstate(all="ignore"):
        for _ in range(_STEPS):
            p = expit(slope[:, None] * x + intercept[:, None])
            residual, curvature = weights * (label - p), weights * p * (1.0 - p)
            g0, g1 = residual.sum(axis=1), residual @ x
            h00, h01, h11 = curvature.sum(axis=1), curvature @ x, curvature @ (x * x)
            determinant = h00 * h11 - h01 * h01
            step0 = (h11 * g0 - h01 * g1) / determinant
            step1 = (h00 * g1 - h01 * g0) / determinant
            shrink = np.minimum(1.0, 5.0 / np.maximum(np.abs(step0), np.abs(step1)).clip(min=1e-300))
            intercept, slope = intercept + shrink * step0, slope + shrink * step1
        settled = np.maximum(np.abs(step0), np.abs(step1)) < 1e-6 * np.maximum(1.0, np.abs(slope))
        fine = settled & (np.abs(slope) < _STEEPEST) & (determinant > 1e-9 * h00 * h11)
    return np.where(fine, slope, np.nan), np.where(fine, intercept, np.nan)
