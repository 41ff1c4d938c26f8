"""What the measures look at: every station, sampled finely enough for a share, a median or a volume.

Reading every voxel again would cost half of a projection. Sampled are about 9 mm in plane and 6 to 9 mm along z: an
eighth of the voxels are copied, and no volume is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ukb_infer.records import Station

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Distance of samples in plane and along z, mm; whole numbers of voxels come closest.
IN_PLANE_STEP_MM, SLICE_STEP_MM = 9.0, 7.5
#: A voxel is body where water + fat passes this part of the bright tissue (95th percentile) …
BODY_SHARE = 0.2
BRIGHT_PERCENTILE = 95.0
#: … and this multiple of the median of what is darker, which few voxels of noise alone do.
BODY_OVER_AIR = 3.0
#: Air this close to the body is not counted as such, and in front of it only up to so far, mm.
AIR_MARGIN_MM, AIR_REACH_MM = 18.0, 80.0


def _step(wanted_mm: float, spacing_mm: float, count: int) -> int:
    """Voxels from one sample to the next; at least four samples remain where there are so many."""
    return max(1, min(round(wanted_mm / spacing_mm), count // 4))


@dataclass(frozen=True)
class Sample:
    """One station as the measures see it.

    Attributes:
        station: as read.
        step: voxels from one sample to the next (slice, row, col).
        lines: water and fat of the sampled slices and rows with all their columns, (slices, rows, all cols).
        water: (slices, rows, cols) float32.
        fat: same shape.
        threshold: of water + fat, above which a voxel is body.
    """

    station: Station
    step: tuple[int, int, int]
    lines: tuple[NDArray[np.generic], NDArray[np.generic]]
    water: Float32
    fat: Float32
    threshold: float

    @cached_property
    def total(self) -> Float32:
        """Water + fat, (slices, rows, cols)."""
        return self.water + self.fat

    @cached_property
    def body(self) -> NDArray[np.bool_]:
        """Voxels with signal, (slices, rows, cols)."""
        from ukb_infer.quality import kernels

        body = np.empty(self.total.shape, bool)
        kernels.find_body(self.total, self.threshold, body)
        return body

    @cached_property
    def regions(self) -> NDArray[np.uint8]:
        """``OUTSIDE``, ``BODY`` or ``ENCLOSED`` of :mod:`ukb_infer.quality.kernels`, (slices, rows, cols)."""
        from ukb_infer.quality import kernels

        regions = np.empty(self.body.shape, np.uint8)
        kernels.find_regions(self.body, regions)
        return regions

    @cached_property
    def extents(self) -> NDArray[np.int64]:
        """(slices, 4): first and last row, first and last column of the body in samples; -1 without body."""
        from ukb_infer.quality import kernels

        extents = np.empty((len(self.body), 4), np.int64)
        kernels.find_extents(self.regions, extents)
        return extents

    @cached_property
    def has_body(self) -> NDArray[np.bool_]:
        """Sampled slices that have body, (slices,)."""
        return self.extents[:, 1] >= 0

    @cached_property
    def air(self) -> Float64:
        """(3, 2) sums of squares and counts of the air in front of the body, beside it and in the front corners."""
        from ukb_infer.quality import kernels

        sums = np.zeros((3, 2))
        margin, reach = (round(mm / self.spacing_mm[1]) for mm in (AIR_MARGIN_MM, AIR_REACH_MM))
        kernels.sum_air(self.water, self.fat, self.extents, margin, reach, sums)
        return sums

    @cached_property
    def _sums(self) -> tuple[Float64, Float64]:
        """Both sums of the body, made in one pass."""
        from ukb_infer.quality import kernels

        by_slice, by_col = np.zeros((self.body.shape[0], 3)), np.zeros((self.body.shape[2], 3))
        kernels.sum_body(self.water, self.fat, self.body, by_slice, by_col)
        return by_slice, by_col

    @property
    def by_slice(self) -> Float64:
        """(slices, 3): voxels, water and fat of the body of every slice."""
        return self._sums[0]

    @property
    def by_col(self) -> Float64:
        """(cols, 3): voxels, water and fat of the body of every column."""
        return self._sums[1]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of samples (slice, row, col)."""
        row, col, between = (float(v) for v in self.station.spacing_mm)
        return between * self.step[0], row * self.step[1], col * self.step[2]

    @property
    def voxel_ml(self) -> float:
        """Volume that a sample stands for, ml."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @cached_property
    def z_mm(self) -> Float64:
        """Height z of the sampled slices, head first, (slices,)."""
        return np.asarray(
            float(self.station.position_mm[2]) - self.spacing_mm[0] * np.arange(len(self.water)), np.float64
        )

    @cached_property
    def middle_mm(self) -> float | None:
        """Place x halfway between the body's sides, median over slices, mm (left positive); None without body."""
        found = self.extents[self.has_body]
        if not len(found):
            return None
        middle = float(np.median(found[:, 2] + found[:, 3])) / 2.0
        return float(self.station.position_mm[0]) + middle * self.spacing_mm[2]


def slices_first(station: Station) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Water and fat as views of (slices, rows, cols), which is how they lie in memory."""
    return station.water.transpose(2, 0, 1), station.fat.transpose(2, 0, 1)


def sample_station(station: Station) -> Sample:
    """Sample a station."""
    row, col, between = (float(v) for v in station.spacing_mm)
    rows, cols, slices = station.shape
    step = (
        _step(SLICE_STEP_MM, between, slices), _step(IN_PLANE_STEP_MM, row, rows), _step(IN_PLANE_STEP_MM, col, cols)
    )  # fmt: skip
    lines = tuple(np.ascontiguousarray(volume[:: step[0], :: step[1]]) for volume in slices_first(station))
    water, fat = (np.ascontiguousarray(line[:, :, :: step[2]], np.float32) for line in lines)
    return Sample(station, step, (lines[0], lines[1]), water, fat, body_threshold(water + fat))


def sample_stations(stations: Sequence[Station]) -> tuple[Sample, ...]:
    """Sample all stations of a scan, head first."""
    return tuple(sample_station(station) for station in stations)


def body_threshold(total: Float32) -> float:
    """What water + fat passes in the body: a part of bright tissue, and clearly more than noise.

    Args:
        total: (slices, rows, cols).
    """
    few = total[::2, ::2, ::2].ravel()
    bright = float(np.percentile(few, BRIGHT_PERCENTILE))
    dark = few[few < BODY_SHARE * bright]
    return max(BODY_SHARE * bright, BODY_OVER_AIR * float(np.median(dark)) if dark.size else 0.0)
