"""Steps 3 to 8 of recipe ``mimir-1``, exactly: stations to one fused pair of volumes.

The specification in code: slow, explicit, plain NumPy. The reference implementation uses it; the fast path in
``fast`` and ``ukb_infer.imaging.volumes``, which also fuses on other grids, share its geometry and must equal its
result. The recipe is described in ``docs/recipe.md``; step numbers refer to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.imaging.recipes.mimir1.constants import (
    BED_ROWS,
    GRID_SPACING_MM,
    GRID_TOLERANCE_VOXELS,
    MAX_OVERLAP_SLICES,
    TRIMMED_END_SLICES,
)
from ukb_infer.reasons import Reason
from ukb_infer.records import Station, Volume

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: Largest fused extent (rows, cols, slices): 1.1 x 1.1 x 3 m, four times a protocol scan. Guards memory.
MAX_EXTENT = (512, 512, 1000)
#: Smallest extent: something must remain in front of the table and between the trimmed ends.
MIN_EXTENT = (BED_ROWS + 2, 4, 2 * TRIMMED_END_SLICES + 2)
_CHECK = "check that these are the stations of one neck-to-knee scan"


@dataclass(frozen=True)
class Boxes:
    """Positions of stations on the output grid, in voxels, axes (row, col, slice).

    Attributes:
        start: (stations, 3) float64, exact start of each station.
        end: (stations, 3) float64, exact end.
        box_start: (stations, 3) int64, rounded start.
        box_end: (stations, 3) int64, rounded end.
        dims: (stations, 3) int64, input voxels.
        spacing_mm: of the grid, (row, col, slice).
    """

    start: Float64
    end: Float64
    box_start: NDArray[np.int64]
    box_end: NDArray[np.int64]
    dims: NDArray[np.int64]
    spacing_mm: tuple[float, float, float] = GRID_SPACING_MM

    @property
    def extent(self) -> tuple[int, int, int]:
        """(rows, cols, slices) of the fused volume before its ends are trimmed."""
        rows, cols, slices = (int(n) for n in self.box_end.max(axis=0))
        return rows, cols, slices

    def needs_resampling(self, index: int) -> bool:
        """Whether a station is off the grid by more than the tolerance or changes its voxel count."""
        off = max(
            float(np.abs(self.start[index] - self.box_start[index]).max()),
            float(np.abs(self.end[index] - self.box_end[index]).max()),
        )
        same_count = bool(np.all(self.box_end[index] - self.box_start[index] == self.dims[index]))
        return off > GRID_TOLERANCE_VOXELS or not same_count

    def axis_coordinates(self, index: int, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Float64]:
        """Lower and upper neighbour and the upper one's weight of every output index along one axis (step 4).

        Args:
            index: of the station.
            axis: 0 row, 1 column, 2 slice.
        """
        n = int(self.dims[index, axis])
        count = int(self.box_end[index, axis] - self.box_start[index, axis])
        step = (self.end[index, axis] - self.start[index, axis]) / n
        offset = self.start[index, axis] - self.box_start[index, axis]
        coordinate = np.clip((np.arange(count) - offset) / step, 0.0, n - 1.0)
        lower = coordinate.astype(np.int64)
        return lower, np.minimum(lower + 1, n - 1), coordinate - lower


def place_stations(stations: Sequence[Station], spacing_mm: tuple[float, float, float] = GRID_SPACING_MM) -> Boxes:
    """Place stations on the output grid (step 3).

    Args:
        stations: head first.
        spacing_mm: of the grid, (row, col, slice).

    Raises:
        ScanError: no station, or implausible positions or spacings.
    """
    if not stations:
        raise ScanError(Reason.STATION_MISSING, "no station to fuse, expected at least one")
    spacing_out = np.array(spacing_mm, np.float64)
    positions = np.stack([np.asarray(s.position_mm, np.float32) for s in stations]).astype(np.float64)
    dims = np.array([s.shape for s in stations], np.int64)
    spacings = np.stack([np.asarray(s.spacing_mm, np.float64) for s in stations])
    with np.errstate(invalid="ignore"):
        relative = (positions - positions[0]) / spacing_out[[1, 0, 2]]
        relative[:, :2] -= relative[:, :2].min(axis=0)
        start = np.stack([relative[:, 1], relative[:, 0], -relative[:, 2]], axis=1)
        end = start + dims * spacings / spacing_out
    recipe_voxels = spacing_out / np.array(GRID_SPACING_MM)
    check_extent(start * recipe_voxels, end * recipe_voxels)
    return Boxes(start, end, np.rint(start).astype(np.int64), np.rint(end).astype(np.int64), dims, spacing_mm)


def check_extent(start: Float64, end: Float64) -> None:
    """Refuse boxes that are not finite, empty, out of order, or too small or large for any body.

    Args:
        start: (stations, 3) on the output grid, voxels (row, col, slice).
        end: (stations, 3) likewise.

    Raises:
        ScanError: ``implausible_geometry``, or ``station_too_short`` where only the slices are too few.
    """
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise ScanError(Reason.IMPLAUSIBLE_GEOMETRY, "a position or spacing is not a finite number; export it again")
    largest = end.max(axis=0)
    size = "x".join(f"{n:.0f}" for n in largest)
    if (np.rint(end) - np.rint(start) < 1).any() or (start[:, 2] < -0.5).any() or (largest > MAX_EXTENT).any():
        raise ScanError(
            Reason.IMPLAUSIBLE_GEOMETRY,
            f"the stations span {size} voxels (rows, cols, slices), expected stations ordered head first within "
            f"{MAX_EXTENT[0]}x{MAX_EXTENT[1]}x{MAX_EXTENT[2]}; {_CHECK}",
        )
    if (np.rint(largest) < MIN_EXTENT).any():
        reason = Reason.STATION_TOO_SHORT if np.rint(largest[2]) < MIN_EXTENT[2] else Reason.IMPLAUSIBLE_GEOMETRY
        raise ScanError(
            reason,
            f"the stations span only {size} voxels (rows, cols, slices), expected at least "
            f"{MIN_EXTENT[0]}x{MIN_EXTENT[1]}x{MIN_EXTENT[2]}; {_CHECK}",
        )


def resample_station(array: NDArray[np.generic], boxes: Boxes, index: int) -> Float32:
    """Trilinear resampling onto the grid, or the unchanged voxels if they are on it (step 4).

    Args:
        array: (rows, cols, slices) of one contrast.
        boxes: placement of all stations.
        index: of this station in ``boxes``.

    Returns:
        (rows, cols, slices) float32 in the station's own box.
    """
    if not boxes.needs_resampling(index):
        return np.asarray(array, np.float32).copy()
    values = np.asarray(array, np.float32).astype(np.float64)
    for axis in (2, 1, 0):
        lower, upper, weight = boxes.axis_coordinates(index, axis)
        shape = [1, 1, 1]
        shape[axis] = weight.size
        w = weight.reshape(shape)
        values = np.take(values, lower, axis=axis) * (1.0 - w) + np.take(values, upper, axis=axis) * w
    return values.astype(np.float32)


@dataclass(frozen=True)
class Trim:
    """Slices cut off one station, and the overlaps that remain with its neighbours."""

    head: int
    foot: int
    overlap_above: int
    overlap_below: int


def trim_overlaps(boxes: Boxes, least: int = 1, most: int = MAX_OVERLAP_SLICES) -> list[Trim]:
    """Cut overlaps down to at most 8 slices (step 5).

    Args:
        boxes: placement of all stations.
        least: slices that two stations must share.
        most: slices that remain of an overlap.

    Raises:
        ScanError: stations do not overlap, or one is too short for its two overlaps.
    """
    count = len(boxes.dims)
    head, foot, above, below = [0] * count, [0] * count, [0] * count, [0] * count
    for k in range(count - 1):
        overlap = int(boxes.box_end[k, 2] - boxes.box_start[k + 1, 2])
        if overlap < least:
            gap_mm = (boxes.start[k + 1, 2] - boxes.end[k, 2]) * boxes.spacing_mm[2]
            raise ScanError(
                Reason.STATIONS_DO_NOT_OVERLAP,
                f"stations {k + 1} and {k + 2} are {max(gap_mm, 0.0):.1f} mm apart, expected an overlap; "
                "a station between them may be missing: check the export or the unpacking of the scan",
            )
        excess = max(0, overlap - most)
        foot[k], head[k + 1] = excess // 2, excess - excess // 2
        below[k] = above[k + 1] = overlap - excess
    trims = [Trim(head[k], foot[k], above[k], below[k]) for k in range(count)]
    for k, trim in enumerate(trims):
        slices = int(boxes.box_end[k, 2] - boxes.box_start[k, 2])
        if slices - trim.head - trim.foot < trim.overlap_above + trim.overlap_below + 1:
            raise ScanError(
                Reason.STATION_TOO_SHORT,
                f"station {k + 1} has {slices} slices of {boxes.spacing_mm[2]:g} mm on the fused grid, fewer than its "
                f"overlaps need; {_CHECK}",
            )
    return trims


def fade_weights(overlap: int) -> Float32:
    """Linear weights rising inwards from a station's edge: (overlap,) float32 (step 6)."""
    return ((np.arange(overlap) + 1.0) / (overlap + 1.0)).astype(np.float32)


def fade_station(array: Float32, trim: Trim) -> None:
    """Fade one trimmed station at its overlaps (step 6).

    Args:
        array: (rows, cols, slices head first), changed in place.
        trim: its overlaps.
    """
    if trim.overlap_above:
        array[:, :, : trim.overlap_above] *= fade_weights(trim.overlap_above)
    if trim.overlap_below:
        array[:, :, -trim.overlap_below :] *= fade_weights(trim.overlap_below)[::-1]


def overlap_factors(upper_means: Float64, lower_means: Float64, before: float, after: float) -> Float64:
    """Factors that bring the summed slice means of an overlap onto a straight line (step 7).

    Args:
        upper_means: (overlap,) slice means of the faded upper station, head first.
        lower_means: (overlap,) of the faded lower station.
        before: mean of the upper station's slice just before the overlap.
        after: mean of the lower station's slice just after it.
    """
    n = upper_means.size
    wanted = before + (after - before) * (np.arange(n) + 1.0) / (n + 1.0)
    present = upper_means + lower_means
    return np.where(present == 0, 1.0, wanted / np.where(present == 0, 1.0, present))


def slice_mean(plane: Float32) -> float:
    """Mean of one slice (rows, cols), summed in one order wherever it lies in memory."""
    return float(np.ascontiguousarray(plane).mean(dtype=np.float64))


def even_out_overlap(upper: Float32, lower: Float32, overlap: int) -> None:
    """Even out the intensity of one overlap of two faded stations (step 7).

    Args:
        upper: (rows, cols, slices head first), changed in place.
        lower: likewise, the next station towards the feet.
        overlap: slices that both have; 0 changes nothing.
    """
    if not overlap:
        return
    first = upper.shape[2] - overlap
    upper_means = np.array([slice_mean(upper[:, :, first + j]) for j in range(overlap)])
    lower_means = np.array([slice_mean(lower[:, :, j]) for j in range(overlap)])
    before, after = slice_mean(upper[:, :, first - 1]), slice_mean(lower[:, :, overlap])
    factors = overlap_factors(upper_means, lower_means, before, after).astype(np.float32)
    upper[:, :, -overlap:] *= factors
    lower[:, :, :overlap] *= factors


def add_stations(parts: list[Float32], boxes: Boxes, trims: list[Trim]) -> Float64:
    """Add trimmed, faded and corrected stations into one volume: (rows, cols, slices head first) (step 8).

    Args:
        parts: (rows, cols, slices head first) of every station.
        boxes: placement of all stations.
        trims: of every station.
    """
    fused = np.zeros(boxes.extent, np.float64)
    for k, (part, trim) in enumerate(zip(parts, trims, strict=True)):
        row, col, first = (int(v) for v in boxes.box_start[k])
        first += trim.head
        fused[row : row + part.shape[0], col : col + part.shape[1], first : first + part.shape[2]] += part
    return fused


def turn_and_trim(fused: Float64) -> Float64:
    """Flip to feet first, exchange rows and columns, remove 4 slices at both ends: (x, y, z) (step 8)."""
    return fused[:, :, ::-1].transpose(1, 0, 2)[:, :, TRIMMED_END_SLICES:-TRIMMED_END_SLICES]


def fuse_contrast(arrays: Sequence[NDArray[np.generic]], boxes: Boxes, trims: list[Trim]) -> Float64:
    """Fuse one contrast of all stations: (x, y, z feet first) float64 (steps 4 to 8).

    Args:
        arrays: (rows, cols, slices) of every station, head first.
        boxes: placement of all stations.
        trims: of every station.
    """
    parts = []
    for k, (array, trim) in enumerate(zip(arrays, trims, strict=True)):
        part = resample_station(array, boxes, k)
        part = part[:, :, trim.head : part.shape[2] - trim.foot]
        fade_station(part, trim)
        parts.append(part)
    for upper, lower, trim in zip(parts, parts[1:], trims, strict=False):
        even_out_overlap(upper, lower, trim.overlap_below)
    return turn_and_trim(add_stations(parts, boxes, trims))


def volume_affine(stations: Sequence[Station], boxes: Boxes) -> Float64:
    """Affine of the fused volume: voxel (x, y, z feet first) to RAS mm, (4, 4).

    Args:
        stations: head first.
        boxes: their placement.
    """
    positions = np.stack([np.asarray(s.position_mm, np.float64) for s in stations])
    last_slice = boxes.extent[2] - 1 - TRIMMED_END_SLICES
    first_lps = np.array(
        [positions[:, 0].min(), positions[:, 1].min(), positions[0, 2] - last_slice * GRID_SPACING_MM[2]]
    )
    affine = np.diag([-GRID_SPACING_MM[0], -GRID_SPACING_MM[1], GRID_SPACING_MM[2], 1.0])
    affine[:3, 3] = first_lps * np.array([-1.0, -1.0, 1.0])
    return affine


def fuse_stations(stations: Sequence[Station]) -> Volume:
    """Fuse stations into one neck-to-knee pair (steps 3 to 8).

    Args:
        stations: head first.

    Returns:
        Water and fat, (x, y, z) float64, z feet first.

    Raises:
        ScanError: no overlap, or a station too short.
    """
    boxes = place_stations(stations)
    trims = trim_overlaps(boxes)
    water = fuse_contrast([s.water for s in stations], boxes, trims)
    fat = fuse_contrast([s.fat for s in stations], boxes, trims)
    return Volume(water, fat, volume_affine(stations, boxes))
