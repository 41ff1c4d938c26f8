"""The start of finetuning: a head fitted to the frozen features of a pretrained encoder.

Behind a random head the first steps move the encoder away from what pretraining taught it, which costs most at
scanners that the labels do not show (Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform
out-of-distribution"). So the head is fitted first, by ridge regression, and then everything learns with small steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer.regression.log_variance import CENTRE, HALF_RANGE

#: Penalties tried, as shares of the mean squared length of the standardized features.
PENALTIES = 10.0 ** np.arange(-2.0, 2.5, 0.5)
#: Labels below which a target keeps its random start.
FEWEST = 3
#: Features that vary less than this share of the median are not blown up further: few cases show too little of them.
LEAST_SPREAD = 0.1
#: Least and most variance left by a fit, in standardized units; most: one case unlike all others can be missed by far.
LEAST_VARIANCE, MOST_VARIANCE = 0.01, 100.0
#: Least distance of the classes' mean scores, in standard deviations: scores that fail on cases left out keep their
#: order. Most: however well they tell few cases apart, a typical one is not taken for certain (98.9 %).
LEAST_DISTANCE, MOST_DISTANCE = 0.1, 3.0
#: Parts of the cases, each predicted by a fit to the others, to choose the penalty and to know the error.
FOLDS = 10
#: Power of a group's alignment with the labels, by which the squared length of its features is scaled.
ALIGNED = 4

Float64 = NDArray[np.float64]


def fit_head(network: Any, features: NDArray[Any], labels: NDArray[Any], *, classes: bool) -> None:
    """Set a head's weights by ridge regression; the penalty is the one with the smallest error of cases left out.

    Args:
        network: changed in place; its head gives (mean, raw log-variance) per target, or a logit and an unused number,
            from ``groups`` of features.
        features: (N, F) of its encoder.
        labels: (N, T) as the objective learns them, NaN where missing.
        classes: labels are 0 or 1 and the output is a logit.
    """
    weight, bias = network.head.weight.data, network.head.bias.data
    for place, own in enumerate(np.asarray(labels, np.float64).T):
        present = np.isfinite(own)
        if present.sum() < FEWEST or np.unique(own[present]).size < 2:
            continue
        slope, intercept, left_out = fit_ridge(np.asarray(features[present], np.float64), own[present], network.groups)
        if classes:
            factor, shift = logit_of(left_out, own[present])
            slope, intercept = factor * slope, factor * intercept + shift
        else:
            variance = float(np.mean((left_out - own[present]) ** 2))
            bias[2 * place + 1] = _raw_log_variance(math.log(min(max(variance, LEAST_VARIANCE), MOST_VARIANCE)))
            weight[2 * place + 1] = 0.0
        weight[2 * place] = torch.from_numpy(slope).to(weight)
        bias[2 * place] = intercept


def fit_ridge(
    features: Float64, labels: Float64, groups: Sequence[int] | None = None
) -> tuple[Float64, float, Float64]:
    """Ridge regression on standardized features, each group of them scaled by what it shows of the labels.

    Args:
        features: (N, F).
        labels: (N,).
        groups: numbers of features that belong together, in order; None for one group.

    Returns:
        (F,) slopes and the intercept in the features' own units, and (N,) predictions by fits without the case's fold.
    """
    sizes = [features.shape[1]] if groups is None else groups
    fold_of, left_out = _folds(labels), np.empty((len(PENALTIES), len(labels)))
    for fold in range(int(fold_of.max()) + 1):
        held = fold_of == fold
        slopes, intercepts = _fits(features[~held], labels[~held], sizes)
        left_out[:, held] = slopes @ features[held].T + intercepts[:, None]
    best = int(np.argmin(np.mean((left_out - labels) ** 2, axis=1)))
    slopes, intercepts = _fits(features, labels, sizes)
    return slopes[best], float(intercepts[best]), left_out[best]


def _folds(labels: Float64) -> NDArray[np.int64]:
    """(N,) fold of every case; every fold has labels from low to high."""
    fold_of = np.empty(len(labels), np.int64)
    fold_of[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % FOLDS
    return fold_of


def _fits(features: Float64, labels: Float64, groups: Sequence[int]) -> tuple[Float64, Float64]:
    """(P, F) slopes and (P,) intercepts of every penalty."""
    middle, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.maximum(spread, max(LEAST_SPREAD * float(np.median(spread)), 1e-6))
    scaled = (features - middle) / spread
    factors = weights_of(scaled, labels, groups)
    left, lengths, right = np.linalg.svd(scaled * factors, full_matrices=False)
    penalties = PENALTIES[:, None] * max(float(np.sum(lengths**2)) / len(labels), 1e-12)
    shrunk = lengths / (lengths**2 + penalties) * (left.T @ (labels - labels.mean()))
    slopes = (shrunk @ right) * (factors / spread)
    return slopes, labels.mean() - slopes @ middle


def weights_of(scaled: Float64, labels: Float64, groups: Sequence[int]) -> Float64:
    """(F,) factor of every feature: its group's alignment with the labels to half the power :data:`ALIGNED`, at most 1.

    The alignment is the cosine between the group's centred kernel and that of the labels (Cortes et al. 2012). An
    infarct shows in one contrast of four, in the largest values of some levels; the thousand other features would
    drown it.

    Args:
        scaled: (N, F) standardized features.
        labels: (N,).
        groups: numbers of features that belong together, in order.
    """
    centred, found = labels - labels.mean(), np.empty(len(groups))
    for place, part in enumerate(np.split(scaled, np.cumsum(groups)[:-1], axis=1)):
        gram = part @ part.T if len(part) < part.shape[1] else part.T @ part  # of the same norm
        found[place] = np.sum((centred @ part) ** 2) / max(float(np.linalg.norm(gram)), 1e-12)
    return np.repeat((found / max(float(found.max()), 1e-12)) ** (ALIGNED / 2), groups)


def logit_of(scores: Float64, labels: Float64) -> tuple[float, float]:
    """Factor and shift that make a logit of scores: two normal distributions of one variance.

    Args:
        scores: (N,) of cases that were left out.
        labels: (N,) 0 or 1, both present.
    """
    zero, one = scores[labels < 0.5], scores[labels >= 0.5]
    distance = float(one.mean() - zero.mean())
    variance = (zero.size * zero.var() + one.size * one.var()) / labels.size
    spread = max(math.sqrt(variance), distance / MOST_DISTANCE, 1e-2)
    factor = max(distance, LEAST_DISTANCE * spread) / spread**2
    return factor, math.log(one.size / zero.size) - factor * float(one.mean() + zero.mean()) / 2.0


def _raw_log_variance(log_variance: float) -> float:
    """Raw output of a bounded log-variance."""
    z = (log_variance - CENTRE) / HALF_RANGE
    return CENTRE + HALF_RANGE * z / math.sqrt(1.0 - z * z)
