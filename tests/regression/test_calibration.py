"""Calibration fits on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from ukb_infer.errors import UsageError
from ukb_infer.regression import (
    conformal_half_width,
    conformal_table,
    coverage_area,
    gaussian_quantile,
    variance_factor_closed_form,
    variance_factor_coverage,
)
from ukb_infer.regression.probability import fit_probability

RNG = np.random.default_rng(1)
MEAN, SD = RNG.normal(0, 3, 6000), RNG.uniform(0.5, 2.0, 6000)
LABEL = MEAN + 1.5 * SD * RNG.normal(size=6000)


@pytest.mark.parametrize("fit", [variance_factor_closed_form, variance_factor_coverage])
def test_every_fit_finds_the_factor_that_made_the_data(fit: object) -> None:
    """Errors 1.5 times as large as stated: factor 2.25, within 5 % on 6,000 labels."""
    assert fit(LABEL, MEAN, SD**2) == pytest.approx(2.25, rel=0.05)  # type: ignore[operator]


def test_missing_labels_are_left_out() -> None:
    label = LABEL.copy()
    label[::2] = np.nan
    assert variance_factor_closed_form(label, MEAN, SD**2) == pytest.approx(2.25, rel=0.07)
    with pytest.raises(UsageError, match="at least 10"):
        variance_factor_closed_form(np.full(50, np.nan), MEAN[:50], SD[:50] ** 2)


def test_the_coverage_fit_has_no_signed_area() -> None:
    scores = np.abs(LABEL - MEAN) / SD
    factor = variance_factor_coverage(LABEL, MEAN, SD**2)
    assert abs(coverage_area(scores, factor)) < 0.005
    assert coverage_area(scores, 100.0) > 0.05
    assert coverage_area(scores, 0.01) < -0.05


def test_conformal_covers_at_least_the_level_on_average() -> None:
    """The guarantee: mean coverage over many calibration sets of 40 is at least 90 % (binomial error 0.3 %)."""
    covered = []
    for _ in range(400):
        scores = np.abs(RNG.standard_t(3, 40))
        fresh = np.abs(RNG.standard_t(3, 200))
        covered.append((fresh <= conformal_half_width(scores, 0.9)).mean())
    assert 0.895 <= np.mean(covered) <= 0.92


def test_conformal_ranks_are_exact() -> None:
    scores = np.arange(1.0, 20.0)
    assert conformal_half_width(scores, 0.9) == 18.0
    assert conformal_half_width(scores, 0.95) == 19.0
    assert conformal_half_width(scores, 0.99) == float("inf")
    table = conformal_table(LABEL[:100], MEAN[:100], SD[:100] ** 2)
    assert 0.995 not in table
    assert list(table.values()) == sorted(table.values())


def test_the_coverage_fit_does_not_depend_on_the_unit() -> None:
    """Errors 1e9 and 1e-9 times the stated sd: the factor follows with the square."""
    for scale in (1e9, 1e-9):
        factor = (
            variance_factor_coverage(MEAN + (LABEL - MEAN) * scale, MEAN, SD**2)
            if scale > 1
            else (variance_factor_coverage(LABEL, MEAN, (SD / scale) ** 2))
        )
        assert factor / scale**2 == pytest.approx(variance_factor_coverage(LABEL, MEAN, SD**2), rel=1e-3)


@pytest.mark.parametrize("variance", [0.0, -1.0, np.nan, np.inf])
def test_predictions_that_are_none_are_refused(variance: float) -> None:
    with pytest.raises(UsageError, match="finite variances above 0"):
        variance_factor_closed_form(LABEL[:50], MEAN[:50], np.full(50, variance))
    with pytest.raises(UsageError, match="predicted exactly"):
        variance_factor_coverage(MEAN[:50], MEAN[:50], SD[:50] ** 2)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_conformal_intervals_cover_fresh_scans_also_under_label_noise_training_did_not_have(noise: float) -> None:
    """50 targets with skewed, heavy-tailed errors whose predicted sd is wrong by a factor: the short form of the soak.

    Gaussian intervals of a factor fitted on the same scans must fail here, or the test would show nothing.
    """
    rng = np.random.default_rng(3)
    levels = np.array([0.5, 0.8, 0.9, 0.95, 0.99])
    conformal, gaussian = np.empty((50, 5)), np.empty((50, 5))
    for target in range(50):

        def draw(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            sd = rng.uniform(0.5, 2.0, count)
            label = sd * (rng.gamma(1.0, 1.5, count) - 1.5) + noise * rng.normal(size=count)
            return label, np.zeros(count), np.square(0.4 * sd)

        label, mean, variance = draw(4000)
        table = conformal_table(label, mean, variance)
        factor = variance_factor_coverage(label, mean, variance)
        fresh, mean, variance = draw(1000)
        score = np.abs(fresh - mean) / np.sqrt(variance)
        conformal[target] = [(score <= table[level]).mean() for level in levels]
        gaussian[target] = [(score <= np.sqrt(factor) * gaussian_quantile(level)).mean() for level in levels]
    error = np.sqrt(levels * (1 - levels) / 1000)

    def within(coverage: np.ndarray) -> float:
        return float((np.abs(coverage - levels) <= 3 * error).mean())

    assert within(conformal) >= 0.95
    assert np.abs(conformal.mean(axis=0) - levels).max() <= 0.025
    assert within(gaussian) < 0.9


def test_the_order_of_rows_changes_no_bit() -> None:
    order = np.random.default_rng(7).permutation(300)
    rows = [a[:300] for a in (LABEL, MEAN, SD**2)]
    for fit in (variance_factor_closed_form, variance_factor_coverage, conformal_table):
        assert fit(*rows) == fit(*(a[order] for a in rows))
    y = (LABEL[:300] > 0).astype(float)
    assert fit_probability(y, MEAN[:300]) == fit_probability(y[order], MEAN[:300][order])


@pytest.mark.parametrize("fit", [variance_factor_closed_form, variance_factor_coverage])
def test_labels_predicted_exactly_give_no_factor_of_0(fit: object) -> None:
    with pytest.raises(UsageError, match="predicted exactly"):
        fit(MEAN[:50], MEAN[:50], SD[:50] ** 2)  # type: ignore[operator]


def test_a_conformal_level_near_0_is_the_smallest_score() -> None:
    assert conformal_half_width(np.arange(1.0, 6.0), 1e-12) == 1.0
    assert conformal_half_width(np.empty(0), 0.5) == float("inf")
