"""Export of fused volumes as NIfTI and of projections as PNG."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.imaging.recipe import Recipe, form_of
from ukb_infer.records import Volume
from ukb_infer.storage import atomic_path, atomic_write_bytes

#: zlib level of the volumes: 1 halves the size in a tenth of the time of level 6.
GZIP_LEVEL = 1
#: NIfTI code of an affine in scanner coordinates.
_SCANNER_ANATOMICAL = 1


def nifti_bytes(array: NDArray[np.floating], affine: NDArray[np.float64]) -> bytes:
    """One contrast as a gzipped NIfTI-1 file, the same bytes for the same input.

    Args:
        array: (x, y, z) voxels, written as float32.
        affine: (4, 4), voxel index to RAS mm; written as sform and qform in scanner coordinates.
    """
    import nibabel

    image = nibabel.Nifti1Image(np.asarray(array, np.float32), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, _SCANNER_ANATOMICAL)
    image.set_qform(affine, _SCANNER_ANATOMICAL)
    return gzip.compress(image.to_bytes(), compresslevel=GZIP_LEVEL, mtime=0)


def write_volumes(volume: Volume, folder: Path, scan: str) -> tuple[Path, Path]:
    """Write a fused pair as ``<scan>_water.nii.gz`` and ``<scan>_fat.nii.gz``, atomically.

    Args:
        volume: from ``fuse_stations``.
        folder: created if missing.
        scan: the scan's name.

    Returns:
        Both paths, water first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    water, fat = folder / f"{scan}_water.nii.gz", folder / f"{scan}_fat.nii.gz"
    atomic_write_bytes(water, nifti_bytes(volume.water, volume.affine))
    atomic_write_bytes(fat, nifti_bytes(volume.fat, volume.affine))
    return water, fat


def save_png(image: NDArray[Any], path: Path, recipe: Recipe) -> None:
    """Write a projection as a grey picture, its channels side by side.

    Args:
        image: (channels, rows, cols).
        path: of the PNG, written atomically; its folder is created if missing.
        recipe: of the projection.

    Raises:
        ValueError: the array is not a projection of the recipe.
    """
    from PIL import Image

    if not recipe.fits(image.dtype, image.shape):
        raise ValueError(f"a projection of {recipe.name} is {recipe.form}, got {form_of(image.dtype, image.shape)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        Image.fromarray(np.concatenate(list(image), axis=1)).save(partial, format="PNG", optimize=False)
