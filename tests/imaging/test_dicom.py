"""DICOM slices: both routes give the same, and every variant of the files is read or refused by code."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.support.small_scans import COLS, ROWS, encode, make_slice, picture
from ukb_infer.errors import ScanError
from ukb_infer.imaging.readers.dicom import (
    SliceParser,
    full_identity,
    looks_like_dicom,
    parse_with_pydicom,
    peek_identity,
)
from ukb_infer.imaging.series import Contrast, contrast_of
from ukb_infer.reasons import Reason

REAL = Path(__file__).parents[1] / "data" / "real" / "siemens_xa30_enhanced_mr.dcm"


def fast_only(data: bytes):
    """What the fast path alone makes of a file; None where it leaves it to pydicom."""
    return SliceParser()._parse_fast(data)


def assert_same_slice(one, other) -> None:
    assert one.header == other.header
    assert one.position_mm == other.position_mm
    assert one.instance == other.instance
    assert one.pixels.dtype == other.pixels.dtype
    assert np.array_equal(one.pixels, other.pixels)
    assert (one.location_mm, one.findings) == (other.location_mm, other.findings) or np.isnan(one.location_mm)


def plain() -> Dataset:
    return make_slice(1, "W", 8, 2)


def explicit_as(syntax: str) -> bytes:
    """Explicit VR little-endian data whose meta header names another syntax of the same length of UID."""
    data = encode(plain())
    old = b"1.2.840.10008.1.2.1\0"
    assert data.count(old) == 1
    return data.replace(old, syntax.encode().ljust(len(old), b"\0"))


def implicit() -> bytes:
    ds = plain()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return encode(ds)


def implicit_as_explicit() -> bytes:
    """Implicit data whose meta header claims explicit VR: the meta group of one, the elements of the other."""
    explicit, other = encode(plain()), implicit()
    return (
        explicit[: 144 + struct.unpack_from("<L", explicit, 140)[0]]
        + (other[144 + struct.unpack_from("<L", other, 140)[0] :])
    )


def without_meta() -> bytes:
    data = encode(plain())
    return data[144 + struct.unpack_from("<L", data, 140)[0] :]


def big_endian() -> bytes:
    ds = plain()
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = picture(1, "W", 2).astype(">u2").tobytes()
    return encode(ds)


def run_length() -> bytes:
    ds = plain()
    ds.compress(RLELossless, generate_instance_uid=False)
    return encode(ds)


def deflated() -> bytes:
    ds = plain()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return encode(ds)


def with_sequences() -> bytes:
    """Nested sequences of undefined and of defined length before the pixel data."""
    ds = plain()
    inner, outer = Dataset(), Dataset()
    inner.SeriesNumber = 99  # must not be taken for the slice's own
    inner.ReferencedSOPInstanceUID = "1.2.3"
    outer.ReferencedImageSequence = Sequence([inner, inner])
    outer.SeriesDescription = "another_F"
    outer.is_undefined_length_sequence_item = True
    ds.ReferencedImageSequence = Sequence([outer, inner])
    ds["ReferencedImageSequence"].is_undefined_length = True
    ds.ReferencedStudySequence = Sequence([inner])
    return encode(ds)


VARIANTS = {
    "explicit": lambda: encode(plain()),
    "implicit": implicit,
    "no preamble": lambda: encode(plain())[132:],
    "no meta header": without_meta,
    "explicit data called implicit": lambda: explicit_as("1.2.840.10008.1.2"),
    "implicit data called explicit": implicit_as_explicit,
    "big endian": big_endian,
    "run length": run_length,
    "deflated": deflated,
    "sequences": with_sequences,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_reads_like_the_plain_slice(variant: str) -> None:
    data = VARIANTS[variant]()
    expected = parse_with_pydicom(encode(plain()))
    assert np.array_equal(expected.pixels, picture(1, "W", 2))
    assert looks_like_dicom(data[:256])
    assert_same_slice(SliceParser().parse(data), expected)
    assert_same_slice(SliceParser(use_fast_path=False).parse(data), expected)
    assert full_identity(data).contrast is Contrast.WATER
    assert full_identity(data).number == 8


def test_header_values() -> None:
    part = SliceParser().parse(encode(plain()))
    assert (part.header.rows, part.header.cols) == (ROWS, COLS)
    assert part.position_mm == (-30.5, -22.25, 360.0)
    assert part.header.pixel_spacing_mm == (2.23214293, 2.23214293)
    assert part.header.time_s == 13 * 3600 + 1 * 60 + 27.1425
    assert part.header.contrast is Contrast.WATER
    assert (part.instance, part.header.number, *part.header.scaling.numbers) == (3, 8, 1.0, 0.0)


@pytest.mark.parametrize("variant", ["explicit", "sequences"])
def test_fast_path_takes_the_common_case(variant: str) -> None:
    data = VARIANTS[variant]()
    fast = fast_only(data)
    assert fast is not None
    assert_same_slice(fast, parse_with_pydicom(data))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("explicit", "sequences")])
def test_fast_path_leaves_the_unusual_to_pydicom(variant: str) -> None:
    assert fast_only(VARIANTS[variant]()) is None


def test_fast_path_masks_bits_that_do_not_count() -> None:
    ds = plain()
    ds.SliceLocation = "12.5"
    ds.PixelData = (picture(1, "W", 2) | 0x8000).tobytes()
    fast = fast_only(encode(ds))
    assert fast is not None
    assert np.array_equal(fast.pixels, picture(1, "W", 2))
    assert_same_slice(fast, parse_with_pydicom(encode(ds)))
    assert fast.findings


def test_fast_path_reuses_the_header_only_of_alike_slices() -> None:
    parser = SliceParser()
    first, second = (parser.parse(encode(make_slice(1, "W", 8, index))) for index in (0, 1))
    assert second.header is first.header
    assert second.position_mm[2] == first.position_mm[2] - 5.0
    other = plain()
    other.PixelSpacing = [2.0, 2.5]
    assert parser.parse(encode(other)).header.pixel_spacing_mm == (2.0, 2.5)


@pytest.mark.parametrize("variant", ["explicit", "sequences", "no preamble"])
def test_peeking_identifies_without_pydicom(variant: str) -> None:
    identity = peek_identity(VARIANTS[variant]()[:1536], {})
    assert identity is not None
    assert (identity.number, identity.contrast, identity.enhanced) == (8, Contrast.WATER, False)


def test_peeking_admits_what_it_did_not_reach() -> None:
    data = encode(plain())
    for size in range(0, data.index(b"\x20\x00\x11\x00"), 7):
        assert peek_identity(data[:size], {}) is None


@pytest.mark.parametrize(
    ("description", "image_type", "expected"),
    [
        ("Dixon_noBH_W", (), Contrast.WATER),
        ("Dixon_BH_17s_F", (), Contrast.FAT),
        ("dixon_bh_17s_w ", (), Contrast.WATER),
        ("Dixon_noBH_in", ("WATER",), Contrast.IN_PHASE),
        ("Dixon_noBH_OPP", (), Contrast.OPPOSED_PHASE),
        ("Dixon", ("DERIVED", "PRIMARY", "DIXON", "WATER"), Contrast.WATER),
        ("", ("DERIVED", "PRIMARY", "M", "F"), Contrast.FAT),
        ("Dixon", ("W", "F"), None),
        ("Localizer", ("ORIGINAL",), None),
        ("knee_WF", (), None),
    ],
)
def test_contrast(description: str, image_type: tuple[str, ...], expected: Contrast | None) -> None:
    assert contrast_of(description, image_type) is expected


def edited(**values: object) -> bytes:
    ds = plain()
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return encode(ds)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ImagePositionPatient": None}, Reason.UNREADABLE_DICOM),
        ({"ImageOrientationPatient": None}, Reason.UNREADABLE_DICOM),
        ({"PixelSpacing": None}, Reason.UNREADABLE_DICOM),
        ({"Rows": None}, Reason.UNREADABLE_DICOM),
        ({"PixelData": None}, Reason.UNREADABLE_DICOM),
        ({"PixelData": b"\0" * 100}, Reason.UNREADABLE_DICOM),
        ({"BitsAllocated": 12}, Reason.UNREADABLE_DICOM),
        ({"Rows": 5000}, Reason.IMPLAUSIBLE_GEOMETRY),
        ({"Columns": 0}, Reason.IMPLAUSIBLE_GEOMETRY),
        ({"PixelSpacing": [0.001, 2.2]}, Reason.IMPLAUSIBLE_GEOMETRY),
        ({"PixelSpacing": [2.2, 45.0]}, Reason.IMPLAUSIBLE_GEOMETRY),
        ({"NumberOfFrames": 2}, Reason.MULTIFRAME),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1"}, Reason.MULTIFRAME),
    ],
)
def test_refused_slices(values: dict[str, object], reason: Reason) -> None:
    data = edited(**values)
    messages = []
    for use_fast_path in (True, False):
        with pytest.raises(ScanError) as caught:
            SliceParser(use_fast_path).parse(data)
        assert caught.value.reason is reason
        messages.append(caught.value.message)
    assert messages[0] == messages[1]


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_undecodable_pixels(syntax: str) -> None:
    ds = plain()
    ds.PixelData = encapsulate([b"\xff\xd8 not a picture"])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    file = BytesIO()
    ds.save_as(file, implicit_vr=False, little_endian=True)
    with pytest.raises(ScanError) as caught:
        SliceParser().parse(file.getvalue())
    assert caught.value.reason is Reason.UNSUPPORTED_TRANSFER_SYNTAX


def test_real_enhanced_mr_is_multiframe() -> None:
    data = REAL.read_bytes()
    assert full_identity(data).enhanced
    with pytest.raises(ScanError) as caught:
        SliceParser().parse(data)
    assert caught.value.reason is Reason.MULTIFRAME


@pytest.mark.parametrize(
    ("bits", "signed", "dtype", "low", "expected"),
    [
        (16, 1, "<i2", 0, np.uint16),
        (16, 1, "<i2", -5, np.float32),
        (8, 0, "u1", 0, np.uint16),
        (32, 0, "<u4", 0, np.uint16),
        (32, 0, "<u4", 70000, np.float32),
    ],
)
def test_other_pixel_types(bits: int, signed: int, dtype: str, low: int, expected: type) -> None:
    values = (np.arange(ROWS * COLS).reshape(ROWS, COLS) % 200 + low).astype(dtype)
    data = edited(
        BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=signed, PixelData=values.tobytes()
    )
    part = SliceParser().parse(data)
    assert part.pixels.dtype == expected
    assert np.array_equal(part.pixels, values)


def test_rescale_is_read_not_applied() -> None:
    part = SliceParser().parse(edited(RescaleSlope="2.5", RescaleIntercept="-10"))
    assert part.header.scaling.numbers == (2.5, -10.0)
    assert np.array_equal(part.pixels, picture(1, "W", 2))


def test_old_and_odd_times() -> None:
    assert SliceParser().parse(edited(SeriesTime="")).header.time_s == -np.inf
    ds = plain()
    ds.SeriesTime = "1301"
    assert SliceParser().parse(encode(ds)).header.time_s == 13 * 3600 + 60


def test_padding_after_the_pixels_is_ignored() -> None:
    data = edited(PixelData=picture(1, "W", 2).tobytes() + b"\0\0")
    assert fast_only(data) is None
    assert np.array_equal(SliceParser().parse(data).pixels, picture(1, "W", 2))


def test_messages_quote_nothing_from_the_file() -> None:
    data = encode(plain()).replace(b"0000001 ", b"9\\9\\9\\9 ").replace(b"-22.25", b"secret")
    with pytest.raises(ScanError) as caught:
        SliceParser().parse(data)
    assert caught.value.reason is Reason.UNREADABLE_DICOM
    assert "secret" not in caught.value.message


def test_written_syntax_is_what_the_test_thinks() -> None:
    assert pydicom.dcmread(BytesIO(VARIANTS["run length"]())).file_meta.TransferSyntaxUID == RLELossless
    assert pydicom.dcmread(BytesIO(VARIANTS["explicit"]())).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
