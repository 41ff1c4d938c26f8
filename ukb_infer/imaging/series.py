"""One series as any reader delivers it, and the limits of what can be a neck-to-knee series."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import Reason, ScanError

#: Voxels of one contrast of one station, (slices, rows, cols).
Voxels = NDArray[np.uint16] | NDArray[np.float32]

#: Largest matrix accepted; UK Biobank's is 174 x 224.
MAX_MATRIX = 4096
#: Accepted range of voxel spacing, mm; UK Biobank's is 2.232 in plane and 3.0 to 4.5 between slices.
SPACING_RANGE_MM = (0.1, 20.0)
#: Largest accepted |coordinate| of a slice, mm: twice the length of any bore and table.
MAX_POSITION_MM = 5000.0
#: Largest size of all water and fat voxels of a scan in memory; a full UK Biobank scan has 52 MB.
MAX_SCAN_BYTES = 256 * 1024**2
#: Most slices accepted in one series; UK Biobank's longest has 72.
MAX_SLICES = 1024


class Contrast(StrEnum):
    """Contrast of a Dixon series; only water and fat are read."""

    WATER = "water"
    FAT = "fat"
    IN_PHASE = "in_phase"
    OPPOSED_PHASE = "opposed_phase"


_SUFFIXES = {
    "w": Contrast.WATER,
    "f": Contrast.FAT,
    "in": Contrast.IN_PHASE,
    "opp": Contrast.OPPOSED_PHASE,
    "water": Contrast.WATER,
    "fat": Contrast.FAT,
}
_IMAGE_TYPES = {
    "W": Contrast.WATER,
    "WATER": Contrast.WATER,
    "F": Contrast.FAT,
    "FAT": Contrast.FAT,
    "IP": Contrast.IN_PHASE,
    "IN_PHASE": Contrast.IN_PHASE,
    "OP": Contrast.OPPOSED_PHASE,
    "OPP_PHASE": Contrast.OPPOSED_PHASE,
    "OUT_PHASE": Contrast.OPPOSED_PHASE,
    "OPPOSED_PHASE": Contrast.OPPOSED_PHASE,
}
_SUFFIX = re.compile(r"_(W|F|in|opp|water|fat)\s*$", re.IGNORECASE)


def contrast_of(description: str, image_type: tuple[str, ...]) -> Contrast | None:
    """Tell a series' contrast: the suffix of its description decides, else ImageType; None for neither."""
    found = _SUFFIX.search(description)
    if found is not None:
        return _SUFFIXES[found[1].lower()]
    values = {value.strip().upper() for value in image_type}
    contrasts = {_IMAGE_TYPES[value] for value in values if value in _IMAGE_TYPES}
    return contrasts.pop() if len(contrasts) == 1 else None


@dataclass(frozen=True)
class SeriesHeader:
    """What the slices of a series share.

    Attributes:
        number: SeriesNumber, None where unknown.
        uid: SeriesInstanceUID, empty where unknown.
        description: SeriesDescription, or the file's name for NIfTI.
        contrast: of the series; None for a file that is not part of a Dixon.
        rows: matrix, first array axis (front to back).
        cols: matrix, second array axis (the patient's right to left).
        orientation: ImageOrientationPatient, (6,) direction cosines.
        pixel_spacing_mm: (between rows, between columns).
        time_s: SeriesTime in seconds of the day, -inf where unknown.
        slope: RescaleSlope, 1 where absent.
        intercept: RescaleIntercept, 0 where absent.
        study_uid: StudyInstanceUID, only compared between series.
        patient_id: PatientID, only compared between series; never shown.
    """

    number: int | None
    uid: str
    description: str
    contrast: Contrast | None
    rows: int
    cols: int
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]
    time_s: float = -math.inf
    slope: float = 1.0
    intercept: float = 0.0
    study_uid: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)

    @property
    def label(self) -> str:
        """How messages name the series."""
        return f"{self.contrast or 'unknown'} series" + ("" if self.number is None else f" {self.number}")


@dataclass(frozen=True)
class Series:
    """One contrast of one station.

    Attributes:
        header: what the slices share.
        voxels: (slices, rows, cols), in the order of ``positions_mm``.
        positions_mm: (slices, 3) float64, ImagePositionPatient (x, y, z) of each slice.
        instances: (slices,) int64, InstanceNumber; 0 where unknown.
        times_s: (slices,) float64, SeriesTime of each slice.
    """

    header: SeriesHeader
    voxels: Voxels
    positions_mm: NDArray[np.float64]
    instances: NDArray[np.int64]
    times_s: NDArray[np.float64]

    @property
    def top_mm(self) -> float:
        """Z of the head-most slice, mm."""
        return float(self.positions_mm[:, 2].max())

    @property
    def bottom_mm(self) -> float:
        """Z of the feet-most slice, mm."""
        return float(self.positions_mm[:, 2].min())

    @property
    def is_water(self) -> bool:
        """Whether this is the water contrast."""
        return self.header.contrast is Contrast.WATER


def check_plausible(header: SeriesHeader) -> None:
    """Refuse a matrix or in-plane spacing that no neck-to-knee series has, before memory is taken for it.

    Raises:
        ScanError: ``implausible_geometry``.
    """
    if not (1 <= header.rows <= MAX_MATRIX and 1 <= header.cols <= MAX_MATRIX):
        raise ScanError(
            Reason.IMPLAUSIBLE_GEOMETRY,
            f"{header.label} has a matrix of {header.rows} x {header.cols}, expected 1 to {MAX_MATRIX}; "
            "download the scan again",
        )
    check_spacing(header.pixel_spacing_mm, header.label)


def check_spacing(spacing_mm: tuple[float, ...], label: str) -> None:
    """Refuse a voxel spacing outside ``SPACING_RANGE_MM``.

    Raises:
        ScanError: ``implausible_geometry``.
    """
    low, high = SPACING_RANGE_MM
    if not all(low <= value <= high for value in spacing_mm):
        shown = " x ".join(f"{value:g}" for value in spacing_mm)
        raise ScanError(
            Reason.IMPLAUSIBLE_GEOMETRY,
            f"{label} has a spacing of {shown} mm, expected {low:g} to {high:g} mm; download the scan again",
        )


def check_positions(positions_mm: NDArray[np.float64], label: str) -> None:
    """Refuse slice positions that are not finite or farther out than ``MAX_POSITION_MM``.

    Args:
        positions_mm: (slices, 3).
        label: names the series in the message.

    Raises:
        ScanError: ``implausible_geometry``.
    """
    if not (np.abs(positions_mm) <= MAX_POSITION_MM).all():
        raise ScanError(
            Reason.IMPLAUSIBLE_GEOMETRY,
            f"{label} has a slice more than {MAX_POSITION_MM:g} mm from the isocentre; download the scan again",
        )


class Budget:
    """Counts the voxels that a scan takes, so that no input can fill the memory."""

    def __init__(self) -> None:
        self._voxels = 0

    def take(self, shape: tuple[int, int, int], label: str) -> None:
        """Count one series before memory is allocated for it.

        Args:
            shape: (slices, rows, cols).
            label: names the series in the message.

        Raises:
            ScanError: ``too_large``.
        """
        self._voxels += math.prod(shape)
        if shape[0] > MAX_SLICES or 2 * self._voxels > MAX_SCAN_BYTES:
            raise ScanError(
                Reason.TOO_LARGE,
                f"{label} has {shape[0]} slices and brings the scan to {2 * self._voxels // 1024**2} MiB of voxels, "
                f"expected at most {MAX_SLICES} slices and {MAX_SCAN_BYTES // 1024**2} MiB; check where it comes from",
            )
