"""The grid of a fused body: spacing, extent, affine, and which station gives which slice with which weight.

The rules are those of recipe ``mimir-1`` (:mod:`ukb_infer.imaging.recipes.mimir1.fusion`) in mm, so that the grid of
the recipe's spacing is the recipe's own and every other spacing shows the same part of the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ukb_infer.imaging.recipes.mimir1.constants import GRID_SPACING_MM, MAX_OVERLAP_SLICES, TRIMMED_END_SLICES
from ukb_infer.imaging.recipes.mimir1.fusion import Boxes, Float32, Trim, place_stations, trim_overlaps
from ukb_infer.imaging.recipes.mimir1.parts import station_fade
from ukb_infer.imaging.volumes.names import DEFAULT_SPACING
from ukb_infer.records import Station

#: Two spacings are one where they differ by less than this part: decimal strings and float32 are rounded.
SAME_SPACING = 1e-5


def spacing_of_rule(rule: str, stations: Sequence[Station]) -> tuple[float, float, float]:
    """Spacing (row, col, slice) of a rule for some stations, mm.

    ``native`` is the finest of the stations' own along each axis; on UK Biobank's protocol that is the recipe's.

    Args:
        rule: from :func:`check_spacing_rule`.
        stations: of the scan.
    """
    if rule == "recipe":
        return GRID_SPACING_MM
    if rule != "native":
        return (float(rule),) * 3
    row, col, between = (float(v) for v in np.min([s.spacing_mm for s in stations], axis=0))
    return GRID_SPACING_MM if same_spacing((row, col, between), GRID_SPACING_MM) else (row, col, between)


def same_spacing(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two spacings differ by rounding only.

    Args:
        one: (row, col, slice) mm.
        other: likewise.
    """
    return bool(np.allclose(one, other, rtol=SAME_SPACING, atol=0.0))


@dataclass(frozen=True)
class FusedGrid:
    """Where the voxels of a fused body lie, and what each station gives.

    Slices are counted head first before the ends are cut, as in ``Boxes``; files hold them feet first.

    Attributes:
        boxes: the stations on the grid.
        trims: what their overlaps leave of each.
        cut: slices removed at both ends.
        first_mm: (x, y, z) of the voxel (row 0, col 0, slice 0), LPS mm.
    """

    boxes: Boxes
    trims: tuple[Trim, ...]
    cut: int
    first_mm: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(x, y, z) voxels of the file."""
        rows, cols, slices = self.boxes.extent
        return cols, rows, slices - 2 * self.cut

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(x, y, z) spacing of the file, mm."""
        row, col, between = self.boxes.spacing_mm
        return col, row, between

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) voxel (x to the right, y to the front, z up) to RAS mm."""
        last = np.array(self.shape) - 1
        x, y, z = self.first_mm
        sx, sy, sz = self.spacing_mm
        affine = np.diag([sx, sy, sz, 1.0])
        affine[:3, 3] = (-(x + last[0] * sx), -(y + last[1] * sy), z - (last[2] + self.cut) * sz)
        return affine

    @cached_property
    def kept(self) -> tuple[tuple[int, int], ...]:
        """(first, end) slice of every station, overlaps trimmed."""
        boxes = self.boxes
        return tuple(
            (int(boxes.box_start[k, 2]) + trim.head, int(boxes.box_end[k, 2]) - trim.foot)
            for k, trim in enumerate(self.trims)
        )

    @cached_property
    def fades(self) -> tuple[Float32, ...]:
        """(kept,) float32 fading weights of every station; those of two stations add up to 1."""
        return tuple(station_fade(end - first, trim) for (first, end), trim in zip(self.kept, self.trims, strict=True))

    def stations_at(self, position: int) -> list[tuple[int, int]]:
        """(station, its kept slice) of all that give something to a slice, head first."""
        return [(k, position - first) for k, (first, end) in enumerate(self.kept) if first <= position < end]

    def plane(self, station: int) -> tuple[slice, slice]:
        """(rows, cols) of a station on the grid."""
        (r0, c0, _), (r1, c1, _) = self.boxes.box_start[station], self.boxes.box_end[station]
        return slice(int(r0), int(r1)), slice(int(c0), int(c1))

    def file_slice(self, position: int) -> int:
        """Slice of the file, from the feet; of a cut one it is outside ``shape``."""
        return self.boxes.extent[2] - 1 - self.cut - position

    def positions(self) -> range:
        """Slices of the file in its order, feet first."""
        return range(self.boxes.extent[2] - 1 - self.cut, self.cut - 1, -1)


def make_grid(stations: Sequence[Station], rule: str = DEFAULT_SPACING) -> FusedGrid:
    """Lay stations out on the grid of a spacing rule.

    Args:
        stations: head first.
        rule: from :func:`check_spacing_rule`.

    Raises:
        ScanError: stations that recipe ``mimir-1`` cannot fuse: no overlap, too short, implausible.
    """
    return grid_of_spacing(stations, spacing_of_rule(rule, stations))


def grid_of_spacing(stations: Sequence[Station], spacing_mm: tuple[float, float, float]) -> FusedGrid:
    """Lay stations out on a grid.

    Args:
        stations: head first.
        spacing_mm: (row, col, slice).

    Raises:
        ScanError: as :func:`make_grid`.
    """
    trim_overlaps(place_stations(stations))  # whatever the grid, refuse what `project` refuses
    boxes = place_stations(stations, spacing_mm)
    recipe_slices = GRID_SPACING_MM[2] / spacing_mm[2]
    most = max(1, round(MAX_OVERLAP_SLICES * recipe_slices))
    trims = trim_overlaps(boxes, least=0, most=most)
    positions = np.stack([np.asarray(s.position_mm, np.float64) for s in stations])
    first = np.array([positions[:, 0].min(), positions[:, 1].min(), positions[0, 2]])
    return FusedGrid(boxes, tuple(trims), round(TRIMMED_END_SLICES * recipe_slices), first)
