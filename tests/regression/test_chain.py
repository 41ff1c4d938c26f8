"""The numerical chain: analytic cases for every wrapper and its rule for the variance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from ukb_infer.regression import (
    LogVariance,
    Mixture,
    calibrate,
    combine_members,
    combine_modules,
    convert_units,
    destandardize,
    gaussian_quantile,
    prediction_interval,
    variance_from_raw,
)
from ukb_infer.regression.losses import gaussian_nll, log_variance, masked_mse

RNG = np.random.default_rng(0)


def test_identical_members_add_exactly_no_epistemic_variance() -> None:
    mean, variance = RNG.normal(1e3, 1.0, (1, 7)), RNG.uniform(0.1, 2.0, (1, 7))
    mixture = combine_members(np.repeat(mean, 5, axis=0), np.repeat(variance, 5, axis=0))
    assert (mixture.epistemic == 0).all()
    assert np.array_equal(mixture.mean, mean[0])
    assert mixture.aleatoric == pytest.approx(variance[0])


def test_members_combine_by_the_deep_ensemble_rule() -> None:
    means, variances = RNG.normal(0, 1, (4, 9)), RNG.uniform(0.1, 2.0, (4, 9))
    mixture = combine_members(means, variances)
    assert mixture.mean == pytest.approx(means.mean(axis=0))
    expected = (variances + means**2).mean(axis=0) - means.mean(axis=0) ** 2
    assert mixture.total_variance == pytest.approx(expected)


def test_the_mixture_has_the_moments_of_its_samples() -> None:
    means, sds = np.array([[0.0], [3.0]]), np.array([[1.0], [2.0]])
    mixture = combine_members(means, sds**2)
    draws = np.concatenate([RNG.normal(m[0], s[0], 200_000) for m, s in zip(means, sds, strict=True)])
    assert float(mixture.mean[0]) == pytest.approx(draws.mean(), abs=0.02)
    assert float(mixture.total_variance[0]) == pytest.approx(draws.var(), rel=0.02)


def test_each_wrapper_scales_the_variance_by_its_rule() -> None:
    start = Mixture(np.array([1.0]), np.array([2.0]), np.array([3.0]))
    wide = destandardize(start, np.array([10.0]), np.array([4.0]))
    assert (wide.mean[0], wide.aleatoric[0], wide.epistemic[0]) == (14.0, 32.0, 48.0)
    scaled = calibrate(start, np.array([4.0]))
    assert (scaled.mean[0], scaled.aleatoric[0], scaled.epistemic[0]) == (1.0, 8.0, 12.0)
    litres = convert_units(start, np.array([1000.0]))
    assert (litres.mean[0], litres.total_variance[0]) == (0.001, pytest.approx(5e-6))


def test_a_calibration_factor_of_four_doubles_the_interval() -> None:
    start = Mixture(np.array([50.0]), np.array([1.0]), np.array([0.5]))
    widths = []
    for factor in (1.0, 4.0):
        sd = np.sqrt(calibrate(start, np.array([factor])).total_variance)
        low, high = prediction_interval(start.mean, sd, gaussian_quantile(0.95), None, None)
        widths.append(float(high[0] - low[0]))
    assert widths[1] == pytest.approx(2 * widths[0])
    assert widths[0] == pytest.approx(2 * stats.norm.ppf(0.975) * np.sqrt(1.5))


def test_limits_clip_the_interval_and_never_the_mean() -> None:
    mean = np.array([-0.5, 0.2, 101.0])
    low, high = prediction_interval(mean, np.ones(3), 2.0, 0.0, 100.0)
    assert list(low) == [0.0, 0.0, 99.0]
    assert list(high) == [1.5, 2.2, 100.0]
    assert list(mean) == [-0.5, 0.2, 101.0]


def test_modules_combine_as_one_mixture_of_their_members() -> None:
    means, variances = RNG.normal(5, 1, (5, 3)), RNG.uniform(0.1, 1.0, (5, 3))
    parts = [combine_members(means[:2], variances[:2]), combine_members(means[2:], variances[2:])]
    joined, whole = combine_modules(parts, [2, 3]), combine_members(means, variances)
    assert joined.mean == pytest.approx(whole.mean)
    assert joined.aleatoric == pytest.approx(whole.aleatoric)
    assert joined.epistemic == pytest.approx(whole.epistemic)


def test_log_variance_becomes_variance() -> None:
    assert variance_from_raw(np.array([0.0, np.log(4.0)], np.float32)) == pytest.approx([1.0, 4.0])
    assert np.isfinite(variance_from_raw(np.array([1e4, -1e4], np.float32))).all()


@pytest.mark.parametrize("kind", ["plain", "bounded"])
def test_a_raw_output_that_is_not_finite_never_becomes_a_finite_variance(kind: LogVariance) -> None:
    raw = np.array([np.nan, np.inf, -np.inf, 0.0], np.float32)
    assert np.isnan(variance_from_raw(raw, kind)).tolist() == [True, True, True, False]


def test_the_bounded_log_variance_is_smooth_rising_and_the_same_in_loss_and_inference() -> None:
    raw = np.concatenate([np.linspace(-60, 60, 2401), [-1e6, 1e6]])
    own = np.log(variance_from_raw(raw, "bounded"))
    assert own.min() > -12 - 1e-9
    assert own.max() < 8 + 1e-9
    assert (np.diff(own[:-2]) > 0).all()
    assert own[1200] == pytest.approx(0.0, abs=0.05)  # a raw 0 starts training at unit variance
    in_loss = log_variance(torch.from_numpy(raw)).numpy()
    assert in_loss == pytest.approx(own, abs=1e-9)


def test_a_log_variance_that_ran_away_is_pulled_back_by_its_gradient() -> None:
    """A clamp gave it no gradient at all below -12, while the mean's was multiplied by exp(12)."""
    for raw in (-12.5, -40.0, -200.0):
        prediction = torch.tensor([[[0.0, raw]]], requires_grad=True)
        gaussian_nll(prediction, torch.tensor([[0.5]])).backward()
        assert prediction.grad is not None
        assert float(prediction.grad[0, 0, 1]) < -1.0, raw
    prediction = torch.tensor([[[0.0, 60.0]]], requires_grad=True)
    gaussian_nll(prediction, torch.tensor([[0.5]])).backward()
    assert prediction.grad is not None
    assert float(prediction.grad[0, 0, 1]) > 1e-3


def test_the_loss_ignores_missing_labels() -> None:
    prediction = torch.randn(4, 3, 2, requires_grad=True)
    target = torch.randn(4, 3)
    target[0, 1] = target[2, 2] = float("nan")
    loss = gaussian_nll(prediction, target)
    present = torch.isfinite(target)
    mean, s = prediction[..., 0], log_variance(prediction[..., 1])
    expected = (torch.exp(-s) * (target - mean) ** 2 + s)[present].mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    loss.backward()
    assert prediction.grad is not None
    assert torch.equal(prediction.grad[0, 1], torch.zeros(2))
    assert torch.isfinite(prediction.grad).all()
    everything_missing = gaussian_nll(prediction.detach(), torch.full((4, 3), float("nan")))
    assert float(everything_missing) == 0.0
    assert float(masked_mse(prediction, target).detach()) == pytest.approx(
        float(((target - mean) ** 2)[present].mean().detach()), rel=1e-5
    )


def test_beta_weighs_by_the_variance_without_changing_the_optimum() -> None:
    s = torch.tensor([[[0.0, 1.3]]])
    target = torch.tensor([[0.7]])
    plain, weighted = gaussian_nll(s, target), gaussian_nll(s, target, beta=0.5)
    assert float(weighted) == pytest.approx(
        float(plain) * np.exp(0.5 * float(log_variance(torch.tensor(1.3)))), rel=1e-5
    )
