"""The start of finetuning: a head fitted to the frozen features of a pretrained encoder.

Behind a random head the first steps move the encoder away from what pretraining taught it, which costs most at
scanners that the labels do not show (Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform
out-of-distribution"). So the head is fitted first, by ridge regression, and then everything learns with small steps.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer.regression.log_variance import CENTRE, HALF_RANGE

#: Penalties tried, as shares of the mean squared length of the standardized features.
PENALTIES = 10.0 ** np.arange(-2.0, 2.5, 0.5)
#: Labels below which a target keeps its random start.
FEWEST = 6
#: Features that vary less than this share of the median are not blown up further: few cases show too little of them.
LEAST_SPREAD = 0.1
#: Least variance left by a fit, in standardized units.
LEAST_VARIANCE = 0.01

Float64 = NDArray[np.float64]


def fit_head(network: Any, features: NDArray[Any], labels: NDArray[Any], *, classes: bool) -> None:
    """Set a head's weights by ridge regression; the penalty is the one with the smallest leave-one-out error.

    Args:
        network: changed in place; its head gives (mean, raw log-variance) per target, or a logit and an unused number.
        features: (N, F) of its encoder.
        labels: (N, T) as the objective learns them, NaN where missing.
        classes: labels are 0 or 1 and the output is a logit.
    """
    weight, bias = network.head.weight.data, network.head.bias.data
    for place, own in enumerate(np.asarray(labels, np.float64).T):
        present = np.isfinite(own)
        if present.sum() < FEWEST or np.unique(own[present]).size < 2:
            continue
        slope, intercept, left_out = fit_ridge(np.asarray(features[present], np.float64), own[present])
        if classes:
            factor, shift = logit_of(left_out, own[present])
            slope, intercept = factor * slope, factor * intercept + shift
        else:
            variance = float(np.mean((left_out - own[present]) ** 2))
            bias[2 * place + 1] = _raw_log_variance(math.log(max(variance, LEAST_VARIANCE)))
            weight[2 * place + 1] = 0.0
        weight[2 * place] = torch.from_numpy(slope).to(weight)
        bias[2 * place] = intercept


def fit_ridge(features: Float64, labels: Float64) -> tuple[Float64, float, Float64]:
    """Ridge regression on standardized features.

    Args:
        features: (N, F).
        labels: (N,).

    Returns:
        (F,) slopes and the intercept in the features' own units, and the (N,) leave-one-out predictions.
    """
    middle, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.maximum(spread, max(LEAST_SPREAD * float(np.median(spread)), 1e-6))
    scaled = (features - middle) / spread
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    values, turned = np.maximum(values, 0.0), vectors.T @ (labels - labels.mean())
    best: tuple[float, float, Float64] | None = None
    for penalty in PENALTIES * max(float(values.mean()), 1e-12):
        shrunk = values / (values + penalty)
        residual = labels - labels.mean() - vectors @ (shrunk * turned)
        leverage = (vectors**2 @ shrunk) + 1.0 / len(labels)
        left_out = labels - residual / np.maximum(1.0 - leverage, 1e-6)
        error = float(np.mean((left_out - labels) ** 2))
        if best is None or error < best[0]:
            best = error, float(penalty), left_out
    assert best is not None
    slope = (scaled.T @ (vectors @ (turned / (values + best[1])))) / spread
    return slope, float(labels.mean() - middle @ slope), best[2]


def logit_of(scores: Float64, labels: Float64) -> tuple[float, float]:
    """Factor and shift that make a logit of scores: two normal distributions of one variance.

    Args:
        scores: (N,) of cases that were left out.
        labels: (N,) 0 or 1, both present.
    """
    zero, one = scores[labels < 0.5], scores[labels >= 0.5]
    variance = (zero.size * zero.var() + one.size * one.var()) / labels.size
    factor = max(0.0, float(one.mean() - zero.mean())) / max(float(variance), 1e-4)
    return factor, math.log(one.size / zero.size) - factor * float(one.mean() + zero.mean()) / 2.0


def _raw_log_variance(log_variance: float) -> float:
    """Raw output of a bounded log-variance."""
    z = (log_variance - CENTRE) / HALF_RANGE
    return CENTRE + HALF_RANGE * z / math.sqrt(1.0 - z * z)
