"""Measures of the seam between two stations, both of which scanned the slices of their overlap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ukb_infer.quality.sample import Float32, Float64, Sample, slices_first
from ukb_infer.records import Station

#: Where in the overlap the stations are compared, as parts of its length: not at its ends, where slices fold.
PLANES = (0.3, 0.5, 0.7)
#: Part of the variance by which the two ends of a station must differ to tell which of them a signal came from.
DIFFERENT_ENDS = 0.1
#: Fewest body voxels of a plane that tell a gain.
FEWEST_VOXELS = 30


@dataclass(frozen=True)
class Plane:
    """Body voxels of a plane of an overlap, (2, voxels) float32 water and fat each, and what brings them together.

    Attributes:
        upper: of the upper station.
        lower: of the lower one.
        x_mm: (voxels,) where they are, mm (left positive).
        gain: that multiplies the lower station: ratio of the sums of W + F.
        body: (rows, cols) bool, which voxels they are of the plane as the upper station is sampled.
    """

    upper: Float32
    lower: Float32
    x_mm: Float64
    gain: float
    body: NDArray[np.bool_]


@dataclass(frozen=True)
class Seam:
    """Two stations, the upper one first."""

    upper: Sample
    lower: Sample

    @cached_property
    def planes(self) -> tuple[Plane, ...]:
        """Planes of the overlap as both stations show them; none where there is no overlap, or no body in it."""
        upper, lower = self.upper.station, self.lower.station
        top = float(lower.position_mm[2])
        bottom = float(upper.position_mm[2]) - float(upper.spacing_mm[2]) * (upper.shape[2] - 1)
        heights = (bottom + part * (top - bottom) for part in PLANES if top > bottom)
        return tuple(plane for plane in map(self._plane, heights) if plane is not None)

    def _plane(self, z_mm: float) -> Plane | None:
        upper = self.upper.station
        places = [_places(upper, axis, self.upper.step[1 + axis]) for axis in (0, 1)]
        one, two = (_interpolate(s.station, z_mm, *places) for s in (self.upper, self.lower))
        first, second = one.sum(axis=0), two.sum(axis=0)
        body = (first > self.upper.threshold) & (second > self.lower.threshold)
        if body.sum() < FEWEST_VOXELS:
            return None
        x_mm = np.broadcast_to(places[1], body.shape)[body]
        gain = float(first[body].mean(dtype=float) / second[body].mean(dtype=float))
        return Plane(one[:, body], two[:, body], x_mm, gain, body)


def seam_gain(seam: Seam) -> float | None:
    """Logarithm (ln) of the gain that the lower station is to be multiplied by, mean over the planes of the overlap."""
    return float(np.mean([np.log(plane.gain) for plane in seam.planes])) if seam.planes else None


def seam_mismatch_water(seam: Seam) -> float | None:
    """NRMSE of water: RMS(W_upper - g W_lower) over the mean of W + F, after the gain g of each plane."""
    return _mismatch(seam, 0)


def seam_mismatch_fat(seam: Seam) -> float | None:
    """NRMSE of fat: RMS(F_upper - g F_lower) over the mean of W + F, after the gain g of each plane."""
    return _mismatch(seam, 1)


def _mismatch(seam: Seam, contrast: int) -> float | None:
    if not seam.planes:
        return None
    squares = np.concatenate([(p.upper[contrast] - p.gain * p.lower[contrast]).astype(float) ** 2 for p in seam.planes])
    level = np.concatenate([p.upper.sum(axis=0) for p in seam.planes]).mean()
    return float(np.sqrt(squares.mean()) / level)


def folding(seam: Seam) -> float | None:
    """Share s of a station's other end that aliases onto its end at the seam, the larger of both stations.

    Least squares: end slice = a (same height in the other station, 36 mm inside) + s (slice at the other end) + c.
    """
    if not seam.planes:
        return None
    pairs = ((seam.upper.station, seam.lower.station, -1), (seam.lower.station, seam.upper.station, 0))
    found = [_folded_share(own, other, end, seam.upper) for own, other, end in pairs]
    return max((share for share in found if share is not None), default=None)


def _folded_share(own: Station, other: Station, end: int, sample: Sample) -> float | None:
    places = [_places(sample.station, axis, 2 * sample.step[1 + axis]) for axis in (0, 1)]
    top = float(own.position_mm[2])
    heights = (top, top - float(own.spacing_mm[2]) * (own.shape[2] - 1))
    here, there = heights[end], heights[-1 - end]
    slices = (_interpolate(other, here, *places), _interpolate(own, there, *places), _interpolate(own, here, *places))
    (aa, ab, ay), (_, bb, by) = np.cov(np.stack([s.sum(axis=0).ravel() for s in slices]).astype(np.float64))[:2]
    determinant = aa * bb - ab * ab
    return float((aa * by - ab * ay) / determinant) if determinant > DIFFERENT_ENDS * aa * bb else None


def _places(station: Station, axis: int, step: int) -> Float64:
    """Places y (axis 0) or x (axis 1) of every ``step``-th voxel, mm."""
    count, spacing = station.shape[axis], float(station.spacing_mm[axis])
    return np.asarray(float(station.position_mm[1 - axis]) + spacing * np.arange(0, count, step), np.float64)


def _interpolate(station: Station, z_mm: float, y_mm: Float64, x_mm: Float64) -> Float32:
    """Water and fat of a station at a height, trilinear: (2, rows, cols) float32, 0 where it has none."""
    from ukb_infer.quality import kernels

    x0, y0, z0 = (float(v) for v in station.position_mm)
    row, col, between = (float(v) for v in station.spacing_mm)
    found = np.empty((2, len(y_mm), len(x_mm)), np.float32)
    volumes = slices_first(station)
    kernels.interpolate(*volumes, (z0 - z_mm) / between, (y_mm - y0) / row, (x_mm - x0) / col, found)
    return found
