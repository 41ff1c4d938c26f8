"""Hostile and broken input: a code for each, never a crash, nothing written or executed, memory bounded."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.small_scans import encode, make_slice, make_slices, same, write_nifti_stations, write_zip
from ukb_infer.errors import ScanError
from ukb_infer.imaging import input_kind, read_stations
from ukb_infer.imaging.readers import containers
from ukb_infer.imaging.readers.dicom import SliceParser
from ukb_infer.imaging.readers.projection_file import read_projection
from ukb_infer.imaging.recipes import RECIPES
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
OPTIONS = ReadingOptions()
ANY = ReadingOptions(expected_stations=0)


def reason_of(path: Path, options: ReadingOptions = OPTIONS) -> Reason:
    with pytest.raises(ScanError) as caught:
        read_stations(path, options)
    return caught.value.reason


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zip(tmp_path_factory.mktemp("h") / "scan.zip", make_slices(2, "WF"))


# -- zips --------------------------------------------------------------------------------------------------------


def test_not_a_zip(tmp_path: Path) -> None:
    for content in (b"", b"PK", b"PK\3\4" * 50, b"\0" * 100_000, b"hello" * 1000):
        path = tmp_path / "a.zip"
        path.write_bytes(content)
        assert reason_of(path) is Reason.UNREADABLE_ZIP


def test_empty_zip_has_no_dicom(tmp_path: Path) -> None:
    assert reason_of(write_zip(tmp_path / "a.zip", [])) is Reason.NO_DICOM
    assert reason_of(write_zip(tmp_path / "b.zip", [], {"a.txt": b"text"})) is Reason.NO_DICOM


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_cut_zip(tmp_path: Path, scan: Path, part: float) -> None:
    data = scan.read_bytes()
    path = tmp_path / "a.zip"
    path.write_bytes(data[: int(part * len(data))])
    assert reason_of(path) is Reason.UNREADABLE_ZIP


def test_front_cut_off(tmp_path: Path, scan: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(scan.read_bytes()[-4000:])
    assert reason_of(path) is Reason.UNREADABLE_ZIP


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_flipped_bit_in_the_pixels_fails_the_checksum(tmp_path: Path, compression: int) -> None:
    path = write_zip(tmp_path / "a.zip", make_slices(1, "WF"), compression=compression)
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[3]
    data = bytearray(path.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + info.compress_size - 20] ^= 0x10
    path.write_bytes(data)
    assert reason_of(path, ANY) is Reason.UNREADABLE_ZIP


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_read_alike(tmp_path: Path, scan: Path, compression: int) -> None:
    path = write_zip(tmp_path / "a.zip", make_slices(2, "WF"), compression=compression)
    assert same(read_stations(path, ANY), read_stations(scan, ANY))


def test_large_incompressible_members_are_read(tmp_path: Path) -> None:
    """Members too long to be inflated without a bound take the bounded way."""
    noise = np.random.default_rng(0).integers(0, 65536, (2, 9, 300, 280)).astype(np.uint16)
    slices = make_slices(1, "WF")
    for ds, pixels in zip(slices, noise.reshape(-1, 300, 280), strict=True):
        ds.Rows, ds.Columns, ds.PixelData = 300, 280, pixels.tobytes()
        ds.BitsStored, ds.HighBit = 16, 15
    path = write_zip(tmp_path / "a.zip", slices)
    with zipfile.ZipFile(path) as archive:
        assert min(info.compress_size for info in archive.infolist()) > containers._SAFE_COMPRESSED_BYTES
    station = read_stations(path, ANY).stations[0]
    assert np.array_equal(station.fat.transpose(2, 0, 1), noise[0])
    assert np.array_equal(station.water.transpose(2, 0, 1), noise[1])


def test_without_isal_the_standard_library_inflates(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_stations(scan, ANY)
    monkeypatch.setattr(containers, "_inflate", zlib)
    assert same(read_stations(scan, ANY), expected)


@pytest.mark.parametrize("flag", [0x1, 0x41, 0x2000])
def test_encrypted_zip(tmp_path: Path, scan: Path, flag: int) -> None:
    data = bytearray(scan.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 8 : at + 10] = struct.pack("<H", flag)
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    assert reason_of(path) is Reason.ENCRYPTED_ZIP


def test_declared_bomb(tmp_path: Path) -> None:
    archive = zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED)
    with archive, archive.open("bomb.dcm", "w", force_zip64=True) as member:
        for _ in range(containers.MAX_MEMBER_BYTES // 2**20 + 1):
            member.write(bytes(2**20))
    assert reason_of(tmp_path / "a.zip") is Reason.TOO_LARGE


def test_bomb_that_declares_less_than_it_holds(tmp_path: Path) -> None:
    """The member inflates to 60 MB and declares a slice's size: it is refused, and no more than that was inflated."""
    slice_ = encode(make_slice(0, "W", 4, 0))
    path = write_zip(tmp_path / "a.zip", [slice_ + bytes(60 * 2**20)])
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<L", len(slice_))
    path.write_bytes(data)
    tracemalloc.start()
    assert reason_of(path, ANY) is Reason.UNREADABLE_ZIP
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 * 2**20


def test_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for index in range(containers.MAX_MEMBERS + 1):
            archive.writestr(f"{index}", b"")
    assert reason_of(tmp_path / "a.zip") is Reason.TOO_LARGE
    monkeypatch.setattr(containers, "MAX_DIRECTORY_BYTES", 1000)
    assert reason_of(tmp_path / "a.zip") is Reason.TOO_LARGE


def test_total_is_bounded(tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_TOTAL_BYTES", 10_000)
    assert reason_of(scan) is Reason.TOO_LARGE


def test_zip64_is_read(tmp_path: Path, scan: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, ds in enumerate(make_slices(2, "WF")):
            with archive.open(f"{index}.dcm", "w", force_zip64=True) as member:
                member.write(encode(ds))
    assert same(read_stations(path, ANY), read_stations(scan, ANY))


def test_zip64_end_records_are_read(tmp_path: Path, scan: Path) -> None:
    """The form that archives with more than 65,535 members or 4 GiB use, here for a small one."""
    data = scan.read_bytes()
    end = data.rindex(b"PK\5\6")
    count, size, offset = struct.unpack_from("<HLL", data, end + 10)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = tmp_path / "a.zip"
    path.write_bytes(data[:end] + record + locator + tail)
    assert same(read_stations(path, ANY), read_stations(scan, ANY))


def test_comment_and_prefix_are_tolerated(tmp_path: Path, scan: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(scan.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"c" * 60_000
    assert same(read_stations(path, ANY), read_stations(scan, ANY))
    path.write_bytes(b"#!/bin/sh\n" + scan.read_bytes())
    assert same(read_stations(path, ANY), read_stations(scan, ANY))


def test_path_tricks_touch_nothing(tmp_path: Path, scan: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    names = ["../evil.dcm", "/etc/evil.dcm", "C:\\evil.dcm", "a/../../b.dcm", "..\\..\\c.dcm", "con", "x" * 3000]
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, ds in enumerate(make_slices(2, "WF")):
            archive.writestr(names[index] if index < len(names) else f"{index}.dcm", encode(ds))
    assert same(read_stations(path, ANY), read_stations(scan, ANY))
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["a.zip", "inner"]


def test_members_of_the_same_name_are_all_read(tmp_path: Path, scan: Path) -> None:
    path = tmp_path / "a.zip"
    slices = [encode(ds) for ds in make_slices(2, "WF")]
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings(action="ignore"):
        for data in slices:
            archive.writestr("same.dcm", data)
    assert same(read_stations(path, ANY), read_stations(scan, ANY))


# -- DICOM -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "cols"), [(65535, 65535), (65535, 1), (4097, 2), (0, 32)])
def test_absurd_matrix(tmp_path: Path, rows: int, cols: int) -> None:
    slices = make_slices(1, "WF")
    for ds in slices:
        ds.Rows, ds.Columns = rows, cols
    assert reason_of(write_zip(tmp_path / "a.zip", slices), ANY) in (
        Reason.IMPLAUSIBLE_GEOMETRY,
        Reason.UNREADABLE_DICOM,
    )


def test_voxels_of_a_scan_are_bounded(tmp_path: Path) -> None:
    """Many large slices, each within the bounds of one, are refused before memory is taken for them."""
    slices = make_slices(6, "W")
    for ds in slices[::9]:  # the first slice of a series decides how much is taken for it
        ds.Rows, ds.Columns, ds.PixelData = 4096, 2048, bytes(4096 * 2048 * 2)
    slices.sort(key=lambda ds: ds.InstanceNumber)
    path = write_zip(tmp_path / "a.zip", slices)
    assert reason_of(path, ANY) is Reason.TOO_LARGE


def test_deflated_dicom_bomb(tmp_path: Path) -> None:
    ds = make_slice(0, "W", 4, 0)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    ds.ImageComments = "a"
    ds.PixelData = bytes(containers.MAX_MEMBER_BYTES)
    path = write_zip(tmp_path / "a.zip", [ds])
    assert path.stat().st_size < 2**20
    assert reason_of(path, ANY) is Reason.TOO_LARGE


def test_named_as_dicom_but_is_not(tmp_path: Path) -> None:
    assert (
        reason_of(write_zip(tmp_path / "a.zip", [*make_slices(1, "WF"), b"garbage" * 100])) is Reason.UNREADABLE_DICOM
    )
    assert reason_of(write_zip(tmp_path / "b.zip", [*make_slices(1, "WF"), b""])) is Reason.UNREADABLE_DICOM


@pytest.mark.parametrize("length", [140, 300, 700, 1200, 1400])
@pytest.mark.parametrize("contrast", ["W", "in"])
def test_slices_cut_short(tmp_path: Path, length: int, contrast: str) -> None:
    """A cut water slice is never ignored; a cut in-phase slice only once its header says that it is one."""
    whole = make_slices(1, ("F", "W", "in"))
    index = next(at for at, ds in enumerate(whole) if ds.SeriesDescription.endswith(contrast))
    slices = [encode(ds) for ds in whole]
    slices[index + 4] = slices[index + 4][:length]
    path = write_zip(tmp_path / "a.zip", slices)
    for use_fast_path in (True, False):
        found = read_or_refuse(path, use_fast_path=use_fast_path)
        assert found == Reason.UNREADABLE_DICOM or (contrast == "in" and found == "" and length > 400)


def test_deeply_nested_sequences(tmp_path: Path) -> None:
    head = encode(make_slice(0, "W", 4, 0))
    at = head.index(b"\x08\x00\x16\x00")
    nest = (b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 3000
    path = write_zip(tmp_path / "a.zip", [head[:at] + nest + head[at:]])
    assert reason_of(path, ANY) is Reason.UNREADABLE_DICOM


# -- folders -----------------------------------------------------------------------------------------------------


def test_participants_are_not_shown(tmp_path: Path) -> None:
    """Neither in the header's text nor in warnings of pydicom, which would quote damaged values."""
    ds = make_slice(0, "W", 4, 0)
    ds.PatientID = "0000123"
    data = encode(ds).replace(b"1.2.826.0.1.3680043.10.1337.1.4\0", b"0000123 is no UID at all, is it?")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        part = SliceParser(use_fast_path=False).parse(data)
    assert caught == []
    assert part.header.patient_id == "0000123"
    assert "0000123" not in repr(part.header).replace(part.header.uid, "")


def test_symlink_loops_and_special_files(tmp_path: Path, scan: Path) -> None:
    for index, ds in enumerate(make_slices(2, "WF")):
        (tmp_path / f"{index}.dcm").write_bytes(encode(ds))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")
    assert input_kind(tmp_path) == "dicom"
    assert same(read_stations(tmp_path, ANY), read_stations(scan, ANY))


@pytest.mark.parametrize("make", [lambda p: p.symlink_to(p.name), lambda p: p.symlink_to("absent"), os.mkfifo])
def test_a_slice_that_is_a_broken_link_or_a_pipe_fails_the_scan_with_the_true_reason(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    for index, ds in enumerate(make_slices(2, "WF")):
        (tmp_path / f"{index}.dcm").write_bytes(encode(ds))
    make(tmp_path / "5000.dcm")
    assert reason_of(tmp_path) is Reason.INPUT_UNREADABLE


def test_pipe_named_zip(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    assert input_kind(tmp_path / "a.zip") is None


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, ds in enumerate(make_slices(1, "WF")):
        (tmp_path / f"{index}.dcm").write_bytes(encode(ds))
    monkeypatch.setattr(containers, "MAX_MEMBERS", 10)
    assert reason_of(tmp_path) is Reason.TOO_LARGE


def test_vanished_disk_is_not_the_scans_fault(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(OSError, match="Input/output error"):
        read_stations(scan, ANY)


# -- projections -------------------------------------------------------------------------------------------------


class Payload:
    """Would create a file if unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_in_projections_are_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([Payload(tmp_path / "executed")], dtype=object), allow_pickle=True)
    with pytest.raises(ScanError) as caught:
        read_projection(path, RECIPES["mimir-1"])
    assert caught.value.reason is Reason.BAD_PROJECTION
    assert not (tmp_path / "executed").exists()


def npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00",
        b"PK\3\4 an npz",
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 256, 256), }\n"),
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 256, 256), }\n") + b"\0" * 100,
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 256, 256), }\n") + b"\1" * 200_000,
        npy_header("__import__('os').mkdir('executed')\n"),
        npy_header("{" * 5000),
    ],
)
def test_broken_projections(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ScanError) as caught:
        read_projection(tmp_path / "a.npy", RECIPES["mimir-1"])
    assert caught.value.reason is Reason.BAD_PROJECTION


# -- mutations ---------------------------------------------------------------------------------------------------


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change, drop, repeat or insert a few bytes."""
    buffer = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at, length = chance.randrange(len(buffer)), chance.choice([1, 1, 2, 4, 30])
        kind = chance.randrange(4)
        if kind == 0:
            buffer[at : at + length] = chance.randbytes(length)
        elif kind == 1:
            del buffer[at : at + length]
        elif kind == 2:
            buffer[at:at] = buffer[at : at + length]
        else:
            buffer[at] ^= 1 << chance.randrange(8)
    return bytes(buffer)


def read_or_refuse(path: Path, **how: bool) -> str:
    """Reading ends in stations or in a ScanError with a code; anything else fails the test."""
    try:
        return ",".join(read_stations(path, ANY, **how).flags)
    except ScanError as error:
        return error.reason


@pytest.mark.parametrize("seed", range(4))
def test_mutated_slices_end_in_a_code_and_both_routes_agree(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    slices = [encode(ds) for ds in make_slices(1, "WF")]
    header = 1100  # most mutations hit the header, which is what is parsed
    for _ in range(40):
        index = chance.randrange(len(slices))
        data = slices[index]
        spoilt = mutate(data[:header], chance) + data[header:] if chance.random() < 0.8 else mutate(data, chance)
        path = write_zip(tmp_path / "a.zip", [*slices[:index], spoilt, *slices[index + 1 :]])
        assert read_or_refuse(path) == read_or_refuse(path, use_fast_path=False)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_zips_end_in_a_code(tmp_path: Path, scan: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = scan.read_bytes()
    directory = data.index(b"PK\1\2")
    path = tmp_path / "a.zip"
    for _ in range(60):
        path.write_bytes(
            data[:directory] + mutate(data[directory:], chance) if chance.random() < 0.5 else mutate(data, chance)
        )
        read_or_refuse(path)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_nifti_ends_in_a_code(tmp_path: Path, scan: Path, seed: int) -> None:
    chance = random.Random(seed)
    write_nifti_stations(tmp_path, read_stations(scan, ANY).stations, "s{}_{}.nii")
    path = tmp_path / "s1_W.nii"
    data = path.read_bytes()
    for _ in range(60):
        path.write_bytes(mutate(data[:352], chance) + data[352:] if chance.random() < 0.8 else mutate(data, chance))
        read_or_refuse(tmp_path)


@pytest.mark.slow
def test_mutated_reference_scan_ends_in_a_code(tmp_path: Path) -> None:
    chance = random.Random(7)
    data = sorted(REFERENCE.glob("*.zip"))[0].read_bytes()
    path = tmp_path / "a.zip"
    for _ in range(300):
        path.write_bytes(mutate(data, chance))
        read_or_refuse(path)
