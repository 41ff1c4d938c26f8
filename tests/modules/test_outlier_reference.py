"""How unlike its reference scans a scan is: the score, its percentile, its file, and the module that has it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ukb_infer.errors import ModuleError, UsageError
from ukb_infer.modules import load_module, read_manifest, verify_module
from ukb_infer.modules.module import add_outliers
from ukb_infer.modules.outliers import MIN_SCANS, OutlierReference, fit_outliers, fit_reference, read_outliers


@pytest.fixture
def tiny_module_copy(tiny_module: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_module, tmp_path / "tiny"))


def _features(count: int, seed: int, members: int = 2, width: int = 30) -> NDArray[np.float64]:
    """(K, N, F) positive features that lie near a plane of five directions."""
    basis = np.random.default_rng(0).normal(size=(members, 5, width))
    rng = np.random.default_rng(seed)
    inside = rng.normal(size=(count, 5))
    return np.einsum("nd,kdf->knf", inside, basis) * 0.1 + 3.0 + rng.normal(scale=0.05, size=(members, count, width))


@pytest.mark.parametrize("count", [MIN_SCANS, 200, 2000])
def test_percentiles_of_new_ordinary_scans_are_uniform(count: int) -> None:
    found = np.concatenate(
        [fit_outliers(_features(count, seed)).percentile(_features(1000, 100 + seed)) for seed in range(1, 9)]
    )
    expected = np.arange(10, 100, 10)
    # 8 references of `count` scans: the standard error of a share at the median is 50 % / sqrt(8 count).
    tolerance = 3 * 50.0 / np.sqrt(8 * min(count, 1000)) + 2.0
    assert np.abs(np.quantile(found, expected / 100) - expected).max() < tolerance
    assert (found >= 99.5).mean() <= 0.01
    assert 0 <= found.min() < found.max() <= 100


def test_scans_off_the_plane_or_far_along_it_are_found() -> None:
    reference = fit_outliers(_features(300, 1))
    ordinary = _features(200, 2)
    far = 3.0 + 5 * (_features(200, 3) - 3.0)
    off = _features(200, 4) + np.random.default_rng(5).normal(scale=0.3, size=(2, 200, 30))
    assert np.median(reference.score(ordinary)) == pytest.approx(2.0, abs=0.5)
    for odd in (far, off):
        assert (reference.percentile(odd) >= 99.5).mean() > 0.9


def test_the_length_of_the_features_and_the_order_of_the_scans_do_not_matter() -> None:
    features = _features(120, 1)
    reference = fit_outliers(features)
    scaled = features * np.array([3.0, 0.2])[:, None, None]
    assert np.allclose(reference.score(scaled), reference.score(features))
    order = np.random.default_rng(1).permutation(120)
    assert np.allclose(reference.score(features[:, order]), reference.score(features)[order])


def test_percentiles_rise_with_the_score_without_a_jump_at_the_tail() -> None:
    reference = fit_outliers(_features(400, 1))
    steps = np.linspace(0, 6, 40_000)
    mean = np.reshape(reference.mean, (2, 1, 30)).astype(float)
    along = reference.components[0].reshape(2, 1, 30) * np.sqrt(reference.variances[0])
    found = reference.percentile(mean + along * steps[:, None] * 8)
    assert (np.diff(found) >= -1e-9).all()
    assert np.diff(found).max() < 2.0


def test_too_few_or_broken_features_are_refused() -> None:
    with pytest.raises(UsageError, match=f"39 scans, expected at least {MIN_SCANS}"):
        fit_outliers(_features(39, 1))
    broken = _features(50, 1)
    broken[0, 3, 2] = np.nan
    with pytest.raises(UsageError, match="NaN"):
        fit_outliers(broken)
    assert np.isnan(fit_outliers(_features(50, 1)).percentile(broken)[3])


def test_scans_that_are_all_the_same_make_no_division_by_zero() -> None:
    same = np.ones((1, 50, 8))
    reference = fit_outliers(same)
    assert np.isfinite(reference.percentile(same)).all()


def test_a_reference_comes_back_from_its_file_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    reference = fit_outliers(_features(60, 1))
    path = tmp_path / "outliers.safetensors"
    path.write_bytes(reference.to_bytes())
    again = read_outliers(path, 60, 4)
    assert np.array_equal(again.percentile(_features(20, 2)), reference.percentile(_features(20, 2)))
    with pytest.raises(ModuleError, match=r"outliers\.safetensors: does not hold the reference of 61 features"):
        read_outliers(path, 61, 4)
    path.write_bytes(replace(reference, scores=np.full(60, np.nan, np.float32)).to_bytes())
    with pytest.raises(ModuleError, match="fit-outliers"):
        read_outliers(path, 60, 4)
    path.write_bytes(b"\0" * 100)
    with pytest.raises(ModuleError, match="cannot be read as safetensors"):
        read_outliers(path, 60, 4)


def _images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 255, (count, 3, 256, 256)).astype(np.uint8))


def _reference(folder: Path) -> OutlierReference:
    module = load_module(folder)
    return fit_reference(module, _images(MIN_SCANS).numpy())[0]


def test_a_module_with_a_reference_gives_the_same_estimates(tiny_module_copy: Path) -> None:
    before = load_module(tiny_module_copy)
    hash_before = read_manifest(tiny_module_copy).hash
    manifest = add_outliers(tiny_module_copy, _reference(tiny_module_copy), "40 noisy pictures")
    assert manifest.hash == hash_before
    assert verify_module(tiny_module_copy) == []
    module = load_module(tiny_module_copy)
    images = _images(3, 1)
    raw = module.launch(images)
    assert raw.features is not None
    assert np.array_equal(raw.heads.numpy(), before.launch(images).heads.numpy())
    assert before.launch(images).features is None
    assert torch.allclose(raw.features, module.forward(images, features=True).features, atol=1e-5)
    assert module.outliers is not None
    assert np.isfinite(module.outliers.percentile(raw.features.numpy())).all()


def test_a_second_fit_replaces_the_first_and_a_missing_file_is_named(tiny_module_copy: Path) -> None:
    add_outliers(tiny_module_copy, _reference(tiny_module_copy), "first")
    module = load_module(tiny_module_copy)
    add_outliers(tiny_module_copy, fit_reference(module, _images(45, 3).numpy())[0], "second")
    files = list(tiny_module_copy.glob("outliers-*"))
    assert len(files) == 1
    assert read_manifest(tiny_module_copy).outputs.outliers.fitted_on == "second"  # type: ignore[union-attr]
    files[0].unlink()
    with pytest.raises(ModuleError, match="missing; copy the whole module again"):
        load_module(tiny_module_copy)


def test_openvino_gives_the_features_too(tiny_module_copy: Path) -> None:
    plain = load_module(tiny_module_copy)
    compiled = load_module(tiny_module_copy, backend="openvino")
    images = _images(2)
    assert np.allclose(compiled.predict_with_features(images)[1], plain.predict_with_features(images)[1], atol=1e-3)
    assert np.allclose(compiled.predict_standardized(images), plain.predict_standardized(images), atol=1e-3)
