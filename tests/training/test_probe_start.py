"""The head that finetuning starts from."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ukb_infer.regression.losses import log_variance
from ukb_infer.training.probe_start import LEAST_VARIANCE, fit_head, fit_ridge, logit_of


def made(cases: int, features: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of unlike scales, and labels that follow from two of them."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(cases, features)) * np.geomspace(0.5, 10.0, features) + 3.0
    labels = values[:, -1] / 10.0 + (values[:, 0] - 3.0) / 0.5 + noise * rng.normal(size=cases)
    return values, (labels - labels.mean()) / labels.std()


def test_the_left_out_predictions_are_those_of_fits_without_the_case() -> None:
    """By brute force, at the penalty that the fit chose; both see cases standardized together."""
    values, labels = made(12, 5, 0.3)
    slope, intercept, left_out = fit_ridge(values, labels)
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    own = slope * values.std(axis=0)
    gram = scaled @ scaled.T
    # of the penalties, the one that gives these slopes
    powers = 10.0 ** np.arange(-2.0, 2.5, 0.5) * np.linalg.eigvalsh(gram).clip(min=0.0).mean()
    errors = [
        np.abs(scaled.T @ np.linalg.solve(gram + p * np.eye(12), labels - labels.mean()) - own).max() for p in powers
    ]
    penalty = powers[int(np.argmin(errors))]
    assert min(errors) < 1e-9
    for k in range(12):
        rest = np.delete(np.arange(12), k)
        x, y = scaled[rest], labels[rest]
        centred = x - x.mean(axis=0)
        weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(5), centred.T @ (y - y.mean()))
        assert left_out[k] == pytest.approx(y.mean() + (scaled[k] - x.mean(axis=0)) @ weights, abs=1e-9)
    assert values @ slope + intercept == pytest.approx(labels, abs=1.0)


def test_noise_is_not_believed() -> None:
    """Without any relation the penalty grows until nearly nothing is predicted."""
    rng = np.random.default_rng(1)
    spread = [fit_ridge(rng.normal(size=(20, 60)), rng.normal(size=20))[2].std() for _ in range(20)]
    assert np.median(spread) < 0.5


def test_a_feature_that_hardly_varies_is_not_blown_up() -> None:
    values, labels = made(12, 6, 0.1)
    values[:, 2] = 1.0 + 1e-9 * np.arange(12)
    slope, _, _ = fit_ridge(values, labels)
    assert abs(slope[2]) < 10.0 * np.abs(slope).max(where=np.arange(6) != 2, initial=0.0)


def network(features: int, targets: int) -> SimpleNamespace:
    torch.manual_seed(0)
    return SimpleNamespace(head=torch.nn.Linear(features, 2 * targets))


def test_a_regression_starts_with_its_error() -> None:
    values, labels = made(40, 8, 0.4)
    both = np.stack([labels, np.full(40, np.nan)], axis=1)
    both[:3, 1] = 1.0  # too few
    found = network(8, 2)
    before = found.head.weight.detach().clone()
    fit_head(found, values, both, classes=False)
    with torch.no_grad():
        outputs = found.head(torch.from_numpy(values).float()).reshape(-1, 2, 2)
    assert np.corrcoef(outputs[:, 0, 0], labels)[0, 1] > 0.9
    variance = log_variance(outputs[:, 0, 1]).exp()
    left_out = fit_ridge(values, labels)[2]
    assert variance.numpy() == pytest.approx(max(LEAST_VARIANCE, np.mean((left_out - labels) ** 2)), rel=1e-4)
    assert torch.equal(found.head.weight[2:], before[2:])


def test_a_class_starts_with_probabilities_that_hold() -> None:
    """On new cases cross-entropy is below that of the prevalence, 0.61; without a relation it is little above it."""
    rng = np.random.default_rng(3)
    labels = (rng.random(60) < 0.3).astype(float)
    for strength, limit in ((2.0, 0.6), (0.0, 0.75)):
        found = network(30, 1)
        values = rng.normal(size=(60, 30))
        values[:, 0] += strength * labels
        fit_head(found, values, labels[:, None], classes=True)
        truth = (rng.random(3000) < 0.3).astype(float)
        new = rng.normal(size=(3000, 30))
        new[:, 0] += strength * truth
        with torch.no_grad():
            logits = found.head(torch.from_numpy(new).float())[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(truth).float())
        assert float(loss) < limit


def test_scores_the_wrong_way_round_become_the_prevalence() -> None:
    factor, shift = logit_of(np.array([1.0, 0.9, 0.1, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    assert (factor, shift) == (0.0, pytest.approx(math.log(1 / 3)))
