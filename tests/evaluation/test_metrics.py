"""Metrics against independent libraries, hand-computed values and analytic cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from ukb_infer.errors import UsageError
from ukb_infer.evaluation import BINARY_METRICS, CONTINUOUS_METRICS, TargetPredictions, evaluate_target
from ukb_infer.evaluation.metrics import gaussian_crps, gaussian_nll, over_seeds, sparsification_curves


def _data(n: int = 400, seed: int = 0, *, per_person: int = 1, binary: bool = False) -> TargetPredictions:
    rng = np.random.default_rng(seed)
    sd = rng.uniform(0.5, 3.0, n)
    mean = rng.normal(70, 12, n)
    label = mean + sd * rng.normal(size=n)
    if binary:
        mean = rng.uniform(-0.1, 1.1, n).round(2)  # with ties
        label = (rng.uniform(size=n) < np.clip(mean, 0, 1)).astype(float)
    people = np.array([f"p{k // per_person}" for k in range(n)])
    return TargetPredictions(label, mean, sd, mean - 1.96 * sd, mean + 1.96 * sd, 0.95, people, binary)


def _values(data: TargetPredictions) -> dict[str, float]:
    return {name: m.value for name, m in evaluate_target(data, replicates=0).items()}


def test_continuous_metrics_equal_scikit_learn_and_scipy() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    d = _data()
    found = _values(d)
    assert tuple(found) == CONTINUOUS_METRICS
    assert found["r2"] == pytest.approx(sklearn_metrics.r2_score(d.label, d.mean), rel=1e-12)
    assert found["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(d.label, d.mean), rel=1e-12)
    expected = 100 * sklearn_metrics.mean_absolute_percentage_error(d.label, d.mean)
    assert found["mape_percent"] == pytest.approx(expected, rel=1e-12)
    assert found["rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(d.label, d.mean), rel=1e-12)
    assert found["pearson_r"] == pytest.approx(stats.pearsonr(d.label, d.mean).statistic, rel=1e-10)
    assert found["bias"] == pytest.approx(np.mean(d.mean - d.label), abs=1e-10)
    assert found["nll"] == pytest.approx(-stats.norm(d.mean, d.sd).logpdf(d.label).mean(), rel=1e-12)
    assert found["coverage"] == pytest.approx(np.mean(np.abs(d.label - d.mean) <= 1.96 * d.sd))
    assert found["mean_width"] == pytest.approx(2 * 1.96 * d.sd.mean())


def test_icc_equals_pingouin_and_the_published_example() -> None:
    pingouin = pytest.importorskip("pingouin")
    d = _data(60)
    long = pd.DataFrame(
        {
            "scan": np.tile(np.arange(60), 2),
            "rater": np.repeat(["label", "estimate"], 60),
            "value": np.concatenate([d.label, d.mean]),
        }
    )
    table = pingouin.intraclass_corr(long, "scan", "rater", "value")
    kind = table["Type"].astype(str)
    expected = float(table.loc[kind.isin(["ICC2", "ICC(A,1)"]), "ICC"].iloc[0])
    assert _values(d)["icc"] == pytest.approx(expected, abs=1e-6)


def test_icc_by_hand() -> None:
    """Two raters, three subjects: sums of squares worked out on paper.

    Labels 1 2 3, estimates 2 3 5: rows' means 1.5 2.5 4 (grand 8/3), MSR = 2((7/6)^2 + (1/6)^2 + (4/3)^2)/2 = 19/6,
    MSC = 3((2/3)^2 + (2/3)^2) = 8/3, residual (1/6 of) MSE = 1/6: ICC = (19/6 - 1/6) / (19/6 + 1/6 + 2/3 (8/3 - 1/6)).
    """
    label, mean = np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 5.0])
    one = np.ones(3)
    d = TargetPredictions(label, mean, one, mean - 1, mean + 1, 0.68, np.array(["a", "b", "c"]))
    assert _values(d)["icc"] == pytest.approx(3.0 / (20.0 / 6.0 + 2.0 / 3.0 * 2.5))


def test_crps_equals_numerical_integration() -> None:
    for y, m, s in ((0.0, 0.0, 1.0), (3.0, 1.0, 0.5), (-2.0, 5.0, 4.0)):

        def squared(x: float, m: float = m, s: float = s, y: float = y) -> float:
            return float((stats.norm.cdf(x, m, s) - (x >= y)) ** 2)

        value = integrate.quad(squared, m - 12 * s, y)[0] + integrate.quad(squared, y, m + 12 * s)[0]
        assert gaussian_crps(np.array([y]), np.array([m]), np.array([s]))[0] == pytest.approx(value, rel=1e-6)


def test_nll_is_lowest_at_the_true_sd() -> None:
    d = _data(5000)
    losses = [gaussian_nll(d.label, d.mean, d.sd * f).mean() for f in (0.8, 1.0, 1.25)]
    assert losses[1] == min(losses)


def test_auce_knows_calibrated_from_overconfident() -> None:
    d = _data(5000)
    honest = _values(d)["auce"]
    # sd halved: coverage at level p is 2 Phi(z_p / 2) - 1, so the area is known.
    levels = np.linspace(0.01, 0.99, 99)
    expected = np.abs(2 * stats.norm.cdf(stats.norm.ppf(0.5 + levels / 2) / 2) - 1 - levels).mean()
    halved = TargetPredictions(d.label, d.mean, d.sd / 2, d.lower, d.upper, 0.95, d.participants)
    assert honest < 0.02
    assert _values(halved)["auce"] == pytest.approx(expected, abs=0.02)


def test_sparsification_is_zero_for_the_oracle_and_by_hand() -> None:
    error = np.array([4.0, 1.0, 3.0, 2.0])
    by_sd, oracle = sparsification_curves(error, np.array([0.1, 0.4, 0.2, 0.3]))
    half = 10  # removing half: by sd the errors 4 and 3 remain, by error 1 and 2
    assert (by_sd[0], by_sd[half], oracle[half]) == (2.5, 3.5, 1.5)
    label = np.zeros(4)
    perfect = TargetPredictions(label, error, error, label, label, 0.95, np.array(list("abcd")))
    assert _values(perfect)["sparsification_error"] == pytest.approx(0.0)


def test_binary_metrics_equal_scikit_learn_with_ties() -> None:
    m = pytest.importorskip("sklearn.metrics")
    d = _data(500, binary=True)
    found = _values(d)
    probability = np.clip(d.mean, 0, 1)
    assert tuple(found) == BINARY_METRICS
    assert found["auroc"] == pytest.approx(m.roc_auc_score(d.label, d.mean), rel=1e-12)
    assert found["auprc"] == pytest.approx(m.average_precision_score(d.label, d.mean), rel=1e-12)
    assert found["brier"] == pytest.approx(m.brier_score_loss(d.label, probability), rel=1e-12)


def test_reliability_by_hand() -> None:
    """Bins 0.1-0.2 (two scans, one positive) and 0.8-0.9 (two, both positive)."""
    p, y = np.array([0.15, 0.15, 0.85, 0.85]), np.array([1.0, 0.0, 1.0, 1.0])
    d = TargetPredictions(y, p, p, p, p, 0.95, np.array(list("abcd")), binary=True)
    assert _values(d)["reliability"] == pytest.approx((2 * 0.35**2 + 2 * 0.15**2) / 4)


def test_the_bootstrap_equals_resampling_one_by_one() -> None:
    """The replicates by weights are what resampled arrays would give."""
    d = _data(80)
    from ukb_infer.evaluation.metrics import _continuous, bootstrap_weights

    weights = list(bootstrap_weights(d.participants, 5, 3))[1]
    by_weight = _continuous(d, weights)
    for row in range(5):
        rows = np.repeat(np.arange(80), weights[row].astype(int))
        again = TargetPredictions(
            d.label[rows], d.mean[rows], d.sd[rows], d.lower[rows], d.upper[rows], 0.95, d.participants[rows]
        )
        resampled = _values(again)
        for name in ("icc", "r2", "mae", "pearson_r", "nll", "crps", "coverage", "auce", "mean_width"):
            assert by_weight[name][row] == pytest.approx(resampled[name], rel=1e-9), name


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """MAE of N(0, 1) errors is sqrt(2 / pi); 95 % intervals must hold it in 85 to 100 % of 100 tries."""
    inside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        error = rng.normal(size=150)
        one = np.ones(150)
        d = TargetPredictions(np.zeros(150), error, one, -one, one, 0.68, np.arange(150).astype(str))
        m = evaluate_target(d, replicates=200, seed=seed)["mae"]
        inside += m.low <= np.sqrt(2 / np.pi) <= m.high
    assert 85 <= inside <= 100


def test_the_bootstrap_draws_participants_not_scans() -> None:
    """With every participant's scans identical, twice the scans bring no more certainty."""
    single = _data(100)
    rows = np.repeat(np.arange(100), 2)
    parts = (single.label, single.mean, single.sd, single.lower, single.upper)
    double = TargetPredictions(*(a[rows] for a in parts), 0.95, single.participants[rows])
    widths = [(m := evaluate_target(d, replicates=500)["mae"]).high - m.low for d in (single, double)]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)


def test_no_scans_give_no_number() -> None:
    assert all(np.isnan(m.value) for m in evaluate_target(_data(0)).values())
    with pytest.raises(UsageError, match="different lengths"):
        TargetPredictions(np.zeros(3), np.zeros(2), np.zeros(3), np.zeros(3), np.zeros(3), 0.95, np.array(list("abc")))


def test_means_over_seeds_draw_seeds_in_replicates_only() -> None:
    seeds = np.arange(4.0)
    found = over_seeds(np.repeat(seeds[:, None], 4001, axis=1), seed=1)
    assert found[0] == 1.5
    assert found[1:].mean() == pytest.approx(1.5, abs=0.05)
    assert found[1:].std() == pytest.approx(seeds.std() / 2, abs=0.03)  # of a mean of four drawn seeds
    assert np.array_equal(over_seeds(np.ones((3, 5)), seed=0), np.ones(5))
