"""Recipes ``mimir-1`` and ``mimir-1-hires`` fast: stations to projection without building the fused volumes.

Summation commutes with the linear interpolation, the fading and the intensity correction. So the water and fat images
come from the slices' row and column sums. Only the body mask needs every voxel: water + fat is made in float32, a few
rows at a time, once for the Otsu thresholds and once for the counts. The fat fraction is computed in the two planes
shown. ``ukb_infer.imaging.recipes.mimir1.reference`` is the contract this must equal; ``rounding`` sees to the last
grey level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ukb_infer.imaging.recipes.mimir1 import kernels
from ukb_infer.imaging.recipes.mimir1.constants import BED_ROWS, FAT_FRACTION_SCALE, SIZE, TRIMMED_END_SLICES
from ukb_infer.imaging.recipes.mimir1.display import (
    first_half_index,
    normalize_to_uint8,
    scale_fat_fraction,
    side_by_side,
)
from ukb_infer.imaging.recipes.mimir1.fusion import Float64, Trim, overlap_factors, place_stations, trim_overlaps
from ukb_infer.imaging.recipes.mimir1.otsu import N_BINS, thresholds_from_histograms
from ukb_infer.imaging.recipes.mimir1.parts import CONTRASTS, Float32, Int64, Part, fused_lines, make_part
from ukb_infer.imaging.recipes.mimir1.rounding import (
    doubtful_fractions,
    round_image,
    settle_factors,
    settle_signed,
    slice_doubts,
)
from ukb_infer.records import Station

#: Rows of the fused grid made at a time; the block (about 2.5 MB) stays in the processor's cache.
BLOCK_ROWS = 8
#: Where the half-count of the mask is decided by fewer voxels than this, the mask is made again with exact rounding.
AMBIGUOUS_VOXELS = 64


def even_out(parts: Sequence[Part], trims: Sequence[Trim]) -> None:
    """Set the intensity factors of every overlap, each contrast on its own (step 7).

    Args:
        parts: all stations, head first; their factors are set in place.
        trims: of every station.
    """
    for upper, lower, trim in zip(parts, parts[1:], trims, strict=False):
        n = trim.overlap_below
        for contrast in range(len(CONTRASTS)):
            above, below = _slice_means(upper, contrast), _slice_means(lower, contrast)
            factors = overlap_factors(above[-n:], below[:n], float(above[-n - 1]), float(below[n]))
            upper.factors[contrast][-n:] = factors
            lower.factors[contrast][:n] = factors


def _slice_means(part: Part, contrast: int) -> Float64:
    """Mean of every kept slice over the station's own box: (kept,)."""
    rows, cols, _ = part.shape
    means: Float64 = part.along_z(part.row_sums[contrast].sum(axis=1, keepdims=True))[:, 0] / (rows * cols)
    return means


def sum_images(parts: Sequence[Part], contrast: int, extent: tuple[int, int, int]) -> tuple[Float64, Float64]:
    """Coronal (x, z) and sagittal (y, z) sums, z feet first and trimmed, without the table (steps 8, 10, 11).

    Where a grey level could hang on how voxels are rounded, the sums are the recipe's to the last bit.

    Args:
        parts: all stations with their intensity factors.
        contrast: 0 water, 1 fat.
        extent: (rows, cols, slices) of the fused grid before trimming.
    """
    rows, cols, slices = extent
    body = rows - BED_ROWS
    coronal, sagittal = np.zeros((slices, cols)), np.zeros((slices, body))
    for part in parts:
        y, x, z = part.box
        factor = part.factors[contrast][:, None]
        coronal[z, x] += part.along_z(part.column_sums[contrast]) * factor
        sagittal[z, y] += part.along_z(part.row_sums[contrast][:, : max(body - y.start, 0)]) * factor
    inner = slice(TRIMMED_END_SLICES, slices - TRIMMED_END_SLICES)
    doubt = slice_doubts(parts, slices)[inner]
    round_image(parts, contrast, 0, coronal[inner], doubt)
    round_image(parts, contrast, 1, sagittal[inner], doubt)
    return _feet_first(coronal), _feet_first(sagittal)


def _feet_first(image: Float64) -> Float64:
    """(z head first, n) -> (n, z feet first), trimmed at both ends."""
    return image[::-1].T[:, TRIMMED_END_SLICES:-TRIMMED_END_SLICES]


@dataclass(frozen=True)
class BodyCounts:
    """Voxels of the body mask in front of the table.

    Attributes:
        by_row: (y,) int64 over x and z.
        by_col: (half of x,) int32 over y and z.
        exact: whether the mask was made with the recipe's own rounding.
    """

    by_row: Int64
    by_col: NDArray[np.int32]
    exact: bool

    def planes(self) -> tuple[int, int]:
        """Row of the coronal and column of the sagittal plane (step 12)."""
        return first_half_index(self.by_row, int(self.by_row.sum())), first_half_index(
            self.by_col, int(self.by_col.sum())
        )

    def margin(self) -> float:
        """Number of voxels that would have to change to move either plane."""
        return min(_half_margin(self.by_row), _half_margin(self.by_col))


def _half_margin(counts: NDArray[np.integer]) -> float:
    distance = np.cumsum(counts) - 0.5 * float(counts.sum())
    return float(np.abs(distance).min())


def count_body(parts: Sequence[Part], extent: tuple[int, int, int], *, exact: bool) -> BodyCounts:
    """Threshold water + fat and count the body mask (steps 9, 10 and 12).

    Args:
        parts: all stations, with their intensity factors.
        extent: (rows, cols, slices) of the fused grid before trimming.
        exact: interpolate and round as the recipe does, instead of neglecting what lies below float32 and the
            in-plane weights of 1e-6 to 1e-5.
    """
    rows, cols, slices = extent
    adders = _make_adders(parts, slices - 2 * TRIMMED_END_SLICES, exact=exact)
    low, high = np.empty(rows, np.float32), np.empty(rows, np.float32)
    counts = np.empty((rows, N_BINS), np.int32)
    for own, block in _blocks(adders, extent):
        kernels.block_histograms(block, low[own], high[own], counts[own])
    threshold = _ceil_float32(float(thresholds_from_histograms(counts, low, high).mean()))
    by_row, by_col = np.zeros(rows - BED_ROWS, np.int64), np.zeros(cols // 2, np.int32)
    for own, block in _blocks(adders, (rows - BED_ROWS, cols, slices)):
        kernels.block_mask_counts(block, threshold, by_row[own], by_col)
    return BodyCounts(by_row, by_col, exact)


def _ceil_float32(value: float) -> np.float32:
    """Smallest float32 not below a float64: comparing float32 voxels with either is the same."""
    rounded = np.float32(value)
    return rounded if float(rounded) >= value else np.nextafter(rounded, np.float32(np.inf))


def _blocks(adders: Sequence[_Adder], extent: tuple[int, int, int]) -> Iterator[tuple[slice, Float32]]:
    """Water + fat, some rows at a time: their slice in y and a reused (rows, z head first and trimmed, x) float32."""
    rows, cols, slices = extent
    buffer = np.empty((BLOCK_ROWS, slices - 2 * TRIMMED_END_SLICES, cols), np.float32)
    for first in range(0, rows, BLOCK_ROWS):
        block = buffer[: min(BLOCK_ROWS, rows - first)]
        for add in adders:
            add(block, first)
        yield slice(first, first + len(block)), block


_Adder = Callable[[Float32, int], None]


def _make_adders(parts: Sequence[Part], depth: int, *, exact: bool) -> list[_Adder]:
    """One function a station that adds its water + fat to a block; the first to reach a slice sets it."""
    adders = []
    written = np.zeros(depth, bool)
    for part in parts:
        out_z = np.arange(part.shape[2]) + part.start[2] - TRIMMED_END_SLICES
        inside = (out_z >= 0) & (out_z < depth)
        out_z = np.where(inside, out_z, -1)
        adds = written[np.clip(out_z, 0, depth - 1)]
        written[out_z[inside]] = True
        make = _trilinear_adder if exact or not part.is_aligned() else _aligned_adder
        adders.append(make(part, out_z, adds))
    return adders


def _aligned_adder(part: Part, out_z: Int64, adds: NDArray[np.bool_]) -> _Adder:
    z = part.taps[2]
    places = np.stack([out_z, z.lower, z.upper])
    weights = np.empty((out_z.size, 4), np.float32)
    for contrast in range(len(CONTRASTS)):
        scale = part.fade * part.factors[contrast]
        weights[:, 2 * contrast] = (1.0 - z.weight) * scale
        weights[:, 2 * contrast + 1] = z.weight * scale

    def add(block: Float32, first_row: int) -> None:
        kernels.add_aligned(block, first_row, *part.sources, places, weights, adds, part.start)

    return add


def _trilinear_adder(part: Part, out_z: Int64, adds: NDArray[np.bool_]) -> _Adder:
    scales = [part.scales(contrast) for contrast in range(len(CONTRASTS))]
    contrast_adds = (adds, np.ones_like(adds))

    def add(block: Float32, first_row: int) -> None:
        for source, scale, own_adds in zip(part.sources, scales, contrast_adds, strict=True):
            kernels.add_trilinear(block, first_row, source, out_z, part.interpolation, scale, own_adds, part.start)

    return add


def find_planes(parts: Sequence[Part], extent: tuple[int, int, int]) -> tuple[int, int]:
    """Row of the coronal and column of the sagittal fat fraction plane (steps 9 and 12).

    Args:
        parts: all stations with their intensity factors.
        extent: (rows, cols, slices) of the fused grid before trimming.
    """
    counts = count_body(parts, extent, exact=False)
    if counts.margin() < AMBIGUOUS_VOXELS:
        settle_factors(parts)
        counts = count_body(parts, extent, exact=True)
    return counts.planes()


def fraction_plane(parts: Sequence[Part], extent: tuple[int, int, int], axis: int, position: int) -> Float64:
    """Fat fraction (per mille) of one plane: (x or y, z feet first), trimmed (steps 8, 9 and 12).

    Args:
        parts: all stations with their intensity factors.
        extent: (rows, cols, slices) of the fused grid before trimming.
        axis: 0 for the coronal plane, 1 for the sagittal one.
        position: fused row of the coronal plane, column of the sagittal one.
    """
    slices = np.arange(TRIMMED_END_SLICES, extent[2] - TRIMMED_END_SLICES)
    fraction = _fused_fraction(parts, extent, axis, position, slices)
    doubtful = doubtful_fractions(parts, slices, fraction)
    if doubtful.size:
        settle_factors(parts, slices[doubtful])
        fraction[doubtful] = _fused_fraction(parts, extent, axis, position, slices[doubtful])
    return fraction[::-1].T


def _fused_fraction(
    parts: Sequence[Part], extent: tuple[int, int, int], axis: int, position: int, slices: Int64
) -> Float64:
    """Fat fraction (per mille) of some slices of one plane: (slices, x or y)."""
    along = 1 - axis
    water, fat = (
        fused_lines(parts, contrast, along, np.full(slices.size, position), slices, extent[along])
        for contrast in range(len(CONTRASTS))
    )
    total = water + fat
    fraction: Float64 = FAT_FRACTION_SCALE * fat / np.where(total == 0, 1.0, total)
    return fraction


def project_stations(stations: Sequence[Station], size: int = SIZE) -> NDArray[np.uint8]:
    """Project stations.

    Args:
        stations: head first, (rows, cols, slices) each; fastest in uint16 with slices first in memory.
        size: side of the projection, pixels.

    Returns:
        uint8 (3, size, size): water, fat, fat fraction; coronal left, sagittal right, head up.

    Raises:
        ScanError: stations do not overlap, one is too short, their geometry is implausible, or an image is constant.
    """
    boxes = place_stations(stations)
    trims = trim_overlaps(boxes)
    extent = boxes.extent
    parts = [make_part(s, boxes, k, trims[k], extent[0] - BED_ROWS) for k, s in enumerate(stations)]
    even_out(parts, trims)
    settle_signed(parts)
    channels = []
    for contrast, name in enumerate(CONTRASTS):
        images = zip(("coronal", "sagittal"), sum_images(parts, contrast, extent), strict=True)
        coronal, sagittal = (normalize_to_uint8(image, f"{name} {plane}") for plane, image in images)
        channels.append(side_by_side(coronal, sagittal, size))
    row, col = find_planes(parts, extent)
    coronal = scale_fat_fraction(fraction_plane(parts, extent, 0, row))
    sagittal = scale_fat_fraction(fraction_plane(parts, extent, 1, col)[: extent[0] - BED_ROWS])
    channels.append(side_by_side(coronal, sagittal, size))
    return np.stack(channels)
