"""Intervals of mixtures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from ukb_infer.regression.quantiles import Shape, mixture_interval


def test_one_gaussian_has_its_quantiles() -> None:
    low, high = mixture_interval(np.array([[1.0, -5.0]]), np.array([[2.0, 1e-6]]), [Shape()], 0.9)
    assert low == pytest.approx([1 - 1.6448536269514722 * 2, -5 - 1.6448536e-6], abs=1e-9)
    assert high == pytest.approx([1 + 1.6448536269514722 * 2, -5 + 1.6448536e-6], abs=1e-9)


def test_the_mass_between_the_ends_is_the_level() -> None:
    means, sds = np.array([[0.0], [6.0]]), np.array([[1.0], [0.5]])
    low, high = mixture_interval(means, sds, [Shape(weight=3), Shape(weight=1)], 0.8)

    def mass(z: float) -> float:
        return float(0.75 * norm.cdf(z) + 0.25 * norm.cdf((z - 6) / 0.5))

    assert mass(float(low[0])) == pytest.approx(0.1, abs=1e-9)
    assert mass(float(high[0])) == pytest.approx(0.9, abs=1e-9)


def test_conformal_half_widths_shape_the_part() -> None:
    shape = Shape((0.5, 0.9, 0.95), (0.6, 2.5, 3.5))
    for level, width in ((0.5, 0.6), (0.9, 2.5), (0.95, 3.5)):
        low, high = mixture_interval(np.array([[10.0]]), np.array([[2.0]]), [shape], level)
        assert (float(low[0]), float(high[0])) == pytest.approx((10 - 2 * width, 10 + 2 * width), abs=1e-8)
    far, _ = mixture_interval(np.array([[10.0]]), np.array([[2.0]]), [shape], 0.99)
    assert float(far[0]) < 10 - 2 * 3.5  # beyond the last width the tail goes on


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_two_calibrated_modules_hold_at_least_their_level(level: float) -> None:
    """The fault: mean and sd of the mixture gave intervals at no stated level."""
    rng = np.random.default_rng(0)
    for correlation in (0.0, 0.9):
        errors = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], 20_000).T
        low, high = mixture_interval(errors, np.ones_like(errors), [Shape(), Shape()], level)
        assert ((low <= 0) & (high >= 0)).mean() > level - 0.01
