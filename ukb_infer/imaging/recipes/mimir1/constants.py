"""Constants of recipes ``mimir-1`` and ``mimir-1-hires``; see ``docs/recipe.md``. Each is named once, here."""

from __future__ import annotations

from ukb_infer.protocol import IN_PLANE_SPACING_MM

#: Side of the projection, pixels: of ``mimir-1`` and of ``mimir-1-hires``.
SIZE, HIRES_SIZE = 256, 512
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
