"""From volumes of a head to the box of voxels that a network sees, and back."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ukb_infer.imaging.volumes.read import Native, Volume
from ukb_infer.reasons import Reason
from ukb_infer.storage import atomic_write_bytes

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Values are kept within so many robust standard deviations, so that no vessel or artefact rules the network.
LARGEST_SCORE = 8.0
#: From the interquartile range of a normal distribution to its standard deviation.
_IQR_SD = 1.349
#: Grid on which the head is looked for, mm.
_COARSE_MM = 4.0
#: Masks are small: little is won beyond.
_GZIP_LEVEL = 4
#: A border whose median is below this part of the volume's bright voxels is background.
_DARK_BORDER = 0.3
#: Below this part of the bright voxels a value is what rounding leaves of a neighbour with weight 0, not the head.
_ROUNDING = 1e-6
_MOST_LABELS = 254


@dataclass(frozen=True, kw_only=True)
class VolumeSettings:
    """The box of a module.

    Attributes:
        spacing_mm: isotropic.
        size: (X, Y, Z) voxels.
    """

    spacing_mm: float
    size: tuple[int, int, int]


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a preprocessed head lie, and how its first volume was stored.

    Attributes:
        affine: (4, 4) voxel of the box to RAS mm.
        size: (X, Y, Z) of the box.
        native: the first volume's file; shape and affine of the volume itself if it was made in memory.
        flags: ``head_cut`` where the head is larger than the box, ``not_aligned`` contrasts.
    """

    affine: Float64
    size: tuple[int, int, int]
    native: Native
    flags: tuple[Reason, ...] = ()


def preprocess(volumes: Sequence[Volume | None], settings: VolumeSettings) -> tuple[Float32, Grid]:
    """Bring the contrasts of a session onto one box around the head and normalize them.

    The box has the axes of the first volume and is centred on the union of the heads; one that is too tall loses its
    neck, not its top. Volumes are averaged over whole
    voxels where they are finer than the box, then interpolated linearly; values outside the head are 0.

    Args:
        volumes: one per channel; None for a missing contrast, whose channel is 0.
        settings: of the module.

    Returns:
        (C, X, Y, Z) float32 robust z-scores, and the grid.

    Raises:
        ValueError: all are None.
    """
    present = [volume for volume in volumes if volume is not None]
    if not present:
        raise ValueError("volumes: all are None, expected at least one")
    heads = [_find_head(volume, present[0]) for volume in present]
    low, high = np.min([head.low for head in heads], axis=0), np.max([head.high for head in heads], axis=0)
    affine = _box_affine(present[0], _centre(low, high, present[0], settings), settings)
    flags = _flags(heads, (high - low) * present[0].spacing_mm, settings)
    native = present[0].native or Native(None, _shape(present[0].data), present[0].affine)
    out = np.zeros((len(volumes), *settings.size), np.float32)
    channels = [number for number, volume in enumerate(volumes) if volume is not None]
    for channel, volume, head in zip(channels, present, heads, strict=True):
        out[channel] = _normalize(_resample(volume, affine, settings), head.threshold)
    return out, Grid(affine, settings.size, native, flags)


def preprocess_labels(volume: Volume, grid: Grid) -> NDArray[np.uint8]:
    """Bring a mask onto the box of its head, nearest voxel.

    Args:
        volume: of labels, on any grid in the same space.
        grid: of the head, from :func:`preprocess`.

    Returns:
        (X, Y, Z) uint8; 0 where the label is none of a task, above 254.
    """
    found = _sample(volume.data, volume.affine, grid.affine, grid.size, 0)
    return np.asarray(np.where(found > _MOST_LABELS, 0, np.rint(found)), np.uint8)


def to_native(array: NDArray[Any], grid: Grid, order: int = 0) -> NDArray[Any]:
    """Bring labels or probabilities from the box back to the voxels of the first volume's file.

    Args:
        array: (X, Y, Z) or (C, X, Y, Z) on the box.
        grid: of the head.
        order: 0 nearest (labels), 1 linear (probabilities).

    Returns:
        Array of the file's shape (after C, if there is one); 0 outside the box.
    """
    if array.ndim == 4:
        return np.stack([to_native(channel, grid, order) for channel in array])
    data = np.asarray(array, np.float32 if order else array.dtype)
    return _sample(data, grid.affine, grid.native.affine, grid.native.shape, order)


def save_mask(array: NDArray[Any], grid: Grid, path: Path) -> None:
    """Write a mask with the shape, affine, qform and sform of the input, whole or not at all.

    Args:
        array: labels of the input's shape, from :func:`to_native`.
        grid: of the head.
        path: of the ``.nii.gz`` or ``.nii``; its folder is made if missing.

    Raises:
        ValueError: another shape.
    """
    import nibabel

    if array.shape != grid.native.shape:
        raise ValueError(f"array: shape {array.shape}, expected {grid.native.shape}, that of the input")
    data = np.asarray(array, np.uint8)
    if grid.native.header is None:
        image = nibabel.Nifti1Image(data, grid.native.affine)
    else:
        header = grid.native.header.copy()
        header.set_data_dtype(np.uint8)
        header.set_data_shape(data.shape)
        header.set_slope_inter(1.0, 0.0)
        header["cal_max"], header["cal_min"], header["vox_offset"] = 0, 0, 0
        kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
        image = kind(data, None, header)  # without an affine, nibabel keeps both transforms as they are
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = image.to_bytes()
    atomic_write_bytes(path, gzip.compress(stored, _GZIP_LEVEL, mtime=0) if path.suffix == ".gz" else stored)


# -- where the head is -----------------------------------------------------------------------------------------------


def head_mask(data: Float32, threshold: float | None = None) -> NDArray[np.bool_]:
    """Voxels of the head: above the noise around it, the largest part, holes filled.

    Args:
        data: (X, Y, Z), coarse, so that noise is averaged.
        threshold: between noise and head; None to find it by :func:`noise_threshold`.
    """
    parts, count = ndimage.label(data > (noise_threshold(data) if threshold is None else threshold))
    if count == 0:
        return np.ones(data.shape, np.bool_)
    sizes = np.bincount(parts.ravel())[1:]
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(parts == 1 + int(sizes.argmax()))
    return filled


def noise_threshold(data: Float32) -> float:
    """A value above the noise around the head.

    It is next to 0 for volumes whose border is 0 (stripped, or masked by the scanner), twice the border's median for
    others, and below all values where the head fills the volume.

    Args:
        data: (X, Y, Z) of the whole field of view.
    """
    faces = [np.take(data, (0, -1), axis=axis).ravel() for axis in (0, 1)] + [data[:, :, -1].ravel()]
    noise, bright = float(np.median(np.concatenate(faces))), float(np.percentile(data, 98))
    if noise >= _DARK_BORDER * bright:
        return float(data.min()) - 1.0
    return max(0.0, _ROUNDING * bright, min(2.0 * noise, 0.25 * bright))


@dataclass(frozen=True)
class _Found:
    """Where a volume's head is: lowest and highest edge, in voxels of the first volume, and the noise around it."""

    low: Float64
    high: Float64
    threshold: float


def _find_head(volume: Volume, first: Volume) -> _Found:
    """Look for the head of a volume on a coarse grid; ``first`` gives the voxels of the result."""
    factors = _factors(volume, _COARSE_MM)
    coarse = _average(volume.data, factors)
    threshold = noise_threshold(coarse)
    mask = head_mask(coarse, threshold)
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    limits = [
        (p[0] * f - 0.5, min((p[-1] + 1) * f, n) - 0.5)
        for p, f, n in zip(places, factors, volume.data.shape, strict=True)
    ]
    corners = np.array([(*corner, 1.0) for corner in itertools.product(*limits)])
    in_first = (corners @ (np.linalg.inv(first.affine) @ volume.affine).T)[:, :3]
    return _Found(in_first.min(axis=0), in_first.max(axis=0), threshold)


def _flags(heads: Sequence[_Found], extent_mm: Float64, settings: VolumeSettings) -> tuple[Reason, ...]:
    """Flags of a head that the box does not hold, and of contrasts that do not lie over each other."""
    room = (np.array(settings.size) + 2.0) * settings.spacing_mm
    flags = [Reason.HEAD_CUT] if (extent_mm > room).any() else []
    first, middles = heads[0], [(head.low + head.high) / 2 for head in heads[1:]]
    if any(not ((first.low < middle) & (middle < first.high)).all() for middle in middles):
        flags.append(Reason.NOT_ALIGNED)
    return tuple(flags)


def _centre(low: Float64, high: Float64, first: Volume, settings: VolumeSettings) -> Float64:
    """Centre of the box, in voxels of the first volume: of the head, or below its top where a neck would be cut."""
    centre = 0.5 * (low + high)
    half_box = 0.5 * settings.size[2] * settings.spacing_mm / first.spacing_mm[2]
    centre[2] = max(centre[2], high[2] - half_box)
    return np.asarray(centre, np.float64)


def _box_affine(first: Volume, centre: Float64, settings: VolumeSettings) -> Float64:
    """Affine of the box around a centre, given in voxels of the first volume.

    The first voxel of the box lies on a voxel of the volume (or the middle of those that are averaged), so that nothing
    is blurred where the spacings agree.
    """
    affine = np.eye(4)
    affine[:3, :3] = first.affine[:3, :3] / first.spacing_mm * settings.spacing_mm
    corner = centre - (np.array(settings.size) - 1) / 2 * settings.spacing_mm / first.spacing_mm
    offset = (np.array(_factors(first, settings.spacing_mm)) - 1) / 2
    affine[:3, 3] = first.affine[:3, :3] @ (np.rint(corner - offset) + offset) + first.affine[:3, 3]
    return affine


# -- values ----------------------------------------------------------------------------------------------------------


def _shape(data: NDArray[Any]) -> tuple[int, int, int]:
    x, y, z = data.shape
    return x, y, z


def _factors(volume: Volume, spacing_mm: float) -> tuple[int, int, int]:
    """Whole voxels that fit into a coarser spacing, along each axis."""
    x, y, z = (max(1, int(spacing_mm / s + 0.25)) for s in volume.spacing_mm)
    return x, y, z


def _average(data: Float32, factors: tuple[int, int, int]) -> Float32:
    """Mean over blocks of voxels; incomplete blocks at the end are filled with the last voxel."""
    if factors == (1, 1, 1):
        return data
    rest = [(-n) % f for n, f in zip(data.shape, factors, strict=True)]
    whole = np.pad(data, [(0, r) for r in rest], mode="edge") if any(rest) else data
    for axis, factor in enumerate(factors):
        if factor > 1:
            shape = (*whole.shape[:axis], whole.shape[axis] // factor, factor, *whole.shape[axis + 1 :])
            whole = whole.reshape(shape).mean(axis=axis + 1)
    return np.asarray(whole, np.float32)


def _resample(volume: Volume, affine: Float64, settings: VolumeSettings) -> Float32:
    """One volume on the box: averaged where it is finer, then interpolated linearly; 0 outside the volume."""
    factors = _factors(volume, settings.spacing_mm)
    scale = np.diag([*factors, 1.0])
    scale[:3, 3] = (np.array(factors) - 1) / 2
    coarse = _average(volume.data, factors)
    return _sample(coarse, volume.affine @ scale, affine, settings.size, 1)


def _sample(
    data: NDArray[Any], data_affine: Float64, affine: Float64, shape: tuple[int, int, int], order: int
) -> NDArray[Any]:
    """Values at the voxels of another grid; 0 outside.

    Args:
        data: (X, Y, Z).
        data_affine: (4, 4) its voxels to RAS mm.
        affine: (4, 4) voxels of the other grid to RAS mm.
        shape: of the other grid.
        order: 0 nearest, 1 linear.
    """
    matrix = (np.linalg.inv(data_affine) @ affine)[:3]
    found: NDArray[Any] = ndimage.affine_transform(
        data, matrix, output_shape=shape, order=0 if order == 0 else 1, mode="grid-constant"
    )
    return found


def _normalize(values: Float32, threshold: float) -> Float32:
    """Robust z-scores within the head (above the threshold), 0 outside."""
    mask = head_mask(values, threshold)
    inside = values[mask]
    low, middle, high = np.percentile(inside, (25, 50, 75))
    spread = (high - low) / _IQR_SD or float(inside.std()) or 1.0
    scores = np.clip((values - middle) / spread, -LARGEST_SCORE, LARGEST_SCORE)
    return np.where(mask, scores, 0.0).astype(np.float32)
