"""A saliency map over its scan, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.storage import atomic_path

#: Colours of rising saliency, RGB: a scale that grows lighter evenly, so that it reads in grey too.
_COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)
#: Percentile of the map that is shown in the lightest colour.
_BRIGHTEST = 99.5
#: Enlargement of the picture.
_ENLARGED = 2


def overlay(saliency: NDArray[np.floating], image: NDArray[Any]) -> NDArray[np.uint8]:
    """The map in colour over the scan in grey, beside the scan alone.

    Args:
        saliency: (rows, cols).
        image: (channels, rows, cols); the mean of the first two channels is shown.

    Returns:
        (rows, 2 cols, 3) RGB.
    """
    grey = image[:2].astype(np.float64).mean(axis=0)
    grey = 255.0 * grey / max(1.0, float(grey.max()))
    share = np.clip(saliency / max(float(np.percentile(saliency, _BRIGHTEST)), 1e-30), 0.0, 1.0)
    places = np.linspace(0.0, 1.0, len(_COLOURS))
    colour = np.stack([np.interp(share, places, _COLOURS[:, k]) for k in range(3)], axis=-1)
    over = np.sqrt(share)[..., None]
    plain = np.repeat(grey[..., None], 3, axis=-1)
    return np.concatenate([plain, (1.0 - over) * plain + over * colour], axis=1).round().astype(np.uint8)


def save_overlay(saliency: NDArray[np.floating], image: NDArray[Any], path: Path) -> None:
    """Write the overlay as PNG.

    Args:
        saliency: (rows, cols).
        image: (channels, rows, cols).
        path: of the picture, written atomically.
    """
    from PIL import Image

    pixels = overlay(saliency, image).repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
    with atomic_path(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG")
