"""Stations laid out on the fused grid, and the sums of their slices: what the fast projection works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.imaging.recipes.mimir1 import kernels
from ukb_infer.imaging.recipes.mimir1.fusion import Boxes, Float64, Trim, fade_weights
from ukb_infer.reasons import Reason
from ukb_infer.records import Station

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Voxels = NDArray[np.uint16] | NDArray[np.float32]

CONTRASTS = ("water", "fat")
#: In-plane distance from the grid, in voxels, that the body mask may neglect (float32 positions leave 1e-6 to 1e-5).
ALIGNED_VOXELS = 5e-5
#: Weight that sums may neglect: a float32 pixel spacing differs from the grid's by some 1e-9, in every row alike.
NEGLIGIBLE_WEIGHT = 1e-8
#: Largest voxel whose sums stay finite in float32.
LARGEST_VOXEL = 1e30


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
        """(inputs,) weight that each input has in the sum of the first outputs.

        Args:
            inputs: number of inputs.
            outputs: number of outputs that are summed; none where it is negative.
        """
        weight = self.weight[: max(outputs, 0)]
        total = np.zeros(inputs)
        np.add.at(total, self.lower[: weight.size], 1.0 - weight)
        np.add.at(total, self.upper[: weight.size], weight)
        return total

    def blend(self, values: NDArray[np.floating], axis: int) -> Float64:
        """Interpolate an array along one axis, in float64.

        Args:
            values: the inputs, of any number of axes.
            axis: to interpolate along.
        """
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
        trim: its overlaps.
        column_sums: per contrast (slices, cols out) float64, over the rows in front of the table.
        row_sums: per contrast (slices, rows out) float64.
        factors: per contrast (kept,) float64 intensity factors.
        settled: per contrast (kept,) whether that factor is the recipe's float32, not only close to it.
        magnitudes: per contrast the largest |voxel| where some are negative, else 0.
        rounded_means: means of slices rounded as the recipe does, by (contrast, kept slice), where they were needed.
    """

    sources: tuple[Voxels, Voxels]
    taps: tuple[Taps, Taps, Taps]
    start: tuple[int, int, int]
    resampled: bool
    fade: Float32
    trim: Trim
    column_sums: list[Float64] = field(default_factory=list)
    row_sums: list[Float64] = field(default_factory=list)
    factors: list[Float64] = field(default_factory=list)
    settled: list[NDArray[np.bool_]] = field(default_factory=list)
    magnitudes: list[float] = field(default_factory=list)
    rounded_means: dict[tuple[int, int], float] = field(default_factory=dict)

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

    @cached_property
    def interpolation(self) -> kernels.Taps:
        """Neighbours and weights of slices, rows and columns, as the kernels take them."""
        rows, cols, z = self.taps
        return z.pair(), z.weight, rows.pair(), rows.weight, cols.pair(), cols.weight

    def scales(self, contrast: int) -> Float32:
        """(kept, 2) float32: fading weight and intensity factor of every slice."""
        return np.stack([self.fade, self.factors[contrast].astype(np.float32)], axis=1)

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
        trim=trim,
    )
    for source in part.sources:
        part.magnitudes.append(_check_values(source, index + 1))
        columns, rows = _sum_slices(part, source, body_rows - row)
        part.column_sums.append(columns)
        part.row_sums.append(rows)
        part.factors.append(np.ones(part.fade.size))
        part.settled.append(part.fade == 1.0)
    return part


def _check_values(source: Voxels, number: int) -> float:
    """Refuse voxels that are not finite, or so large that float32 sums of them would not be.

    Returns:
        The largest absolute value where there are negative ones, else 0.
    """
    if source.dtype == np.uint16:
        return 0.0
    low, high = float(source.min()), float(source.max())
    if not (low > -LARGEST_VOXEL and high < LARGEST_VOXEL):
        raise ScanError(
            Reason.NON_FINITE_VALUES,
            f"station {number} has voxels that are NaN, infinite or beyond {LARGEST_VOXEL:g}; convert it again",
        )
    return max(-low, high) if low < 0 else 0.0


def station_fade(count: int, trim: Trim) -> Float32:
    """Fading weights of a station's kept slices: (count,) float32 (step 6).

    Args:
        count: of kept slices.
        trim: its overlaps.
    """
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


def fused_lines(
    parts: Sequence[Part], contrast: int, axis: int, positions: Int64, slices: Int64, length: int
) -> Float64:
    """Lines of voxels of the fused grid, rounded as the recipe does: (lines, length) float64 (steps 4, 6, 7 and 8).

    Args:
        parts: all stations with their intensity factors.
        contrast: 0 water, 1 fat.
        axis: 0 for lines along the rows, 1 along the columns.
        positions: (lines,) column of each line along the rows, row of each along the columns.
        slices: (lines,) fused slice of each, head first.
        length: voxels of a line.
    """
    lines = np.zeros((slices.size, length))
    for part in parts:
        kept = slices - part.start[2]
        kept = np.where((kept >= 0) & (kept < part.shape[2]), kept, -1)
        source, scales = part.sources[contrast], part.scales(contrast)
        kernels.add_lines(lines, axis, positions, kept, source, part.interpolation, scales, part.start)
    return lines
