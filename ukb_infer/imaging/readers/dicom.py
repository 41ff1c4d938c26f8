"""DICOM slices: pydicom is the reference reader, with a fast path for the common case.

The fast path walks the elements of plain explicit-VR little-endian slices with a small compiled parser. Anything
else (another transfer syntax, an odd value representation, elements out of order, other pixel types) goes to pydicom.
The first header of every sequence of elements in a scan is parsed by both, which must agree. Both readers give
identical results; tests compare them on every anomaly.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from ukb_infer.errors import ScanError
from ukb_infer.imaging.readers import dicom_values
from ukb_infer.imaging.readers.containers import MAX_MEMBER_BYTES
from ukb_infer.imaging.readers.dicom_geometry import geometry_findings, optional_numbers
from ukb_infer.imaging.readers.dicom_role import processing_of, role_of
from ukb_infer.imaging.readers.dicom_values import OVERLAY_GROUPS, PADDED, UNUSED_BITS, PixelForm
from ukb_infer.imaging.readers.dicom_walk import UNDEFINED, UNUSUAL, WALKED, alike, walk
from ukb_infer.imaging.series import UNMARKED, Contrast, Finding, Marks, Scaling, SeriesHeader, Voxels, check_plausible
from ukb_infer.reasons import Reason
from ukb_infer.records import Acquired
from ukb_infer.text import shown

_PREAMBLE = 128
_MAGIC = b"DICM"
_ENHANCED_MR = frozenset({"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"})
_EXPLICIT_LITTLE_ENDIAN = b"1.2.840.10008.1.2.1"
#: Implicit and explicit VR, deflated, big endian.
_UNCOMPRESSED = frozenset(f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2"))

#: The elements that are read: (tag, pydicom keyword, value representation), ascending as in the file.
_KEYWORDS = (
    "TransferSyntaxUID ImageType SOPClassUID SeriesTime Modality Manufacturer SeriesDescription ManufacturerModelName "
    "ComplexImageComponent PatientID AnatomicalOrientationType SliceThickness EchoTime MagneticFieldStrength "
    "SpacingBetweenSlices SoftwareVersions ProtocolName GantryDetectorTilt ImagerPixelSpacing "
    "InPlanePhaseEncodingDirection PatientPosition StudyInstanceUID SeriesInstanceUID SeriesNumber InstanceNumber "
    "PatientOrientation ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID SliceLocation "
    "SamplesPerPixel PhotometricInterpretation NumberOfFrames Rows Columns PixelSpacing PixelAspectRatio "
    "BitsAllocated BitsStored HighBit PixelRepresentation BurnedInAnnotation PixelIntensityRelationship "
    "PixelIntensityRelationshipSign RescaleIntercept RescaleSlope RescaleType LossyImageCompression"
)
_ELEMENTS: tuple[tuple[int, str, str], ...] = tuple(
    (tag_for_keyword(k), k, dictionary_VR(k)) for k in _KEYWORDS.split()
)
#: Redundant elements, which are only checked.
_SECOND = (
    "AnatomicalOrientationType SliceThickness SpacingBetweenSlices GantryDetectorTilt ImagerPixelSpacing "
    "PatientPosition PatientOrientation FrameOfReferenceUID SliceLocation PixelAspectRatio BurnedInAnnotation"
)
#: How it was scanned, for the measures of quality.
_ACQUIRED = (
    "Manufacturer ManufacturerModelName EchoTime MagneticFieldStrength SoftwareVersions InPlanePhaseEncodingDirection"
)
_NOT_NEEDED = frozenset(_SECOND.split() + _ACQUIRED.split())
#: A slice with any of these goes to pydicom: padding, sequences, tables, planes, private scales.
_JUDGED: tuple[tuple[int, str, str], ...] = (
    (0x00280120, "PixelPaddingValue", "US"),
    (0x00280121, "PixelPaddingRangeLimit", "US"),
    (0x00281101, "RedPaletteColorLookupTableDescriptor", "US"),
    (0x00283000, "ModalityLUTSequence", "SQ"),
    (0x00409096, "RealWorldValueMappingSequence", "SQ"),
    *((0x20050000 | number, f"PrivateCreator{number:X}", "LO") for number in range(0x10, 0x20)),
    *((group << 16 | 0x0102, f"OverlayBitPosition{group:X}", "US") for group in OVERLAY_GROUPS),
    (0x7FE00008, "FloatPixelData", "OF"),
    (0x7FE00009, "DoubleFloatPixelData", "OD"),
)
_WALKED = tuple(sorted(_ELEMENTS + _JUDGED))
_TAGS = np.array([tag for tag, _, _ in _WALKED], np.int64)
_REPRESENTATIONS = np.array([int.from_bytes(vr.encode(), "big") for _, _, vr in _WALKED], np.int64)
_ROWS = {keyword: row for row, (_, keyword, _) in enumerate(_WALKED)}
_ROW = {keyword: _ROWS[keyword] for _, keyword, _ in _ELEMENTS}
_INSTANCE, _POSITION, _LOCATION = (_ROW[k] for k in ("InstanceNumber", "ImagePositionPatient", "SliceLocation"))
#: Elements that may differ between the slices of a series.
_VARYING = np.array([row in (_INSTANCE, _POSITION, _LOCATION) for row in range(len(_WALKED))])
_JUDGED_ROWS = np.array([_ROWS[keyword] for _, keyword, _ in _JUDGED])
#: Those of them that are ignored if 0.
_HARMLESS_ROWS = frozenset(_ROWS[k] for _, k, _ in _JUDGED if k.startswith(("PixelPaddingValue", "OverlayBitPosition")))
#: Elements that identify a member's series, all before group 0028: in the first kilobytes of any slice.
_SHORTS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
_ROLE = ("ImageType", "SOPClassUID", "Modality", "SeriesDescription", "ProtocolName")
_IDENTITY = (*_ROLE, "SeriesInstanceUID", "SeriesNumber")
_IDENTITY_ROWS = np.array([_ROW[keyword] for keyword in _IDENTITY])

#: What the values of InPlanePhaseEncodingDirection mean: the phase runs along a column, or along a row.
_PHASES: dict[str, Literal["row", "column"]] = {"COL": "column", "COLUMN": "column", "ROW": "row"}
#: Larger integers mean damage: InstanceNumber and SeriesNumber have at most 12 characters.
_LARGEST_WHOLE = 10**12

# -- one slice ----------------------------------------------------------------------------------------------------


class _DamagedError(ValueError):
    """An element is invalid; the text may be shown."""


@dataclass(frozen=True)
class Slice:
    """One parsed slice.

    Attributes:
        header: shared with its series.
        position_mm: ImagePositionPatient (x, y, z).
        instance: InstanceNumber, 0 if absent.
        pixels: (rows, cols) stored values, before scaling: uint16, or float32 if they do not fit.
        location_mm: SliceLocation; nan if absent.
        findings: remarks on its pixels.
    """

    header: SeriesHeader
    position_mm: tuple[float, float, float]
    instance: int
    pixels: Voxels
    location_mm: float = math.nan
    findings: tuple[Finding, ...] = ()


class _Head(NamedTuple):
    """The header of a slice: its series, and how its pixels are stored."""

    series: SeriesHeader
    form: PixelForm


@dataclass
class SliceParser:
    """Parses the slices of one series; remembers the last header parsed by the fast path.

    Args:
        use_fast_path: False sends every slice through pydicom.
        verified: structures (sequences of tags and value representations) for which pydicom and the fast path were
            seen to agree; shared by the series of a scan.
    """

    use_fast_path: bool = True
    verified: set[int] = field(default_factory=set)
    _found: NDArray[np.int64] = field(default_factory=lambda: np.empty((len(_TAGS), 2), np.int64))
    _template: NDArray[np.uint8] | None = None
    _template_found: NDArray[np.int64] = field(default_factory=lambda: np.empty((len(_TAGS), 2), np.int64))
    _head: _Head | None = None

    def parse(self, data: bytes) -> Slice:
        """Parse a whole file.

        Raises:
            ScanError: ``unreadable_dicom``, ``unsupported_transfer_syntax``, ``multiframe``, ``unsupported_pixels``
                or ``implausible_geometry``.
        """
        fast = self._parse_fast(data) if self.use_fast_path else None
        return fast if fast is not None else parse_with_pydicom(data)

    def _parse_fast(self, data: bytes) -> Slice | None:
        """Parse a plain slice; None for anything that needs pydicom."""
        if data[_PREAMBLE : _PREAMBLE + 4] != _MAGIC:
            return None
        buffer = np.frombuffer(data, np.uint8)
        status, offset, length, structure = walk(buffer, _PREAMBLE + 4, _TAGS, _REPRESENTATIONS, self._found)
        if status != WALKED or offset + length > len(data):
            return None
        try:
            head = self._shared_head(data, buffer, structure)
            if head is None or length != 2 * head.series.rows * head.series.cols:
                return None
            x, y, z = self._value(data, _POSITION).split(b"\\")
            position = (float(x), float(y), float(z))
            instance = _whole(self._value(data, _INSTANCE) or b"0", "InstanceNumber")
            location = float(self._value(data, _LOCATION)) if self._found[_LOCATION, 1] > 0 else math.nan
        except (KeyError, ValueError):  # missing or odd elements: pydicom reports the problem
            return None
        header, form = head
        words: NDArray[np.uint16] = np.frombuffer(data, "<u2", header.rows * header.cols, offset)
        pixels = words.reshape(header.rows, header.cols)
        if form.stored == form.allocated or words.max() <= form.largest:
            return Slice(header, position, instance, pixels, location)
        return Slice(header, position, instance, dicom_values.stored_values(pixels, form)[0], location, (UNUSED_BITS,))

    def _value(self, data: bytes, row: int) -> bytes:
        """Return an element's bytes without padding; empty if absent."""
        start, length = self._found[row].tolist()
        return data[start : start + length].strip(b" \0") if length > 0 else b""

    def _short(self, data: bytes, row: int) -> int:
        """Return an unsigned 16-bit element; -1 if absent or empty.

        Raises:
            ValueError: several values.
        """
        start, length = self._found[row].tolist()
        if length not in (-1, 0, 2):
            raise ValueError("an element of 16 bits has another length")
        return int.from_bytes(data[start : start + 2], "little") if length == 2 else -1

    def _has_judged(self, data: bytes) -> bool:
        """Whether there is padding, a table, an overlay in the pixels or another element that needs pydicom."""
        lengths = self._found[_JUDGED_ROWS, 1]
        present = _JUDGED_ROWS[(lengths > 0) | (lengths == UNDEFINED)].tolist()
        return any(row not in _HARMLESS_ROWS or self._short(data, row) != 0 for row in present)

    def _shared_head(self, data: bytes, buffer: NDArray[np.uint8], structure: int) -> _Head | None:
        """Return the header shared with the series, parsed only if its bytes differ from the last one's."""
        if self._template is not None and alike(buffer, self._found, self._template, self._template_found, _VARYING):
            return self._head
        head = self._head_from_bytes(data)
        if head is None:
            return None
        if structure not in self.verified:
            with _quiet():
                if head != _head_from_dataset(_read_dataset(data, pixels=False)):
                    return None
            self.verified.add(structure)
        check_plausible(head.series)
        self._head, self._template, self._template_found = head, buffer, self._found.copy()
        return head

    def _head_from_bytes(self, data: bytes) -> _Head | None:
        """Parse the shared elements; None unless they are those of a plain unsigned 16-bit slice."""
        text = {keyword: self._value(data, row) for keyword, row in _ROW.items() if keyword not in _SHORTS}
        shorts = {keyword: self._short(data, _ROW[keyword]) for keyword in _SHORTS}
        high_bit_fits = shorts["HighBit"] in (-1, shorts["BitsStored"] - 1)
        plain = (
            high_bit_fits
            and text["TransferSyntaxUID"] == _EXPLICIT_LITTLE_ENDIAN
            and (shorts["SamplesPerPixel"], shorts["BitsAllocated"], shorts["PixelRepresentation"]) == (1, 16, 0)
            and _frames(text["NumberOfFrames"]) == 1
            and not self._has_judged(data)
            and text["SOPClassUID"].decode("ascii", "replace") not in _ENHANCED_MR
            and all(value.isascii() for value in text.values())
        )
        return _make_head({keyword: value.decode() for keyword, value in text.items()}, shorts) if plain else None


def parse_with_pydicom(data: bytes) -> Slice:
    """Parse a whole file with pydicom, the reference reader.

    Raises:
        ScanError: as :meth:`SliceParser.parse`.
    """
    with _quiet():
        dataset = _read_dataset(data, pixels=True)
        head = _head_from_dataset(dataset)
        check_plausible(head.series)
        with _as_unreadable():
            x, y, z = (float(value) for value in dataset.ImagePositionPatient)
            instance = _whole(_element_text(dataset, "InstanceNumber") or "0", "InstanceNumber")
            location = optional_numbers({"SliceLocation": _element_text(dataset, "SliceLocation")}, "SliceLocation")
        pixels, findings = _decode_pixels(dataset, head)
        return Slice(head.series, (x, y, z), instance, pixels, location[0] if location else math.nan, findings)


def _read_dataset(data: bytes, pixels: bool) -> pydicom.Dataset:
    """Read a single-slice file with pydicom, with or without its pixel data and preamble.

    Raises:
        ScanError: ``unreadable_dicom`` or ``multiframe``.
    """
    dataset = _read_any_dataset(data, pixels)
    with _as_unreadable():
        frames = _frames(_element_text(dataset, "NumberOfFrames"))
        enhanced = str(dataset.get("SOPClassUID", "")) in _ENHANCED_MR
    if frames > 1 or enhanced:
        raise _multiframe(frames, enhanced)
    return dataset


def _read_any_dataset(data: bytes, pixels: bool) -> pydicom.Dataset:
    with _as_unreadable():
        return pydicom.dcmread(BytesIO(_undeflated(data)), force=True, stop_before_pixels=not pixels)


def _undeflated(data: bytes) -> bytes:
    """Inflate data of the deflated transfer syntax, with a size limit; return other data unchanged.

    pydicom would inflate without limit. Some writers wrap the deflated part as zlib, with a checksum, which is
    verified.

    Raises:
        ScanError: ``unreadable_dicom`` or ``too_large``.
    """
    uid = str(DeflatedExplicitVRLittleEndian).encode()
    if uid not in data:
        return data
    start = _PREAMBLE + 4 if data[_PREAMBLE : _PREAMBLE + 4] == _MAGIC else 0
    if data[start : start + 8] != b"\x02\x00\x00\x00UL\x04\x00":  # the length of the meta group comes first
        raise _unreadable(_DamagedError("deflated, with a damaged meta header"))
    end = start + 12 + int.from_bytes(data[start + 8 : start + 12], "little")
    if uid not in data[start:end]:
        return data
    for window in (-zlib.MAX_WBITS, zlib.MAX_WBITS):  # raw as in the standard, then wrapped as zlib
        inflater = zlib.decompressobj(window)
        try:
            inflated = inflater.decompress(data[end:], MAX_MEMBER_BYTES + 1)
        except zlib.error:
            continue
        if len(inflated) > MAX_MEMBER_BYTES:
            raise ScanError(
                Reason.TOO_LARGE, f"a slice inflates to more than {MAX_MEMBER_BYTES} bytes; check its origin"
            )
        if not inflater.eof or not inflated:
            raise _unreadable(_DamagedError("its deflated part is truncated"))
        return inflated
    raise _unreadable(_DamagedError("its deflated part is damaged"))


def _head_from_dataset(dataset: pydicom.Dataset) -> _Head:
    """Convert a pydicom dataset to the header of a slice.

    Raises:
        ScanError: ``unreadable_dicom`` if a required element is missing or damaged, ``unsupported_pixels``.
    """
    with _as_unreadable():
        try:
            text = {keyword: _element_text(dataset, keyword) for _, keyword, _ in _ELEMENTS}
            text["TransferSyntaxUID"] = _syntax_of(dataset)
            short = {keyword: _whole(_element_text(dataset, keyword) or "-1", keyword) for keyword in _SHORTS}
            for keyword in ("Rows", "Columns", "BitsAllocated"):
                if short[keyword] == -1:
                    raise KeyError(keyword)
            head = _make_head(text, short, dataset)
            dicom_values.check_dataset(dataset, head.form)
        except KeyError as error:  # of ours by keyword, of pydicom's by tag
            what = f"a slice lacks the element {error.args[0] if error.args else ''}"
            raise ScanError(Reason.UNREADABLE_DICOM, f"{what}; export the scan again with it") from None
        return head


def _element_text(dataset: pydicom.Dataset, keyword: str) -> str:
    """Return an element as text; empty if it is missing, or damaged and not required.

    Raises:
        ValueError: it is damaged and required.
    """
    try:
        return _text_of(dataset.get(keyword))
    except Exception as error:  # pydicom can raise almost anything on a damaged element
        if keyword in _NOT_NEEDED:
            return ""
        raise _DamagedError(f"{keyword} is damaged: {type(error).__name__}") from None


def _text_of(value: Any) -> str:
    """Return an element's value as text as in the file, multiple values joined by backslashes."""
    if value is None:
        return ""
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(_text_of(part) for part in value)
    original = getattr(value, "original_string", None)
    return str(value if original is None else original).strip(" \0")


def _whole(text: str | bytes, keyword: str) -> int:
    """Return an integer, also if written as a decimal ("12.0"), as some exporters do.

    Raises:
        ValueError: not an integer, or too large; the message shows numbers but no other text.
    """
    try:
        value = float(text)  # exact up to 2**53
    except ValueError:
        raise _DamagedError(f"{keyword} is not a number") from None
    if not (value.is_integer() and abs(value) <= _LARGEST_WHOLE):
        raise _DamagedError(f"{keyword} is {value:g}, expected an integer")
    return int(value)


def _frames(text: str | bytes) -> int:
    """Return NumberOfFrames, 1 if it is absent.

    Raises:
        ValueError: as :func:`_whole`.
    """
    return _whole(text, "NumberOfFrames") if text else 1


def _syntax_of(dataset: pydicom.Dataset) -> str:
    return str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "") or ExplicitVRLittleEndian)


def _make_head(text: Mapping[str, str], short: Mapping[str, int], dataset: pydicom.Dataset | None = None) -> _Head:
    """Build a header from elements as text and as numbers; used by both readers.

    Args:
        text: elements by keyword, empty if absent.
        short: elements of 16 bits, -1 if absent.
        dataset: all elements, if others matter.

    Raises:
        KeyError: an element is absent.
        ValueError: an element is invalid.
        ScanError: ``unsupported_pixels``, or ``unreadable_dicom`` for bits that contradict each other.
    """
    dicom_values.check_signal(text, short)
    rescale = dicom_values.rescaling(text)
    scaling = rescale if dataset is None else dicom_values.mapping_of(dataset, rescale)
    series = _make_header(text, short, scaling)
    unused = () if scaling is rescale else dicom_values.unused_rescale(rescale, scaling)
    geometry = geometry_findings(text, series.pixel_spacing_mm, series.orientation)
    return _Head(
        replace(series, findings=(*dicom_values.value_findings(text), *unused, *geometry)), PixelForm.of(short)
    )


def _make_header(text: Mapping[str, str], short: Mapping[str, int], scaling: Scaling) -> SeriesHeader:
    """Build the header of a series.

    Raises:
        KeyError: an element is absent.
        ValueError: an element is invalid.
    """
    number = text["SeriesNumber"]
    contrast, marks = role_of(*(text[keyword] for keyword in _ROLE))
    row_mm, col_mm = _floats(text, "PixelSpacing", 2)
    return SeriesHeader(
        number=_whole(number, "SeriesNumber") if number else None,
        uid=text["SeriesInstanceUID"],
        description=text["SeriesDescription"],
        contrast=contrast if marks.kind is None else None,
        rows=short["Rows"],
        cols=short["Columns"],
        orientation=_floats(text, "ImageOrientationPatient", 6),
        pixel_spacing_mm=(row_mm, col_mm),
        time_s=_seconds(text["SeriesTime"]),
        scaling=scaling,
        marks=marks,
        processing=processing_of(text["ImageType"]),
        study_uid=text["StudyInstanceUID"],
        patient_id=text["PatientID"],
        frame_uid=text["FrameOfReferenceUID"],
        stated_spacing_mm=next(iter(optional_numbers(text, "SpacingBetweenSlices")), None),
        thickness_mm=next(iter(optional_numbers(text, "SliceThickness")), 0.0),
        acquired=_make_acquired(text),
    )


def _make_acquired(text: Mapping[str, str]) -> Acquired:
    """What the header says of how it was scanned; what is damaged is taken for absent."""
    echo, tesla = (
        next((v for v in optional_numbers(text, keyword) if 0.0 < v < _LARGEST_WHOLE), None)
        for keyword in ("EchoTime", "MagneticFieldStrength")
    )
    time_s = _seconds(text["SeriesTime"])
    return Acquired(
        time_s=time_s if math.isfinite(time_s) else None,
        echo_time_ms=echo,
        field_tesla=tesla,
        phase_along=_PHASES.get(text["InPlanePhaseEncodingDirection"]),
        scanner=shown(f"{text['Manufacturer']} {text['ManufacturerModelName']}".strip()),
        software=shown(text["SoftwareVersions"].replace("\\", ", ")),
    )


def _floats(text: Mapping[str, str], keyword: str, count: int) -> tuple[float, ...]:
    if not text[keyword]:
        raise KeyError(keyword)
    values = tuple(float(part) for part in text[keyword].split("\\"))
    if len(values) != count:
        raise _DamagedError(f"{keyword} has {len(values)} values, expected {count}")
    return values


def _seconds(time: str) -> float:
    """Turn a DICOM time (HHMMSS.ffffff, or HH:MM:SS of old files) into seconds of the day; -inf if it is not a time."""
    digits = time.replace(":", "")
    try:
        return int(digits[0:2]) * 3600.0 + int(digits[2:4] or 0) * 60.0 + float(digits[4:] or 0)
    except ValueError:
        return -math.inf


def _decode_pixels(dataset: pydicom.Dataset, head: _Head) -> tuple[Voxels, tuple[Finding, ...]]:
    """Return a slice's stored values, (rows, cols): uint16 if every value fits, else float32; and findings.

    Raises:
        ScanError: ``unreadable_dicom``, ``unsupported_transfer_syntax`` or ``unsupported_pixels``.
    """
    header, form = head
    words = _read_words(dataset, head)
    values, odd = dicom_values.stored_values(words, form)
    with _as_unreadable():
        dicom_values.check_mapped(dataset, values)
        values, padded = dicom_values.replace_padding(dataset, words, values, form, header.scaling)
    findings = (*((UNUSED_BITS,) if odd else ()), *((PADDED,) if padded else ()))
    if values.dtype.kind in "ui" and values.min() >= 0 and values.max() <= np.iinfo(np.uint16).max:
        return values.astype(np.uint16), findings
    return values.astype(np.float32), findings


def _read_words(dataset: pydicom.Dataset, head: _Head) -> NDArray[Any]:
    """Return the stored words of the pixels, (rows, cols) unsigned.

    Raises:
        ScanError: ``unreadable_dicom`` or ``unsupported_transfer_syntax``.
    """
    header, form = head
    syntax = _syntax_of(dataset)
    if syntax not in _UNCOMPRESSED:
        pixels = _decompress(dataset, syntax, form)
    else:
        with _as_unreadable():
            pixels = _native_words(dataset, head, big_endian=not dataset.original_encoding[1])
    if pixels.shape != (header.rows, header.cols):
        raise ScanError(
            Reason.UNREADABLE_DICOM,
            f"a slice has pixels of shape {pixels.shape}, its header says ({header.rows}, {header.cols}); "
            "export the scan again",
        )
    return pixels


def _native_words(dataset: pydicom.Dataset, head: _Head, big_endian: bool) -> NDArray[Any]:
    """Read uncompressed pixels of 8, 16 or 32 bits."""
    header, form = head
    if "PixelData" not in dataset:
        raise _DamagedError("PixelData are absent")
    element = dataset["PixelData"]
    if element.is_undefined_length:
        raise _DamagedError("PixelData are encapsulated although the transfer syntax is uncompressed")
    dtype = np.dtype(f"{'>' if big_endian else '<'}{form.word}")
    data, count = element.value, header.rows * header.cols
    if not 0 <= len(data) - count * dtype.itemsize < header.cols * dtype.itemsize:  # a row more: another matrix
        raise _DamagedError(f"PixelData have {len(data)} bytes, expected {count * dtype.itemsize}")
    if big_endian and form.allocated == 8 and element.VR == "OW":  # two pixels per word, the first in its low byte
        data = np.frombuffer(data, ">u2", len(data) // 2).astype("<u2").tobytes()
    words = np.frombuffer(data, dtype, count).astype(dtype.newbyteorder("="), copy=False)
    return words.reshape(header.rows, header.cols)


def _decompress(dataset: pydicom.Dataset, syntax: str, form: PixelForm) -> NDArray[Any]:
    """Decode compressed pixels with pydicom's plugins, as unsigned words."""
    if form.shift:
        raise dicom_values.unsupported(f"compressed pixels with HighBit {form.high} and BitsStored {form.stored}")
    try:
        pixels = np.asarray(pydicom.pixels.pixel_array(dataset, raw=True, correct_unused_bits=False))
        return np.ascontiguousarray(pixels).astype(f"i{form.allocated // 8}", copy=False).view(form.word)
    except Exception as error:  # plugins can raise anything
        found = f"{pydicom.uid.UID(syntax).name} ({type(error).__name__})"
        if syntax == RLELossless:  # pydicom itself supports it fully
            raise _unreadable(_DamagedError(f"damaged pixels of {found}")) from None
        raise _unsupported(f"{found}{', or damaged' if _has_decoder(syntax) else ''}") from None


def _has_decoder(syntax: str) -> bool:
    """Whether an installed decoder supports the transfer syntax, at least in part."""
    try:
        return bool(pydicom.pixels.get_decoder(pydicom.uid.UID(syntax)).is_available)
    except NotImplementedError:
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pydicom's warnings and logging, which quote values of the file, including participants' ids."""
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _as_unreadable() -> Iterator[None]:
    """Turn what pydicom raises, nearly anything on damaged bytes and elements, into ``unreadable_dicom``."""
    try:
        yield
    except ScanError:
        raise
    except Exception as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> ScanError:
    found = (
        str(error) if isinstance(error, _DamagedError) else type(error).__name__
    )  # other messages may quote the file
    return ScanError(Reason.UNREADABLE_DICOM, f"a DICOM file cannot be parsed ({found}); copy or export the scan again")


def _multiframe(frames: int, enhanced: bool) -> ScanError:
    kind = "an enhanced MR object" if enhanced else "a DICOM object"
    return ScanError(
        Reason.MULTIFRAME,
        f"{kind} with {frames} frame{'' if frames == 1 else 's'}, expected one slice per file of the classic MR class; "
        "export classic single-slice DICOM",
    )


def refuse_multiframe(data: bytes) -> None:
    """Refuse a multi-frame object.

    Args:
        data: a whole file.

    Raises:
        ScanError: ``multiframe`` or ``unreadable_dicom``.
    """
    with _quiet():
        _read_dataset(data, pixels=False)


def _unsupported(found: str) -> ScanError:
    return ScanError(
        Reason.UNSUPPORTED_TRANSFER_SYNTAX,
        f"no installed decoder reads the pixel data: {found}; install ukb-infer[codecs] or convert to explicit VR",
    )


# -- what a file is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """The identity of a member, from its first bytes.

    Attributes:
        number: SeriesNumber, None if unknown.
        uid: SeriesInstanceUID, empty if unknown.
        contrast: named by its header, even if ``marks.kind`` says that it is not a station's.
        enhanced: whether it is enhanced (multi-frame) MR.
        marks: what its names and ImageType say apart from the contrast.
    """

    number: int | None
    uid: str
    contrast: Contrast | None
    enhanced: bool
    marks: Marks = UNMARKED


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file is DICOM, by its first bytes, with or without preamble."""
    if head[_PREAMBLE : _PREAMBLE + 4] == _MAGIC:
        return True
    if len(head) < 12 or head[0] not in (0x02, 0x08) or head[1] != 0 or head[3] != 0:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") <= len(head)


def study_of(path: Path) -> str:
    """Return a DICOM file's StudyInstanceUID; empty if it cannot be read."""
    try:
        with _quiet():
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
            return _text_of(dataset.get("StudyInstanceUID"))
    except OSError:
        raise
    except Exception:  # damaged: reading the scan will report it
        return ""


def peek_identity(head: bytes, known: dict[tuple[bytes, ...], Identity]) -> Identity | None:
    """Identify a member of plain explicit VR by its first bytes; None if they do not suffice.

    Args:
        head: the first bytes.
        known: identities by the bytes of their elements, filled here.
    """
    start = _PREAMBLE + 4 if head[_PREAMBLE : _PREAMBLE + 4] == _MAGIC else 0
    found = np.empty((len(_TAGS), 2), np.int64)
    status, _, _, _ = walk(np.frombuffer(head, np.uint8), start, _TAGS, _REPRESENTATIONS, found)
    if status == UNUSUAL:
        return None
    spans = found[_IDENTITY_ROWS].tolist()
    if spans[-1][1] < 0:  # SeriesNumber, the last of them, was not reached
        return None
    values = tuple([head[at : at + length] if length > 0 else b"" for at, length in spans])
    identity = known.get(values)
    if identity is None and all(value.isascii() for value in values):
        texts = [value.decode().strip(" \0") for value in values]
        identity = known[values] = _make_identity(*texts)
    return identity


def full_identity(data: bytes) -> Identity:
    """Identify a member with pydicom.

    Raises:
        ScanError: ``unreadable_dicom``.
    """
    with _quiet(), _as_unreadable():
        dataset = _read_any_dataset(data, pixels=False)
        identity = _make_identity(*(_element_text(dataset, keyword) for keyword in _IDENTITY))
        meta = getattr(dataset, "file_meta", {})
        directory = str(meta.get("MediaStorageSOPClassUID", "")) == MediaStorageDirectoryStorage
        of_series = "SeriesNumber" in dataset or "SeriesInstanceUID" in dataset
    if not of_series and identity.marks.kind is None and not directory:
        raise _unreadable(_DamagedError("it belongs to no series, or is truncated"))
    return identity


def _make_identity(
    image_type: str, sop_class: str, modality: str, description: str, protocol: str, uid: str, number: str
) -> Identity:
    """Make an identity from elements as text.

    Raises:
        ScanError: ``unreadable_dicom``.
    """
    contrast, marks = role_of(image_type, sop_class, modality, description, protocol)
    try:
        whole = _whole(number, "SeriesNumber") if number else None
    except ValueError as error:
        raise _unreadable(error) from None
    return Identity(whole, uid, contrast, sop_class in _ENHANCED_MR, marks)
