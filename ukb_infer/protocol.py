"""How UK Biobank scans neck to knee: stations, matrices, spacings; and a second protocol, of a synthetic site.

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
#: Overlap of consecutive stations, mm (about 37 mm on average).
OVERLAPS_MM = (36.0, 37.5, 37.5, 37.0, 37.0)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a site scans neck to knee.

    Attributes:
        name: in options.
        stations: head first.
        overlaps_mm: of consecutive stations.
        in_plane_spacing_mm: of rows and columns.
        echo_times_ms: (opposed-phase, in-phase).
        repetition_ms: time between excitations; ``flip_degrees``: their angle.
        field_tesla: of the magnet.
        scanner: (manufacturer, model) in the headers.
    """

    name: str
    stations: tuple[StationProtocol, ...]
    overlaps_mm: tuple[float, ...]
    in_plane_spacing_mm: float
    echo_times_ms: tuple[float, float]
    repetition_ms: float
    flip_degrees: float
    field_tesla: float
    scanner: tuple[str, str]

    @property
    def tallest_rows(self) -> int:
        """Rows of the tallest station; smaller ones are centred on it."""
        return max(station.rows for station in self.stations)


UK_BIOBANK = Protocol(
    name="ukb", stations=PROTOCOL, overlaps_mm=OVERLAPS_MM, in_plane_spacing_mm=IN_PLANE_SPACING_MM,
    echo_times_ms=ECHO_TIMES_MS, repetition_ms=6.69, flip_degrees=10.0, field_tesla=FIELD_TESLA,
    scanner=("SYNTHETIC", "ukb_infer phantom"),
)  # fmt: skip
#: Another vendor's: four long stations at 3 T with finer rows, thicker slices, shorter echoes and a larger flip angle.
SECOND = Protocol(
    name="second", stations=(StationProtocol(200, 256, 76, 4.0, "Dixon_4st"),) * 4, overlaps_mm=(36.0, 36.0, 36.0),
    in_plane_spacing_mm=1.953125, echo_times_ms=(1.15, 2.3), repetition_ms=4.1, flip_degrees=14.0, field_tesla=3.0,
    scanner=("SYNTHETIC TWO", "ukb_infer second site"),
)  # fmt: skip
#: All protocols by name.
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (UK_BIOBANK, SECOND)}
