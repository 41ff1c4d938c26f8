"""Zips of other kinds: rarer compressions, zips within zips, other archives; read, or called what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.support.small_scans import encode, make_slices, outcome, same, write_nifti_stations, write_zip
from ukb_infer.errors import ScanError
from ukb_infer.imaging import read_stations
from ukb_infer.imaging.readers import containers
from ukb_infer.imaging.readers.zip_methods import DamagedMemberError, decompress_rare
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, Stations

ONE = ReadingOptions(expected_stations=1)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zip(tmp_path_factory.mktemp("z") / "scan.zip", make_slices(1, "WF"))


@pytest.fixture(scope="module")
def expected(scan: Path) -> Stations:
    return read_stations(scan, ONE)


def failure(path: Path, fast: bool = True) -> ScanError:
    with pytest.raises(ScanError) as caught:
        read_stations(path, ONE, use_fast_path=fast)
    return caught.value


def zip_of(members: list[tuple[str, bytes, int, bytes]]) -> bytes:
    """A zip by hand: name, content, number of the method, content as stored."""
    body, directory = b"", b""
    for name, data, method, packed in members:
        sizes = (zlib.crc32(data), len(packed), len(data), len(name))
        common = struct.pack("<HHHHHLLLHH", 63, 0, method, 0, 0, *sizes, 0)
        directory += b"PK\1\2" + struct.pack("<H", 63) + common + struct.pack("<HHHLL", 0, 0, 0, 0, len(body))
        directory += name.encode()
        body += b"PK\3\4" + common + name.encode() + packed
    count = len(members)
    return body + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


def slices_by(method: int, pack: object) -> bytes:
    contents = [encode(ds) for ds in make_slices(1, "WF")]
    return zip_of([(f"{i}.dcm", data, method, pack(data)) for i, data in enumerate(contents)])


# -- compressions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("method", "pack"),
    [
        (0, bytes),
        (12, bz2.compress),
        (95, lzma.compress),
        (95, lambda data: lzma.compress(data, check=lzma.CHECK_SHA256)),
    ],
    ids=["stored", "bzip2", "xz", "xz with SHA-256"],
)
def test_compressions_of_the_standard_library_are_read(
    tmp_path: Path, expected: Stations, method: int, pack: object, fast: bool
) -> None:
    (tmp_path / "a.zip").write_bytes(slices_by(method, pack))
    assert same(read_stations(tmp_path / "a.zip", ONE, use_fast_path=fast), expected)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("method", "name"),
    [(9, "Deflate64"), (93, "Zstandard"), (20, "Zstandard"), (98, "PPMd"), (6, "Implode"), (77, "method 77")],
)
def test_other_compressions_are_named(tmp_path: Path, method: int, name: str, fast: bool) -> None:
    (tmp_path / "a.zip").write_bytes(slices_by(method, zlib.compress))
    error = failure(tmp_path / "a.zip", fast)
    assert error.reason is Reason.UNSUPPORTED_COMPRESSION
    assert name in error.message
    assert "download" not in error.message


def test_aes_is_encryption(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(slices_by(99, bytes))
    assert failure(tmp_path / "a.zip").reason is Reason.ENCRYPTED_ZIP


def test_a_newer_version_of_the_format_is_said(tmp_path: Path, scan: Path) -> None:
    data = bytearray(scan.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 6] = 77
    (tmp_path / "a.zip").write_bytes(data)
    error = failure(tmp_path / "a.zip")
    assert error.reason is Reason.UNSUPPORTED_COMPRESSION
    assert "7.7" in error.message


def lzma_member(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", data)
        info = archive.infolist()[0]
    return file.getvalue()[31 : 31 + info.compress_size]


@pytest.mark.parametrize("method", [12, 14, 95])
def test_bombs_are_not_inflated(method: int) -> None:
    """200 MB from a few hundred bytes: not more is made than the directory declares."""
    zeros = bytes(200 * 2**20)
    packed = {12: bz2.compress, 14: lzma_member, 95: lzma.compress}[method](zeros)
    del zeros
    tracemalloc.start()
    assert len(decompress_rare(method, packed, 1000)) == 1001
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20


def test_a_huge_dictionary_takes_no_memory(tmp_path: Path) -> None:
    """LZMA may declare a dictionary of 4 GB; no more than the member's length is ever needed."""
    packed = bytearray(lzma_member(b"abc" * 1000))
    packed[5:9] = b"\xff\xff\xff\xff"
    assert decompress_rare(14, bytes(packed), 3000) == b"abc" * 1000


@pytest.mark.parametrize("method", [12, 14, 95])
@pytest.mark.parametrize("packed", [b"", b"\xff" * 40, b"BZh9" + b"\0" * 40, b"\x09\x04\x05\x00\xff" + b"\0" * 20])
def test_damaged_rare_members(method: int, packed: bytes) -> None:
    try:
        found = decompress_rare(method, packed, 100)
    except DamagedMemberError:
        found = b""
    assert len(found) < 100


def test_a_member_larger_than_declared_says_so(tmp_path: Path) -> None:
    data = encode(make_slices(1, "WF")[0])
    (tmp_path / "a.zip").write_bytes(zip_of([("0.dcm", data, 12, bz2.compress(data + b"more"))]))
    error = failure(tmp_path / "a.zip")
    assert error.reason is Reason.UNREADABLE_ZIP
    assert f"should have {len(data)} bytes and has more" in error.message


# -- zips within zips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_the_only_zip_within_a_zip_is_read(
    tmp_path: Path, scan: Path, expected: Stations, compression: int, fast: bool
) -> None:
    extra = {
        "exported/0000001_20201_2_0.ZIP": scan.read_bytes(),
        "readme.txt": b"hello",
        "__MACOSX/._a.zip": b"\0\5\x16\7",
    }
    path = write_zip(tmp_path / "outer.zip", [], extra, compression)
    assert same(read_stations(path, ONE, use_fast_path=fast), expected)


def test_damage_within_the_zip_within_is_found(tmp_path: Path, scan: Path) -> None:
    data = bytearray(scan.read_bytes())
    with zipfile.ZipFile(scan) as archive:
        second = archive.infolist()[1]
    data[second.header_offset - 20] ^= 1  # in the compressed pixels of the first member
    assert failure(write_zip(tmp_path / "a.zip", [], {"a.zip": bytes(data)})).reason is Reason.UNREADABLE_ZIP
    assert failure(write_zip(tmp_path / "b.zip", [], {"a.zip": b"no zip"})).reason is Reason.UNREADABLE_ZIP


def test_several_zips_and_deeper_ones_are_refused(tmp_path: Path, scan: Path) -> None:
    data = scan.read_bytes()
    two = failure(write_zip(tmp_path / "a.zip", [], {"1.zip": data, "2.zip": data}))
    assert two.reason is Reason.SEVERAL_ZIPS
    assert "2 zips" in two.message
    nested = write_zip(tmp_path / "b.zip", [], {"1.zip": data}).read_bytes()
    assert failure(write_zip(tmp_path / "c.zip", [], {"b.zip": nested})).reason is Reason.SEVERAL_ZIPS


def test_a_zip_beside_slices_is_left_out_and_counted(tmp_path: Path, scan: Path, expected: Stations) -> None:
    found = read_stations(write_zip(tmp_path / "a.zip", make_slices(1, "WF"), {"more.zip": scan.read_bytes()}), ONE)
    assert same(found, expected)
    assert found.flags == (Reason.EXTRA_IMAGES_LEFT_OUT,)
    assert "1 x zip next to the slices" in found.messages[0]


def test_zips_within_are_bounded(tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "a.zip", [], {"a.zip": scan.read_bytes()})
    monkeypatch.setattr(containers, "MAX_NESTED_BYTES", 1000)
    assert failure(path).reason is Reason.TOO_LARGE


def test_a_member_that_is_large_as_stored_is_refused_before_it_is_read(tmp_path: Path, scan: Path) -> None:
    data = bytearray(scan.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 20 : at + 24] = struct.pack("<L", containers.MAX_MEMBER_BYTES + 1)
    (tmp_path / "a.zip").write_bytes(data)
    assert failure(tmp_path / "a.zip").reason is Reason.TOO_LARGE


# -- what is no zip of slices ---------------------------------------------------------------------------------------


def tar(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), None)
    return file.getvalue() + data


@pytest.mark.parametrize(
    ("content", "said", "download"),
    [
        (b"", "is empty", True),
        (b"<!DOCTYPE html><html>Please log in</html>", "web page", True),
        (b'{"error": "not authorized"}', "message", True),
        (gzip.compress(b"x" * 1000, mtime=0), "gzip", False),
        (tar(b"x"), "tar", False),
        (b"7z\xbc\xaf\x27\x1c" + b"x" * 600, "7-Zip", False),
        (b"Rar!\x1a\x07\x01\x00" + b"x" * 600, "RAR", False),
        (encode(make_slices(1, "W")[0]), "single DICOM file", False),
        (b"PK\x07\x08PK\3\4" + b"x" * 600, "split", False),
        (b"PK\3\4" + b"x" * 600, "truncated", True),
    ],
)
def test_other_files_named_zip_are_called_what_they_are(
    tmp_path: Path, content: bytes, said: str, download: bool
) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    error = failure(tmp_path / "a.zip")
    assert error.reason is Reason.UNREADABLE_ZIP
    assert said in error.message
    assert ("download the scan again" in error.message) is download


def test_the_last_part_of_a_split_zip(tmp_path: Path, scan: Path) -> None:
    data = bytearray(scan.read_bytes())
    end = data.rindex(b"PK\5\6")
    data[end + 4 : end + 8] = struct.pack("<HH", 2, 2)
    (tmp_path / "a.zip").write_bytes(data)
    error = failure(tmp_path / "a.zip")
    assert error.reason is Reason.UNREADABLE_ZIP
    assert "part 3" in error.message


def test_a_zip_of_nifti_is_told_from_an_empty_one(tmp_path: Path, expected: Stations) -> None:
    folder = write_nifti_stations(tmp_path / "n", expected.stations)
    extra = {f"x/{path.name}": path.read_bytes() for path in folder.iterdir()}
    error = failure(write_zip(tmp_path / "a.zip", [], {**extra, "a.json": b"{}"}))
    assert error.reason is Reason.NO_DICOM
    assert "among the 3 files" in error.message
    assert "2 NIfTI files" in error.message
    empty = outcome(lambda: read_stations(write_zip(tmp_path / "b.zip", []), ONE))
    assert "among the 0 files" in empty
