"""Otsu's threshold as scikit-image computes it: 256 bins between minimum and maximum (floor 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

N_BINS = 256


def threshold_from_histogram(counts: NDArray[np.integer], low: float, high: float) -> float:
    """Otsu's threshold of a histogram with equal bins over [low, high].

    Args:
        counts: (256,) counts.
        low: lower edge of the first bin; ``high``: upper edge of the last one.

    Returns:
        Centre of the bin that maximizes the variance between the classes; ``low`` where the image is constant.
    """
    if not high > low:
        return float(low)
    edges = np.linspace(low, high, N_BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2.0
    weights = counts.astype(np.float64)
    below, above = np.cumsum(weights), np.cumsum(weights[::-1])[::-1]
    weighted = weights * centres
    mean_below = np.cumsum(weighted) / below
    mean_above = (np.cumsum(weighted[::-1]) / above[::-1])[::-1]
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(centres[int(np.argmax(between))])


def otsu_thresholds(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Otsu's threshold of each image: (n, ...) -> (n,) float64."""
    thresholds = np.empty(len(images))
    for k, image in enumerate(images):
        low, high = float(image.min()), float(image.max())
        counts = np.histogram(image, bins=N_BINS, range=(low, high))[0] if high > low else np.zeros(N_BINS, np.int64)
        thresholds[k] = threshold_from_histogram(counts, low, high)
    return thresholds
