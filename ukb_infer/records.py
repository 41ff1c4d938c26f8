"""Frozen records shared by all rooms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ukb_infer.reasons import Reason

_SCAN = re.compile(r"^(?P<eid>\d+)_(?P<field>\d+)_(?P<instance>\d+)_(?P<array>\d+)$")
_SAFE_NAME = re.compile(r"^[A-Za-z0-9._-]+$")


@dataclass(frozen=True, order=True)
class ScanKey:
    """One participant at one instance and array.

    ``scan`` is the input's name without extension and is unique in a run. ``eid`` (a string), ``instance`` and
    ``array`` are parsed from ``{eid}_{field}_{instance}_{array}``; for other names they are empty / None.
    """

    eid: str
    instance: int | None
    array: int | None
    scan: str

    @classmethod
    def from_name(cls, name: str) -> ScanKey:
        """Parse a scan's name, e.g. ``0000001_20201_2_0``."""
        found = _SCAN.match(name)
        if found is None:
            return cls("", None, None, name)
        return cls(found["eid"], int(found["instance"]), int(found["array"]), name)

    @property
    def is_safe(self) -> bool:
        """Whether the name has only A-Z a-z 0-9 . _ - (and is not made of dots)."""
        return bool(_SAFE_NAME.match(self.scan)) and self.scan.strip(".") != ""

    @property
    def sort_key(self) -> tuple[str, int, int, str]:
        """Order of rows in every table: eid, instance, array, scan (None first)."""
        return (
            self.eid,
            -1 if self.instance is None else self.instance,
            -1 if self.array is None else self.array,
            self.scan,
        )


#: What is done about fat-water swaps.
SwapMode = Literal["flag", "correct", "ignore"]
#: Numbers that describe a scan's quality, and a few words, by name.
Measures = Mapping[str, float | str]


@dataclass(frozen=True)
class Acquired:
    """What the headers of a station say of how it was scanned; no value changes what is read or projected.

    Attributes:
        time_s: SeriesTime, seconds of the day; None where unknown, as are the others.
        echo_time_ms: EchoTime of the water series.
        field_tesla: MagneticFieldStrength.
        phase_along: whether the phase is encoded along the rows or along the columns (front to back).
        scanner: Manufacturer and ManufacturerModelName; "" where unknown.
        software: SoftwareVersions.
    """

    time_s: float | None = None
    echo_time_ms: float | None = None
    field_tesla: float | None = None
    phase_along: Literal["row", "column"] | None = None
    scanner: str = ""
    software: str = ""


@dataclass(frozen=True)
class Station:
    """One table position: water and fat on one grid.

    Attributes:
        number: 1 for the head-most.
        water: (rows, cols, slices), uint16 or float32, slices by descending z (head first).
        fat: same shape as water.
        position_mm: (3,) float32, element-wise maximum over the slices of ImagePositionPatient (x, y, z).
        spacing_mm: (3,) float64, (row, col, slice).
        in_phase: same shape as water; None where it was not asked for. ``opposed_phase``: likewise.
        acquired: what its headers say of the scanner.
    """

    number: int
    water: NDArray[np.uint16] | NDArray[np.float32]
    fat: NDArray[np.uint16] | NDArray[np.float32]
    position_mm: NDArray[np.float32]
    spacing_mm: NDArray[np.float64]
    in_phase: NDArray[np.uint16] | NDArray[np.float32] | None = None
    opposed_phase: NDArray[np.uint16] | NDArray[np.float32] | None = None
    acquired: Acquired = Acquired()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, cols, slices)."""
        rows, cols, slices = self.water.shape
        return rows, cols, slices

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) RAS affine of the array once it is turned to (x to the right, y to the front, z up)."""
        rows, cols, slices = self.shape
        row, col, step = (float(v) for v in self.spacing_mm)
        x, y, z = (float(v) for v in self.position_mm)
        affine = np.diag([col, row, step, 1.0])
        affine[:3, 3] = (-(x + (cols - 1) * col), -(y + (rows - 1) * row), z - (slices - 1) * step)
        return affine


@dataclass(frozen=True)
class Stations:
    """A scan as read and checked.

    Attributes:
        stations: head first.
        flags: raised on the way.
        messages: one sentence a flag.
        swaps: what was found and done about fat-water swaps, a mapping each; None where none were looked for.
    """

    stations: tuple[Station, ...]
    flags: tuple[Reason, ...] = ()
    messages: tuple[str, ...] = ()
    swaps: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True)
class Volume:
    """Fused neck-to-knee pair on the recipe's grid.

    Attributes:
        water: (x, y, z) float64; x = left-right, y = front-back, z feet first; 4 slices trimmed at both z ends.
        fat: same shape.
        affine: (4, 4) float64, voxel index to RAS mm.
    """

    water: NDArray[np.float64]
    fat: NDArray[np.float64]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """The image the networks see.

    Attributes:
        image: of the recipe's type and shape, (channels, rows, cols); for ``mimir-1`` water, fat and fat fraction,
            coronal left and sagittal right half.
        flags: reasons of everything that was repaired or is unknown.
        messages: one sentence per flag.
        stations: number of fused stations (0 if unknown, e.g. a bare .npy).
        key: the scan.
        measures: what describes the scan's quality, by name.
        uncorrected: the image before swaps were corrected; None where none were, or if it is not to be kept.
    """

    image: NDArray[Any]
    flags: tuple[Reason, ...] = ()
    messages: tuple[str, ...] = ()
    stations: int = 0
    key: ScanKey = field(default_factory=lambda: ScanKey("", None, None, ""))
    measures: Measures = field(default_factory=dict)
    uncorrected: NDArray[Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanResult:
    """The result of one scan of a run.

    Attributes:
        status: whether it was used; excluded scans are in an exclusion list.
        reasons: of the failure, or the flags.
        message: text.
        stations: fused stations, 0 if unknown.
        measures: its quality, by name.
        fingerprint: of the file that was read: size, modification time, number of files; "" if nothing was read.
        digest: SHA-256 of what was read, "" if not requested.
    """

    status: Literal["ok", "flagged", "failed", "excluded"]
    reasons: tuple[Reason, ...] = ()
    message: str = ""
    stations: int = 0
    measures: Measures = field(default_factory=dict)
    fingerprint: str = ""
    digest: str = ""

    @classmethod
    def failure(cls, reason: Reason, message: str = "", *, stations: int = 0) -> ScanResult:
        """Result of a scan that cannot be used.

        Args:
            reason: of the failure.
            message: text; "" for the reason's meaning and advice.
            stations: fused stations, 0 where unknown.
        """
        words = message or f"{reason.meaning}; {reason.advice}"
        return cls(status="failed", reasons=(reason,), message=words, stations=stations)

    @property
    def codes(self) -> str:
        """The reasons as text for tables and journals."""
        return ";".join(reason.value for reason in self.reasons)


@dataclass(frozen=True)
class ReadingOptions:
    """How scans are read and checked; part of a run's configuration.

    Attributes:
        expected_stations: stations of the protocol; 0 accepts any number.
        allow_missing_stations: use and flag a scan that has fewer.
        strict: every flag is a failure.
    """

    expected_stations: int = 6
    allow_missing_stations: bool = False
    strict: bool = False
