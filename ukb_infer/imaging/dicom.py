"""DICOM slices to series: pydicom is the reader of record, with a fast path for the common case.

The fast path walks the elements of plain explicit-VR little-endian slices with a small compiled parser. Whatever
it does not know (another transfer syntax, an odd value representation, elements out of order, other pixel types)
goes to pydicom, and the first slice of every series is parsed by both and must agree. Both routes give identical
results; tests compare them on every anomaly.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

import numba
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
)

from ukb_infer.errors import Reason, ScanError
from ukb_infer.imaging.series import (
    Budget,
    Contrast,
    Series,
    SeriesHeader,
    Voxels,
    check_plausible,
    contrast_of,
)
from ukb_infer.imaging.zipsource import MAX_MEMBER_BYTES, MemberSource

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
_IDENTITY = ("ImageType", "SOPClassUID", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber")
_IDENTITY_ROWS = np.array([_ROW[keyword] for keyword in _IDENTITY])

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
        if header is None:
            return None
        if self._template is None and header != _header_from_dataset(_read_dataset(data, pixels=False)):
            return None
        check_plausible(header)
        self._header, self._template, self._template_found = header, buffer, self._found.copy()
        return header

    def _header_from_bytes(self, data: bytes) -> SeriesHeader | None:
        """Parse the shared elements; None unless they are those of a plain unsigned 16-bit slice."""
        text = {keyword: self._value(data, row) for keyword, row in _ROW.items()}
        short = {
            keyword: int.from_bytes(text[keyword].ljust(2, b"\0"), "little")
            if self._found[_ROW[keyword], 1] == 2
            else -1
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
        raise _multiframe(frames)
    return dataset


def _read_any_dataset(data: bytes, pixels: bool) -> pydicom.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = {keyword: _text_of(dataset.get(keyword)) for _, keyword in _ELEMENTS}
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
        raise ValueError(f"{keyword} has {len(values)} values, expected {count}")
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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
        raise ValueError("PixelData are encapsulated although the transfer syntax is uncompressed")
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if samples != 1:
        raise ValueError(f"SamplesPerPixel is {samples}, expected 1")
    kind = "i" if int(dataset.get("PixelRepresentation") or 0) else "u"
    dtype = np.dtype(f"{'>' if big_endian else '<'}{kind}{_BYTES[int(dataset.BitsAllocated)]}")
    count = header.rows * header.cols
    if len(element.value) < count * dtype.itemsize:
        raise ValueError(f"PixelData have {len(element.value)} bytes, expected {count * dtype.itemsize}")
    return np.frombuffer(element.value, dtype, count).reshape(header.rows, header.cols)


def _decompress(dataset: pydicom.Dataset, syntax: str) -> NDArray[Any]:
    """Let pydicom's plugins decode compressed pixels."""
    try:
        return np.asarray(dataset.pixel_array)
    except Exception as error:  # plugins raise whatever they like
        name = UID(syntax).name
        raise _unsupported(f"{name} ({type(error).__name__})") from None


def _unreadable(error: Exception) -> ScanError:
    found = f"{type(error).__name__}: {error}" if type(error) is ValueError else type(error).__name__
    return ScanError(Reason.UNREADABLE_DICOM, f"a DICOM file cannot be parsed ({found}); download the scan again")


def _multiframe(frames: int) -> ScanError:
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


# -- a container of slices ------------------------------------------------------------------------------------------


@dataclass
class _Plan:
    """The members of one series, as their first bytes identify them."""

    number: int | None
    uid: str
    contrast: Contrast
    members: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Identity:
    """What the first bytes of a member tell."""

    number: int | None
    uid: str
    contrast: Contrast | None
    enhanced: bool


def read_series(source: MemberSource, use_fast_path: bool = True) -> list[Series]:
    """Read the water and fat series of a zip or folder of DICOM slices; headers decide what belongs to them.

    The first kilobytes of every member tell its series and contrast, so in-phase and opposed-phase members are not
    decoded. No manifest is consulted: nothing in it can change the result.

    Args:
        source: the zip or folder.
        use_fast_path: False sends every slice through pydicom (same result).

    Returns:
        Series in the order of first appearance, slices in the order of the container.

    Raises:
        ScanError: ``no_dicom``, ``multiframe``, ``unreadable_dicom``, ``too_large`` and those of :class:`SliceParser`.
    """
    plans = _identify(source, use_fast_path)
    return _decode(source, plans, use_fast_path)


def looks_like_dicom(head: bytes) -> bool:
    """Tell by its first bytes whether a file is DICOM, with or without the preamble."""
    if head[_PREAMBLE : _PREAMBLE + 4] == _MAGIC:
        return True
    if len(head) < 12 or head[0] not in (0x02, 0x08) or head[1] != 0 or head[3] != 0:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") <= len(head)


def _identify(source: MemberSource, use_fast_path: bool) -> list[_Plan]:
    """Tell which members form which water and fat series, by their first bytes."""
    plans: dict[tuple[int | None, str, Contrast], _Plan] = {}
    known: dict[tuple[bytes, ...], _Identity] = {}
    any_dicom = enhanced = False
    for index in range(len(source.names)):
        head = source.peek(index)
        if not looks_like_dicom(head):
            _refuse_damaged(source.names[index])
            continue
        any_dicom = True
        identity = (_peek_identity(head, known) if use_fast_path else None) or _full_identity(source.read(index))
        enhanced |= identity.enhanced
        if identity.contrast is Contrast.WATER or identity.contrast is Contrast.FAT:
            key = (identity.number, identity.uid, identity.contrast)
            plans.setdefault(key, _Plan(*key)).members.append(index)
    if not any_dicom:
        raise ScanError(Reason.NO_DICOM, "no DICOM slice in the input; download the scan again")
    if enhanced and not plans:
        raise _multiframe(2)
    return _merge_uids(list(plans.values()))


def _refuse_damaged(name: str) -> None:
    """Ignore what is not DICOM, unless its name says that it should be.

    Raises:
        ScanError: ``unreadable_dicom``.
    """
    base = name.replace("\\", "/").rpartition("/")[2].lower()
    if base.endswith(_DICOM_SUFFIXES) and not base.startswith("._"):  # "._x.dcm" is what macOS leaves in zips
        raise ScanError(
            Reason.UNREADABLE_DICOM, "a file named as DICOM does not begin like one; download the scan again"
        )


def _peek_identity(head: bytes, known: dict[tuple[bytes, ...], _Identity]) -> _Identity | None:
    """Identify a member of plain explicit VR by its first bytes; None where they do not tell enough.

    Args:
        head: the first bytes.
        known: identities by the bytes of their elements, filled here.
    """
    start = _PREAMBLE + 4 if head[_PREAMBLE : _PREAMBLE + 4] == _MAGIC else 0
    found = np.empty((len(_TAGS), 2), np.int64)
    status, _, _ = _walk(np.frombuffer(head, np.uint8), start, _TAGS, found)
    if status == _UNUSUAL:
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


def _full_identity(data: bytes) -> _Identity:
    """Identify a member with pydicom.

    Raises:
        ScanError: ``unreadable_dicom``.
    """
    dataset = _read_any_dataset(data, pixels=False)
    try:
        return _make_identity(*(_text_of(dataset.get(keyword)) for keyword in _IDENTITY))
    except Exception as error:  # a damaged element may raise anything on access
        raise _unreadable(error) from None


def _make_identity(image_type: str, sop_class: str, description: str, uid: str, number: str) -> _Identity:
    """Make an identity of elements as text.

    Raises:
        ScanError: ``unreadable_dicom``.
    """
    contrast = contrast_of(description, tuple(image_type.split("\\")))
    try:
        return _Identity(int(number) if number else None, uid, contrast, sop_class in _ENHANCED_MR)
    except ValueError as error:
        raise _unreadable(error) from None


def _merge_uids(plans: list[_Plan]) -> list[_Plan]:
    """Undo the splitting of series whose slices were each given a SeriesInstanceUID of their own.

    A number used by two whole series (a repeat under the same number) stays two series.
    """
    groups: dict[tuple[int | None, Contrast], list[_Plan]] = {}
    for plan in plans:
        groups.setdefault((plan.number, plan.contrast), []).append(plan)
    merged: list[_Plan] = []
    for (number, contrast), group in groups.items():
        members = sorted(index for plan in group for index in plan.members)
        if number is not None and 2 * len(group) > len(members):
            merged.append(_Plan(number, "", contrast, members))
        else:
            merged.extend(group)
    return merged


@dataclass
class _Stack:
    """The slices of one series as they come in."""

    plan: _Plan
    parser: SliceParser
    header: SeriesHeader | None = None
    voxels: Voxels | None = None
    positions: list[tuple[float, float, float]] = field(default_factory=list)
    instances: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, data: bytes, budget: Budget) -> None:
        """Parse a slice and append it."""
        part = self.parser.parse(data)
        if self.header is None or self.voxels is None:
            self.header = part.header
            shape = (len(self.plan.members), part.header.rows, part.header.cols)
            budget.take(shape, part.header.label)
            self.voxels = np.empty(shape, part.pixels.dtype)
        elif part.header is not self.header:
            _check_alike(part.header, self.header)
        if part.pixels.dtype != self.voxels.dtype:
            self.voxels = self.voxels.astype(np.float32)
        self.voxels[len(self.positions)] = part.pixels
        self.positions.append(part.position_mm)
        self.instances.append(part.instance)
        self.times.append(part.header.time_s)

    def finish(self) -> Series:
        """Return the series."""
        if self.header is None or self.voxels is None:
            raise RuntimeError("a planned series has at least one member")
        header = replace(self.header, time_s=max(self.times))
        return Series(
            header, self.voxels, np.array(self.positions), np.array(self.instances, np.int64), np.array(self.times)
        )


def _decode(source: MemberSource, plans: list[_Plan], use_fast_path: bool) -> list[Series]:
    """Decode the planned members in the order of the container, which is that of the disk."""
    stacks = [_Stack(plan, SliceParser(use_fast_path)) for plan in plans]
    order = sorted((index, stack) for stack in range(len(stacks)) for index in plans[stack].members)
    budget = Budget()
    for index, chosen in order:
        stacks[chosen].add(source.read(index), budget)
    return [stack.finish() for stack in stacks]


def _check_alike(header: SeriesHeader, first: SeriesHeader) -> None:
    """Refuse a slice that does not belong to the series of the first.

    Raises:
        ScanError: ``several_scans`` or ``geometry_inconsistent``.
    """
    if (header.study_uid, header.patient_id) != (first.study_uid, first.patient_id):
        raise ScanError(Reason.SEVERAL_SCANS, f"{first.label} has slices of more than one examination; separate them")
    for name in ("rows", "cols", "orientation", "pixel_spacing_mm", "slope", "intercept"):
        found, expected = getattr(header, name), getattr(first, name)
        if found != expected:
            raise ScanError(
                Reason.GEOMETRY_INCONSISTENT,
                f"slices of {first.label} differ in {name}: {found} and {expected}; download the scan again",
            )
