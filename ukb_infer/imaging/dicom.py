"""DICOM slices to series: pydicom is the reader of record, with a fast path for the common case.

The fast path walks the elements of plain explicit-VR little-endian slices with a small compiled parser. Whatever
it does not know (another transfer syntax, an odd value representation, elements out of order, other pixel types)
goes to pydicom, and the first header of every sequence of elements in a scan is parsed by both and must agree. Both
routes give identical results; tests compare them on every anomaly.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from ukb_infer.errors import Reason, ScanError
from ukb_infer.imaging.dicom_walk import UNUSUAL, WALKED, alike, walk
from ukb_infer.imaging.series import (
    Contrast,
    SeriesHeader,
    Voxels,
    check_plausible,
    contrast_of,
)
from ukb_infer.imaging.zipsource import MAX_MEMBER_BYTES

_PREAMBLE = 128
_MAGIC = b"DICM"
_ENHANCED_MR = frozenset({"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"})
_EXPLICIT_LITTLE_ENDIAN = b"1.2.840.10008.1.2.1"
_UNCOMPRESSED = frozenset(
    str(uid)
    for uid in (
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    )
)
#: Bytes a pixel by BitsAllocated.
_BYTES = {8: 1, 16: 2, 32: 4}
#: Names that claim to be DICOM: a member so named that is not DICOM is damage, any other is junk to be ignored.
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")

#: The elements that are read, ascending: (tag, pydicom keyword, value representation).
_ELEMENTS: tuple[tuple[int, str, str], ...] = (
    (0x00020010, "TransferSyntaxUID", "UI"),
    (0x00080008, "ImageType", "CS"),
    (0x00080016, "SOPClassUID", "UI"),
    (0x00080031, "SeriesTime", "TM"),
    (0x0008103E, "SeriesDescription", "LO"),
    (0x00100020, "PatientID", "LO"),
    (0x0020000D, "StudyInstanceUID", "UI"),
    (0x0020000E, "SeriesInstanceUID", "UI"),
    (0x00200011, "SeriesNumber", "IS"),
    (0x00200013, "InstanceNumber", "IS"),
    (0x00200032, "ImagePositionPatient", "DS"),
    (0x00200037, "ImageOrientationPatient", "DS"),
    (0x00280002, "SamplesPerPixel", "US"),
    (0x00280008, "NumberOfFrames", "IS"),
    (0x00280010, "Rows", "US"),
    (0x00280011, "Columns", "US"),
    (0x00280030, "PixelSpacing", "DS"),
    (0x00280100, "BitsAllocated", "US"),
    (0x00280103, "PixelRepresentation", "US"),
    (0x00281052, "RescaleIntercept", "DS"),
    (0x00281053, "RescaleSlope", "DS"),
)
_TAGS = np.array([tag for tag, _, _ in _ELEMENTS], np.int64)
_REPRESENTATIONS = np.array([int.from_bytes(vr.encode(), "big") for _, _, vr in _ELEMENTS], np.int64)
_ROW = {keyword: row for row, (_, keyword, _) in enumerate(_ELEMENTS)}
_INSTANCE, _POSITION = _ROW["InstanceNumber"], _ROW["ImagePositionPatient"]
#: Elements that may differ between the slices of a series.
_VARYING = np.array([keyword in ("InstanceNumber", "ImagePositionPatient") for _, keyword, _ in _ELEMENTS])
#: What tells a member's series, all before group 0028: present in the first kilobytes of any slice.
_SHORTS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation")
_IDENTITY = ("ImageType", "SOPClassUID", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber")
_IDENTITY_ROWS = np.array([_ROW[keyword] for keyword in _IDENTITY])

# -- one slice ----------------------------------------------------------------------------------------------------


class _DamagedError(ValueError):
    """An element is not what it should be; the text may be shown."""


@dataclass(frozen=True)
class Slice:
    """One parsed slice.

    Attributes:
        header: what it shares with its series.
        position_mm: ImagePositionPatient (x, y, z).
        instance: InstanceNumber, 0 where absent.
        pixels: (rows, cols) uint16, or float32 where the values are not unsigned 16-bit.
    """

    header: SeriesHeader
    position_mm: tuple[float, float, float]
    instance: int
    pixels: Voxels


@dataclass
class SliceParser:
    """Parses the slices of one series; remembers the last header that the fast path understood.

    Args:
        use_fast_path: False sends every slice through pydicom.
        verified: structures (sequences of tags and value representations) whose header pydicom has been seen to
            read as the fast path does; shared by the series of a scan.
    """

    use_fast_path: bool = True
    verified: set[int] = field(default_factory=set)
    _found: NDArray[np.int64] = field(default_factory=lambda: np.empty((len(_TAGS), 2), np.int64))
    _template: NDArray[np.uint8] | None = None
    _template_found: NDArray[np.int64] = field(default_factory=lambda: np.empty((len(_TAGS), 2), np.int64))
    _header: SeriesHeader | None = None

    def parse(self, data: bytes) -> Slice:
        """Parse a whole file.

        Raises:
            ScanError: ``unreadable_dicom``, ``unsupported_transfer_syntax``, ``multiframe`` or
                ``implausible_geometry``.
        """
        fast = self._parse_fast(data) if self.use_fast_path else None
        return fast if fast is not None else parse_with_pydicom(data)

    def _parse_fast(self, data: bytes) -> Slice | None:
        """Parse a plain slice; None for anything that pydicom should judge."""
        if data[_PREAMBLE : _PREAMBLE + 4] != _MAGIC:
            return None
        buffer = np.frombuffer(data, np.uint8)
        status, offset, length, structure = walk(buffer, _PREAMBLE + 4, _TAGS, _REPRESENTATIONS, self._found)
        if status != WALKED or offset + length > len(data):
            return None
        try:
            header = self._shared_header(data, buffer, structure)
            if header is None or length != 2 * header.rows * header.cols:
                return None
            x, y, z = self._value(data, _POSITION).split(b"\\")
            position = (float(x), float(y), float(z))
            instance = int(self._value(data, _INSTANCE) or b"0")
        except (KeyError, ValueError):  # absent or odd elements: pydicom says what is wrong with them
            return None
        pixels: NDArray[np.uint16] = np.frombuffer(data, "<u2", header.rows * header.cols, offset)
        return Slice(header, position, instance, pixels.reshape(header.rows, header.cols))

    def _value(self, data: bytes, row: int) -> bytes:
        """Return an element's bytes without padding; empty where absent."""
        start, length = self._found[row].tolist()
        return data[start : start + length].strip(b" \0") if length > 0 else b""

    def _short(self, data: bytes, row: int) -> int:
        """Return an unsigned 16-bit element; -1 where absent."""
        start, length = self._found[row].tolist()
        return int.from_bytes(data[start : start + 2], "little") if length == 2 else -1

    def _shared_header(self, data: bytes, buffer: NDArray[np.uint8], structure: int) -> SeriesHeader | None:
        """Return the header shared with the series, parsed anew only where its bytes differ from the last one's."""
        if self._template is not None and alike(buffer, self._found, self._template, self._template_found, _VARYING):
            return self._header
        header = self._header_from_bytes(data)
        if header is None:
            return None
        if structure not in self.verified:
            if header != _header_by_pydicom(data):
                return None
            self.verified.add(structure)
        check_plausible(header)
        self._header, self._template, self._template_found = header, buffer, self._found.copy()
        return header

    def _header_from_bytes(self, data: bytes) -> SeriesHeader | None:
        """Parse the shared elements; None unless they are those of a plain unsigned 16-bit slice."""
        text = {keyword: self._value(data, row) for keyword, row in _ROW.items() if keyword not in _SHORTS}
        shorts = {keyword: self._short(data, _ROW[keyword]) for keyword in _SHORTS}
        plain = (
            text["TransferSyntaxUID"] == _EXPLICIT_LITTLE_ENDIAN
            and (shorts["SamplesPerPixel"], shorts["BitsAllocated"], shorts["PixelRepresentation"]) == (1, 16, 0)
            and text["NumberOfFrames"] in (b"", b"1")
            and text["SOPClassUID"].decode("ascii", "replace") not in _ENHANCED_MR
            and all(value.isascii() for value in text.values())
        )
        return _make_header({keyword: value.decode() for keyword, value in text.items()}, shorts) if plain else None


def parse_with_pydicom(data: bytes) -> Slice:
    """Parse a whole file with pydicom, the reader of record.

    Raises:
        ScanError: as :meth:`SliceParser.parse`.
    """
    with _quiet():
        dataset = _read_dataset(data, pixels=True)
        header = _header_from_dataset(dataset)
        check_plausible(header)
        try:
            x, y, z = (float(value) for value in dataset.ImagePositionPatient)
            instance = int(dataset.get("InstanceNumber") or 0)
        except Exception as error:  # a damaged element may raise anything on access
            raise _unreadable(error) from None
        return Slice(header, (x, y, z), instance, _decode_pixels(dataset, header))


def _header_by_pydicom(data: bytes) -> SeriesHeader:
    """Read only the header with pydicom, to verify the fast path.

    Raises:
        ScanError: as :meth:`SliceParser.parse`.
    """
    with _quiet():
        return _header_from_dataset(_read_dataset(data, pixels=False))


def _read_dataset(data: bytes, pixels: bool) -> pydicom.Dataset:
    """Let pydicom read a single-slice file, with or without its pixel data and its preamble.

    Raises:
        ScanError: ``unreadable_dicom`` or ``multiframe``.
    """
    dataset = _read_any_dataset(data, pixels)
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        enhanced = str(dataset.get("SOPClassUID", "")) in _ENHANCED_MR
    except Exception as error:  # a damaged element may raise anything on access
        raise _unreadable(error) from None
    if frames > 1 or enhanced:
        raise multiframe(frames)
    return dataset


def _read_any_dataset(data: bytes, pixels: bool) -> pydicom.Dataset:
    plain = _undeflated(data)
    try:
        return pydicom.dcmread(BytesIO(plain), force=True, stop_before_pixels=not pixels)
    except Exception as error:  # damaged bytes make pydicom raise nearly anything
        raise _unreadable(error) from None


def _undeflated(data: bytes) -> bytes:
    """Return data of the deflated transfer syntax as plain explicit VR, inflated with a bound; other data as they are.

    pydicom would inflate them without one.

    Raises:
        ScanError: ``unsupported_transfer_syntax`` where the deflated part cannot be told or inflated.
    """
    uid = str(DeflatedExplicitVRLittleEndian).encode()
    if uid not in data:
        return data
    start = _PREAMBLE + 4 if data[_PREAMBLE : _PREAMBLE + 4] == _MAGIC else 0
    if data[start : start + 8] != b"\x02\x00\x00\x00UL\x04\x00":  # the length of the meta group comes first
        raise _unsupported("deflated, with a damaged meta header")
    end = start + 12 + int.from_bytes(data[start + 8 : start + 12], "little")
    if uid not in data[start:end]:
        return data
    try:
        inflated = zlib.decompressobj(-15).decompress(data[end:], MAX_MEMBER_BYTES + 1)
    except zlib.error:
        raise _unsupported("deflated, and damaged") from None
    if len(inflated) > MAX_MEMBER_BYTES or not inflated:
        raise _unsupported(f"deflated to more than {MAX_MEMBER_BYTES} bytes, or to nothing")
    return inflated


def _header_from_dataset(dataset: pydicom.Dataset) -> SeriesHeader:
    """Turn what pydicom read into the header of a series.

    Raises:
        ScanError: ``unreadable_dicom`` where a needed element is absent or damaged.
    """
    try:
        text = {keyword: _text_of(dataset.get(keyword)) for _, keyword, _ in _ELEMENTS}
        short = {keyword: int(dataset[keyword].value) for keyword in ("Rows", "Columns")}
        return _make_header(text, short)
    except KeyError as error:
        raise ScanError(
            Reason.UNREADABLE_DICOM, f"a slice lacks an element ({_keyword(error)}); download the scan again"
        ) from None
    except Exception as error:  # a damaged element may raise anything on access
        raise _unreadable(error) from None


def _text_of(value: Any) -> str:
    """Return an element's value as the text it had in the file, multiple values joined by backslashes."""
    if value is None:
        return ""
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(_text_of(part) for part in value)
    original = getattr(value, "original_string", None)
    return str(value if original is None else original).strip(" \0")


def _make_header(text: Mapping[str, str], short: Mapping[str, int]) -> SeriesHeader:
    """Build a header from elements as text and the two matrix sizes; both routes end here.

    Raises:
        KeyError: an element is absent.
        ValueError: an element is not what it should be.
    """
    number = text["SeriesNumber"]
    image_type = tuple(text["ImageType"].split("\\"))
    row_mm, col_mm = _floats(text, "PixelSpacing", 2)
    return SeriesHeader(
        number=int(number) if number else None,
        uid=text["SeriesInstanceUID"],
        description=text["SeriesDescription"],
        contrast=contrast_of(text["SeriesDescription"], image_type),
        rows=short["Rows"],
        cols=short["Columns"],
        orientation=_floats(text, "ImageOrientationPatient", 6),
        pixel_spacing_mm=(row_mm, col_mm),
        time_s=_seconds(text["SeriesTime"]),
        slope=float(text["RescaleSlope"] or 1.0),
        intercept=float(text["RescaleIntercept"] or 0.0),
        study_uid=text["StudyInstanceUID"],
        patient_id=text["PatientID"],
    )


def _floats(text: Mapping[str, str], keyword: str, count: int) -> tuple[float, ...]:
    if not text[keyword]:
        raise KeyError(keyword)
    values = tuple(float(part) for part in text[keyword].split("\\"))
    if len(values) != count:
        raise _DamagedError(f"{keyword} has {len(values)} values, expected {count}")
    return values


def _seconds(time: str) -> float:
    """Turn a DICOM time (HHMMSS.ffffff, or HH:MM:SS of old files) into seconds of the day; -inf where it is not one."""
    digits = time.replace(":", "")
    try:
        return int(digits[0:2]) * 3600.0 + int(digits[2:4] or 0) * 60.0 + float(digits[4:] or 0)
    except ValueError:
        return -math.inf


def _decode_pixels(dataset: pydicom.Dataset, header: SeriesHeader) -> Voxels:
    """Return a slice's pixels, (rows, cols): uint16 where every value fits, else float32.

    Raises:
        ScanError: ``unreadable_dicom`` or ``unsupported_transfer_syntax``.
    """
    syntax = str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "") or ExplicitVRLittleEndian)
    if syntax not in _UNCOMPRESSED:
        pixels = _decompress(dataset, syntax)
    else:
        try:
            pixels = _native_pixels(dataset, header, big_endian=not dataset.original_encoding[1])
        except Exception as error:  # a damaged element may raise anything on access
            raise _unreadable(error) from None
    if pixels.shape != (header.rows, header.cols):
        raise ScanError(
            Reason.UNREADABLE_DICOM,
            f"a slice has pixels of shape {pixels.shape}, its header says ({header.rows}, {header.cols}); "
            "download the scan again",
        )
    if pixels.dtype.kind in "ui" and pixels.min() >= 0 and pixels.max() <= np.iinfo(np.uint16).max:
        return pixels.astype(np.uint16)
    return pixels.astype(np.float32)


def _native_pixels(dataset: pydicom.Dataset, header: SeriesHeader, big_endian: bool) -> NDArray[Any]:
    """Read uncompressed pixels of 8, 16 or 32 bits."""
    element = dataset["PixelData"]
    if element.is_undefined_length:
        raise _DamagedError("PixelData are encapsulated although the transfer syntax is uncompressed")
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if samples != 1:
        raise _DamagedError(f"SamplesPerPixel is {samples}, expected 1")
    kind = "i" if int(dataset.get("PixelRepresentation") or 0) else "u"
    dtype = np.dtype(f"{'>' if big_endian else '<'}{kind}{_BYTES[int(dataset.BitsAllocated)]}")
    count = header.rows * header.cols
    if len(element.value) < count * dtype.itemsize:
        raise _DamagedError(f"PixelData have {len(element.value)} bytes, expected {count * dtype.itemsize}")
    return np.frombuffer(element.value, dtype, count).reshape(header.rows, header.cols)


def _decompress(dataset: pydicom.Dataset, syntax: str) -> NDArray[Any]:
    """Let pydicom's plugins decode compressed pixels."""
    try:
        return np.asarray(dataset.pixel_array)
    except Exception as error:  # plugins raise whatever they like
        name = UID(syntax).name
        raise _unsupported(f"{name} ({type(error).__name__})") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom from warning and logging, which quotes values of the file, participants' ids among them."""
    before = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pydicom.config.settings.reading_validation_mode = before


def _unreadable(error: Exception) -> ScanError:
    found = str(error) if isinstance(error, _DamagedError) else type(error).__name__  # other texts may quote the file
    return ScanError(Reason.UNREADABLE_DICOM, f"a DICOM file cannot be parsed ({found}); download the scan again")


def multiframe(frames: int) -> ScanError:
    """Return the error for enhanced or otherwise multi-frame DICOM."""
    return ScanError(
        Reason.MULTIFRAME,
        f"enhanced (multi-frame) DICOM with {frames} frames, expected one slice a file; "
        "export classic single-slice DICOM",
    )


def _unsupported(found: str) -> ScanError:
    return ScanError(
        Reason.UNSUPPORTED_TRANSFER_SYNTAX,
        f"pixel data that no installed decoder reads: {found}; install ukb-infer[codecs] or convert to explicit VR",
    )


def _keyword(error: KeyError) -> str:
    """Name the absent element of a KeyError, which pydicom raises with a tag."""
    what = error.args[0] if error.args else ""
    return what if isinstance(what, str) and what in _ROW else str(what)


# -- what a file is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """What the first bytes of a member tell."""

    number: int | None
    uid: str
    contrast: Contrast | None
    enhanced: bool


def looks_like_dicom(head: bytes) -> bool:
    """Tell by its first bytes whether a file is DICOM, with or without the preamble."""
    if head[_PREAMBLE : _PREAMBLE + 4] == _MAGIC:
        return True
    if len(head) < 12 or head[0] not in (0x02, 0x08) or head[1] != 0 or head[3] != 0:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") <= len(head)


def study_of(path: Path) -> str:
    """Return a DICOM file's StudyInstanceUID; empty where it cannot be told."""
    try:
        with _quiet():
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
            return _text_of(dataset.get("StudyInstanceUID"))
    except OSError:
        raise
    except Exception:  # damaged: reading the scan will say so
        return ""


def peek_identity(head: bytes, known: dict[tuple[bytes, ...], Identity]) -> Identity | None:
    """Identify a member of plain explicit VR by its first bytes; None where they do not tell enough.

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
    with _quiet():
        return _identity_from_dataset(_read_any_dataset(data, pixels=False))


def _identity_from_dataset(dataset: pydicom.Dataset) -> Identity:
    try:
        meta = getattr(dataset, "file_meta", {})
        directory = str(meta.get("MediaStorageSOPClassUID", "")) == MediaStorageDirectoryStorage
        if not directory and "SeriesNumber" not in dataset and "SeriesInstanceUID" not in dataset:
            raise _DamagedError("it belongs to no series, or is cut short")
        return _make_identity(*(_text_of(dataset.get(keyword)) for keyword in _IDENTITY))
    except Exception as error:  # a damaged element may raise anything on access
        raise _unreadable(error) from None


def _make_identity(image_type: str, sop_class: str, description: str, uid: str, number: str) -> Identity:
    """Make an identity of elements as text.

    Raises:
        ScanError: ``unreadable_dicom``.
    """
    contrast = contrast_of(description, tuple(image_type.split("\\")))
    try:
        return Identity(int(number) if number else None, uid, contrast, sop_class in _ENHANCED_MR)
    except ValueError as error:
        raise _unreadable(error) from None
