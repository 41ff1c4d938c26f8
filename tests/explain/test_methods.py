"""Attributions: the sanity checks of the literature, on the demonstration module and phantoms."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ukb_infer.errors import UsageError
from ukb_infer.explain.explain import explain_image
from ukb_infer.explain.methods import METHODS, Explained, attribute, get_method
from ukb_infer.imaging.recipes import get_recipe
from ukb_infer.modules import InferenceModule, load_module
from ukb_infer.phantom import render, sample_subject

pytest.importorskip("captum")
LIVER, THIGHS = "liverFat", "AtlasTotalThighMuscleVolume"


@cache
def module() -> InferenceModule:
    return load_module("phantom-demo")


@cache
def picture(index: int) -> np.ndarray:
    return get_recipe("mimir-1").project(render(sample_subject(4242, index), "small").stations)


@cache
def ordinary() -> np.ndarray:
    return module().outliers.picture.astype(np.float32)


def explained(target: str, of: str = "mean", of_module: InferenceModule | None = None) -> Explained:
    chosen = of_module or module()
    return Explained([chosen], [chosen.manifest.target_names.index(target)], of)


@cache
def saliency(target: str, index: int = 1, method: str = "integrated-gradients") -> np.ndarray:
    return explain_image(explained(target), picture(index), ordinary(), method)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_finite_not_negative_and_not_constant(method: str) -> None:
    found = saliency(LIVER, 1, method)
    assert found.shape == (256, 256)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0.0
    assert found.std() > 0.0


@pytest.mark.parametrize("of", ["mean", "variance"])
def test_attributions_add_up_to_the_difference_from_the_baseline(of: str) -> None:
    what = explained(THIGHS, of)
    found = attribute("integrated-gradients", what, picture(2), ordinary())
    pair = torch.from_numpy(np.stack([picture(2).astype(np.float32), ordinary()]))
    own, start = what(pair).detach().numpy().astype(np.float64)
    assert abs(own - start) > 1e-3
    assert found.sum() == pytest.approx(own - start, rel=0.05)


def test_the_map_depends_on_the_target() -> None:
    assert spearmanr(saliency(LIVER).ravel(), saliency(THIGHS).ravel()).statistic < 0.7


def test_random_weights_give_another_map() -> None:
    torch.manual_seed(0)
    other = load_module("phantom-demo")
    for member in other.members:
        for layer in member.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        torch.nn.init.normal_(member.head.weight, std=0.05)
    found = explain_image(explained(LIVER, of_module=other), picture(1), ordinary())
    assert spearmanr(found.ravel(), saliency(LIVER).ravel()).statistic < 0.7


@pytest.mark.parametrize("target", [LIVER, THIGHS])
def test_removing_the_most_salient_pixels_moves_the_estimate_more_than_removing_random_ones(target: str) -> None:
    what, rng, order = explained(target), np.random.default_rng(0), np.argsort(saliency(target).ravel())[::-1]
    count = order.size // 20

    def moved(pixels: np.ndarray) -> float:
        changed = picture(1).astype(np.float32).reshape(3, -1).copy()
        changed[:, pixels] = ordinary().reshape(3, -1)[:, pixels]
        pair = torch.from_numpy(np.stack([changed.reshape(3, 256, 256), picture(1).astype(np.float32)]))
        new, old = what(pair).detach().numpy()
        return abs(float(new - old))

    at_random = [moved(rng.permutation(order.size)[:count]) for _ in range(5)]
    assert moved(order[:count]) > 2 * max(at_random)


def test_a_scan_that_is_the_baseline_has_no_map() -> None:
    from ukb_infer.errors import ScanError

    with pytest.raises(ScanError, match="no pixel matters"):
        explain_image(explained(LIVER), picture(1), picture(1))


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="gradcam"):
        get_method("grad-cam")
