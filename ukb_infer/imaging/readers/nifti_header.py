"""Check a NIfTI header: values and geometry are honoured, refused or flagged.

The fields are read as stored, before nibabel repairs any. ``docs/stored-values.md`` lists them all. Source: the
comments of nifti1.h and nifti2.h (NIfTI Data Format Working Group).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.nifti1 import header_dtype as _NIFTI1
from nibabel.nifti2 import header_dtype as _NIFTI2
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.imaging.series import Finding
from ukb_infer.reasons import Reason

#: By header size: layout, magic of a single file, first possible byte of voxels.
_LAYOUTS: dict[int, tuple[Any, bytes, int]] = {348: (_NIFTI1, b"n+1", 352), 540: (_NIFTI2, b"n+2", 544)}
#: Magic of a header whose voxels are in a separate ``.img`` file.
_PAIRS = (b"ni1", b"ni2")
#: Most bytes before the voxels: header and extensions. dcm2niix writes 352.
_MAX_OFFSET_BYTES = 1024**2
#: Real numbers: datatype to bits.
_REAL = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
#: Other datatypes, for messages.
_OTHER = dict.fromkeys((32, 1792, 2048), "complex numbers") | {
    1: "single bits", 128: "colours (RGB)", 2304: "colours (RGBA)", 1536: "numbers of 128 bits"
}  # fmt: skip
#: xyzt_units, the three lowest bits: mm per unit. 0 is unknown, which all software treats as mm.
_UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_SPACE_UNITS = 7
#: sform_code and qform_code of scanner coordinates: its own, or aligned to another scan.
_SCANNER, _ALIGNED = 1, 2
#: Largest distance of corners under two equal affines: quaternions are rounded, voxels measure 2 mm.
SAME_AFFINE_MM = 0.5
#: Relative tolerance between pixdim and an affine's columns.
SAME_SPACING = 1e-3
_AGAIN = "convert again with dcm2niix"


@dataclass(frozen=True)
class NiftiFields:
    """The header of one file as stored.

    Attributes:
        record: all fields, in the file's byte order.
        version: 1 or 2.
        first_byte: lowest offset that voxels may have.
        label: names the file in messages.
    """

    record: Any
    version: int
    first_byte: int
    label: str

    def number(self, name: str, index: int | None = None) -> float:
        """Return a field as a number.

        Args:
            name: of the field.
            index: of one of its elements; None for a field of one number.
        """
        value = self.record[name]
        return float(value if index is None else value[index])

    def offset_bytes(self) -> int:
        """Return the offset of the voxels, after the header and its extensions.

        Raises:
            ScanError: ``unreadable_nifti`` for an offset inside the header or far behind it.
        """
        offset = self.number("vox_offset")
        if not (self.first_byte <= offset <= _MAX_OFFSET_BYTES and offset == int(offset)):
            raise ScanError(
                Reason.UNREADABLE_NIFTI,
                f"{self.label} has vox_offset {offset:g}, expected an integer from {self.first_byte} to "
                f"{_MAX_OFFSET_BYTES}; {_AGAIN}",
            )
        return int(offset)

    @property
    def mm(self) -> float:
        """Millimetres of a unit of the affine and of pixdim."""
        return _UNITS_MM[int(self.record["xyzt_units"]) & _SPACE_UNITS]

    @property
    def pixdim_mm(self) -> NDArray[np.float64]:
        """(3,) voxel sizes in the header."""
        return np.abs(np.asarray(self.record["pixdim"], np.float64)[1:4]) * self.mm


def read_fields(head: bytes, label: str, *, signal: bool = True) -> NiftiFields:
    """Read a header and check its fields about the voxels.

    Args:
        head: the first bytes of the file, inflated.
        label: names the file in messages.
        signal: False for label maps, which may say so in their intent.

    Raises:
        ScanError: ``unreadable_nifti``, ``unsupported_pixels`` or ``non_finite_values``.
    """
    for order in ("<", ">"):
        size = int.from_bytes(head[:4], "little" if order == "<" else "big")
        if size in _LAYOUTS and len(head) >= size:
            layout, magic, first_byte = _LAYOUTS[size]
            record = np.frombuffer(head[:size], layout.newbyteorder(order))[0]
            fields = NiftiFields(record, 1 if size == 348 else 2, first_byte, label)
            _check_storage(fields, magic)
            _check_meaning(fields, signal=signal)
            return fields
    raise ScanError(
        Reason.UNREADABLE_NIFTI,
        f"{label} does not begin with the size of a NIfTI header, or is truncated there ({len(head)} bytes); {_AGAIN}",
    )


def _check_storage(fields: NiftiFields, magic: bytes) -> None:
    """Refuse a file whose voxels are elsewhere or of the wrong size.

    Raises:
        ScanError: ``unreadable_nifti``.
    """
    found = bytes(fields.record["magic"])[:3]
    bits, datatype = fields.number("bitpix"), int(fields.record["datatype"])
    problem = ""
    if found in _PAIRS:
        problem = "says that its voxels are in a separate .img file"
    elif found != magic:
        problem = f"has no NIfTI-{fields.version} magic; perhaps it is Analyze"
    elif datatype in _REAL and bits != _REAL[datatype]:
        problem = f"has bitpix {bits:g}, but voxels of datatype {datatype} have {_REAL[datatype]} bits"
    elif int(fields.record["xyzt_units"]) & _SPACE_UNITS not in _UNITS_MM:
        problem = f"has an unknown unit of length (xyzt_units {int(fields.record['xyzt_units'])})"
    if problem:
        raise ScanError(Reason.UNREADABLE_NIFTI, f"{fields.label} {problem}; {_AGAIN}")


def _check_meaning(fields: NiftiFields, *, signal: bool) -> None:
    """Refuse voxels that are not signal.

    Raises:
        ScanError: ``unsupported_pixels`` or ``non_finite_values``.
    """
    datatype, intent = int(fields.record["datatype"]), int(fields.record["intent_code"])
    slope, intercept = fields.number("scl_slope"), fields.number("scl_inter")
    if datatype not in _REAL:
        what = _OTHER.get(datatype, "an unknown number type")
        raise ScanError(
            Reason.UNSUPPORTED_PIXELS,
            f"{fields.label} contains {what} (datatype {datatype}), expected real numbers of at most 64 bits; "
            "save the magnitude image",
        )
    if intent and signal:
        raise ScanError(
            Reason.UNSUPPORTED_PIXELS,
            f"{fields.label} is not signal according to its intent_code {intent}, expected 0; "
            "pass the water or fat image itself, or set intent_code to 0 if it is one",
        )
    scaled = slope != 0 and not math.isnan(slope)
    if math.isinf(slope) or (scaled and not math.isfinite(intercept)):
        raise ScanError(
            Reason.NON_FINITE_VALUES,
            f"{fields.label} has scl_slope {slope:g} and scl_inter {intercept:g}, expected numbers; {_AGAIN}",
        )


def choose_affine(
    fields: NiftiFields, header: Any, shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], list[Finding]]:
    """Choose between sform and qform, in mm, and flag contradictions.

    Scanner coordinates have priority over aligned ones; of two with the same code the sform is used, if they agree.

    Args:
        fields: as stored in the file.
        header: the same, read by nibabel, which converts quaternions.
        shape: (3,) voxels.

    Returns:
        (4, 4) voxel index to RAS mm, and findings.

    Raises:
        ScanError: ``missing_affine``, ``geometry_inconsistent`` or ``unreadable_nifti``.
    """
    codes = {name: int(fields.record[f"{name}_code"]) for name in ("sform", "qform")}
    usable = [name for name, code in codes.items() if code in (_SCANNER, _ALIGNED)]
    if not usable:
        raise ScanError(
            Reason.MISSING_AFFINE,
            f"{fields.label} has no scanner orientation (sform_code {codes['sform']}, qform_code "
            f"{codes['qform']}, expected 1 or 2); {_AGAIN}",
        )
    affines = {name: _affine(name, fields, header) for name in usable}
    chosen, findings = usable[0], []
    if len(usable) == 2 and not _same(affines["sform"], affines["qform"], shape):
        if codes["sform"] == codes["qform"]:
            raise ScanError(
                Reason.GEOMETRY_INCONSISTENT,
                f"the sform and the qform of {fields.label} differ, and both have code {codes['sform']}; {_AGAIN}",
            )
        chosen = min(usable, key=lambda name: codes[name])
        other = "qform" if chosen == "sform" else "sform"
        findings.append(
            Finding(Reason.GEOMETRY_DISAGREES, f"{other} contradicts {chosen}, which was used (the scanner's own)")
        )
    affine = affines[chosen]
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    stated = fields.pixdim_mm
    if ((stated > 0) & ~(np.abs(stated - lengths) <= SAME_SPACING * lengths)).any():
        findings.append(Finding(Reason.GEOMETRY_DISAGREES, f"pixdim contradicts {chosen}, which was used"))
    return affine, findings


def _affine(name: str, fields: NiftiFields, header: Any) -> NDArray[np.float64]:
    """Return one of the two affines, in mm."""
    qfac = fields.number("pixdim", 0)
    if name == "qform" and qfac not in (-1.0, 0.0, 1.0):
        raise ScanError(
            Reason.UNREADABLE_NIFTI, f"{fields.label} has qfac (pixdim[0]) {qfac:g}, expected 1 or -1; {_AGAIN}"
        )
    try:
        affine = np.array(header.get_sform() if name == "sform" else header.get_qform(), np.float64)
    except Exception as error:  # nibabel raises several kinds on invalid quaternions
        raise ScanError(
            Reason.UNREADABLE_NIFTI, f"the {name} of {fields.label} cannot be read ({type(error).__name__}); {_AGAIN}"
        ) from None
    affine[:3] *= fields.mm
    return affine


def _same(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether two affines place every corner of the volume within ``SAME_AFFINE_MM``."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], [1], indexing="ij")).reshape(4, -1)
    return float(np.abs((one - other) @ corners).max()) <= SAME_AFFINE_MM
