"""Stations to one fused body, a slice at a time, so that memory holds the stations and little more.

Resampling, trimming, fading and evening out are steps 4 to 8 of recipe ``mimir-1`` on the grid asked for; on the
recipe's grid every voxel equals ``fuse_stations`` to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.imaging.recipes.mimir1.fusion import Float32, Float64, overlap_factors, slice_mean
from ukb_infer.imaging.volumes.grid import FusedGrid, make_grid
from ukb_infer.imaging.volumes.names import CONTRASTS
from ukb_infer.records import Measures, ScanKey, Station, Stations

Array = NDArray[Any]


class ContrastFuser:
    """One contrast of all stations on a grid: its seams, and its fused slices.

    Args:
        arrays: (rows, cols, slices) of every station, head first.
        grid: of the fused body.

    Attributes:
        gains: of every seam, (overlap,) float64 factors of its slices, head first (step 7).
        steps: of every seam, mean of the lower station's slice behind it over that of the upper's before it.
    """

    def __init__(self, arrays: Sequence[Array], grid: FusedGrid) -> None:
        self.arrays, self.grid = arrays, grid
        self._factors: list[Float32] = [np.ones(fade.size, np.float32) for fade in grid.fades]
        self._axes = [
            [grid.boxes.axis_coordinates(k, axis) for axis in range(3)] if grid.boxes.needs_resampling(k) else None
            for k in range(len(arrays))
        ]
        self.gains: list[Float64] = []
        self.steps: list[float] = []
        for k in range(len(arrays) - 1):
            self._even_out(k)

    def _even_out(self, upper: int) -> None:
        """Find the gains of the seam below a station (step 7)."""
        n = self.grid.trims[upper].overlap_below
        above = [slice_mean(self._faded(upper, -n - 1 + j)) for j in range(n + 1)]
        below = [slice_mean(self._faded(upper + 1, j)) for j in range(n + 1)]
        factors = overlap_factors(np.array(above[1:]), np.array(below[:-1]), above[0], below[-1])
        self.gains.append(factors)
        self.steps.append(below[-1] / above[0] if above[0] else 1.0)
        if n:
            self._factors[upper][-n:] = factors
            self._factors[upper + 1][:n] = factors

    def _faded(self, station: int, kept: int) -> Float32:
        """A station's slice on the grid, faded: (rows, cols) of its own box (steps 4 to 6)."""
        fade = self.grid.fades[station]
        kept %= fade.size
        plane = self._resampled(station, kept + self.grid.trims[station].head)
        return plane if fade[kept] == 1.0 else plane * fade[kept]

    def _resampled(self, station: int, index: int) -> Float32:
        """A slice of a station's box by trilinear interpolation (step 4), as ``resample_station`` does it."""
        array, axes = self.arrays[station], self._axes[station]
        if axes is None:
            return array[:, :, index].astype(np.float32)
        lower, upper, weight = (values[index] for values in axes[2])
        plane = _blend(array[:, :, lower].astype(np.float64), array[:, :, upper].astype(np.float64), weight)
        for axis in (1, 0):
            low, high, w = axes[axis]
            if w.any() or low.size != plane.shape[axis]:
                w = w if axis == 1 else w[:, None]
                plane = _blend(plane.take(low, axis=axis), plane.take(high, axis=axis), w)
        return plane.astype(np.float32)

    def largest(self) -> float:
        """A bound of the largest absolute fused value: weights add up to 1, gains multiply."""
        values = [max(abs(float(a.min())), abs(float(a.max()))) for a in self.arrays]
        return max(values) * max(1.0, *(float(f.max()) for f in self._factors))

    def plane(self, position: int, *, evened: bool = True) -> Float64:
        """A fused slice: (rows, cols) float64 (step 8).

        Args:
            position: of the slice on the grid, head first.
            evened: with the gains of step 7; without them the slice is blended only.
        """
        rows, cols, _ = self.grid.boxes.extent
        fused = np.zeros((rows, cols))
        for station, kept in self.grid.stations_at(position):
            part = self._faded(station, kept)
            factor = self._factors[station][kept] if evened else 1.0
            fused[self.grid.plane(station)] += part if factor == 1.0 else part * factor
        return fused


def _blend(one: Float64, other: Float64, weight: Any) -> Float64:
    """(1 - weight) one + weight other; both are overwritten.

    Args:
        one: (rows, cols).
        other: likewise.
        weight: of the other; broadcast.
    """
    one *= 1.0 - weight
    other *= weight
    one += other
    return one


@dataclass(frozen=True)
class Stitch:
    """A scan ready to be written contrast by contrast.

    Attributes:
        scan: its stations, with the flags of reading.
        key: of the scan.
        grid: of the fused body.
        rule: the spacing asked for: native, recipe or a number of mm.
        fusers: by the attribute of ``Station`` that is fused.
        measures: of the scan's quality.
        uncorrected: the scan before its swaps were corrected; None where none were, or if it is not to be kept.
    """

    scan: Stations
    key: ScanKey
    grid: FusedGrid
    rule: str
    fusers: Mapping[str, ContrastFuser] = field(repr=False)
    measures: Measures = field(default_factory=dict, repr=False)
    uncorrected: Stitch | None = field(default=None, repr=False)

    def planes(self, contrast: str) -> Iterator[Float64]:
        """Slices of a contrast in the order of the file, feet first: (y to the front, x to the right) float64."""
        for position in self.grid.positions():
            yield self._plane(contrast, position)[::-1, ::-1]

    def _plane(self, contrast: str, position: int) -> Float64:
        source = CONTRASTS[contrast].of_station
        if source:
            return self.fusers[source].plane(position)
        # The gains of water and fat differ by some per cent at seams, which would change the fraction there.
        return fat_fraction(*(self.fusers[name].plane(position, evened=False) for name in ("water", "fat")))

    def largest(self, contrast: str) -> float:
        """A bound of a contrast's largest absolute value."""
        source = CONTRASTS[contrast].of_station
        return self.fusers[source].largest() if source else 1.0

    def image(self, contrast: str) -> Float32:
        """A whole contrast: (x, y, z) float32, as ``grid.affine`` places it."""
        image = np.empty(self.grid.shape[::-1], np.float32)
        for index, plane in enumerate(self.planes(contrast)):
            image[index] = plane
        return image.transpose(2, 1, 0)


def fat_fraction(water: Float64, fat: Float64) -> Float64:
    """F / (W + F) in [0, 1]; 0 where there is no signal.

    Args:
        water: signal.
        fat: signal, same shape.
    """
    total = water + fat
    return np.clip(np.divide(fat, total, out=np.zeros_like(total), where=total > 0), 0.0, 1.0)


def make_stitch(scan: Stations, key: ScanKey, contrasts: Sequence[str], rule: str) -> Stitch:
    """Lay a scan out on the grid asked for and find its seams.

    Args:
        scan: as read and checked; what looks for swaps puts stations right, and ``scan.swaps``, before this call.
        key: of the scan.
        contrasts: names in ``CONTRASTS``; the stations must have them.
        rule: from ``check_spacing_rule``.

    Raises:
        ScanError: the stations cannot be fused.
    """
    grid = make_grid(scan.stations, rule)
    wanted = {source for name in contrasts for source in _sources(name)}
    fusers = {name: ContrastFuser([_voxels(s, name) for s in scan.stations], grid) for name in sorted(wanted)}
    return Stitch(scan, key, grid, rule, fusers)


def _sources(contrast: str) -> tuple[str, ...]:
    """Attributes of ``Station`` that a contrast is made of."""
    source = CONTRASTS[contrast].of_station
    return (source,) if source else ("water", "fat")


def _voxels(station: Station, name: str) -> Array:
    voxels = getattr(station, name)
    if voxels is None:
        raise ValueError(f"station {station.number} was read without {name}; name it when reading")
    return np.asarray(voxels)
