"""How UK Biobank scans neck to knee: stations, matrices, spacings.

Source: UK Biobank field 20201 and the MIMIR publication; see ``docs/recipe.md``. Every constant is defined only here.
"""

from __future__ import annotations

from dataclasses import dataclass

#: In-plane spacing of the acquisition, mm.
IN_PLANE_SPACING_MM = 2.23214293
#: Echo times of the two-point Dixon, ms, and the scanner's field.
ECHO_TIMES_MS = (2.39, 4.77)
FIELD_TESLA = 1.5
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
