"""From the images of a session to the box of voxels that a module's networks see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.modules.manifest import VolumeInput
from ukb_infer.reasons import Reason

if TYPE_CHECKING:
    from ukb_infer.imaging.volumes.preprocess import Grid


def read_session(images: Mapping[str, Path], read: VolumeInput) -> tuple[NDArray[np.float32], Grid, list[Reason]]:
    """Read and preprocess the images of one session.

    Args:
        images: paths by modality.
        read: of the module.

    Returns:
        (C, x, y, z) float32, the grid, and flags.

    Raises:
        ScanError: a contrast is missing, or an image cannot be used.
    """
    from ukb_infer.imaging.volumes.preprocess import VolumeSettings, preprocess
    from ukb_infer.imaging.volumes.read import read_volume

    paths = []
    for group in read.modalities:
        path = next((images[name] for name in group if name in images), None)
        if path is None:
            have = ", ".join(sorted(images)) or "none of the module's contrasts"
            raise ScanError(
                Reason.CONTRAST_MISSING, f"the session has {have}, expected {' or '.join(group)} too; add the file"
            )
        paths.append(path)
    volumes = [read_volume(path) for path in paths]
    values, grid = preprocess(volumes, VolumeSettings(spacing_mm=read.spacing_mm, size=read.size))
    flags = [finding.reason for volume in volumes for finding in volume.findings]
    return values, grid, list(dict.fromkeys((*flags, *grid.flags)))
