"""Steps 11 and 12 of recipe ``mimir-1``: sums and planes to 8-bit pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.imaging.recipes.mimir1.constants import FAT_FRACTION_DISPLAY_MAX
from ukb_infer.imaging.recipes.mimir1.resize import resize_bilinear_uint8
from ukb_infer.reasons import Reason

Float64 = NDArray[np.float64]
#: Grey levels above black.
GREY_LEVELS = 255.0


def normalize_to_uint8(image: Float64, what: str) -> NDArray[np.uint8]:
    """Min-max normalize one image to 0-255, truncated (step 11).

    Args:
        image: of any shape.
        what: names the image in the message.

    Raises:
        ScanError: the image is constant.
    """
    low, high = float(image.min()), float(image.max())
    if not high > low:
        raise ScanError(
            Reason.EMPTY_IMAGE, f"the {what} projection is constant ({low:g} everywhere); look at the images"
        )
    return ((image - low) / (high - low) * GREY_LEVELS).astype(np.uint8)


def side_by_side(coronal: NDArray[np.uint8], sagittal: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Turn both images head up, join them and resize the pair (step 11).

    Args:
        coronal: (x, z).
        sagittal: (y, z).
        size: side of the result, pixels.
    """
    pair = np.concatenate([np.rot90(coronal), np.rot90(sagittal)], axis=1)
    return resize_bilinear_uint8(np.ascontiguousarray(pair), size, size)


def scale_fat_fraction(plane: Float64) -> NDArray[np.uint8]:
    """Map a fat fraction plane (per mille) of 0-500 to 0-255, clipped and truncated (step 12)."""
    return np.clip(plane / FAT_FRACTION_DISPLAY_MAX * GREY_LEVELS, 0.0, GREY_LEVELS).astype(np.uint8)


def first_half_index(counts: NDArray[np.integer], total: int) -> int:
    """Smallest i with counts[:i].sum() >= total / 2, as a plane's index (step 12).

    Args:
        counts: (planes,) voxels in each plane.
        total: the number of which half is to be reached.
    """
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    return min(int(np.argmax(2 * cumulative >= total)), counts.size - 1)
