"""The plan of one scan, series by series, before it is written to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ukb_infer.protocol import UK_BIOBANK, Protocol
from ukb_infer.records import Station

#: Order of the contrasts within a station's four series, and the suffix of their description.
CONTRASTS = ("in", "opp", "F", "W")

Encoding = Literal[
    "explicit", "implicit", "no_preamble", "bare", "mislabelled", "rle", "undecodable", "multiframe", "cut_short"
]
ManifestStyle = Literal["normal", "misspelled", "missing", "crlf", "no_newline", "wrong"]


@dataclass
class SlicePlan:
    """One slice: position of its first voxel (x, y, z) mm, and pixels (rows, cols) uint16."""

    position_mm: tuple[float, float, float]
    pixels: NDArray[np.uint16]


@dataclass
class SeriesPlan:
    """One series of one station.

    Attributes:
        number: SeriesNumber, from 1.
        station: from 1; ``contrast`` of :data:`CONTRASTS`.
        description: SeriesDescription.
        time: SeriesTime, HHMMSS.
        pixel_spacing_mm: row and column spacing as text; nine digits reproduce any float32.
        slice_spacing_mm: nominal.
        slices: head first.
        encoding: of every file; ``no_preamble`` has file meta information only, ``bare`` neither.
        orientation: ImageOrientationPatient.
        study: 1, or 2 for slices of another examination.
        extra: further elements by keyword.
    """

    number: int
    station: int
    contrast: str
    description: str
    time: str
    pixel_spacing_mm: tuple[str, str]
    slice_spacing_mm: float
    slices: list[SlicePlan]
    encoding: Encoding = "explicit"
    orientation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    study: int = 1
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class ScanPlan:
    """One scan: its name, its series, and how its container is written."""

    scan: str
    series: list[SeriesPlan]
    manifest: ManifestStyle = "normal"
    container: Literal["normal", "truncated", "encrypted"] = "normal"

    def of_station(self, station: int, contrasts: str | Sequence[str] = CONTRASTS) -> list[SeriesPlan]:
        """Series of one station, with some contrasts.

        Args:
            station: its number, from 1.
            contrasts: names of :data:`CONTRASTS`.
        """
        return [s for s in self.series if s.station == station and s.contrast in contrasts]

    @property
    def stations(self) -> int:
        """Highest station number."""
        return max(s.station for s in self.series)


def _slices(volume: NDArray[np.uint16], station: Station) -> list[SlicePlan]:
    x, y, z = (float(v) for v in station.position_mm)
    step = float(station.spacing_mm[2])
    return [SlicePlan((x, y, z - k * step), volume[:, :, k]) for k in range(volume.shape[2])]


def make_plan(stations: Sequence[Station], scan: str, protocol: Protocol = UK_BIOBANK) -> ScanPlan:
    """Plan of a scan without defects: four series per station, numbered from 1, in the order in, opp, F, W.

    Args:
        stations: head first, uint16.
        scan: its name.
        protocol: of the site, for the headers.
    """
    series = []
    for k, station in enumerate(stations):
        water, fat = station.water.astype(np.uint16), station.fat.astype(np.uint16)
        total = np.minimum(water.astype(np.uint32) + fat, 65535).astype(np.uint16)
        difference = np.abs(water.astype(np.int32) - fat).astype(np.uint16)
        prefix = protocol.stations[k].description if len(stations) == len(protocol.stations) else "Dixon_noBH"
        spacing = (f"{station.spacing_mm[0]:.9g}", f"{station.spacing_mm[1]:.9g}")
        for j, volume in enumerate((total, difference, fat, water)):
            contrast, time, step = CONTRASTS[j], f"10{2 * k:02d}30", float(station.spacing_mm[2])
            name, slices = f"{prefix}_{contrast}", _slices(volume, station)
            planned = SeriesPlan(4 * k + j + 1, k + 1, contrast, name, time, spacing, step, slices)
            planned.extra.update(_headers(protocol, contrast))
            series.append(planned)
    return ScanPlan(scan, series)


def _headers(protocol: Protocol, contrast: str) -> dict[str, Any]:
    """Elements of the sequence and the scanner; fat and water are derived at the first echo."""
    opposed, in_phase = protocol.echo_times_ms
    return {
        "RepetitionTime": f"{protocol.repetition_ms:g}", "EchoTime": f"{in_phase if contrast == 'in' else opposed:g}",
        "FlipAngle": f"{protocol.flip_degrees:g}", "MagneticFieldStrength": f"{protocol.field_tesla:g}",
        "Manufacturer": protocol.scanner[0], "ManufacturerModelName": protocol.scanner[1],
    }  # fmt: skip
