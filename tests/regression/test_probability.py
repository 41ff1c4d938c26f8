"""Probabilities of 0/1 targets and their prediction sets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from ukb_infer.errors import UsageError
from ukb_infer.regression.probability import apply_curve, fit_probability, fit_sets, prediction_set


def _cohort(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and regressed means whose true probability is a steep logistic of the mean: rare positives."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(0.1, 0.15, n)
    return (rng.random(n) < expit(9.0 * (mean - 0.4))).astype(float), mean


@pytest.mark.parametrize(("n", "kind"), [(400, "platt"), (6000, "isotonic")])
def test_the_probability_is_the_frequency_on_fresh_scans(n: int, kind: str) -> None:
    label, mean = _cohort(n, 1)
    fitted, curve = fit_probability(label, mean)
    assert fitted == kind
    fresh, score = _cohort(40_000, 2)
    probability = apply_curve(curve, score)
    assert abs(probability.mean() - fresh.mean()) < 0.02
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.7)):
        bin_ = (probability >= low) & (probability < high)
        assert abs(probability[bin_].mean() - fresh[bin_].mean()) < 0.05
    steps = np.linspace(-2, 3, 101)
    assert (np.diff(apply_curve(curve, steps)) >= 0).all()


def test_labels_that_speak_against_the_mean_leave_the_order_of_the_scans() -> None:
    """Twenty unlucky labels once gave every scan the same probability."""
    mean = np.linspace(0.1, 0.9, 20)
    _, curve = fit_probability((mean < 0.5).astype(float), mean)
    probability = apply_curve(curve, mean)
    assert (np.diff(probability) > 0).all()
    assert probability == pytest.approx(0.5, abs=0.03)


def test_without_a_curve_the_mean_is_clipped() -> None:
    assert apply_curve((), np.array([-0.2, 0.4, 1.3])).tolist() == [0.0, 0.4, 1.0]


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_prediction_sets_hold_their_level_in_each_class(level: float) -> None:
    label, mean = _cohort(4000, 3)
    _, curve = fit_probability(label, mean)
    rows = {row[0]: row[1:] for row in fit_sets(label, apply_curve(curve, mean))}
    fresh, score = _cohort(40_000, 4)
    sets = [prediction_set(float(p), *rows[level]) for p in apply_curve(curve, score)]
    for one in ("0", "1"):
        inside = np.mean([one in s for s, y in zip(sets, fresh, strict=True) if y == float(one)])
        assert inside == pytest.approx(level, abs=0.03)


def test_levels_a_rare_class_cannot_support_are_left_out() -> None:
    label = np.r_[np.zeros(500), np.ones(9)]
    probability = np.r_[np.linspace(0, 0.5, 500), np.linspace(0.3, 0.9, 9)]
    assert max(row[0] for row in fit_sets(label, probability)) == 0.9  # 9 of 10 ranks


def test_too_few_of_a_class_are_an_error() -> None:
    with pytest.raises(UsageError, match="5 labels of each class, got 4"):
        fit_probability(np.r_[np.zeros(50), np.ones(4)], np.linspace(0, 1, 54))
