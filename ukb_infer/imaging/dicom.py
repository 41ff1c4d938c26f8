"""DICOM slices to series: pydicom is the reader of record, with a fast path for the common case.

The fast path walks the elements of plain explicit-VR little-endian slices with a small compiled parser. Whatever
it does not know (another transfer syntax, an odd value representation, elements out of order, other pixel types)
goes to pydicom, and the first slice of every series is parsed by both and must agree. Both routes give identical
results; tests compare them on every anomaly.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numba
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from ukb_infer.errors import Reason, ScanError
from ukb_infer.imaging.series import (
    MAX_SLICES,
    Contrast,
    Series,
    SeriesHeader,
    Voxels,
    check_budget,
    check_plausible,
    contrast_of,
)
from ukb_infer.imaging.zipsource import MAX_MEMBER_BYTES, MemberSource

_PREAMBLE = 128
_MAGIC = b"DICM"
_ENHANCED_MR = frozenset({"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"})
_EXPLICIT_LITTLE_ENDIAN = b"1.2.840.10008.1.2.1"
_PIXEL_DATA = 0x7FE00010
#: Names that claim to be DICOM: a member so named that is not DICOM is damage, any other is junk to be ignored.
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")

#: The elements that are read, ascending: (tag, pydicom keyword).
_ELEMENTS: tuple[tuple[int, str], ...] = (
    (0x00020010, "TransferSyntaxUID"),
    (0x00080008, "ImageType"),
    (0x00080016, "SOPClassUID"),
    (0x00080031, "SeriesTime"),
    (0x0008103E, "SeriesDescription"),
    (0x00100020, "PatientID"),
    (0x0020000D, "StudyInstanceUID"),
    (0x0020000E, "SeriesInstanceUID"),
    (0x00200011, "SeriesNumber"),
    (0x00200013, "InstanceNumber"),
    (0x00200032, "ImagePositionPatient"),
    (0x00200037, "ImageOrientationPatient"),
    (0x00280002, "SamplesPerPixel"),
    (0x00280008, "NumberOfFrames"),
    (0x00280010, "Rows"),
    (0x00280011, "Columns"),
    (0x00280030, "PixelSpacing"),
    (0x00280100, "BitsAllocated"),
    (0x00280103, "PixelRepresentation"),
    (0x00281052, "RescaleIntercept"),
    (0x00281053, "RescaleSlope"),
)
_TAGS = np.array([tag for tag, _ in _ELEMENTS], np.int64)
_ROW = {keyword: row for row, (_, keyword) in enumerate(_ELEMENTS)}
_INSTANCE, _POSITION = _ROW["InstanceNumber"], _ROW["ImagePositionPatient"]
#: Elements that may differ between the slices of a series.
_VARYING = np.array([keyword in ("InstanceNumber", "ImagePositionPatient") for _, keyword in _ELEMENTS])
#: What tells a member's series, all before group 0028: present in the first kilobytes of any slice.
_IDENTITY = tuple(
    _ROW[keyword] for keyword in ("ImageType", "SOPClassUID", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber")
)

# -- the compiled parser ----------------------------------------------------------------------------------------

_WALKED, _UNUSUAL, _CUT = 0, 1, 2


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with numba, without its cache where no folder for it can be written."""
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        compiled = numba.njit(nogil=True)(function)
    return compiled


@_compile
def _walk(buffer: NDArray[np.uint8], start: int, tags: NDArray[np.int64], found: NDArray[np.int64]) -> Any:
    """Walk the elements of explicit-VR little-endian data up to the pixel data.

    Args:
        buffer: the file.
        start: offset of the first element.
        tags: wanted tags, ascending.
        found: (tags, 2) filled with (offset, length); length -1 where absent.

    Returns:
        (status, offset of the pixel data, their length).
    """
    size = buffer.size
    found[:, :] = -1
    at, wanted, last, depth = start, 0, -1, 0
    while at + 8 <= size:
        group = buffer[at] | buffer[at + 1] << 8
        element = buffer[at + 2] | buffer[at + 3] << 8
        tag = np.int64(group) << 16 | np.int64(element)
        if group == 0xFFFE:  # item or delimiter inside a sequence of undefined length
            length = (
                np.int64(buffer[at + 4])
                | np.int64(buffer[at + 5]) << 8
                | np.int64(buffer[at + 6]) << 16
                | np.int64(buffer[at + 7]) << 24
            )
            if depth == 0:
                return 1, 0, 0
            at += 8
            if element == 0xE000:
                if length == 0xFFFFFFFF:
                    depth += 1
                else:
                    at += length
            elif element == 0xE00D or element == 0xE0DD:
                depth -= 1
            else:
                return 1, 0, 0
            continue
        first, second = buffer[at + 4], buffer[at + 5]
        if first < 65 or first > 90 or second < 65 or second > 90:
            return 1, 0, 0
        # OB OD OF OL OV OW, SQ, SV, UC UN UR UT UV: two reserved bytes, then a length of four
        is_long = (
            (first == 79 and (second == 66 or second == 68 or second == 70 or second == 76 or second >= 86))
            or (first == 83 and (second == 81 or second == 86))
            or (first == 85 and (second == 67 or second == 78 or second == 82 or second == 84 or second == 86))
        )
        if is_long:
            if at + 12 > size:
                return 2, 0, 0
            length = (
                np.int64(buffer[at + 8])
                | np.int64(buffer[at + 9]) << 8
                | np.int64(buffer[at + 10]) << 16
                | np.int64(buffer[at + 11]) << 24
            )
            at += 12
        else:
            length = np.int64(buffer[at + 6]) | np.int64(buffer[at + 7]) << 8
            at += 8
        if length == 0xFFFFFFFF:
            if not (first == 83 and second == 81):  # only a sequence: not encapsulated pixels, not UN
                return 1, 0, 0
            if depth == 0:
                if tag <= last:
                    return 1, 0, 0
                last = tag
            depth += 1
            continue
        if depth == 0:
            if tag <= last:
                return 1, 0, 0
            last = tag
            while wanted < tags.size and tags[wanted] < tag:
                wanted += 1
            if wanted < tags.size and tags[wanted] == tag and at + length <= size:
                found[wanted, 0], found[wanted, 1] = at, length
            if tag == 0x7FE00010:
                return 0, at, length
        at += length
    return 2, 0, 0


@_compile
def _alike(
    buffer: NDArray[np.uint8],
    found: NDArray[np.int64],
    other: NDArray[np.uint8],
    other_found: NDArray[np.int64],
    varying: NDArray[np.bool_],
) -> Any:
    """Tell whether two walked files agree to the byte in every element that a series shares."""
    for row in range(varying.size):
        if varying[row]:
            continue
        length = found[row, 1]
        if length != other_found[row, 1]:
            return False
        for byte in range(length):
            if buffer[found[row, 0] + byte] != other[other_found[row, 0] + byte]:
                return False
    return True


# -- one slice ----------------------------------------------------------------------------------------------------


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
    """

    use_fast_path: bool = True
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
        status, offset, length = _walk(buffer, _PREAMBLE + 4, _TAGS, self._found)
        if status != _WALKED or offset + length > len(data):
            return None
        try:
            header = self._shared_header(data, buffer)
            if header is None or length != 2 * header.rows * header.cols:
                return None
            x, y, z = self._value(data, _POSITION).split(b"\\")
            position = (float(x), float(y), float(z))
            instance = int(self._value(data, _INSTANCE) or b"0")
        except ValueError:
            return None
        pixels: NDArray[np.uint16] = np.frombuffer(data, "<u2", header.rows * header.cols, offset)
        return Slice(header, position, instance, pixels.reshape(header.rows, header.cols))

    def _value(self, data: bytes, row: int) -> bytes:
        """Return an element's bytes without padding; empty where absent."""
        start, length = self._found[row].tolist()
        return data[start : start + length].strip(b" \0") if length > 0 else b""

    def _shared_header(self, data: bytes, buffer: NDArray[np.uint8]) -> SeriesHeader | None:
        """Return the header shared with the series, parsed anew only where its bytes differ from the last one's."""
        if self._template is not None and _alike(buffer, self._found, self._template, self._template_found, _VARYING):
            return self._header
        header = self._header_from_bytes(data)
        if header is None or header != _header_from_dataset(_read_dataset(data, pixels=False)):
            return None
        self._header, self._template, self._template_found = header, buffer, self._found.copy()
        return header

    def _header_from_bytes(self, data: bytes) -> SeriesHeader | None:
        """Parse the shared elements; None unless they are those of a plain unsigned 16-bit slice."""
        text = {keyword: self._value(data, row) for keyword, row in _ROW.items()}
        short = {
            keyword: int.from_bytes(text[keyword].ljust(2, b"\0"), "little") if self._found[_ROW[keyword], 1] == 2 else -1
            for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation")
        }
        plain = (
            text["TransferSyntaxUID"] == _EXPLICIT_LITTLE_ENDIAN
            and (short["SamplesPerPixel"], short["BitsAllocated"], short["PixelRepresentation"]) == (1, 16, 0)
            and text["NumberOfFrames"] in (b"", b"1")
            and text["SOPClassUID"].decode("ascii", "replace") not in _ENHANCED_MR
            and all(value.isascii() for value in text.values())
        )
        return _make_header({keyword: value.decode() for keyword, value in text.items()}, short) if plain else None


def parse_with_pydicom(data: bytes) -> Slice:
    """Parse a whole file with pydicom, the reader of record.

    Raises:
        ScanError: as :meth:`SliceParser.parse`.
    """
    dataset = _read_dataset(data, pixels=True)
    header = _header_from_dataset(dataset)
    check_plausible(header)
    try:
        x, y, z = (float(value) for value in dataset.ImagePositionPatient)
        instance = int(dataset.get("InstanceNumber") or 0)
    except Exception as error:  # whatever a damaged element makes of its access
        raise _unreadable(error) from None
    return Slice(header, (x, y, z), instance, _decode_pixels(dataset, header))


def _read_dataset(data: bytes, pixels: bool) -> pydicom.Dataset:
    """Let pydicom read a file, with or without its pixel data and its preamble.

    Raises:
        ScanError: ``unreadable_dicom`` or ``multiframe``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(BytesIO(_undeflated(data)), force=True, stop_before_pixels=not pixels)
            frames = int(dataset.get("NumberOfFrames") or 1)
            sop_class = str(dataset.get("SOPClassUID", ""))
        except ScanError:
            raise
        except Exception as error:  # damaged bytes make pydicom raise nearly anything
            raise _unreadable(error) from None
    if frames > 1 or sop_class in _ENHANCED_MR:
        raise ScanError(
            Reason.MULTIFRAME,
            f"an enhanced (multi-frame) DICOM with {frames} frames, expected one slice a file; "
            "export classic single-slice DICOM",
        )
    return dataset


def _undeflated(data: bytes) -> bytes:
    """Return data of the deflated transfer syntax as plain explicit VR, inflated with a bound; other data as is."""
    uid = str(DeflatedExplicitVRLittleEndian).encode()
    if data[_PREAMBLE : _PREAMBLE + 4] != _MAGIC or uid not in data[: _PREAMBLE + 1024]:
        return data
    meta = pydicom.dcmread(BytesIO(data), force=True, stop_before_pixels=True, specific_tags=[], defer_size=None)
    return data if meta is None else data
