"""A series as returned by any reader, and the limits of a plausible neck-to-knee series."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.reasons import Reason
from ukb_infer.records import Acquired

#: Voxels of one contrast of one station, (slices, rows, cols).
Voxels = NDArray[np.uint16] | NDArray[np.float32]

#: Largest matrix accepted; UK Biobank's is 174 x 224.
MAX_MATRIX = 4096
#: Accepted range of voxel spacing, mm; UK Biobank's is 2.232 in plane and 3.0 to 4.5 between slices.
SPACING_RANGE_MM = (0.1, 20.0)
#: Largest tilt of a slice, or of an affine, that still counts as axial.
MAX_TILT_DEGREES = 1.0
#: Largest accepted |coordinate| of a slice, mm: twice the length of any bore and table.
MAX_POSITION_MM = 5000.0
#: Largest size of all water and fat voxels of a scan in memory; a full UK Biobank scan has 52 MB.
MAX_SCAN_BYTES = 256 * 1024**2
_CHECK = Reason.IMPLAUSIBLE_GEOMETRY.advice
#: Most slices accepted in one series; UK Biobank's longest has 72.
MAX_SLICES = 1024


@dataclass(frozen=True)
class Marks:
    """What a name says apart from the contrast.

    Attributes:
        kind: description of an image that is neither water nor fat, e.g. "mask"; None for a possible station.
        aside: kinds of images next to stations that its name suggests, e.g. "composed series".
        processed: words of a copy that was computed, e.g. ("n4",).
        original: words of the scanner's own images, e.g. ("uncorr",).
    """

    kind: str | None = None
    aside: tuple[str, ...] = ()
    processed: tuple[str, ...] = ()
    original: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Preference among copies of one image: unmarked before marked as original before processed."""
        return 2 if self.processed else 1 if self.original else 0

    @property
    def text(self) -> str:
        """The words that mark a copy, for messages."""
        return " ".join((*self.processed, *self.original))


#: A name that says only the contrast.
UNMARKED = Marks()


class Contrast(StrEnum):
    """Contrast of a Dixon series; in-phase and opposed-phase are read only if requested."""

    WATER = "water"
    FAT = "fat"
    IN_PHASE = "in_phase"
    OPPOSED_PHASE = "opposed_phase"

    @property
    def label(self) -> str:
        """How messages name it."""
        return self.value.replace("_", "-")


#: Words of each contrast: suffixes of descriptions, and values of ImageType.
_WORDS = {
    Contrast.WATER: ("w wat water", "W WATER"),
    Contrast.FAT: ("f fat lipid", "F FAT"),
    Contrast.IN_PHASE: ("in", "IP IN_PHASE"),
    Contrast.OPPOSED_PHASE: ("opp", "OP OPP_PHASE OUT_PHASE OPPOSED_PHASE"),
}
_SUFFIXES = {word: contrast for contrast, (words, _) in _WORDS.items() for word in words.split()}
#: Water or fat by word; single letters count only as words of their own.
CONTRAST_WORDS = {word: found for word, found in _SUFFIXES.items() if found in (Contrast.WATER, Contrast.FAT)}
#: Contrast by the value of ImageType that names it.
IMAGE_TYPE_CONTRASTS = {value: contrast for contrast, (_, values) in _WORDS.items() for value in values.split()}
_SUFFIX = re.compile(rf"_({'|'.join(_SUFFIXES)})\s*$", re.IGNORECASE)


def contrast_of(description: str, image_type: tuple[str, ...]) -> Contrast | None:
    """Contrast of a series: by the suffix of its description, else ImageType; None if neither gives one.

    Args:
        description: SeriesDescription.
        image_type: values of ImageType.
    """
    found = _SUFFIX.search(description)
    if found is not None:
        return _SUFFIXES[found[1].lower()]
    values = {value.strip().upper() for value in image_type}
    contrasts = {IMAGE_TYPE_CONTRASTS[value] for value in values if value in IMAGE_TYPE_CONTRASTS}
    return contrasts.pop() if len(contrasts) == 1 else None


@dataclass(frozen=True)
class Finding:
    """A remark on a usable scan.

    Attributes:
        reason: the flag.
        sentence: what was found and done, without naming the series.
    """

    reason: Reason
    sentence: str


@dataclass(frozen=True)
class Scaling:
    """Scaling of stored values: slope * stored + intercept.

    Attributes:
        slope: not 0.
        intercept: in units of the result.
        words: its source, for messages.
    """

    slope: float = 1.0
    intercept: float = 0.0
    words: str = "rescale"

    @property
    def numbers(self) -> tuple[float, float]:
        """(slope, intercept)."""
        return self.slope, self.intercept


@dataclass(frozen=True)
class SeriesHeader:
    """Header elements shared by the slices of a series.

    Attributes:
        number: SeriesNumber, None if unknown.
        uid: SeriesInstanceUID, empty if unknown.
        description: SeriesDescription, or the file's name for NIfTI.
        contrast: of the series; None for a file that is not part of a Dixon.
        rows: matrix, first array axis (front to back).
        cols: matrix, second array axis (the patient's right to left).
        orientation: ImageOrientationPatient, (6,) direction cosines.
        pixel_spacing_mm: (between rows, between columns).
        time_s: SeriesTime in seconds of the day, -inf if unknown.
        scaling: of the stored values.
        marks: words of copies and composed series in its name.
        processing: values of ImageType besides the contrast, sorted; empty for NIfTI.
        study_uid: StudyInstanceUID, only compared between series.
        patient_id: PatientID, only compared between series; never shown.
        frame_uid: FrameOfReferenceUID, only compared between series.
        stated_spacing_mm: SpacingBetweenSlices; None if absent.
        thickness_mm: SliceThickness; 0 if absent.
        findings: remarks on its header.
        acquired: how it was scanned; ignored when headers are compared.
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
    scaling: Scaling = Scaling()
    marks: Marks = UNMARKED
    processing: tuple[str, ...] = ()
    study_uid: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    frame_uid: str = field(default="", repr=False)
    stated_spacing_mm: float | None = None
    thickness_mm: float = 0.0
    findings: tuple[Finding, ...] = ()
    acquired: Acquired = field(default=Acquired(), compare=False)

    @property
    def label(self) -> str:
        """Name of the series in messages."""
        return f"{self.contrast or 'unknown'} series" + ("" if self.number is None else f" {self.number}")


@dataclass(frozen=True)
class Series:
    """One contrast of one station.

    Attributes:
        header: shared by the slices.
        voxels: (slices, rows, cols), in the order of ``positions_mm``.
        positions_mm: (slices, 3) float64, ImagePositionPatient (x, y, z) of each slice.
        instances: (slices,) int64, InstanceNumber; 0 if unknown.
        times_s: (slices,) float64, SeriesTime of each slice.
        findings: remarks on its slices.
    """

    header: SeriesHeader
    voxels: Voxels
    positions_mm: NDArray[np.float64]
    instances: NDArray[np.int64]
    times_s: NDArray[np.float64]
    findings: tuple[Finding, ...] = ()

    def take(self, chosen: NDArray[np.intp] | slice) -> Series:
        """Some of the slices, by index."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in PER_SLICE})

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


#: What a series has of every slice.
PER_SLICE = ("voxels", "positions_mm", "instances", "times_s")


def scale(item: Series) -> Series:
    """Apply the scaling of a series' header: slope * stored + intercept, float32."""
    slope, intercept = item.header.scaling.numbers
    if (slope, intercept) == (1.0, 0.0):
        return item
    voxels = item.voxels.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return replace(item, voxels=voxels, header=replace(item.header, scaling=Scaling(words=item.header.scaling.words)))


def scale_slices(series: Series, headers: Sequence[SeriesHeader]) -> tuple[Series, tuple[Finding, ...]]:
    """Apply scalings that differ between the slices of a series; a shared one stays in the header.

    Args:
        series: stored values.
        headers: of every slice.

    Returns:
        The series, and findings.
    """
    stated = [header.scaling.numbers for header in headers]
    scalings = set(stated)
    if len(scalings) < 2:
        return series, ()
    slopes, intercepts = np.array(stated, np.float32).T[:, :, None, None]
    low, high = min(scalings)[0], max(scalings)[0]
    words = headers[0].scaling.words
    sentence = f"{words} slopes differ between slices ({low:g} to {high:g}); each was applied to its slice"
    header = replace(series.header, scaling=Scaling(words=series.header.scaling.words))
    scaled = replace(series, header=header, voxels=series.voxels.astype(np.float32) * slopes + intercepts)
    return scaled, (Finding(Reason.RESCALE_APPLIED, sentence),)


def check_plausible(header: SeriesHeader) -> None:
    """Refuse an implausible matrix or in-plane spacing, before allocating memory.

    Raises:
        ScanError: ``implausible_geometry``.
    """
    if not (1 <= header.rows <= MAX_MATRIX and 1 <= header.cols <= MAX_MATRIX):
        raise ScanError(
            Reason.IMPLAUSIBLE_GEOMETRY,
            f"{header.label} has a matrix of {header.rows} x {header.cols}, expected 1 to {MAX_MATRIX}; {_CHECK}",
        )
    check_spacing(header.pixel_spacing_mm, header.label)


def check_spacing(spacing_mm: tuple[float, ...], label: str) -> None:
    """Refuse a voxel spacing outside ``SPACING_RANGE_MM``.

    Args:
        spacing_mm: along each axis.
        label: names the series or station in the message.

    Raises:
        ScanError: ``implausible_geometry``.
    """
    low, high = SPACING_RANGE_MM
    if not all(low <= value <= high for value in spacing_mm):
        shown = " x ".join(f"{value:g}" for value in spacing_mm)
        raise ScanError(
            Reason.IMPLAUSIBLE_GEOMETRY,
            f"{label} has a spacing of {shown} mm, expected {low:g} to {high:g} mm; {_CHECK}",
        )


def check_positions(positions_mm: NDArray[np.float64], label: str) -> None:
    """Refuse slice positions that are not finite or farther out than ``MAX_POSITION_MM``.

    Args:
        positions_mm: (slices, 3).
        label: names the series in the message.

    Raises:
        ScanError: ``implausible_geometry``.
    """
    farthest = float(np.abs(positions_mm).max())
    if not farthest <= MAX_POSITION_MM:
        raise ScanError(
            Reason.IMPLAUSIBLE_GEOMETRY,
            f"{label} has a slice {farthest:g} mm from the isocentre, expected at most {MAX_POSITION_MM:g}; {_CHECK}",
        )


class Budget:
    """Counts the voxels of a scan, so that no input can exhaust the memory.

    Args:
        most_bytes: of all its voxels, two bytes each.
    """

    def __init__(self, most_bytes: int = MAX_SCAN_BYTES) -> None:
        self._voxels, self._most_bytes = 0, most_bytes

    def take(self, shape: tuple[int, int, int], label: str) -> None:
        """Count one series before memory is allocated for it.

        Args:
            shape: (slices, rows, cols).
            label: names the series in the message.

        Raises:
            ScanError: ``too_large``.
        """
        self._voxels += math.prod(shape)
        if shape[0] > MAX_SLICES or 2 * self._voxels > self._most_bytes:
            raise ScanError(
                Reason.TOO_LARGE,
                f"{label} has {' x '.join(map(str, shape))} voxels and brings the scan to "
                f"{2 * self._voxels // 1024**2} MiB, expected at most {MAX_SLICES} slices and "
                f"{self._most_bytes // 1024**2} MiB; check its origin",
            )


class LeftOut:
    """Counts ignored images next to the stations by kind, e.g. {"mask": 12}."""

    def __init__(self) -> None:
        self._found: dict[str, set[str]] = {}

    def add(self, kind: str, identity: str) -> None:
        """Count a file or a series once.

        Args:
            kind: its description for the message.
            identity: distinguishes it from others of its kind; never shown.
        """
        self._found.setdefault(kind, set()).add(identity)

    def update(self, other: LeftOut) -> None:
        """Add the counts of another."""
        for kind, found in other._found.items():
            self._found.setdefault(kind, set()).update(found)

    def begins(self, words: str) -> bool:
        """Whether anything was ignored whose kind begins with some words."""
        return any(kind.startswith(words) for kind in self._found)

    def has(self, kind: str) -> bool:
        """Whether anything of a kind was ignored."""
        return kind in self._found

    def __bool__(self) -> bool:
        """Whether anything was ignored."""
        return bool(self._found)

    def __str__(self) -> str:
        """List what was ignored, e.g. "6 x mask, 12 x fraction map"."""
        return ", ".join(f"{len(found)} x {kind}" for kind, found in sorted(self._found.items()))
