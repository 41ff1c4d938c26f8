"""The released reference of ordinary scans against phantoms that are not: area under the ROC curve, and false flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import ukb_infer.phantom.sampling as sampling
from ukb_infer.imaging.recipes import RECIPES
from ukb_infer.inference.config import DEFAULT_OOD_THRESHOLD
from ukb_infer.modules import InferenceModule, load_module
from ukb_infer.modules.outliers import features_of
from ukb_infer.modules.plausibility import contradictions
from ukb_infer.phantom.population import sample_subject
from ukb_infer.records import Station
from ukb_infer.regression import Mixture
from ukb_infer.targets.rules import rules_of

SEED, COUNT = 2027, 150
Stations = tuple[Station, ...]
RECIPE = RECIPES["mimir-1"]


def _each(change: Callable[[NDArray], NDArray], stations: Stations, first: int = 0) -> Stations:
    """Stations whose water and fat are changed, from one on."""
    return stations[:first] + tuple(
        replace(s, water=change(s.water).astype(s.water.dtype), fat=change(s.fat).astype(s.fat.dtype))
        for s in stations[first:]
    )


def _zoomed(volume: NDArray) -> NDArray:
    small = ndimage.zoom(volume, (0.8, 0.8, 1.0), order=1)
    rows, cols = ((a - b) // 2 for a, b in zip(volume.shape[:2], small.shape[:2], strict=True))
    result = np.zeros_like(volume)
    result[rows : rows + small.shape[0], cols : cols + small.shape[1]] = small
    return result


def _rolled(volume: NDArray) -> NDArray:
    return np.clip(ndimage.rotate(volume, 25, axes=(0, 1), reshape=False, order=1), 0, 65535)


ODD: dict[str, Callable[[Stations], Stations]] = {
    "mirrored left to right": lambda s: _each(lambda v: v[:, ::-1], s),
    "mirrored front to back": lambda s: _each(lambda v: v[::-1], s),
    "rolled by 25 degrees": lambda s: _each(_rolled, s),
    "swapped": lambda s: tuple(replace(x, water=x.fat, fat=x.water) for x in s),
    "legs missing": lambda s: _each(lambda v: v // 50, s, 4),
    "other field of view": lambda s: _each(_zoomed, s),
}


def _render(number: int) -> Stations:
    return sampling.render(sample_subject(SEED, number), "small").stations


def _other_vendor() -> dict[sampling.Tissue, tuple[float, float]]:
    return {t: (500 * (w / 500) ** 0.5, 560 * (f / 560) ** 1.6 + 0.25 * w) for t, (w, f) in sampling._SIGNAL.items()}


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_the_released_module_finds_what_is_not_ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_module("phantom-demo")
    assert module.outliers is not None
    numbers = range(1, COUNT + 1)
    images = {"ordinary": [RECIPE.project(_render(k)) for k in numbers]}
    images["ordinary"] += [RECIPE.project(_render(k)) for k in range(1001, 1001 + 2 * COUNT)]
    for name, change in ODD.items():
        images[name] = [RECIPE.project(change(_render(k))) for k in numbers]
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "NOISE_SD", 6 * sampling.NOISE_SD)
        images["six times the noise"] = [RECIPE.project(_render(k)) for k in numbers]
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "_SIGNAL", _other_vendor())
        images["other vendor"] = [RECIPE.project(_render(k)) for k in numbers]
    seen = {name: features_of(module, group) for name, group in images.items()}
    found = {name: module.outliers.percentile(features) for name, (features, _) in seen.items()}
    ordinary = found.pop("ordinary")
    flagged = (ordinary >= DEFAULT_OOD_THRESHOLD).mean()
    print(f"\nordinary: {100 * flagged:.2f} % of {len(ordinary)} flagged; deciles "
          f"{np.round(np.quantile(ordinary, np.arange(1, 10) / 10)).astype(int)}")  # fmt: skip
    areas = {}
    for name, values in found.items():
        truth = np.r_[np.zeros(len(ordinary)), np.ones(len(values))]
        areas[name] = roc_auc_score(truth, np.r_[ordinary, values])
        print(f"{name}: AUROC {areas[name]:.3f}, {100 * (values >= DEFAULT_OOD_THRESHOLD).mean():.0f} % flagged")
    assert flagged <= 0.01
    assert min(areas.values()) >= 0.95
    contradicting = {name: _contradicting(module, estimates) for name, (_, estimates) in seen.items()}
    contradicting["ordinary, one estimate of a rule 3 sd off"] = _contradicting(
        module, _broken(module, seen["ordinary"][1])
    )
    print("estimates that contradict each other:", {name: f"{100 * v:.1f} %" for name, v in contradicting.items()})
    assert contradicting["ordinary"] <= 0.01
    assert contradicting["ordinary, one estimate of a rule 3 sd off"] >= 0.7


def _contradicting(module: InferenceModule, estimates: Mixture) -> float:
    """Share of scans whose estimates contradict each other."""
    assert module.outliers is not None
    rules, names = module.outliers.rules, module.manifest.target_names
    rows = (estimates.select(slice(k, k + 1)) for k in range(len(estimates.mean)))
    return float(np.mean([bool(contradictions(rules, names, row)) for row in rows]))


def _broken(module: InferenceModule, estimates: Mixture) -> Mixture:
    """Every scan with one estimate that is three of its calibrated standard deviations off."""
    names, rng = module.manifest.target_names, np.random.default_rng(SEED)
    of_rules = [k for k, name in enumerate(names) if any(name in rule.targets for rule in rules_of(names))]
    which, mean = rng.choice(of_rules, len(estimates.mean)), estimates.mean.copy()
    rows = np.arange(len(mean))
    mean[rows, which] += 3.0 * np.sqrt(estimates.total_variance[rows, which]) * rng.choice([-1, 1], len(mean))
    return Mixture(mean, estimates.aleatoric, estimates.epistemic)
