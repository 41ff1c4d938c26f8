"""Steps 11 and 12 of recipe ``mimir-1``: sums and planes to 8-bit pictures (floor 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import Reason, ScanError
from ukb_infer.geometry import FAT_FRACTION_DISPLAY_MAX, PROJECTION_SIZE
from ukb_infer.imaging.resize import resize_bilinear_uint8

Float64 = NDArray[np.float64]


def normalize_to_uint8(image: Float64, what: str) -> NDArray[np.uint8]:
    """Min-max normalize one image to 0-255, truncated (step 11).

    Raises:
        ScanError: the image is constant.
    """
    low, high = float(image.min()), float(image.max())
    if not high > low:
        raise ScanError(
            Reason.EMPTY_IMAGE, f"the {what} projection is constant ({low:g} everywhere); download the scan again"
        )
    return ((image - low) / (high - low) * 255.0).astype(np.uint8)


def side_by_side(coronal: NDArray[np.uint8], sagittal: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn both (·, z) images head up, join them and resize to (256, 256) (step 11)."""
    pair = np.concatenate([np.rot90(coronal), np.rot90(sagittal)], axis=1)
    return resize_bilinear_uint8(np.ascontiguousarray(pair), PROJECTION_SIZE, PROJECTION_SIZE)


def scale_fat_fraction(plane: Float64) -> NDArray[np.uint8]:
    """Map a fat fraction plane (per mille) of 0-500 to 0-255, clipped and truncated (step 12)."""
    return np.clip(plane / FAT_FRACTION_DISPLAY_MAX * 255.0, 0.0, 255.0).astype(np.uint8)


def first_half_index(counts: NDArray[np.integer], total: int) -> int:
    """Smallest i with counts[:i].sum() >= total / 2, as a plane's index (step 12)."""
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    return min(int(np.argmax(2 * cumulative >= total)), counts.size - 1)
