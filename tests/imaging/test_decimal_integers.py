"""Whole numbers that were written as decimals ("12.0") are read; others are named in the refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from tests.support.small_scans import encode, make_slices, same, write_zip
from ukb_infer.errors import ScanError
from ukb_infer.imaging import read_stations
from ukb_infer.imaging.readers.dicom import SliceParser
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, Stations

#: pydicom warns while the tests write what they should not.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ONE = ReadingOptions(expected_stations=1)


def rewrite(ds: Dataset, keyword: str, text: Callable[[int], str], vr: str = "IS") -> None:
    """Write an element as text, past pydicom's own checks."""
    tag = Tag(tag_for_keyword(keyword))
    raw = text(int(ds.get(keyword) or 1)).encode()
    raw += b" " * (len(raw) % 2)
    ds.pop(tag, None)
    ds._dict[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Stations:
    return read_stations(write_zip(tmp_path_factory.mktemp("n") / "a.zip", make_slices(1)), ONE)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("form", ["{}.0", "{}.", "+{}", " {}.000 ", "{}e0"])
@pytest.mark.parametrize("keyword", ["SeriesNumber", "InstanceNumber", "NumberOfFrames"])
def test_integers_with_a_point_are_read(
    tmp_path: Path, expected: Stations, keyword: str, form: str, fast: bool
) -> None:
    slices = make_slices(1)
    for ds in slices:
        rewrite(ds, keyword, form.format)
    found = read_stations(write_zip(tmp_path / "a.zip", slices), ONE, use_fast_path=fast)
    assert same(found, expected)
    assert found.flags == ()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("vr", ["IS", "DS"])
def test_matrix_and_bits_as_decimal_strings(tmp_path: Path, expected: Stations, vr: str, fast: bool) -> None:
    """Binary numbers in the standard; some converters write them as text."""
    slices = make_slices(1)
    for ds in slices:
        for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit"):
            rewrite(ds, keyword, "{}.0".format, vr)
        rewrite(ds, "PixelRepresentation", lambda _: "0.0", vr)
    assert same(read_stations(write_zip(tmp_path / "a.zip", slices), ONE, use_fast_path=fast), expected)


def test_the_fast_route_reads_them(expected: Stations) -> None:
    ds = make_slices(1, "W")[3]
    rewrite(ds, "InstanceNumber", "{}.0".format)
    part = SliceParser()._parse_fast(encode(ds))
    assert part is not None
    assert part.instance == 4


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("keyword", "text", "shown"),
    [
        ("SeriesNumber", "3.5", "3.5"),
        ("InstanceNumber", "1e30", "1e+30"),
        ("InstanceNumber", "99999999999999999999", "1e+20"),
        ("SeriesNumber", "nan", ""),
        ("InstanceNumber", "first", "not a number"),
        ("NumberOfFrames", "1.5", "1.5"),
    ],
)
def test_what_is_no_whole_number_is_named(tmp_path: Path, keyword: str, text: str, shown: str, fast: bool) -> None:
    slices = make_slices(1)
    for ds in slices:
        rewrite(ds, keyword, lambda _: text)
    with pytest.raises(ScanError) as caught:
        read_stations(write_zip(tmp_path / "a.zip", slices), ONE, use_fast_path=fast)
    assert caught.value.reason is Reason.UNREADABLE_DICOM
    assert keyword in caught.value.message
    assert shown in caught.value.message
    assert "first" not in caught.value.message
