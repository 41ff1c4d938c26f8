"""A label map drawn on a fused body, back to the voxels of the stations: litres and fat fraction of every label.

Every voxel of the map is a box. Within it a station's own voxels count with the part of the box that each fills, so
that volumes are conserved: litres are the map's voxels times their volume, and the fat fraction is that of the voxels
as they were acquired, not of interpolated ones. Where two stations reach, they share the box by the weights of their
blending, which add up to 1; where only one does, it has the box alone. Nothing counts twice, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.imaging.recipes.mimir1.fusion import Float64
from ukb_infer.imaging.volumes.grid import FusedGrid, grid_of_spacing, same_spacing, spacing_of_rule
from ukb_infer.imaging.volumes.stitch import fat_fraction
from ukb_infer.records import Station

MM3_PER_LITRE = 1e6
#: A label map lies on a grid where no corner is farther from it than this part of a voxel; affines are float32.
SAME_PLACE_VOXELS = 0.05
_DRAW = "draw it on the volume that `stitch` makes of this scan, or resample it onto that"


@dataclass(frozen=True)
class PlacedLabels:
    """A label map on the grid of a scan.

    Attributes:
        values: (x to the right, y to the front, z up) whole numbers, 0 for nothing; perhaps a part of the grid.
        grid: of the scan.
        offset: voxel of the grid's file that is the map's first, (x, y, z).
    """

    values: NDArray[np.integer[Any]]
    grid: FusedGrid
    offset: tuple[int, int, int]

    @cached_property
    def labels(self) -> NDArray[np.integer[Any]]:
        """All labels but 0, rising."""
        found = np.unique(np.concatenate([np.unique(self.values[:, :, k]) for k in range(self.values.shape[2])]))
        return found[found > 0]

    def planes(self) -> Iterator[tuple[int, NDArray[np.integer[Any]]]]:
        """Slices with labels, counted head first on the grid, and their labels: (rows, cols)."""
        for k in np.flatnonzero(self.values.any(axis=(0, 1))):
            yield self._position(int(k)), self.plane(int(k))

    def _position(self, k: int) -> int:
        return self.grid.file_slice(k + self.offset[2])  # the reversal is its own inverse

    def plane(self, k: int) -> NDArray[np.integer[Any]]:
        """A slice of the map on the grid: (rows, cols).

        Args:
            k: slice of the map, from the feet.
        """
        cols, rows, _ = self.grid.shape
        nx, ny, _ = self.values.shape
        whole = np.zeros((rows, cols), self.values.dtype)
        x, y, _ = self.offset
        whole[y : y + ny, x : x + nx] = self.values[:, :, k].T
        return whole[::-1, ::-1]


@dataclass(frozen=True)
class LabelMeasure:
    """One label of a map.

    Attributes:
        label: its number.
        voxels: of the map.
        volume_litres: inside the stations.
        mean_fat_fraction: over that volume where there is signal; NaN where there is none.
        outside_litres: of the map where no station reaches; not part of the others.
        station_litres: what each station, head first, gives to the volume.
    """

    label: int
    voxels: int
    volume_litres: float
    mean_fat_fraction: float
    outside_litres: float
    station_litres: tuple[float, ...]


def place_labels(values: NDArray[Any], affine: Float64, stations: Sequence[Station]) -> PlacedLabels:
    """Turn a label map by its affine and find its place on the grid of a scan.

    Args:
        values: (i, j, k).
        affine: (4, 4) voxel to RAS mm.
        stations: of the scan, head first.

    Raises:
        UsageError: values that are no labels, or a map that does not belong to the scan.
        ScanError: the stations cannot be fused.
    """
    whole = _whole_numbers(values)
    turn = io_orientation(affine)
    placed = affine @ inv_ornt_aff(turn, values.shape)
    whole = apply_orientation(whole, turn)
    spacing = np.linalg.norm(placed[:3, :3], axis=0)
    grid = _grid_of(spacing, stations)
    offset = np.rint(np.linalg.solve(grid.affine, placed[:, 3])[:3]).astype(int)
    expected = grid.affine.copy()
    expected[:3, 3] = grid.affine[:3] @ np.append(offset, 1.0)
    corners = np.array(np.meshgrid(*((0, n - 1) for n in whole.shape), [1])).reshape(4, -1)
    off = np.abs(((placed - expected) @ corners)[:3] / np.array(grid.spacing_mm)[:, None]).max()
    inside = (offset >= 0).all() and (offset + whole.shape <= grid.shape).all()
    if off > SAME_PLACE_VOXELS or not inside:
        raise UsageError(
            f"does not lie on this scan: {_words(whole.shape, placed)}, expected a part of "
            f"{_words(grid.shape, grid.affine)}; is it of another scan? {_DRAW}",
            field="labels",
        )
    return PlacedLabels(whole, grid, (int(offset[0]), int(offset[1]), int(offset[2])))


def _whole_numbers(values: NDArray[Any]) -> NDArray[np.integer[Any]]:
    """Labels as integers.

    Raises:
        UsageError: they are none.
    """
    with np.errstate(invalid="ignore"):  # NaN becomes a number, which differs from it
        whole = values if values.dtype.kind in "iu" else np.rint(values).astype(np.int64)
    if (whole is not values and not (whole == values).all()) or whole.min() < 0:
        raise UsageError("has fractions or negative numbers, expected whole labels from 0", field="labels")
    if not whole.any():
        raise UsageError("holds no label, only 0", field="labels")
    return whole


def _grid_of(spacing: Float64, stations: Sequence[Station]) -> FusedGrid:
    """The grid of a scan that has the spacing (x, y, z) of a label map."""
    own = (float(spacing[1]), float(spacing[0]), float(spacing[2]))
    named = [spacing_of_rule(rule, stations) for rule in ("recipe", "native")]
    isotropic = (float(f"{own[0]:g}"),) * 3
    for candidate in (*named, isotropic):
        if same_spacing(own, candidate):
            return grid_of_spacing(stations, candidate)
    shown = " x ".join(f"{v:.4g}" for v in spacing)
    choices = ", ".join(" x ".join(f"{v:.4g}" for v in (c[1], c[0], c[2])) for c in dict.fromkeys(named))
    raise UsageError(f"has a spacing of {shown} mm, expected {choices} or an isotropic one; {_DRAW}", field="labels")


def _words(shape: Sequence[int], affine: Float64) -> str:
    """Voxels, spacing and first voxel of an image, for messages."""
    size = "x".join(str(n) for n in shape)
    spacing = "x".join(f"{v:.4g}" for v in np.linalg.norm(affine[:3, :3], axis=0))
    first = ", ".join(f"{v:.1f}" for v in affine[:3, 3])
    return f"{size} voxels of {spacing} mm from ({first})"


def measure_labels(placed: PlacedLabels, stations: Sequence[Station]) -> list[LabelMeasure]:
    """Volume and mean fat fraction of every label.

    Args:
        placed: the label map.
        stations: of the scan, head first.
    """
    grid, labels = placed.grid, placed.labels
    count = len(labels) + 1
    voxels, outside = np.zeros(count), np.zeros(count)
    volume, signal, fraction = np.zeros((len(stations), count)), np.zeros(count), np.zeros(count)
    samplers = [_Sampler(station, grid, k) for k, station in enumerate(stations)]
    for position, plane in placed.planes():
        index = np.where(plane > 0, np.searchsorted(labels, plane) + 1, 0)
        shares = _shares(grid, position, plane.shape)
        voxels += np.bincount(index.ravel(), minlength=count)
        covered = sum(shares.values(), np.zeros(plane.shape)) > 0
        outside += np.bincount(index[~covered], minlength=count)
        for station, share in shares.items():
            box = grid.plane(station)
            own, weight = index[box].ravel(), share[box]
            found, valid = samplers[station].plane(position)
            volume[station] += np.bincount(own, weight.ravel(), minlength=count)
            signal += np.bincount(own, (weight * valid).ravel(), minlength=count)
            fraction += np.bincount(own, (weight * found).ravel(), minlength=count)
    litres = float(np.prod(grid.spacing_mm)) / MM3_PER_LITRE
    return [
        LabelMeasure(
            label=int(label),
            voxels=int(voxels[k]),
            volume_litres=float(volume[:, k].sum() * litres),
            mean_fat_fraction=float(fraction[k] / signal[k]) if signal[k] > 0 else float("nan"),
            outside_litres=float(outside[k] * litres),
            station_litres=tuple(float(v * litres) for v in volume[:, k]),
        )
        for k, label in enumerate(labels, start=1)
    ]


def _shares(grid: FusedGrid, position: int, shape: tuple[int, ...]) -> dict[int, Float64]:
    """Part of every voxel of a slice that each station has: (rows, cols), together 1 where any reaches."""
    weights = {}
    for station, kept in grid.stations_at(position):
        weights[station] = np.zeros(shape)
        weights[station][grid.plane(station)] = float(grid.fades[station][kept])
    total = sum(weights.values(), np.zeros(shape))
    return {k: np.divide(w, total, out=np.zeros(shape), where=total > 0) for k, w in weights.items()}


class _Sampler:
    """Mean fat fraction of a station's own voxels over the boxes of a grid.

    Args:
        station: which.
        grid: of the fused body.
        index: of the station in it.
    """

    def __init__(self, station: Station, grid: FusedGrid, index: int) -> None:
        self.station = station
        self.first = int(grid.boxes.box_start[index, 2])
        self.rows, self.cols, self.slices = (overlap_parts(grid, index, axis) for axis in range(3))

    def plane(self, position: int) -> tuple[Float64, Float64]:
        """Sum of fat fraction and part with signal of the boxes of a slice: (rows, cols) of the station's box.

        Args:
            position: slice of the grid, head first.
        """
        weights = self.slices[position - self.first]
        total, valid = 0.0, 0.0
        for n in np.flatnonzero(weights):
            water, fat = (a[:, :, n].astype(np.float64) for a in (self.station.water, self.station.fat))
            total = total + weights[n] * fat_fraction(water, fat)
            valid = valid + weights[n] * (water + fat > 0)
        return self._in_plane(np.asarray(total)), self._in_plane(np.asarray(valid))

    def _in_plane(self, plane: Float64) -> Float64:
        mixed: Float64 = self.rows @ plane @ self.cols.T
        return mixed


def overlap_parts(grid: FusedGrid, station: int, axis: int) -> Float64:
    """Part of every voxel of a station's box that each of its own voxels fills: (box, own), rows add up to 1.

    Own voxels at the ends reach beyond their edge, as in resampling; a station that lies on the grid fills it one to
    one.

    Args:
        grid: of the fused body.
        station: its index.
        axis: 0 row, 1 column, 2 slice.
    """
    boxes = grid.boxes
    own, count = int(boxes.dims[station, axis]), int((boxes.box_end - boxes.box_start)[station, axis])
    if not boxes.needs_resampling(station):
        return np.eye(own)
    start = float(boxes.start[station, axis] - boxes.box_start[station, axis])
    step = float(boxes.end[station, axis] - boxes.start[station, axis]) / own
    edges = start + (np.arange(own + 1) - 0.5) * step
    edges[0], edges[-1] = -np.inf, np.inf
    first = np.arange(count)[:, None] - 0.5
    parts: Float64 = np.clip(np.minimum(edges[1:], first + 1.0) - np.maximum(edges[:-1], first), 0.0, None)
    return parts


def labels_of_station(placed: PlacedLabels, station: int) -> NDArray[np.integer[Any]]:
    """Label of the grid's voxel in which the centre of each of a station's own voxels lies: (rows, cols, slices).

    Args:
        placed: the label map.
        station: its index.
    """
    boxes, grid = placed.grid.boxes, placed.grid
    nearest = []
    for axis in range(3):
        n = int(boxes.dims[station, axis])
        step = (boxes.end[station, axis] - boxes.start[station, axis]) / n
        centre = np.rint(boxes.start[station, axis] + np.arange(n) * step).astype(int)
        nearest.append(np.clip(centre, boxes.box_start[station, axis], boxes.box_end[station, axis] - 1))
    rows, cols, slices = nearest
    labels = np.zeros((rows.size, cols.size, slices.size), placed.values.dtype)
    for n, position in enumerate(slices):
        k = grid.file_slice(int(position)) - placed.offset[2]
        if 0 <= k < placed.values.shape[2]:
            labels[:, :, n] = placed.plane(k)[np.ix_(rows, cols)]
    return labels
