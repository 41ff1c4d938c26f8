"""One case of a module for volumes: from its images to what the module says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ukb_infer.modules import InferenceModule


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What a module says of one case.

    Attributes:
        probability: of each target of a class, in 0-1 and calibrated where the module is, by name; else empty.
        mean: estimate of each target in natural units, by name: of a regression, or volumes of a segmentation in ml.
        sd: total standard deviation of each, likewise.
        mask: (x, y, z) uint8 labels on the grid of the case's first image, 0 for the background; None without
            segmentation.
        embedding: (F,) float32 features, the members' side by side.
        grid: how the volumes were read, for saving the mask.
    """

    probability: Mapping[str, float] = field(default_factory=dict)
    mean: Mapping[str, float] = field(default_factory=dict)
    sd: Mapping[str, float] = field(default_factory=dict)
    mask: NDArray[np.uint8] | None = None
    embedding: NDArray[np.float32]
    grid: Any

    def save_mask(self, path: Path) -> None:
        """Write the mask as NIfTI with shape and affine of the case's first image."""
        raise NotImplementedError


def predict_case(module: InferenceModule, images: Mapping[str, Path]) -> CaseResult:
    """Apply a module to one case.

    Args:
        module: for volumes, loaded with :func:`ukb_infer.modules.load_module`.
        images: path of the NIfTI file by modality; those that the module does not use are ignored.

    Raises:
        ScanError: a contrast that the module needs is missing, or an image cannot be used.
    """
    raise NotImplementedError
