"""Volumes of heads: NIfTI in any orientation, and the zips of UK Biobank's brain imaging, to RAS+ float32."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.imaging.readers.containers import ZipSource, open_zip
from ukb_infer.imaging.readers.gzipped import Contents, contents_of, open_contents
from ukb_infer.imaging.readers.nifti import load_image, raw_voxels
from ukb_infer.imaging.readers.nifti_header import NiftiFields
from ukb_infer.imaging.series import Budget, Finding, check_spacing
from ukb_infer.imaging.volumes.names import BRAIN_FIELDS
from ukb_infer.reasons import Reason

#: Largest volume, counted at two bytes a voxel: 512 voxels a side.
MAX_VOLUME_BYTES = 256 * 1024**2
#: Axes tilted by more than this against RAS are flagged.
MAX_HEAD_TILT_DEGREES = 20.0
#: Smallest volume spanned by an affine's three directions.
_LEAST_VOLUME = 0.9
#: Beyond, means of voxels overflow float32.
_LARGEST_VALUE = 1e30
#: Farther from whole numbers, values are no labels; scaled integers are off by rounding.
LABEL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Native:
    """How a volume is stored in its file, to write results like it.

    Attributes:
        header: of nibabel, as read.
        shape: (3,) stored voxels.
        affine: (4, 4) stored voxel to RAS mm.
    """

    header: Any = field(repr=False)
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Volume:
    """One contrast of a head.

    Attributes:
        data: (X, Y, Z) float32, axes to the right, to the front and up.
        affine: (4, 4) float64, voxel to RAS mm.
        native: how the file stores it; None for volumes made in memory.
        findings: remarks: reoriented, tilted, contradicting header.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    native: Native | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """(3,) voxel spacing, mm."""
        spacing: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    def label_volumes_ml(self, count: int) -> list[float]:
        """Volumes of the labels 1 to ``count`` of a mask, ml.

        Raises:
            ScanError: ``not_labels``: other numbers, and none of these.
        """
        if self.data.any() and not ((self.data >= 1) & (self.data <= count)).any():
            raise ScanError(
                Reason.NOT_LABELS,
                f"the mask holds numbers up to {self.data.max():g}, expected 1 to {count}; {Reason.NOT_LABELS.advice}",
            )
        voxel_ml = abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0
        return [float((self.data == k).sum()) * voxel_ml for k in range(1, count + 1)]


def read_volume(path: Path, *, labels: bool = False) -> Volume:
    """Read one volume.

    Args:
        path: of a ``.nii`` or ``.nii.gz``, or of a UK Biobank zip of field 20252 (T1) or 20253 (T2-FLAIR).
        labels: True for a mask, which may be empty.

    Returns:
        The volume, its axes turned to the nearest of RAS+.

    Raises:
        ScanError: ``input_missing``, ``unreadable_nifti``, ``several_volumes``, ``unsupported_pixels``,
            ``missing_affine``, ``implausible_geometry``, ``too_large``, ``non_finite_values``, ``empty_image``,
            ``not_labels``, or of the zip.
    """
    try:
        if path.suffix.lower() == ".zip":
            with open_zip(path) as source:
                return _read(contents_of(source.read(_find_member(path, source))), labels)
        with open_contents(path) as contents:
            return _read(contents, labels)
    except FileNotFoundError:
        raise ScanError(Reason.INPUT_MISSING, f"the volume does not exist; {Reason.INPUT_MISSING.advice}") from None
    except (PermissionError, IsADirectoryError) as error:
        raise ScanError(Reason.INPUT_UNREADABLE, f"{error.strerror}; {Reason.INPUT_UNREADABLE.advice}") from None


def brain_field(path: Path) -> str:
    """UK Biobank field of a brain zip by its name, ``{eid}_{field}_{instance}_{array}.zip``; "" for other files."""
    parts = path.stem.split("_")
    return parts[1] if path.suffix.lower() == ".zip" and len(parts) == 4 and parts[1] in BRAIN_FIELDS else ""


def _find_member(path: Path, source: ZipSource) -> int:
    """Index of the whole-head volume of a brain zip."""
    known = brain_field(path)
    wanted = [BRAIN_FIELDS[known][1]] if known else [name for _, name in BRAIN_FIELDS.values()]
    for name in wanted:
        for index, member in enumerate(source.names):
            if member == name or (member.endswith("/" + name) and "unusable" not in member):
                return index
    raise ScanError(
        Reason.INPUT_MISSING, f"the zip has no {' or '.join(wanted)}; check that it is of field 20252/20253"
    )


def _read(contents: Contents, labels: bool) -> Volume:
    label = "the mask" if labels else "the volume"
    image, fields = load_image(contents, label, Budget(MAX_VOLUME_BYTES), signal=False, several=Reason.SEVERAL_VOLUMES)
    shape = image.shape[:3]
    affine, findings = _choose_affine(fields, image.header, label)
    native = Native(image.header.copy(), shape, affine)
    values = raw_voxels(image, label).reshape(shape)
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    if (slope, intercept) != (1.0, 0.0):
        values = values * np.float32(slope) + np.float32(intercept)
    turn = io_orientation(affine)
    data = np.ascontiguousarray(apply_orientation(values, turn), np.float32)
    _check_values(data, label, labels)
    if labels:
        np.rint(data, out=data)
    turned = affine @ inv_ornt_aff(turn, shape)
    findings += _orientation_findings(turn, turned)
    return Volume(data, turned, native, tuple(findings))


def _choose_affine(fields: NiftiFields, header: Any, label: str) -> tuple[NDArray[np.float64], list[Finding]]:
    """Sform if it has a code, else qform, as nibabel and most programs choose; in mm."""
    codes = {name: int(fields.record[f"{name}_code"]) for name in ("sform", "qform")}
    found = {}
    for name in (name for name, code in codes.items() if code > 0):
        try:
            affine = np.array(header.get_sform() if name == "sform" else header.get_qform(), np.float64)
        except Exception as error:  # nibabel raises several kinds on invalid quaternions
            what = f"the {name} of {label} cannot be read ({type(error).__name__})"
            raise ScanError(Reason.UNREADABLE_NIFTI, f"{what}; convert it again with dcm2niix") from None
        affine[:3] *= fields.mm
        found[name] = affine
    usable = [affine for affine in found.values() if np.any(affine[:3, :3])]
    if not usable:
        what = "a zero affine" if found else "no orientation (sform_code and qform_code are 0)"
        raise ScanError(Reason.MISSING_AFFINE, f"{label} has {what}; {Reason.MISSING_AFFINE.advice}")
    _check_affine(usable[0], label)
    findings = []
    if len(usable) == 2 and not np.allclose(usable[0], usable[1], atol=0.5):
        findings.append(Finding(Reason.GEOMETRY_DISAGREES, "qform contradicts sform, which was used"))
    return usable[0], findings


def _check_affine(affine: NDArray[np.float64], label: str) -> None:
    """Refuse absurd entries, absurd spacing and axes that are not at right angles."""
    if not np.isfinite(affine).all() or np.abs(affine).max() > 1e6:
        what = "has an affine with absurd entries"
    else:
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        check_spacing(tuple(lengths), label)
        if abs(np.linalg.det(affine[:3, :3] / lengths)) >= _LEAST_VOLUME:
            return
        what = "has an affine whose axes are not at right angles"
    raise ScanError(Reason.IMPLAUSIBLE_GEOMETRY, f"{label} {what}; convert it again with dcm2niix")


def _check_values(data: NDArray[np.float32], label: str, labels: bool) -> None:
    low, high = float(data.min()), float(data.max())
    if not (math.isfinite(low) and math.isfinite(high) and max(-low, high) <= _LARGEST_VALUE):
        raise ScanError(
            Reason.NON_FINITE_VALUES, f"{label} has NaN, infinite or absurdly large voxels; convert it again"
        )
    if labels and (low < -LABEL_TOLERANCE or float(np.abs(data - np.rint(data)).max()) > LABEL_TOLERANCE):
        raise ScanError(Reason.NOT_LABELS, f"{label} holds fractions or numbers below 0; {Reason.NOT_LABELS.advice}")
    if low == high and not labels:
        raise ScanError(Reason.EMPTY_IMAGE, f"every voxel of {label} is {low:g}; look at it")


def _orientation_findings(turn: NDArray[Any], turned: NDArray[np.float64]) -> list[Finding]:
    """What the orientation of the file gives reason to say; ``turned`` is the affine after turning."""
    findings = []
    if not np.array_equal(turn, [[0, 1], [1, 1], [2, 1]]):
        findings.append(Finding(Reason.REORIENTED, "not stored as RAS; turned"))
    cosines = np.diag(turned[:3, :3]) / np.linalg.norm(turned[:3, :3], axis=0)
    tilt = math.degrees(math.acos(float(np.clip(cosines.min(), -1.0, 1.0))))
    if tilt > MAX_HEAD_TILT_DEGREES:
        findings.append(Finding(Reason.TILTED, f"the axes are tilted by {tilt:.0f} degrees"))
    return findings
