"""The head that finetuning starts from."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.training import make_data
from ukb_infer.networks import EncoderSpec, Pretrained, build_encoder, save_pretrained
from ukb_infer.regression.losses import log_variance
from ukb_infer.training.config import make_config
from ukb_infer.training.distributed import Ranks
from ukb_infer.training.ensemble import Standardization
from ukb_infer.training.probe_start import LEAST_VARIANCE, MOST_VARIANCE, fit_head, fit_ridge, logit_of, weights_of
from ukb_infer.training.trainer import Trainer


def made(cases: int, features: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of unlike scales, and labels that follow from two of them."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(cases, features)) * np.geomspace(0.5, 10.0, features) + 3.0
    labels = values[:, -1] / 10.0 + (values[:, 0] - 3.0) / 0.5 + noise * rng.normal(size=cases)
    return values, (labels - labels.mean()) / labels.std()


def test_the_left_out_predictions_are_those_of_fits_without_the_fold() -> None:
    """By brute force, over all penalties: ten folds along the order of the labels, standardized without the fold."""
    values, labels = made(24, 5, 0.3)
    slope, intercept, left_out = fit_ridge(values, labels)

    def ridge(x: np.ndarray, y: np.ndarray, share: float) -> tuple[np.ndarray, float]:
        scaled = (x - x.mean(axis=0)) / x.std(axis=0)
        penalty = share * np.square(scaled).sum() / len(y)
        weights = np.linalg.solve(scaled.T @ scaled + penalty * np.eye(5), scaled.T @ (y - y.mean())) / x.std(axis=0)
        return weights, float(y.mean() - x.mean(axis=0) @ weights)

    fold_of = np.argsort(np.argsort(labels)) % 10
    wanted = {}
    for share in 10.0 ** np.arange(-2.0, 2.5, 0.5):
        out = np.empty(24)
        for fold in range(10):
            weights, constant = ridge(values[fold_of != fold], labels[fold_of != fold], share)
            out[fold_of == fold] = values[fold_of == fold] @ weights + constant
        wanted[share] = out
    best = min(wanted, key=lambda share: float(np.mean((wanted[share] - labels) ** 2)))
    weights, constant = ridge(values, labels, best)
    assert left_out == pytest.approx(wanted[best], abs=1e-9)
    assert slope == pytest.approx(weights, abs=1e-9)
    assert intercept == pytest.approx(constant, abs=1e-9)


def test_a_group_that_shows_the_labels_is_not_drowned_by_the_others() -> None:
    """40 cases, 30 groups of 32 features; three features of one group follow the labels."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels, new = rng.normal(size=(2, 40)), rng.normal(size=(2, 400))
        for grouped in (True, False):
            sides = []
            for y in (labels[0], new[0]):
                values = rng.normal(size=(len(y), 960))
                values[:, 320:323] += y[:, None]
                sides.append(values)
            slope, intercept, _ = fit_ridge(sides[0], labels[0], (32,) * 30 if grouped else None)
            found[grouped].append(float(np.corrcoef(sides[1] @ slope + intercept, new[0])[0, 1]))
    assert np.median(found[True]) > 0.5 > 0.3 > np.median(found[False])


def test_factors_of_groups() -> None:
    """Their alignment squared: of a group that is the labels 1, one blind to them 0, one of both 1 / sqrt(2)."""
    labels = np.tile([1.0, -1.0], 6)
    blind = np.repeat([1.0, -1.0], 6)
    scaled = np.stack([labels, blind, labels, blind], axis=1)
    assert weights_of(scaled, labels, (1, 1, 2)) == pytest.approx([1.0, 0.0, 0.5, 0.5])
    assert weights_of(scaled * 0.0, labels, (2, 2)).tolist() == [0.0, 0.0, 0.0, 0.0]


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


def network(features: int, targets: int, groups: tuple[int, ...] = ()) -> SimpleNamespace:
    torch.manual_seed(0)
    return SimpleNamespace(head=torch.nn.Linear(features, 2 * targets), groups=groups or (features,))


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


def test_one_case_unlike_all_others_does_not_stop_the_fit() -> None:
    """The fit without it misses it by thousands of standard deviations."""
    values, labels = made(12, 4, 0.1)
    values[5] *= 1e6
    found = network(4, 1)
    fit_head(found, values, labels[:, None], classes=False)
    assert np.mean((fit_ridge(values, labels)[2] - labels) ** 2) > math.exp(8.0)
    with torch.no_grad():
        outputs = found.head(torch.from_numpy(values[:1]).float())
    assert log_variance(outputs[0, 1]).exp().item() == pytest.approx(MOST_VARIANCE, rel=1e-4)


@pytest.mark.parametrize(("strength", "limit"), [(2.0, 0.56), (0.0, 0.68)])
@pytest.mark.parametrize("groups", [(30,), (5,) * 6])
def test_a_class_starts_with_probabilities_that_hold(strength: float, limit: float, groups: tuple[int, ...]) -> None:
    """On new cases cross-entropy is below that of the prevalence, 0.61; without a relation it is little above it."""
    losses = []
    for seed in range(20):
        rng, sides = np.random.default_rng(seed), []
        for count in (60, 1000):
            labels = (rng.random(count) < 0.3).astype(float)
            values = rng.normal(size=(count, 30))
            values[:, 0] += strength * labels
            sides.append((values, labels))
        found = network(30, 1, groups)
        fit_head(found, sides[0][0], sides[0][1][:, None], classes=True)
        with torch.no_grad():
            logits = found.head(torch.from_numpy(sides[1][0]).float())[:, 0]
        wanted = torch.from_numpy(sides[1][1]).float()
        losses.append(float(torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)))
    assert np.median(losses) < limit


def test_scores_the_wrong_way_round_become_the_prevalence_and_keep_their_order() -> None:
    scores = np.array([1.0, 0.9, 0.1, 0.0])
    factor, shift = logit_of(scores, np.array([0.0, 0.0, 0.0, 1.0]))
    assert factor > 0.0
    assert factor * scores + shift == pytest.approx(math.log(1 / 3), abs=0.25)


def test_every_process_starts_from_the_head_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrapping takes the weights of the first process; the head is fitted before, and the average taken after it."""
    encoder = build_encoder(EncoderSpec(dim=2, channels=3))
    (tmp_path / "ckpt").mkdir()
    save_pretrained(tmp_path / "ckpt", Pretrained(spec=encoder.spec, settings={}, state=encoder.state_dict(), facts={}))

    def wrap(self: Ranks, network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
        network.head.weight.data.fill_(7.0)
        return network

    monkeypatch.setattr(Ranks, "wrap", wrap)
    data, config = make_data(16), make_config("fast", backbone="conv_small", probe_first=True, iterations=1)
    labels = Standardization.of(config.objective, data.labels, data.targets).apply(data.labels)
    rows = np.arange(12), np.arange(12, 16)
    trainer = Trainer(config, 0, data, labels, *rows, tmp_path / "m", "cpu", tmp_path / "ckpt")
    assert bool((trainer.network.head.weight == 7.0).all())
    assert bool((trainer.average.head.weight == 7.0).all())
