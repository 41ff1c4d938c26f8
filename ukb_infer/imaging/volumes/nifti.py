"""Writing one 3D image as gzipped NIfTI-1, a slice at a time, in as few bytes as lose nothing that matters."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.storage import atomic_path

_deflate: Any
try:
    from isal import isal_zlib as _deflate
except ImportError:  # the platform has no isal wheel: slower
    _deflate = zlib

#: Level of isal or zlib: the fastest, which halves the size.
_LEVEL = 1
#: With the header of gzip, whose time stays 0: the same image gives the same bytes.
_GZIP = 31
#: NIfTI code of an affine in scanner coordinates.
SCANNER_ANATOMICAL = 1
_LARGEST = np.iinfo(np.int16).max
#: Of a slope, which is stored as float32.
_SMALLEST_EXPONENT = -100


@dataclass(frozen=True)
class Storage:
    """How values are stored: value = slope * stored.

    Attributes:
        dtype: int16 or float32.
        slope: a power of two; 1 for float32.
        largest_rounding: of any voxel, in the image's units; 0 where nothing was lost.
    """

    dtype: str
    slope: float
    largest_rounding: float = 0.0


def choose_storage(bound: float) -> Storage:
    """int16 with the smallest slope, a power of two, that holds all values; float32 where whole numbers would suffer.

    What the scanner stores are whole numbers: with a slope of at most 1 they are kept exactly, and what was
    interpolated or blended is rounded by at most half the slope. Values beyond int16 would need a slope above 1.

    Args:
        bound: of the absolute values.

    >>> choose_storage(4095.0), choose_storage(1.0).slope == 2.0**-14, choose_storage(40000.0).dtype
    (Storage(dtype='int16', slope=0.125, largest_rounding=0.0), True, 'float32')
    """
    exponent = math.ceil(math.log2(bound / _LARGEST)) if bound > 0 else 0
    if bound > _LARGEST * 2.0**exponent:  # log2 was rounded
        exponent += 1
    return Storage("int16", 2.0**exponent) if _SMALLEST_EXPONENT <= exponent <= 0 else Storage("float32", 1.0)


def write_nifti(
    path: Path,
    planes: Iterable[NDArray[Any]],
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    storage: Storage,
) -> Storage:
    """Write an image, whole or not at all; its folder is made if missing.

    Args:
        path: of the ``.nii.gz``.
        planes: (y, x) slices in the order of z.
        shape: (x, y, z).
        affine: (4, 4) voxel to RAS mm; written as sform and as qform, both in scanner coordinates.
        storage: of the values.

    Returns:
        The storage, with the largest rounding that was found.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    packer = _deflate.compressobj(_LEVEL, _deflate.DEFLATED, _GZIP)
    rounding = 0.0
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(packer.compress(_header(shape, affine, storage)))
        for plane in planes:
            stored, lost = _stored(plane, storage)
            rounding = max(rounding, lost)
            file.write(packer.compress(stored.tobytes()))
        file.write(packer.flush())
    return Storage(storage.dtype, storage.slope, rounding)


def _stored(plane: NDArray[Any], storage: Storage) -> tuple[NDArray[Any], float]:
    """Numbers to be stored of a slice, and the largest rounding in the image's units."""
    if plane.dtype.kind in "iu":
        return np.ascontiguousarray(plane, f"<{np.dtype(storage.dtype).str[1:]}"), 0.0
    if storage.dtype == "float32":
        return np.ascontiguousarray(plane, "<f4"), float(np.abs(plane - plane.astype(np.float32)).max())
    scaled = plane * (1.0 / storage.slope)
    whole = np.rint(scaled)
    lost = float(np.abs(whole - scaled).max()) * storage.slope
    return np.ascontiguousarray(whole, "<i2"), lost


def _header(shape: tuple[int, int, int], affine: NDArray[np.float64], storage: Storage) -> bytes:
    """The 352 bytes before the voxels."""
    import nibabel

    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(np.dtype(storage.dtype))
    header.set_data_shape(shape)
    header.set_sform(affine, SCANNER_ANATOMICAL)
    header.set_qform(affine, SCANNER_ANATOMICAL)
    header.set_xyzt_units("mm")
    header.set_slope_inter(storage.slope, 0.0)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return bytes(header.binaryblock) + bytes(4)
