"""Overlap and surface agreement of segmentations.

Dice, and the normalized surface Dice at a tolerance (Nikolov et al. 2021): the share of both surfaces that lies within
the tolerance of the other. Surfaces run between voxels and their elements count with their area in mm², as in the
challenge's own metrics; by MONAI, whose elements and distances agree with that implementation.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import RunError

#: Tolerance of FOMO25 and FOMO26, mm.
TOLERANCE_MM = 1.0
INSTALL_MONAI = 'needs MONAI; pip install "ukb-infer[foundation]"'


def dice(prediction: NDArray[Any], label: NDArray[Any]) -> float:
    """Twice the overlap divided by the sum of both sizes; 1 if both masks are empty, 0 if one is.

    Args:
        prediction: (X, Y, Z) mask; anything but 0 is inside.
        label: likewise, of the same shape.
    """
    inside, wanted = _masks(prediction, label)
    total = int(inside.sum()) + int(wanted.sum())
    return 1.0 if total == 0 else 2.0 * int((inside & wanted).sum()) / total


def surface_dice(
    prediction: NDArray[Any],
    label: NDArray[Any],
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float = TOLERANCE_MM,
    both_empty: float = 0.0,
) -> float:
    """Normalized surface Dice; 0 if one mask is empty.

    Args:
        prediction: (X, Y, Z) mask; anything but 0 is inside.
        label: likewise, of the same shape.
        spacing_mm: size of a voxel along each axis.
        tolerance_mm: distance up to which a surface element agrees.
        both_empty: value if both masks are empty; FOMO26's metrics give 0, other descriptions 1.

    Raises:
        RunError: MONAI is not installed.
    """
    inside, wanted = _masks(prediction, label)
    if not inside.any() and not wanted.any():
        return both_empty
    if not inside.any() or not wanted.any():
        return 0.0
    try:
        from monai.metrics import compute_surface_dice
        from monai.utils import convert_to_tensor
    except ImportError as error:
        raise RunError(f"the surface Dice {INSTALL_MONAI}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and MONAI on their own code
        found = compute_surface_dice(
            *(convert_to_tensor(mask[None, None]) for mask in _cropped(inside, wanted)),
            class_thresholds=[tolerance_mm],
            include_background=True,
            spacing=[float(s) for s in spacing_mm],
            use_subvoxels=True,
        )
    return float(found[0, 0])


def _masks(prediction: NDArray[Any], label: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if prediction.shape != label.shape:
        raise ValueError(f"masks of different shapes: {prediction.shape} and {label.shape}")
    return np.asarray(prediction) != 0, np.asarray(label) != 0


def _cropped(*masks: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The box around the union, with one empty voxel on every side, which closes surfaces at the edge of the image."""
    found = np.nonzero(np.logical_or.reduce(masks))
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in found)
    return [np.pad(mask[box], 1) for mask in masks]
