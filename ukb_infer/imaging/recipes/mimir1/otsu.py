"""Otsu's threshold exactly as scikit-image computes it: 256 bins between minimum and maximum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

N_BINS = 256


def thresholds_from_histograms(
    counts: NDArray[np.integer], low: NDArray[np.floating], high: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Otsu's threshold of many histograms at once.

    Number types follow scikit-image (counts and their products are float32): they decide between near-equal maxima.

    Args:
        counts: (n, 256) integer counts over equal bins.
        low: (n,) lower edge of the first bins, the images' minima.
        high: (n,) upper edge of the last bins, the images' maxima.

    Returns:
        (n,) float64 centres of the bins that maximize the variance between the classes; ``low`` where an image is
        constant.
    """
    thresholds = np.asarray(low, np.float64).copy()
    varied = np.flatnonzero(np.asarray(high) > np.asarray(low))
    if not varied.size:
        return thresholds
    edges = np.linspace(thresholds[varied], np.asarray(high, np.float64)[varied], N_BINS + 1, axis=1)
    centres = (edges[:, :-1] + edges[:, 1:]) / 2.0
    weights = counts[varied].astype(np.float32)
    below = np.cumsum(weights, axis=1)
    above = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
    weighted = weights * centres
    mean_below = np.cumsum(weighted, axis=1) / below
    mean_above = np.cumsum(weighted[:, ::-1], axis=1)[:, ::-1] / above
    between = below[:, :-1] * above[:, 1:] * (mean_below[:, :-1] - mean_above[:, 1:]) ** 2
    thresholds[varied] = np.take_along_axis(centres, np.argmax(between, axis=1)[:, None], axis=1)[:, 0]
    return thresholds


def otsu_thresholds(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Otsu's threshold of each image: (n, ...) float64 -> (n,) float64."""
    low = np.array([image.min() for image in images])
    high = np.array([image.max() for image in images])
    counts = np.zeros((len(images), N_BINS), np.int64)
    for k, image in enumerate(images):
        if high[k] > low[k]:
            counts[k] = np.histogram(image, bins=N_BINS, range=(low[k], high[k]))[0]
    return thresholds_from_histograms(counts, low, high)
