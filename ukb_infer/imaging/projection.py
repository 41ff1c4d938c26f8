"""Recipe ``mimir-1`` fast: stations to projection without building the fused volumes (floor 2).

Summation commutes with the linear interpolation along z, the fading and the intensity correction. So the water and fat
images come from the slices' row and column sums; only the body mask needs every voxel (of water + fat, in float32), and
the fat fraction only the two planes shown. ``ukb_infer.imaging.reference`` is the contract this must equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ukb_infer.geometry import BED_ROWS, FAT_FRACTION_SCALE, TRIMMED_END_SLICES
from ukb_infer.imaging import kernels
from ukb_infer.imaging.fusion import (
    Boxes,
    Float64,
    Trim,
    fade_weights,
    overlap_factors,
    place_stations,
    resample_station,
    trim_overlaps,
)
from ukb_infer.imaging.otsu import N_BINS, threshold_from_histogram
from ukb_infer.imaging.picture import first_half_index, normalize_to_uint8, scale_fat_fraction, side_by_side
from ukb_infer.records import Station

CONTRASTS = ("water", "fat")


@dataclass
class _Part:
    """One station on the fused grid: source slices, z interpolation, and what each output slice is multiplied by.

    Attributes:
        sources: water and fat, each (slices, rows, cols), C-contiguous.
        in_plane: whether rows and columns carry interpolation weights (1e-6 to 1e-5 off the grid).
        index: number of the station in ``Boxes``.
        row: first row; ``col`` first column; ``first`` first fused slice (head first) of what is kept.
        lower, upper, weight: z neighbours of every kept output slice and the upper one's weight.
        fade: (kept,) float64 fading weights.
        column_sums, row_sums: per contrast, (slices, cols) and (slices, rows) float64.
        factors: per contrast (kept,) float64 intensity factors.
    """

    sources: tuple[NDArray[np.generic], NDArray[np.generic]]
    in_plane: bool
    index: int
    row: int
    col: int
    first: int
    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weight: Float64
    fade: Float64
    column_sums: list[Float64]
    row_sums: list[Float64]
    factors: list[Float64]

    def along_z(self, sums: Float64) -> Float64:
        """Interpolate per-slice sums (slices, n) to the kept output slices and fade them: (kept, n)."""
        w = self.weight[:, None]
        return (sums[self.lower] * (1.0 - w) + sums[self.upper] * w) * self.fade[:, None]


def _slices_first(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def _is_in_plane_aligned(boxes: Boxes, index: int) -> bool:
    """Whether rows and columns lie on the grid, so that only z is really resampled."""
    start, end = boxes.start[index, :2], boxes.end[index, :2]
    box_start, box_end = boxes.box_start[index, :2], boxes.box_end[index, :2]
    off = max(float(np.abs(start - box_start).max()), float(np.abs(end - box_end).max()))
    return off <= 1e-3 and bool(np.all(box_end - box_start == boxes.dims[index, :2]))


def _make_part(station: Station, boxes: Boxes, index: int, trim: Trim, body_rows: int) -> _Part:
    count = int(boxes.box_end[index, 2] - boxes.box_start[index, 2])
    resampled = boxes.needs_resampling(index)
    in_plane = resampled and _is_in_plane_aligned(boxes, index)
    if resampled and not in_plane:
        sources = tuple(_slices_first(resample_station(a, boxes, index)) for a in (station.water, station.fat))
    else:
        sources = tuple(_slices_first(a) for a in (station.water, station.fat))
    if in_plane:
        lower, upper, weight = boxes.axis_coordinates(index, 2)
    else:
        lower = upper = np.arange(count)
        weight = np.zeros(count)
    kept = slice(trim.head, count - trim.foot)
    fade = np.ones(count - trim.head - trim.foot, np.float32)
    if trim.overlap_above:
        fade[: trim.overlap_above] *= fade_weights(trim.overlap_above)
    if trim.overlap_below:
        fade[-trim.overlap_below :] *= fade_weights(trim.overlap_below)[::-1]
    row, col, first = (int(v) for v in boxes.box_start[index])
    part = _Part(
        (sources[0], sources[1]), in_plane, index, row, col, first + trim.head,
        lower[kept], upper[kept], weight[kept], fade.astype(np.float64), [], [], [np.ones(fade.size), np.ones(fade.size)],
    )  # fmt: skip
    for source in part.sources:
        columns, rows = _sums(source, body_rows - row)
        part.column_sums.append(columns)
        part.row_sums.append(rows)
    return part


def _sums(source: NDArray[np.generic], body_rows: int) -> tuple[Float64, Float64]:
    """Column sums over the rows in front of the table, and row sums: (slices, cols), (slices, rows) float64."""
    slices, rows, cols = source.shape
    if source.dtype == np.uint16:
        columns32, rows32 = np.zeros((slices, cols), np.uint32), np.zeros((slices, rows), np.uint32)
        kernels.slice_sums_uint16(source, body_rows, columns32, rows32)
        return columns32.astype(np.float64), rows32.astype(np.float64)
    columns, row_sums = np.zeros((slices, cols)), np.zeros((slices, rows))
    kernels.slice_sums(source, body_rows, columns, row_sums)
    return columns, row_sums


def _even_out(parts: list[_Part], trims: list[Trim]) -> None:
    """Set the intensity factors of every overlap from the slices' means (step 7), each contrast on its own."""
    for upper, lower, trim in zip(parts, parts[1:], trims, strict=False):
        n = trim.overlap_below
        if not n:
            continue
        for contrast in range(2):
            above = _slice_means(upper, contrast)
            below = _slice_means(lower, contrast)
            factors = overlap_factors(above[-n:], below[:n], float(above[-n - 1]), float(below[n]))
            upper.factors[contrast][-n:] = factors
            lower.factors[contrast][:n] = factors


def _slice_means(part: _Part, contrast: int) -> Float64:
    _, rows, cols = part.sources[contrast].shape
    totals = part.row_sums[contrast].sum(axis=1, keepdims=True)
    return part.along_z(totals)[:, 0] / (rows * cols)


def _sum_images(parts: list[_Part], contrast: int, extent: tuple[int, int, int]) -> tuple[Float64, Float64]:
    """Coronal (x, z) and sagittal (y, z) sums, z feet first and trimmed, table rows left out."""
    rows, cols, slices = extent
    coronal, sagittal = np.zeros((slices, cols)), np.zeros((slices, rows))
    for part in parts:
        z = slice(part.first, part.first + part.lower.size)
        factor = part.factors[contrast][:, None]
        _, n_rows, n_cols = part.sources[contrast].shape
        coronal[z, part.col : part.col + n_cols] += part.along_z(part.column_sums[contrast]) * factor
        sagittal[z, part.row : part.row + n_rows] += part.along_z(part.row_sums[contrast]) * factor
    return _feet_first(coronal), _feet_first(sagittal[:, : rows - BED_ROWS])


def _feet_first(image: NDArray[np.float64]) -> Float64:
    """(z head first, n) -> (n, z feet first), trimmed at both ends."""
    return image[::-1].T[:, TRIMMED_END_SLICES:-TRIMMED_END_SLICES]


def _total_volume(parts: list[_Part], extent: tuple[int, int, int]) -> NDArray[np.float32]:
    """Water + fat on the fused grid, (z head first and trimmed, y, x) float32."""
    rows, cols, slices = extent
    depth = slices - 2 * TRIMMED_END_SLICES
    total = np.zeros((depth, rows, cols), np.float32)
    written = np.zeros(depth, bool)
    for part in parts:
        out = np.arange(part.lower.size) + part.first - TRIMMED_END_SLICES
        inside = (out >= 0) & (out < depth)
        out = np.where(inside, out, -1)
        adds = np.where(inside, written[np.clip(out, 0, depth - 1)], False)
        weights = np.empty((out.size, 4), np.float32)
        for contrast in range(2):
            scale = part.fade * part.factors[contrast]
            weights[:, 2 * contrast] = (1.0 - part.weight) * scale
            weights[:, 2 * contrast + 1] = part.weight * scale
        kernels.add_station(total, *part.sources, out, part.lower, part.upper, weights, adds, part.row, part.col)
        written[out[inside]] = True
    return total


def _mask_planes(total: NDArray[np.float32]) -> tuple[int, int]:
    """Row of the coronal and column of the sagittal fat fraction plane (steps 9 and 12)."""
    _, rows, cols = total.shape
    low, high = np.full(rows, np.inf, np.float32), np.full(rows, -np.inf, np.float32)
    kernels.row_extremes(total, low, high)
    counts = np.zeros((rows, N_BINS), np.int32)
    kernels.row_histograms(total, low, high, counts)
    thresholds = [threshold_from_histogram(counts[y], float(low[y]), float(high[y])) for y in range(rows)]
    half = cols // 2
    by_y, by_x = np.zeros(rows - BED_ROWS, np.int64), np.zeros(half, np.int64)
    kernels.mask_counts(total[:, : rows - BED_ROWS], np.float64(np.mean(thresholds)), by_y, by_x, half)
    return first_half_index(by_y, int(by_y.sum())), first_half_index(by_x, int(by_x.sum()))


def _plane(part: _Part, boxes: Boxes, contrast: int, axis: int, position: int) -> NDArray[np.float32] | None:
    """One plane of a station, resampled as the reference does it: (kept, n) float32, None where it has no such plane.

    Args:
        part: the station.
        boxes: placement of the stations.
        contrast: 0 water, 1 fat.
        axis: 0 for a coronal plane (fixed row), 1 for a sagittal one (fixed column).
        position: row or column of the fused grid.
    """
    local = position - (part.row, part.col)[axis]
    source = part.sources[contrast]
    if not 0 <= local < source.shape[1 + axis]:
        return None
    if part.in_plane:
        lower, upper, weight = boxes.axis_coordinates(part.index, axis)
        pick = np.array([lower[local], upper[local]])
        slab = np.take(source, pick, axis=1 + axis).astype(np.float64)
        slab = _blend(slab, part.lower, part.upper, part.weight, 0)
        slab = _blend(slab, *boxes.axis_coordinates(part.index, 1 - axis), 2 - axis)
        first, second = np.take(slab, 0, axis=1 + axis), np.take(slab, 1, axis=1 + axis)
        values = (first * (1.0 - weight[local]) + second * weight[local]).astype(np.float32)
    else:
        values = np.take(source, local, axis=1 + axis)[part.lower].astype(np.float32)
    values *= part.fade.astype(np.float32)[:, None]
    values *= part.factors[contrast].astype(np.float32)[:, None]
    return values


def _blend(values: Float64, lower: NDArray[np.int64], upper: NDArray[np.int64], weight: Float64, axis: int) -> Float64:
    shape = [1, 1, 1]
    shape[axis] = weight.size
    w = weight.reshape(shape)
    return np.take(values, lower, axis=axis) * (1.0 - w) + np.take(values, upper, axis=axis) * w


def _fraction_plane(
    parts: list[_Part], boxes: Boxes, extent: tuple[int, int, int], axis: int, position: int
) -> Float64:
    """Fat fraction (per mille) of one plane: (x or y, z feet first), trimmed."""
    length = extent[1 - axis]
    fused = np.zeros((2, extent[2], length))
    for contrast in range(2):
        for part in parts:
            values = _plane(part, boxes, contrast, axis, position)
            if values is not None:
                start = (part.row, part.col)[1 - axis]
                fused[contrast, part.first : part.first + len(values), start : start + values.shape[1]] += values
    water, fat = (_feet_first(image) for image in fused)
    total = water + fat
    return FAT_FRACTION_SCALE * fat / np.where(total == 0, 1.0, total)


def project_stations(stations: Sequence[Station]) -> NDArray[np.uint8]:
    """Project stations by recipe ``mimir-1``.

    Args:
        stations: head first, (rows, cols, slices) each; fastest when the memory order is slices first and uint16.

    Returns:
        uint8 (3, 256, 256): water, fat, fat fraction; coronal left, sagittal right, head up.

    Raises:
        ScanError: stations do not overlap, one is too short, or an image is constant.
    """
    boxes = place_stations(stations)
    trims = trim_overlaps(boxes)
    extent = (int(boxes.box_end[:, 0].max()), int(boxes.box_end[:, 1].max()), int(boxes.box_end[:, 2].max()))
    body_rows = extent[0] - BED_ROWS
    parts = [_make_part(s, boxes, k, trims[k], body_rows) for k, s in enumerate(stations)]
    _even_out(parts, trims)
    channels = []
    for contrast, name in enumerate(CONTRASTS):
        coronal, sagittal = _sum_images(parts, contrast, extent)
        channels.append(
            side_by_side(
                normalize_to_uint8(coronal, f"{name} coronal"), normalize_to_uint8(sagittal, f"{name} sagittal")
            )
        )
    row, col = _mask_planes(_total_volume(parts, extent))
    coronal = _fraction_plane(parts, boxes, extent, 0, row)
    sagittal = _fraction_plane(parts, boxes, extent, 1, col)[: extent[0] - BED_ROWS]
    channels.append(side_by_side(scale_fat_fraction(coronal), scale_fat_fraction(sagittal)))
    return np.stack(channels)
