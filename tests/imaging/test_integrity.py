"""Whatever a container offers to check is checked before its content is used: gzip, zip and zlib."""

from __future__ import annotations

import gzip
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.support.small_scans import encode, make_slice, make_slices, picture, same, write_nifti_stations, write_zip
from ukb_infer.errors import ScanError
from ukb_infer.imaging import read_stations
from ukb_infer.imaging.readers import gzipped
from ukb_infer.imaging.readers.containers import ZipSource
from ukb_infer.imaging.readers.dicom import SliceParser
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, Stations

ONE = ReadingOptions(expected_stations=1)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Stations:
    return read_stations(write_zip(tmp_path_factory.mktemp("n") / "a.zip", make_slices(1, "WF")), ONE)


def failure(path: Path, fast: bool = True) -> ScanError:
    with pytest.raises(ScanError) as caught:
        read_stations(path, ONE, use_fast_path=fast)
    return caught.value


# -- gzip ----------------------------------------------------------------------------------------------------------


def nifti_with(folder: Path, stations: Stations, change: Callable[[bytes], bytes]) -> Path:
    """A folder whose water file is what ``change`` makes of the plain NIfTI bytes."""
    path = write_nifti_stations(folder, stations.stations, "s{}_{}.nii.gz") / "s1_W.nii.gz"
    path.write_bytes(change(gzip.decompress(path.read_bytes())))
    return folder


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at:][1:]


def stored(raw: bytes) -> bytes:
    """Gzip without compression: a flipped byte of the content is one flipped voxel, and the stream stays valid."""
    return gzip.compress(raw, 0)


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a voxel": (lambda raw: flipped(stored(raw), 2000), "checksum"),
    "the header": (lambda raw: flipped(stored(raw), 15 + 42), "checksum"),
    "the checksum": (lambda raw: flipped(gzip.compress(raw), -8), "checksum"),
    "the length": (lambda raw: gzip.compress(raw)[:-4] + struct.pack("<L", len(raw) + 1), "length"),
    "the last voxel of two members": (
        lambda raw: gzip.compress(raw[:900]) + flipped(stored(raw[900:]), len(raw) - 900 + 10),
        "checksum",
    ),
    "trailer cut off": (lambda raw: gzip.compress(raw)[:-8], "truncated"),
    "trailer cut": (lambda raw: gzip.compress(raw)[:-1], "truncated"),
    "bytes after the end": (lambda raw: gzip.compress(raw) + b"<html>moved</html>", "other bytes"),
    "cut second member": (lambda raw: gzip.compress(raw) + gzip.compress(raw)[:200], "truncated"),
}


@pytest.fixture(params=["isal", "standard library"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "standard library":
        monkeypatch.setattr(gzipped, "_reader", gzip.GzipFile)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_gzip_is_refused_with_what_is_wrong(tmp_path: Path, expected: Stations, damage: str) -> None:
    change, word = DAMAGE[damage]
    error = failure(nifti_with(tmp_path, expected, change))
    assert error.reason is Reason.UNREADABLE_NIFTI
    assert word in error.message
    assert "download" not in error.message  # nobody downloads a NIfTI that he converted himself


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(
    "change",
    [
        lambda raw: gzip.compress(raw[:300]) + gzip.compress(raw[300:1000]) + gzip.compress(raw[1000:]),
        lambda raw: gzip.compress(raw) + bytes(512),
        lambda raw: gzip.compress(raw + bytes(512)),
        lambda raw: gzip.compress(raw) + gzip.compress(b""),
        lambda raw: raw,
    ],
    ids=["members", "padded after", "padded inside", "empty member", "plain"],
)
def test_whole_gzip_is_read(tmp_path: Path, expected: Stations, change: Callable[[bytes], bytes]) -> None:
    assert same(read_stations(nifti_with(tmp_path, expected, change), ONE), expected, 1e-4)


def test_far_more_data_than_declared_is_not_inflated(
    tmp_path: Path, expected: Stations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gzipped, "_MAX_REST_BYTES", 2 * 1024**2)
    error = failure(nifti_with(tmp_path, expected, lambda raw: gzip.compress(raw + bytes(3 * 1024**2))))
    assert error.reason is Reason.UNREADABLE_NIFTI
    assert "more than" in error.message


# -- zip -----------------------------------------------------------------------------------------------------------


def stored_zip(path: Path, suffix: str = ".dcm") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index, ds in enumerate(make_slices(1)):
            archive.writestr(f"{index}{suffix}", encode(ds))
    return path


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"Dixon_BH_17s_W", b"Dixon_BH_17s_V"),  # no water any more
        (b"Dixon_BH_17s_F", b"Dixon_mask17_F"),  # a mask
        (b"MR", b"OT"),  # another modality
        (b"DICM", b"DIKM"),  # not DICOM, and not named so
    ],
)
def test_a_damaged_header_never_makes_a_slice_ignored(
    tmp_path: Path, expected: Stations, was: bytes, becomes: bytes, fast: bool
) -> None:
    """A slice that its damaged header hides is not missing: the zip is damaged."""
    path = stored_zip(tmp_path / "a.zip", suffix="")
    data = path.read_bytes()
    slice_ = encode(make_slice(0, "F" if was.endswith(b"F") else "W", 3 if was.endswith(b"F") else 4, 4))
    start = data.index(slice_)
    path.write_bytes(data[:start] + slice_.replace(was, becomes, 1) + data[start + len(slice_) :])
    assert failure(path, fast).reason is Reason.UNREADABLE_ZIP


def test_whole_series_of_other_contrasts_are_not_inflated(
    tmp_path: Path, expected: Stations, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    plain = ZipSource.read
    monkeypatch.setattr(ZipSource, "read", lambda self, index: read.append(self.names[index]) or plain(self, index))
    assert same(read_stations(stored_zip(tmp_path / "a.zip"), ONE), expected)
    assert len(read) == len(set(read)) == 18


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_flipped_bits_anywhere_are_found_or_change_nothing(
    tmp_path: Path, expected: Stations, compression: int
) -> None:
    path = write_zip(tmp_path / "a.zip", make_slices(1), {"manifest.csv": b"x" * 500}, compression)
    data = path.read_bytes()
    chance = random.Random(3)
    found = []
    for _ in range(60):
        path.write_bytes(flipped(data, chance.randrange(data.index(b"PK\1\2"))))
        found += [judged(path, expected, fast) for fast in (True, False)]
    assert set(found) <= {"right", Reason.UNREADABLE_ZIP}
    assert found.count(Reason.UNREADABLE_ZIP) > 30


def judged(path: Path, expected: Stations, fast: bool) -> str:
    try:
        return "right" if same(read_stations(path, ONE, use_fast_path=fast), expected) else "wrong"
    except ScanError as error:
        return error.reason


# -- deflated transfer syntax ---------------------------------------------------------------------------------------


def deflated(wrap: Callable[[bytes], bytes]) -> bytes:
    """A slice of the deflated transfer syntax whose deflated part is made by ``wrap``."""
    ds = make_slice(1, "W", 8, 2)
    plain = encode(ds)
    body = plain[144 + struct.unpack_from("<L", plain, 140)[0] :]
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = encode(ds)
    return data[: 144 + struct.unpack_from("<L", data, 140)[0]] + wrap(body)


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize("wrap", [raw_deflate, zlib.compress, lambda body: raw_deflate(body) + b"\0"])
def test_deflated_slices_are_read_also_as_zlib_wraps_them(wrap: Callable[[bytes], bytes]) -> None:
    assert np.array_equal(SliceParser().parse(deflated(wrap)).pixels, picture(1, "W", 2))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda body: flipped(zlib.compress(body), -1),
        lambda body: flipped(zlib.compress(body, 0), 700),
        lambda body: zlib.compress(body)[:-2],
        lambda body: raw_deflate(body)[:-5],
        lambda body: b"",
    ],
    ids=["checksum", "content", "cut checksum", "cut", "nothing"],
)
def test_damaged_deflated_slices_are_refused(wrap: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ScanError) as caught:
        SliceParser().parse(deflated(wrap))
    assert caught.value.reason is Reason.UNREADABLE_DICOM
