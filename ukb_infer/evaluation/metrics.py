"""Agreement, calibration and ranking metrics with bootstrap intervals (NumPy only).

Every metric is a function of weighted sums over the scans, so that all bootstrap replicates, being whole-number
weights, are computed by a few matrix products. Sources: ICC(2,1) Shrout & Fleiss 1979; CRPS of a Gaussian Gneiting &
Raftery 2007; sparsification Ilg et al. 2018; AUCE Gustafsson et al. 2020; decomposition of the Brier score Murphy 1973.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ukb_infer.errors import UsageError
from ukb_infer.evaluation.probabilities import calibration_error, calibration_line, log_loss

Float64 = NDArray[np.float64]

#: Nominal levels of the calibration curve.
CURVE_LEVELS = np.linspace(0.01, 0.99, 99)
#: Shares of the most uncertain scans that sparsification removes.
SPARSIFICATION_SHARES = np.arange(0.0, 1.0, 0.05)
#: Bins of predicted probability for the reliability of binary targets.
RELIABILITY_BINS = 10
#: Bootstrap replicates computed at a time.
CHUNK = 64
#: Fewest replicates of a bootstrap interval, and the share in which the metric must be defined. The defined ones alone
#: would overstate certainty: of two scans, only replicates with both have an R², which is always the same.
FEWEST_REPLICATES, DEFINED_SHARE = 20, 0.9
#: Fewest scans for a correlation or ICC: of two scans the correlation is always 1 or -1, and the ICC can be -2.
FEWEST_RELATED = 3
#: Values that differ by less than this, relative to their size, are equal: rounding makes such differences.
EQUAL = 1e-12

CONTINUOUS_METRICS = (
    "icc", "r2", "mae", "mape_percent", "rmse", "pearson_r", "bias",
    "coverage", "auce", "nll", "crps", "sparsification_error", "mean_width",
)  # fmt: skip
BINARY_METRICS = (
    "auroc", "auprc", "brier", "reliability",
    "log_loss", "calibration_error", "calibration_slope", "calibration_intercept",
)  # fmt: skip


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
        binary: whether the label is 0/1; then sd and interval are not used.
        probability: of 1, for a binary target; without it the mean, clipped to 0-1, is one.
    """

    label: Float64
    mean: Float64
    sd: Float64
    lower: Float64
    upper: Float64
    level: float
    participants: NDArray[np.str_]
    binary: bool = False
    probability: Float64 | None = None

    def __post_init__(self) -> None:
        sizes = {len(a) for a in (self.label, self.mean, self.sd, self.lower, self.upper, self.participants)}
        if len(sizes) != 1:
            raise UsageError(f"labels and predictions have different lengths: {sorted(sizes)}")
        if not (np.isfinite(self.label).all() and np.isfinite(self.mean).all()):
            raise UsageError("labels or means are missing or infinite; leave those scans out")
        if (self.sd < 0).any():
            raise UsageError("an sd is negative, expected 0 or more, or NaN for none")

    def ordered(self) -> TargetPredictions:
        """The same scans in a fixed order, so that sums do not depend on the order of a table's rows."""
        names = ("label", "mean", "sd", "lower", "upper", "participants")
        also = () if self.probability is None else (self.probability,)
        order = np.lexsort((*also, *(getattr(self, name) for name in names)))
        probability = None if self.probability is None else self.probability[order]
        return replace(self, **{name: getattr(self, name)[order] for name in names}, probability=probability)

    @property
    def has_sd(self) -> bool:
        """Whether every scan has a predicted sd; without it, metrics that need an sd are NaN."""
        return bool(np.isfinite(self.sd).all())

    @property
    def inside(self) -> Float64:
        """(N,) 1 if the interval contains the label, 0 if not, NaN without interval."""
        held = ((self.label >= self.lower) & (self.label <= self.upper)).astype(np.float64)
        return np.where(np.isnan(self.lower) | np.isnan(self.upper), np.nan, held)

    @property
    def probabilities(self) -> Float64:
        """(N,) probability of 1 of a binary target."""
        return np.clip(self.mean, 0.0, 1.0) if self.probability is None else self.probability


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
    if len(data.label) == 0:
        return {name: MetricValue(np.nan, np.nan, np.nan) for name in names}
    data = data.ordered()
    compute = _binary if data.binary else _continuous
    with np.errstate(all="ignore"):  # undefined for few or constant labels: NaN
        parts = [compute(data, weights) for weights in bootstrap_weights(data.participants, replicates, seed)]
    values = {name: np.concatenate([p[name] for p in parts]) for name in names}
    return {name: summarize(found) for name, found in values.items()}


def summarize(found: Float64) -> MetricValue:
    """Summarize row 0, the data, and replicates, (rows,); they give an interval if nearly all define the metric."""
    rest = found[1:][np.isfinite(found[1:])]
    if rest.size < max(FEWEST_REPLICATES, DEFINED_SHARE * (found.size - 1)):
        return MetricValue(float(found[0]), np.nan, np.nan)
    low, high = np.percentile(rest, [2.5, 97.5])
    return MetricValue(float(found[0]), float(low), float(high))


def bootstrap_weights(participants: NDArray[np.str_], replicates: int, seed: int) -> Iterator[Float64]:
    """(rows, n) weights in chunks: first the data itself, then how often each scan's participant was drawn.

    Args:
        participants: (n,) text, equal for scans of one participant.
        replicates: bootstrap replicates.
        seed: of the draws.
    """
    _, index = np.unique(participants, return_inverse=True)
    count = int(index.max()) + 1
    yield np.ones((1, index.size))
    if count < 2:  # one participant, drawn repeatedly, says nothing about others
        return
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, CHUNK):
        rows = min(CHUNK, replicates - start)
        drawn = rng.integers(0, count, (rows, count))
        offsets = drawn + np.arange(rows)[:, None] * count
        times = np.bincount(offsets.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, index].astype(np.float64)


def over_seeds(rows: Float64, seed: int) -> Float64:
    """(rows,) means over the seeds; in replicates, which have their own participants, seeds are drawn too.

    Args:
        rows: (S, rows) of each seed, the first column with all participants once.
        seed: of the draws.
    """
    drawn = np.random.default_rng(seed).integers(0, len(rows), rows.shape)
    drawn[:, 0] = np.arange(len(rows))
    return np.asarray(np.take_along_axis(rows, drawn, axis=0).mean(axis=0))


# -- continuous ------------------------------------------------------------------------------------------------------


def gaussian_nll(label: Float64, mean: Float64, sd: Float64) -> Float64:
    """Negative log density of the labels, (n,), natural units.

    Args:
        label: (n,).
        mean: (n,) predicted.
        sd: (n,) predicted; 0 has no density and gives NaN.
    """
    own = np.where(sd > 0, sd, np.nan)
    return np.asarray(0.5 * np.log(2.0 * np.pi * np.square(own)) + 0.5 * np.square((label - mean) / own))


def gaussian_crps(label: Float64, mean: Float64, sd: Float64) -> Float64:
    """Continuous ranked probability score of a Gaussian prediction, (n,), natural units.

    Args:
        label: (n,).
        mean: (n,) predicted.
        sd: (n,) predicted; 0 gives |error|.
    """
    z = (label - mean) / np.where(sd == 0, 1.0, sd)
    density = np.exp(-0.5 * np.square(z)) / np.sqrt(2.0 * np.pi)
    score = sd * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))
    return np.where(sd == 0, np.abs(label - mean), score)


def _covered(label: Float64, mean: Float64, sd: Float64) -> NDArray[np.bool_]:
    """(n, levels) whether the central Gaussian interval of each of :data:`CURVE_LEVELS` contains the label."""
    half = ndtri(0.5 + 0.5 * CURVE_LEVELS)
    return np.asarray(np.abs(label - mean)[:, None] <= sd[:, None] * half[None, :])


def _divide(top: Float64, bottom: Float64) -> Float64:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan))


def _continuous(d: TargetPredictions, weights: Float64) -> dict[str, Float64]:
    centre = d.label.mean()
    y, m = d.label - centre, d.mean - centre
    error = m - y
    nonzero = d.label != 0
    relative = np.where(nonzero, np.abs(error) / np.where(nonzero, np.abs(d.label), 1.0), 0.0)
    columns = np.column_stack(
        [
            np.ones_like(y), y, m, y * y, m * m, y * m, np.abs(error), relative, nonzero, error * error,
            d.inside, d.upper - d.lower,
            gaussian_nll(d.label, d.mean, d.sd), gaussian_crps(d.label, d.mean, d.sd), _covered(d.label, d.mean, d.sd),
        ]
    )  # fmt: skip
    sums = weights @ columns
    n, sy, sm, syy, smm, sym, absolute, share, counted, square, inside, width, nll, crps = sums[:, :14].T
    spread_y, spread_m = _spread(n, sy, syy, d.label), _spread(n, sm, smm, d.mean)
    together = np.where((spread_y > 0) & (spread_m > 0), sym - sy * sm / n, 0.0)
    several = np.where(n > 1, n, np.nan) if len(d.label) >= FEWEST_RELATED else np.full(len(n), np.nan)
    auce = np.abs(sums[:, 14:] / n[:, None] - CURVE_LEVELS).mean(axis=1)
    return {
        "icc": _icc(several, sy, sm, spread_y, spread_m, together),
        "r2": 1.0 - _divide(square, spread_y),
        "mae": absolute / n,
        "mape_percent": 100.0 * _divide(share, counted),
        "rmse": np.sqrt(square / n),
        "pearson_r": _pearson(len(d.label), spread_y, spread_m, together),
        "bias": (sm - sy) / n,
        "coverage": inside / n,
        "auce": auce if d.has_sd else np.full(len(n), np.nan),
        "nll": nll / n,
        "crps": crps / n,
        "sparsification_error": _sparsification_error(np.abs(error), d.sd, weights) if d.has_sd else nll * np.nan,
        "mean_width": width / n,
    }


def _spread(n: Float64, total: Float64, squares: Float64, values: Float64) -> Float64:
    """Sum of squares about the mean, from sums of the centred values; 0 where they are equal but for rounding."""
    spread = squares - total * total / n
    smallest = np.maximum(EQUAL * squares, n * np.square(EQUAL * np.abs(values).max()))
    return np.where(spread > smallest, spread, 0.0)


def _icc(n: Float64, sy: Float64, sm: Float64, spread_y: Float64, spread_m: Float64, together: Float64) -> Float64:
    """ICC(2,1): two-way random effects, absolute agreement, single measurement, of two raters."""
    between_raters = (sy - sm) ** 2 / (2.0 * n)
    rows = 0.5 * (spread_y + spread_m + 2.0 * together)
    residual = 0.5 * (spread_y + spread_m - 2.0 * together)
    freedom = n - 1.0
    msr, mse, msc = rows / freedom, residual / freedom, between_raters
    varied = np.where(spread_y + spread_m > 0, n, np.nan)  # identical scans have no ICC
    return _divide(msr - mse, msr + mse + 2.0 * (msc - mse) / varied)


def _pearson(count: int, spread_y: Float64, spread_m: Float64, together: Float64) -> Float64:
    """Correlation of at least :data:`FEWEST_RELATED` scans."""
    if count < FEWEST_RELATED:
        return np.full(len(together), np.nan)
    return np.clip(_divide(together, np.sqrt(spread_y) * np.sqrt(spread_m)), -1.0, 1.0)


def _kept_error(error: Float64, score: Float64, weights: Float64) -> Float64:
    """(rows, shares) mean error of what remains after removing the scans of highest score.

    Scans of equal score count as their average, since their order is arbitrary. A share that ends within a scan, or
    within such a group, takes that part of it.
    """
    order = np.lexsort((error, score))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) != 0]))
    w = weights[:, order]
    amounts = np.cumsum(np.add.reduceat(w, starts, axis=1), axis=1)
    errors = np.cumsum(np.add.reduceat(w * error[order], starts, axis=1), axis=1)
    kept = np.empty((len(w), SPARSIFICATION_SHARES.size))
    for row in range(len(w)):
        wanted = (1.0 - SPARSIFICATION_SHARES) * amounts[row, -1]
        kept[row] = np.interp(wanted, np.r_[0.0, amounts[row]], np.r_[0.0, errors[row]]) / wanted
    return kept


def sparsification_curves(error: Float64, sd: Float64) -> tuple[Float64, Float64]:
    """Mean absolute error after removing the most uncertain scans, and after removing those most wrong (the oracle).

    Args:
        error: (n,) absolute errors.
        sd: (n,) predicted.

    Returns:
        Two arrays over :data:`SPARSIFICATION_SHARES`; NaN without scans.
    """
    if error.size == 0:
        return np.full(SPARSIFICATION_SHARES.size, np.nan), np.full(SPARSIFICATION_SHARES.size, np.nan)
    one = np.ones((1, error.size))
    return _kept_error(error, sd, one)[0], _kept_error(error, error, one)[0]


def _sparsification_error(error: Float64, sd: Float64, weights: Float64) -> Float64:
    """Mean distance of the curve from the oracle's, as a share of the error of all scans; NaN for a single scan."""
    by_sd, oracle = _kept_error(error, sd, weights), _kept_error(error, error, weights)
    several = (weights > 0).sum(axis=1) > 1
    return np.where(several, _divide(np.maximum(by_sd - oracle, 0.0).mean(axis=1), by_sd[:, 0]), np.nan)


def error_by_sd(error: Float64, sd: Float64) -> tuple[Float64, Float64]:
    """Root mean square of predicted sd and of error, in up to ten groups of equal size by rising sd.

    Scans of equal sd count as their average, so that row order does not decide in which group an error falls.

    Args:
        error: (n,) of at least one scan.
        sd: (n,) predicted.
    """
    _, where, counts = np.unique(sd, return_inverse=True, return_counts=True)
    square = np.square(error)[np.argsort(np.square(error), kind="stable")]
    tied = np.bincount(where[np.argsort(np.square(error), kind="stable")], square) / counts
    order = np.argsort(sd, kind="stable")
    groups = [g for g in np.array_split(order, min(10, max(1, sd.size // 5))) if g.size]
    means = [[np.sqrt(np.mean(values[g])) for g in groups] for values in (np.square(sd), tied[where])]
    return np.array(means[0]), np.array(means[1])


def calibration_curve(label: Float64, mean: Float64, sd: Float64) -> Float64:
    """Observed coverage of the central Gaussian intervals at :data:`CURVE_LEVELS`.

    Args:
        label: (n,).
        mean: (n,) predicted.
        sd: (n,) predicted.
    """
    return np.asarray(_covered(label, mean, sd).mean(axis=0))


# -- binary ----------------------------------------------------------------------------------------------------------


def _binary(d: TargetPredictions, weights: Float64) -> dict[str, Float64]:
    probability = d.probabilities
    slope, intercept = calibration_line(d.label, probability, weights)
    auroc, auprc = _ranking(d.label, d.mean, weights)
    total = weights.sum(axis=1)
    return {
        "auroc": auroc,
        "auprc": auprc,
        "brier": weights @ np.square(probability - d.label) / total,
        "reliability": _reliability(d.label, probability, weights),
        "log_loss": log_loss(d.label, probability, weights),
        "calibration_error": calibration_error(d.label, probability, weights, RELIABILITY_BINS),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
    }


def _ranking(label: Float64, score: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """Area under the ROC curve (ties count half) and average precision; NaN where a class is missing."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) != 0]))
    positive = np.add.reduceat((weights * label)[:, order], starts, axis=1)
    negative = np.add.reduceat((weights * (1.0 - label))[:, order], starts, axis=1)
    true, false = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    all_true, all_false = true[:, -1], false[:, -1]
    below = all_false[:, None] - false + 0.5 * negative
    auroc = _divide((positive * below).sum(axis=1), all_true * all_false)
    precision = true / np.maximum(true + false, 1e-12)
    return auroc, _divide((positive * precision).sum(axis=1), np.where(all_false > 0, all_true, 0.0))


def resampled(metric: str, label: Float64, estimate: Float64, weights: Float64) -> Float64:
    """One metric for every row of weights, (rows,); NaN where it is not defined.

    Args:
        metric: ``auroc``, ``mae``, ``r`` or ``r2``.
        label: (n,) 0 or 1 for the AUROC.
        estimate: (n,) score or value.
        weights: (rows, n), e.g. from :func:`bootstrap_weights`.
    """
    if not label.size:
        return np.full(len(weights), np.nan)
    with np.errstate(all="ignore"):
        n = weights.sum(axis=1)
        if metric == "auroc":
            return _ranking(label, estimate, weights)[0]
        if metric == "mae":
            return _divide(weights @ np.abs(estimate - label), n)
        if metric not in ("r", "r2"):
            raise ValueError(f"metric: got {metric!r}, expected auroc, mae, r or r2")
        y, m = label - label.mean(), estimate - estimate.mean()
        sy, sm, syy, smm, sym = (weights @ v for v in (y, m, y * y, m * m, y * m))
        spread = _spread(n, sy, syy, label)
        if metric == "r2":
            return 1.0 - _divide(weights @ np.square(estimate - label), spread)
        return _pearson(label.size, spread, _spread(n, sm, smm, estimate), sym - sy * sm / n)


def reliability_bins(label: Float64, probability: Float64) -> tuple[Float64, Float64, NDArray[np.int64]]:
    """Mean predicted probability, observed frequency and number of scans of each bin (NaN where empty).

    Args:
        label: (n,) 0 or 1.
        probability: (n,) predicted of 1.
    """
    order = np.lexsort((label, probability))
    label, probability = label[order], probability[order]
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
