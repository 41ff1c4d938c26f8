"""Agreement, calibration and ranking metrics with bootstrap intervals (floor 3, NumPy only).

Every metric is a function of weighted sums over the scans, so that all bootstrap replicates, being whole-number
weights, are computed by a few matrix products. Sources: ICC(2,1) Shrout & Fleiss 1979; CRPS of a Gaussian Gneiting &
Raftery 2007; sparsification Ilg et al. 2018; AUCE Gustafsson et al. 2020; decomposition of the Brier score Murphy 1973.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ukb_infer.errors import UsageError

Float64 = NDArray[np.float64]

#: Nominal levels of the calibration curve.
CURVE_LEVELS = np.linspace(0.01, 0.99, 99)
#: Shares of the most uncertain scans that sparsification removes.
SPARSIFICATION_SHARES = np.arange(0.0, 1.0, 0.05)
#: Bins of predicted probability for the reliability of binary targets.
RELIABILITY_BINS = 10
#: Bootstrap replicates worked on at a time.
CHUNK = 64

CONTINUOUS_METRICS = (
    "icc", "r2", "mae", "mape_percent", "rmse", "pearson_r", "bias",
    "coverage", "auce", "nll", "crps", "sparsification_error", "mean_width",
)  # fmt: skip
BINARY_METRICS = ("auroc", "auprc", "brier", "reliability")


@dataclass(frozen=True)
class TargetPredictions:
    """Labels and predictions of one target, only the scans that have both.

    Attributes:
        label: (n,) in the target's unit.
        mean: (n,) predicted.
        sd: (n,) total standard deviation.
        lower: (n,) lower end of the interval; ``upper``: its upper end.
        level: nominal level of that interval.
        participants: (n,) text, equal for scans of one participant.
        binary: whether the label is 0/1 and the mean a probability.
    """

    label: Float64
    mean: Float64
    sd: Float64
    lower: Float64
    upper: Float64
    level: float
    participants: NDArray[np.str_]
    binary: bool = False

    def __post_init__(self) -> None:
        sizes = {len(a) for a in (self.label, self.mean, self.sd, self.lower, self.upper, self.participants)}
        if len(sizes) != 1:
            raise UsageError(f"labels and predictions have different lengths: {sorted(sizes)}")


@dataclass(frozen=True)
class MetricValue:
    """A metric with its 95 % bootstrap interval (NaN where it is not defined)."""

    value: float
    low: float
    high: float


def evaluate_target(data: TargetPredictions, *, replicates: int = 1000, seed: int = 0) -> dict[str, MetricValue]:
    """All metrics of one target.

    Args:
        data: of the target.
        replicates: bootstrap replicates, participants drawn with replacement; 0 for no intervals.
        seed: of the draws.

    Returns:
        Metric name to value and interval: :data:`CONTINUOUS_METRICS` or :data:`BINARY_METRICS`.
    """
    names = BINARY_METRICS if data.binary else CONTINUOUS_METRICS
    if len(data.label) < 3:
        return {name: MetricValue(np.nan, np.nan, np.nan) for name in names}
    compute = _binary if data.binary else _continuous
    parts = [compute(data, weights) for weights in _weights(data.participants, replicates, seed)]
    values = {name: np.concatenate([p[name] for p in parts]) for name in names}
    return {name: _summarize(found) for name, found in values.items()}


def _summarize(found: Float64) -> MetricValue:
    """Row 0 is the data itself, the others are replicates."""
    rest = found[1:][np.isfinite(found[1:])]
    if rest.size < 20:
        return MetricValue(float(found[0]), np.nan, np.nan)
    low, high = np.percentile(rest, [2.5, 97.5])
    return MetricValue(float(found[0]), float(low), float(high))


def _weights(participants: NDArray[np.str_], replicates: int, seed: int) -> Iterator[Float64]:
    """(rows, n) weights in chunks: first the data itself, then how often each scan's participant was drawn."""
    _, index = np.unique(participants, return_inverse=True)
    count = int(index.max()) + 1
    rng = np.random.default_rng(seed)
    yield np.ones((1, index.size))
    for start in range(0, replicates, CHUNK):
        rows = min(CHUNK, replicates - start)
        drawn = rng.integers(0, count, (rows, count))
        offsets = drawn + np.arange(rows)[:, None] * count
        times = np.bincount(offsets.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, index].astype(np.float64)


# -- continuous ------------------------------------------------------------------------------------------------------


def gaussian_nll(label: Float64, mean: Float64, sd: Float64) -> Float64:
    """Negative log density of the labels, natural units."""
    return np.asarray(0.5 * np.log(2.0 * np.pi * np.square(sd)) + 0.5 * np.square((label - mean) / sd))


def gaussian_crps(label: Float64, mean: Float64, sd: Float64) -> Float64:
    """Continuous ranked probability score of a Gaussian prediction, natural units."""
    z = (label - mean) / sd
    density = np.exp(-0.5 * np.square(z)) / np.sqrt(2.0 * np.pi)
    return np.asarray(sd * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi)))


def _divide(top: Float64, bottom: Float64) -> Float64:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan))


def _continuous(d: TargetPredictions, weights: Float64) -> dict[str, Float64]:
    centre = d.label.mean()
    y, m = d.label - centre, d.mean - centre
    error = m - y
    nonzero = d.label != 0
    relative = np.where(nonzero, np.abs(error) / np.where(nonzero, np.abs(d.label), 1.0), 0.0)
    covered = (np.abs(error) / d.sd)[:, None] <= ndtri(0.5 + 0.5 * CURVE_LEVELS)[None, :]
    columns = np.column_stack(
        [
            np.ones_like(y), y, m, y * y, m * m, y * m, np.abs(error), relative, nonzero, error * error,
            (d.label >= d.lower) & (d.label <= d.upper), d.upper - d.lower,
            gaussian_nll(d.label, d.mean, d.sd), gaussian_crps(d.label, d.mean, d.sd), covered,
        ]
    )  # fmt: skip
    sums = weights @ columns
    n, sy, sm, syy, smm, sym, absolute, share, counted, square, inside, width, nll, crps = sums[:, :14].T
    spread_y, spread_m, together = syy - sy * sy / n, smm - sm * sm / n, sym - sy * sm / n
    return {
        "icc": _icc(n, sy, sm, spread_y, spread_m, together),
        "r2": 1.0 - _divide(square, spread_y),
        "mae": absolute / n,
        "mape_percent": 100.0 * _divide(share, counted),
        "rmse": np.sqrt(square / n),
        "pearson_r": _divide(together, np.sqrt(np.maximum(spread_y * spread_m, 0.0))),
        "bias": (sm - sy) / n,
        "coverage": inside / n,
        "auce": np.abs(sums[:, 14:] / n[:, None] - CURVE_LEVELS).mean(axis=1),
        "nll": nll / n,
        "crps": crps / n,
        "sparsification_error": _sparsification_error(np.abs(error), d.sd, weights),
        "mean_width": width / n,
    }


def _icc(n: Float64, sy: Float64, sm: Float64, spread_y: Float64, spread_m: Float64, together: Float64) -> Float64:
    """ICC(2,1): two-way random effects, absolute agreement, single measurement, of two raters."""
    between_raters = (sy - sm) ** 2 / (2.0 * n)
    rows = 0.5 * (spread_y + spread_m + 2.0 * together)
    residual = 0.5 * (spread_y + spread_m - 2.0 * together)
    freedom = n - 1.0
    msr, mse, msc = rows / freedom, residual / freedom, between_raters
    return _divide(msr - mse, msr + mse + 2.0 * (msc - mse) / n)


def _kept_error(error: Float64, order: NDArray[np.intp], weights: Float64) -> Float64:
    """(rows, shares) mean error of what remains after removing the last scans of an order."""
    w = weights[:, order]
    cumulative, weighted = np.cumsum(w, axis=1), np.cumsum(w * error[order], axis=1)
    kept = np.empty((len(w), SPARSIFICATION_SHARES.size))
    for row in range(len(w)):
        amount = (1.0 - SPARSIFICATION_SHARES) * cumulative[row, -1]
        kept[row] = np.interp(amount, cumulative[row], weighted[row], left=0.0) / amount
    return kept


def sparsification_curves(error: Float64, sd: Float64) -> tuple[Float64, Float64]:
    """Mean absolute error after removing the most uncertain scans, and after removing those most wrong (the oracle).

    Args:
        error: (n,) absolute errors.
        sd: (n,) predicted.

    Returns:
        Two arrays over :data:`SPARSIFICATION_SHARES`.
    """
    one = np.ones((1, error.size))
    by_sd = _kept_error(error, np.argsort(sd, kind="stable"), one)[0]
    return by_sd, _kept_error(error, np.argsort(error, kind="stable"), one)[0]


def _sparsification_error(error: Float64, sd: Float64, weights: Float64) -> Float64:
    """Mean distance of the curve from the oracle's, as a share of the error of all scans."""
    by_sd = _kept_error(error, np.argsort(sd, kind="stable"), weights)
    oracle = _kept_error(error, np.argsort(error, kind="stable"), weights)
    return _divide((by_sd - oracle).mean(axis=1), by_sd[:, 0])


def calibration_curve(label: Float64, mean: Float64, sd: Float64) -> Float64:
    """Observed coverage of the central Gaussian intervals at :data:`CURVE_LEVELS`."""
    score = np.abs(label - mean) / sd
    return np.asarray((score[:, None] <= ndtri(0.5 + 0.5 * CURVE_LEVELS)[None, :]).mean(axis=0))


# -- binary ----------------------------------------------------------------------------------------------------------


def _binary(d: TargetPredictions, weights: Float64) -> dict[str, Float64]:
    probability = np.clip(d.mean, 0.0, 1.0)
    auroc, auprc = _ranking(d.label, d.mean, weights)
    total = weights.sum(axis=1)
    return {
        "auroc": auroc,
        "auprc": auprc,
        "brier": weights @ np.square(probability - d.label) / total,
        "reliability": _reliability(d.label, probability, weights),
    }


def _ranking(label: Float64, score: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """Area under the ROC curve (ties count half) and average precision."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) != 0]))
    positive = np.add.reduceat((weights * label)[:, order], starts, axis=1)
    negative = np.add.reduceat((weights * (1.0 - label))[:, order], starts, axis=1)
    true, false = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    all_true, all_false = true[:, -1], false[:, -1]
    below = all_false[:, None] - false + 0.5 * negative
    auroc = _divide((positive * below).sum(axis=1), all_true * all_false)
    precision = true / np.maximum(true + false, 1e-12)
    return auroc, _divide((positive * precision).sum(axis=1), all_true)


def reliability_bins(label: Float64, probability: Float64) -> tuple[Float64, Float64, NDArray[np.int64]]:
    """Mean predicted probability, observed frequency and number of scans of each bin (NaN where empty)."""
    bins = np.minimum((probability * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    count = np.bincount(bins, minlength=RELIABILITY_BINS)
    sums = [np.bincount(bins, v, RELIABILITY_BINS).astype(np.float64) for v in (probability, label)]
    predicted, observed = (_divide(total, count.astype(np.float64)) for total in sums)
    return predicted, observed, count


def _reliability(label: Float64, probability: Float64, weights: Float64) -> Float64:
    """Reliability term of the Brier score: mean squared distance of predicted and observed frequency over the bins."""
    bins = np.minimum((probability * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    member = (bins[:, None] == np.arange(RELIABILITY_BINS)[None, :]).astype(np.float64)
    count = weights @ member
    gap = weights @ (member * (probability - label)[:, None])
    return np.asarray((np.square(gap) / count.clip(min=1e-12)).sum(axis=1) / weights.sum(axis=1))
