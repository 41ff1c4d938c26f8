"""Recipe ``mimir-1`` fast: stations to projection without building the fused volumes (floor 2).

Summation commutes with the linear interpolation, the fading and the intensity correction. So the water and fat images
come from the slices' row and column sums. Only the body mask needs every voxel: water + fat is made in float32, a few
rows at a time, once for the Otsu thresholds and once for the counts. The fat fraction is computed in the two planes
shown. ``ukb_infer.imaging.reference`` is the contract this must equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import Reason, ScanError
from ukb_infer.geometry import BED_ROWS, FAT_FRACTION_SCALE, TRIMMED_END_SLICES
from ukb_infer.imaging import kernels
from ukb_infer.imaging.fusion import Boxes, Float64, Trim, fade_weights, overlap_factors, place_stations, trim_overlaps
from ukb_infer.imaging.otsu import N_BINS, thresholds_from_histograms
from ukb_infer.imaging.picture import first_half_index, normalize_to_uint8, scale_fat_fraction, side_by_side
from ukb_infer.records import Station

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Voxels = NDArray[np.uint16] | NDArray[np.float32]

CONTRASTS = ("water", "fat")
#: In-plane distance from the grid, in voxels, that the body mask may neglect (float32 positions leave 1e-6 to 1e-5).
ALIGNED_VOXELS = 5e-5
#: Weight that sums may neglect: a float32 pixel spacing differs from the grid's by some 1e-9, in every row alike.
NEGLIGIBLE_WEIGHT = 1e-7
#: Largest voxel whose sums stay finite in float32.
LARGEST_VOXEL = 1e30
#: Rows of the fused grid made at a time; the block (about 2.5 MB) stays in the processor's cache.
BLOCK_ROWS = 8
#: Where the half-count of the mask is decided by fewer voxels than this, the mask is made again with exact rounding.
AMBIGUOUS_VOXELS = 64


@dataclass(frozen=True)
class Taps:
    """Linear interpolation along one axis: both neighbours of every output and the upper one's weight."""

    lower: Int64
    upper: Int64
    weight: Float64

    @classmethod
    def identity(cls, count: int) -> Taps:
        """Outputs that are the inputs."""
        index = np.arange(count)
        return cls(index, index, np.zeros(count))

    def select(self, kept: slice) -> Taps:
        """Some of the outputs."""
        return Taps(self.lower[kept], self.upper[kept], self.weight[kept])

    def pair(self) -> Int64:
        """(2, outputs) int64: lower and upper neighbours."""
        return np.stack([self.lower, self.upper])

    def distance_from_identity(self) -> float:
        """Largest distance, in voxels, between an output and the input of the same index."""
        return float(np.abs(self.lower + self.weight - np.arange(self.weight.size)).max())

    def input_weights(self, inputs: int, outputs: int) -> Float64:
        """(inputs,) weight that each input has in the sum of the first ``outputs`` outputs."""
        weight = self.weight[: max(outputs, 0)]
        total = np.zeros(inputs)
        np.add.at(total, self.lower[: weight.size], 1.0 - weight)
        np.add.at(total, self.upper[: weight.size], weight)
        return total

    def blend(self, values: NDArray[np.floating], axis: int) -> Float64:
        """Interpolate an array along one axis, in float64."""
        shape = [1] * values.ndim
        shape[axis] = self.weight.size
        w = self.weight.reshape(shape)
        blended: Float64 = (
            np.take(values, self.lower, axis=axis) * (1.0 - w) + np.take(values, self.upper, axis=axis) * w
        )
        return blended


@dataclass
class Part:
    """One station on the fused grid: its voxels, how they are interpolated, and what each slice is multiplied by.

    Attributes:
        sources: water and fat, (slices, rows, cols), C-contiguous.
        taps: (row, col, kept slice) interpolation.
        start: first (row, col, kept slice) on the fused grid, slices head first.
        resampled: whether the station is off the grid at all.
        fade: (kept,) float32 fading weights.
        column_sums: per contrast (slices, cols out) float64, over the rows in front of the table.
        row_sums: per contrast (slices, rows out) float64.
        factors: per contrast (kept,) float64 intensity factors.
    """

    sources: tuple[Voxels, Voxels]
    taps: tuple[Taps, Taps, Taps]
    start: tuple[int, int, int]
    resampled: bool
    fade: Float32
    column_sums: list[Float64] = field(default_factory=list)
    row_sums: list[Float64] = field(default_factory=list)
    factors: list[Float64] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, cols, kept slices) on the fused grid."""
        rows, cols, slices = (taps.weight.size for taps in self.taps)
        return rows, cols, slices

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """(rows, cols, slices head first) on the fused grid."""
        rows, cols, slices = (slice(s, s + n) for s, n in zip(self.start, self.shape, strict=True))
        return rows, cols, slices

    def is_aligned(self) -> bool:
        """Whether rows and columns lie so close to the grid that the body mask can neglect it."""
        same = self.shape[:2] == self.sources[0].shape[1:]
        return same and max(taps.distance_from_identity() for taps in self.taps[:2]) <= ALIGNED_VOXELS

    def along_z(self, sums: Float64) -> Float64:
        """Interpolate per-slice sums (slices, n) to the kept slices and fade them: (kept, n)."""
        return self.taps[2].blend(sums, 0) * self.fade[:, None]


def _slices_first(array: NDArray[np.generic]) -> Voxels:
    """(rows, cols, slices) -> contiguous (slices, rows, cols), uint16 as it is, any other type as float32."""
    turned = array.transpose(2, 0, 1)
    if array.dtype == np.uint16:
        return np.ascontiguousarray(turned, np.uint16)
    return np.ascontiguousarray(turned, np.float32)


def make_part(station: Station, boxes: Boxes, index: int, trim: Trim, body_rows: int) -> Part:
    """Lay one station out on the fused grid and sum its slices.

    Args:
        station: water and fat on one grid.
        boxes: placement of all stations.
        index: of this station in ``boxes``.
        trim: what its overlaps leave of it.
        body_rows: fused rows in front of the table.

    Raises:
        ScanError: a voxel is no finite number.
    """
    resampled = boxes.needs_resampling(index)
    taps = [
        Taps(*boxes.axis_coordinates(index, axis)) if resampled else Taps.identity(int(boxes.dims[index, axis]))
        for axis in range(3)
    ]
    kept = slice(trim.head, taps[2].weight.size - trim.foot)
    row, col, first = (int(v) for v in boxes.box_start[index])
    part = Part(
        sources=(_slices_first(station.water), _slices_first(station.fat)),
        taps=(taps[0], taps[1], taps[2].select(kept)),
        start=(row, col, first + trim.head),
        resampled=resampled,
        fade=station_fade(kept.stop - kept.start, trim),
    )
    for source in part.sources:
        _check_values(source, index + 1)
        columns, rows = _sum_slices(part, source, body_rows - row)
        part.column_sums.append(columns)
        part.row_sums.append(rows)
        part.factors.append(np.ones(part.fade.size))
    return part


def _check_values(source: Voxels, number: int) -> None:
    """Refuse voxels that are not finite, or so large that float32 sums of them would not be."""
    if source.dtype == np.uint16:
        return
    low, high = float(source.min()), float(source.max())
    if not (low > -LARGEST_VOXEL and high < LARGEST_VOXEL):
        raise ScanError(
            Reason.NON_FINITE_VALUES,
            f"station {number} has voxels that are NaN, infinite or beyond {LARGEST_VOXEL:g}; convert it again",
        )


def station_fade(count: int, trim: Trim) -> Float32:
    """Fading weights of a station's kept slices: (count,) float32 (step 6)."""
    fade = np.ones(count, np.float32)
    fade[: trim.overlap_above] *= fade_weights(trim.overlap_above)
    fade[count - trim.overlap_below :] *= fade_weights(trim.overlap_below)[::-1]
    return fade


def _sum_slices(part: Part, source: Voxels, body_rows: int) -> tuple[Float64, Float64]:
    """Sums of every slice on the station's box: (slices, cols out) in front of the table, (slices, rows out)."""
    slices, rows, cols = source.shape
    row_taps, col_taps = part.taps[:2]
    row_weights = row_taps.input_weights(rows, body_rows)
    col_weights = col_taps.input_weights(cols, col_taps.weight.size)
    if source.dtype == np.uint16 and part.is_aligned():
        columns, row_sums = _integer_sums(source, body_rows, row_weights, col_weights)
    else:
        columns, row_sums = np.zeros((slices, cols)), np.zeros((slices, rows))
        kernels.weighted_slice_sums(source, row_weights, col_weights, columns, row_sums)
    if not part.resampled:
        return columns, row_sums
    return col_taps.blend(columns, 1), row_taps.blend(row_sums, 1)


def _integer_sums(
    source: Voxels, body_rows: int, row_weights: Float64, col_weights: Float64
) -> tuple[Float64, Float64]:
    """Weighted sums where nearly all weights are 1: integer sums, then what the few other rows and columns add."""
    slices, rows, cols = source.shape
    columns32, rows32 = np.zeros((slices, cols), np.uint32), np.zeros((slices, rows), np.uint32)
    kernels.slice_sums(source, body_rows, columns32, rows32)
    columns, row_sums = columns32.astype(np.float64), rows32.astype(np.float64)
    row_excess = row_weights - (np.arange(rows) < body_rows)
    col_excess = col_weights - 1.0
    for r in np.flatnonzero(np.abs(row_excess) > NEGLIGIBLE_WEIGHT):
        columns += source[:, r, :] * row_excess[r]
    for c in np.flatnonzero(np.abs(col_excess) > NEGLIGIBLE_WEIGHT):
        row_sums += source[:, :, c] * col_excess[c]
    return columns, row_sums


def even_out(parts: Sequence[Part], trims: Sequence[Trim]) -> None:
    """Set the intensity factors of every overlap, each contrast on its own (step 7)."""
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
    """Coronal (x, z) and sagittal (y, z) sums, z feet first and trimmed, without the table (steps 8, 10, 11)."""
    rows, cols, slices = extent
    coronal, sagittal = np.zeros((slices, cols)), np.zeros((slices, rows))
    for part in parts:
        y, x, z = part.box
        factor = part.factors[contrast][:, None]
        coronal[z, x] += part.along_z(part.column_sums[contrast]) * factor
        sagittal[z, y] += part.along_z(part.row_sums[contrast]) * factor
    return _feet_first(coronal), _feet_first(sagittal)[: rows - BED_ROWS]


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
    weights = np.empty((out_z.size, 4), np.float32)
    for contrast in range(len(CONTRASTS)):
        scale = part.fade * part.factors[contrast]
        weights[:, 2 * contrast] = (1.0 - z.weight) * scale
        weights[:, 2 * contrast + 1] = z.weight * scale

    def add(block: Float32, first_row: int) -> None:
        kernels.add_aligned(
            block, first_row, *part.sources, out_z, z.lower, z.upper, weights, adds, part.start[0], part.start[1]
        )

    return add


def _trilinear_adder(part: Part, out_z: Int64, adds: NDArray[np.bool_]) -> _Adder:
    rows, cols, z = part.taps
    interpolation = (z.pair(), z.weight, rows.pair(), rows.weight, cols.pair(), cols.weight)
    scales = [np.stack([part.fade, factors.astype(np.float32)], axis=1) for factors in part.factors]
    contrast_adds = (adds, np.ones_like(adds))

    def add(block: Float32, first_row: int) -> None:
        for source, scale, own_adds in zip(part.sources, scales, contrast_adds, strict=True):
            kernels.add_trilinear(
                block, first_row, source, out_z, *interpolation, scale, own_adds, part.start[0], part.start[1]
            )

    return add


def find_planes(parts: Sequence[Part], extent: tuple[int, int, int]) -> tuple[int, int]:
    """Row of the coronal and column of the sagittal fat fraction plane (steps 9 and 12)."""
    counts = count_body(parts, extent, exact=False)
    if counts.margin() < AMBIGUOUS_VOXELS:
        counts = count_body(parts, extent, exact=True)
    return counts.planes()


def _plane(part: Part, contrast: int, axis: int, position: int) -> Float32 | None:
    """One plane of a station, rounded as the recipe does: (kept, n) float32, None where it has no such plane.

    Args:
        part: the station.
        contrast: 0 water, 1 fat.
        axis: 0 for a coronal plane (fixed row), 1 for a sagittal one (fixed column).
        position: row or column of the fused grid.
    """
    local = position - part.start[axis]
    if not 0 <= local < part.shape[axis]:
        return None
    taps = list(part.taps[:2])
    nearby = slice(int(taps[axis].lower[local]), int(taps[axis].upper[local]) + 1)
    source = part.sources[contrast]
    slab = (source[:, nearby] if axis == 0 else source[:, :, nearby]).astype(np.float64)
    if not part.resampled:
        values = slab.squeeze(1 + axis)[part.taps[2].lower].astype(np.float32)
    else:
        last = nearby.stop - nearby.start - 1
        taps[axis] = Taps(np.zeros(1, np.int64), np.full(1, last), taps[axis].weight[local : local + 1])
        slab = taps[1].blend(part.taps[2].blend(slab, 0), 2)
        values = taps[0].blend(slab, 1).squeeze(1 + axis).astype(np.float32)
    values *= part.fade[:, None]
    values *= part.factors[contrast].astype(np.float32)[:, None]
    return values


def fraction_plane(parts: Sequence[Part], extent: tuple[int, int, int], axis: int, position: int) -> Float64:
    """Fat fraction (per mille) of one plane: (x or y, z feet first), trimmed (steps 8, 9 and 12)."""
    fused = np.zeros((len(CONTRASTS), extent[2], extent[1 - axis]))
    for contrast in range(len(CONTRASTS)):
        for part in parts:
            values = _plane(part, contrast, axis, position)
            if values is not None:
                fused[contrast, part.box[2], part.box[1 - axis]] += values
    water, fat = (_feet_first(image) for image in fused)
    total = water + fat
    fraction: Float64 = FAT_FRACTION_SCALE * fat / np.where(total == 0, 1.0, total)
    return fraction


def project_stations(stations: Sequence[Station]) -> NDArray[np.uint8]:
    """Project stations by recipe ``mimir-1``.

    Args:
        stations: head first, (rows, cols, slices) each; fastest in uint16 with slices first in memory.

    Returns:
        uint8 (3, 256, 256): water, fat, fat fraction; coronal left, sagittal right, head up.

    Raises:
        ScanError: stations do not overlap, one is too short, their geometry is implausible, or an image is constant.
    """
    boxes = place_stations(stations)
    trims = trim_overlaps(boxes)
    extent = boxes.extent
    parts = [make_part(s, boxes, k, trims[k], extent[0] - BED_ROWS) for k, s in enumerate(stations)]
    even_out(parts, trims)
    channels = []
    for contrast, name in enumerate(CONTRASTS):
        images = zip(("coronal", "sagittal"), sum_images(parts, contrast, extent), strict=True)
        channels.append(side_by_side(*(normalize_to_uint8(image, f"{name} {plane}") for plane, image in images)))
    row, col = find_planes(parts, extent)
    coronal = fraction_plane(parts, extent, 0, row)
    sagittal = fraction_plane(parts, extent, 1, col)[: extent[0] - BED_ROWS]
    channels.append(side_by_side(scale_fat_fraction(coronal), scale_fat_fraction(sagittal)))
    return np.stack(channels)
