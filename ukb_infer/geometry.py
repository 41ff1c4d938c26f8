"""Constants of the UK Biobank neck-to-knee protocol and of recipe ``mimir-1`` (floor 0).

Source: UK Biobank field 20201 and the MIMIR publication; see ``docs/recipe.md``. Each constant is named once, here.
"""

from __future__ import annotations

from dataclasses import dataclass

RECIPE = "mimir-1"

#: In-plane spacing of the acquisition and of the fused volume, mm.
IN_PLANE_SPACING_MM = 2.23214293
#: Fused grid spacing (row, col, slice), mm.
GRID_SPACING_MM = (IN_PLANE_SPACING_MM, IN_PLANE_SPACING_MM, 3.0)
#: A station lying closer than this to the grid (in voxels) is not resampled.
GRID_TOLERANCE_VOXELS = 0.01
#: Longest overlap of two stations that is blended; the excess is trimmed.
MAX_OVERLAP_SLICES = 8
#: Slices removed at both z ends of the fused volume.
TRIMMED_END_SLICES = 4
#: Last rows in y (posterior) dropped: the table.
BED_ROWS = 22
#: Fat fraction scale of recipe mimir-1 (per mille) and the upper display limit mapped to 255.
FAT_FRACTION_SCALE = 1000.0
FAT_FRACTION_DISPLAY_MAX = 500.0
#: Side of the projection, pixels.
PROJECTION_SIZE = 256
#: Shape and type of a projection: (water, fat, fat fraction) uint8.
PROJECTION_SHAPE = (3, PROJECTION_SIZE, PROJECTION_SIZE)

EXPECTED_STATIONS = 6
#: Repeated station: positions equal to within this are the same station.
SAME_POSITION_TOLERANCE_MM = 0.1
NEAR_DUPLICATE_MM = 5.0


@dataclass(frozen=True)
class StationProtocol:
    """Nominal matrix of one station: rows x cols x slices, slice spacing in mm."""

    rows: int
    cols: int
    slices: int
    slice_spacing_mm: float
    description: str


#: The six stations, head first (UK Biobank field 20201).
PROTOCOL: tuple[StationProtocol, ...] = (
    StationProtocol(168, 224, 64, 3.0, "Dixon_noBH"),
    StationProtocol(174, 224, 44, 4.5, "Dixon_BH_17s"),
    StationProtocol(174, 224, 44, 4.5, "Dixon_BH_17s"),
    StationProtocol(174, 224, 44, 4.5, "Dixon_BH_17s"),
    StationProtocol(162, 224, 72, 3.5, "Dixon_noBH"),
    StationProtocol(156, 224, 64, 4.0, "Dixon_noBH"),
)
