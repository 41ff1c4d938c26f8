"""The Otsu thresholds equal scikit-image's to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from ukb_infer.imaging.recipes.mimir1.otsu import N_BINS, otsu_thresholds, thresholds_from_histograms

filters = pytest.importorskip("skimage.filters")


@pytest.mark.parametrize("seed", range(8))
def test_equals_scikit_image_on_mixtures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = np.where(
        rng.random((20, 60, 40)) < rng.uniform(0.05, 0.95, (20, 1, 1)),
        np.abs(rng.normal(0.0, 5.0, (20, 60, 40))),
        rng.normal(rng.uniform(20.0, 900.0, (20, 1, 1)), 60.0, (20, 60, 40)),
    )
    np.testing.assert_array_equal(otsu_thresholds(images), [filters.threshold_otsu(image) for image in images])


def test_equals_scikit_image_on_whole_numbers_and_ties() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, rng.integers(2, 3000, (40, 1, 1)), (40, 30, 31)).astype(np.float64)
    images[0, :, :15], images[0, :, 15:] = 0.0, 768.0  # every bin between is a maximum: the first one counts
    np.testing.assert_array_equal(otsu_thresholds(images), [filters.threshold_otsu(image) for image in images])


def test_constant_images_keep_their_value() -> None:
    images = np.stack([np.full((4, 5), 3.0), np.arange(20.0).reshape(4, 5), np.zeros((4, 5))])
    np.testing.assert_array_equal(otsu_thresholds(images), [filters.threshold_otsu(image) for image in images])


def test_only_constant_images() -> None:
    counts = np.zeros((2, N_BINS), np.int32)
    edges = np.array([1.0, 2.0])
    np.testing.assert_array_equal(thresholds_from_histograms(counts, edges, edges), edges)
