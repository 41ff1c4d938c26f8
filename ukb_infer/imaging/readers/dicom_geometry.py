"""Redundant geometry in a DICOM header.

Positions, orientation and PixelSpacing are used; contradicting elements are flagged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ukb_infer.imaging.series import Finding, SeriesHeader
from ukb_infer.protocol import SAME_POSITION_TOLERANCE_MM
from ukb_infer.reasons import Reason

#: Relative tolerance for equal lengths and ratios: decimal strings are rounded.
_ALIKE = 1e-3
#: Directions of the patient's axes x, y, z (PS3.3 C.7.6.1.1.1): left, back, head; and the opposite ones.
_TOWARDS, _FROM = "LPH", "RAF"
_SUPINE = ("HFS", "FFS")


def optional_numbers(text: Mapping[str, str], keyword: str) -> tuple[float, ...]:
    """Read the numbers of an optional element; empty if it is absent or invalid.

    Args:
        text: elements by keyword, empty where absent.
        keyword: of the element.
    """
    try:
        values = tuple(float(part) for part in text[keyword].split("\\")) if text[keyword] else ()
    except ValueError:
        return ()
    return values if all(math.isfinite(value) for value in values) else ()


def geometry_findings(
    text: Mapping[str, str], spacing_mm: tuple[float, float], orientation: Sequence[float]
) -> tuple[Finding, ...]:
    """Find elements that contradict PixelSpacing and ImageOrientationPatient.

    Args:
        text: elements by keyword, empty where absent.
        spacing_mm: PixelSpacing (between rows, between columns).
        orientation: (6,) ImageOrientationPatient.
    """
    found = []
    ratio = optional_numbers(text, "PixelAspectRatio")
    if len(ratio) == 2 and not _alike(ratio[0] * spacing_mm[1], ratio[1] * spacing_mm[0]):
        found.append(_disagrees("PixelAspectRatio", "PixelSpacing"))
    other = optional_numbers(text, "ImagerPixelSpacing")
    if len(other) == 2 and not all(_alike(*pair) for pair in zip(other, spacing_mm, strict=True)):
        found.append(_disagrees("ImagerPixelSpacing", "PixelSpacing"))
    if any(optional_numbers(text, "GantryDetectorTilt")):
        found.append(_disagrees("GantryDetectorTilt", "ImageOrientationPatient"))
    letters = [part.strip().upper()[:1] for part in text["PatientOrientation"].split("\\")]
    if len(letters) == 2 and all(letters) and letters != [_letter(orientation[:3]), _letter(orientation[3:])]:
        found.append(_disagrees("PatientOrientation", "ImageOrientationPatient"))
    if text["AnatomicalOrientationType"].upper() == "QUADRUPED":
        found.append(Finding(Reason.GEOMETRY_DISAGREES, "AnatomicalOrientationType says that no person was scanned"))
    position = text["PatientPosition"].upper()
    if position and position not in _SUPINE:
        found.append(
            Finding(Reason.PATIENT_NOT_SUPINE, f"PatientPosition is not {' or '.join(_SUPINE)}: not on the back")
        )
    return tuple(found)


def location_finding(positions_mm: NDArray[np.float64], locations_mm: NDArray[np.float64]) -> tuple[Finding, ...]:
    """Compare SliceLocation with ImagePositionPatient: its origin and direction are arbitrary, its steps are not.

    Args:
        positions_mm: (slices, 3).
        locations_mm: (slices,), nan where absent.
    """
    if not (np.isfinite(locations_mm).all() and np.isfinite(positions_mm).all()):
        return ()
    offset = positions_mm - positions_mm[0]
    steps = np.linalg.norm(offset, axis=1) * np.where(offset[:, 2] < 0, -1.0, 1.0)
    if min(float(np.ptp(locations_mm - sign * steps)) for sign in (1.0, -1.0)) <= 2 * SAME_POSITION_TOLERANCE_MM:
        return ()
    return (_disagrees("SliceLocation", "ImagePositionPatient"),)


def frame_finding(headers: Sequence[SeriesHeader]) -> tuple[Finding, ...]:
    """Find positions in more than one frame of reference, which cannot be compared."""
    frames = {header.frame_uid for header in headers} - {""}
    if len(frames) < 2:
        return ()
    sentence = f"positions refer to {len(frames)} frames of reference (FrameOfReferenceUID); treated as one"
    return (Finding(Reason.GEOMETRY_DISAGREES, sentence),)


def _letter(direction: Sequence[float]) -> str:
    """Letter of the patient's side that a direction points to."""
    axis = max(range(3), key=lambda index: abs(direction[index]))
    return (_TOWARDS if direction[axis] > 0 else _FROM)[axis]


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= _ALIKE * max(abs(one), abs(other))


def _disagrees(keyword: str, used: str) -> Finding:
    return Finding(Reason.GEOMETRY_DISAGREES, f"{keyword} contradicts {used}, which was used")
