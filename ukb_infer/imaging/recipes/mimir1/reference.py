"""Recipes ``mimir-1`` and ``mimir-1-hires`` in plain NumPy, step by step; the fast path is tested against it.

Slow and explicit. ``ukb_infer.imaging.recipes.mimir1.fusion`` has steps 3 to 8, this module steps 9 to 13.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ukb_infer.imaging.recipes.mimir1.constants import BED_ROWS, FAT_FRACTION_SCALE, SIZE
from ukb_infer.imaging.recipes.mimir1.display import (
    first_half_index,
    normalize_to_uint8,
    scale_fat_fraction,
    side_by_side,
)
from ukb_infer.imaging.recipes.mimir1.fusion import fuse_stations
from ukb_infer.imaging.recipes.mimir1.otsu import otsu_thresholds
from ukb_infer.records import Station, Volume

Float64 = NDArray[np.float64]


def project_volume(volume: Volume, size: int = SIZE) -> NDArray[np.uint8]:
    """Project a fused pair (steps 9 to 13).

    Args:
        volume: from ``fuse_stations``.
        size: side of the projection, pixels.

    Returns:
        uint8 (3, size, size).

    Raises:
        ScanError: an image is constant.
    """
    total = volume.water + volume.fat
    fraction = FAT_FRACTION_SCALE * volume.fat / np.where(total == 0, 1.0, total)
    mask = total >= otsu_thresholds(total.transpose(1, 0, 2)).mean()
    body = slice(0, total.shape[1] - BED_ROWS)
    mask, fraction = mask[:, body], fraction[:, body]
    channels = []
    for name, contrast in (("water", volume.water[:, body]), ("fat", volume.fat[:, body])):
        coronal = normalize_to_uint8(contrast.sum(axis=1), f"{name} coronal")
        sagittal = normalize_to_uint8(contrast.sum(axis=0), f"{name} sagittal")
        channels.append(side_by_side(coronal, sagittal, size))
    row = first_half_index(mask.sum(axis=(0, 2)), int(mask.sum()))
    half = mask[: mask.shape[0] // 2]
    col = first_half_index(half.sum(axis=(1, 2)), int(half.sum()))
    planes = scale_fat_fraction(fraction[:, row]), scale_fat_fraction(fraction[col])
    channels.append(side_by_side(*planes, size))
    return np.stack(channels)


def project_stations_reference(stations: Sequence[Station], size: int = SIZE) -> NDArray[np.uint8]:
    """From stations to projection, plainly.

    Args:
        stations: head first.
        size: side of the projection, pixels.

    Returns:
        uint8 (3, size, size).

    Raises:
        ScanError: the stations cannot be fused, or an image is constant.
    """
    return project_volume(fuse_stations(stations), size)
