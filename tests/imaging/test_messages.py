"""What messages say: numbers are those of the file, and the advice can help."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from tests.support.small_scans import encode, make_slice, make_slices, select, write_nifti_stations, write_zip
from ukb_infer.errors import ScanError
from ukb_infer.imaging import read_stations
from ukb_infer.imaging.readers.dicom import SliceParser
from ukb_infer.imaging.series import Budget, check_positions
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions

OPTIONS = ReadingOptions()
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


def failure(path: Path, options: ReadingOptions = OPTIONS, fast: bool = True) -> ScanError:
    with pytest.raises(ScanError) as caught:
        read_stations(path, options, use_fast_path=fast)
    return caught.value


def test_only_a_damaged_zip_is_to_be_downloaded_again() -> None:
    assert [reason for reason in Reason if "download" in reason.advice] == [Reason.UNREADABLE_ZIP]


#: Damage that no download mends: the checksums of the zip are right.
SPOILERS = {
    "no position": lambda s: delattr(select(s, 1, "W")[3], "ImagePositionPatient"),
    "no pixels": lambda s: delattr(select(s, 1, "W")[3], "PixelData"),
    "short pixels": lambda s: setattr(select(s, 1, "W")[3], "PixelData", b"\0\0"),
    "tall slice": lambda s: setattr(select(s, 1, "W")[3], "Rows", 10),
    "far slice": lambda s: setattr(select(s, 1, "W")[3], "ImagePositionPatient", [0, 0, 90000]),
    "coarse": lambda s: [setattr(ds, "PixelSpacing", [45.0, 45.0]) for ds in s],
    "two slices gone": lambda s: [s.remove(ds) for ds in select(s, 2, "F")[3:5]],
    "a single slice": lambda s: [s.remove(ds) for ds in select(s, 2, "F")[1:]],
    "series gone": lambda s: [s.remove(ds) for ds in select(s, 2, "F")],
    "shifted in plane": lambda s: setattr(select(s, 1, "W")[3], "ImagePositionPatient", [0, 0, 385.0]),
    "shifted fat": lambda s: [
        setattr(ds, "ImagePositionPatient", [9.5, *ds.ImagePositionPatient[1:]]) for ds in select(s, 1, "F")
    ],
    "constant": lambda s: [setattr(ds, "PixelData", bytes(len(ds.PixelData))) for ds in select(s, 1, "F")],
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_what_a_download_does_not_mend_does_not_ask_for_one(tmp_path: Path, spoiler: str) -> None:
    slices = make_slices(contrasts="WF")
    SPOILERS[spoiler](slices)
    message = failure(write_zip(tmp_path / "a.zip", slices)).message
    assert "download" not in message
    assert re.search("[;:(] ?(look|keep|check|export|copy|set|only)", message), "says what can be done"


def test_absent_pixels_are_named(tmp_path: Path) -> None:
    slices = make_slices(contrasts="WF")
    SPOILERS["no pixels"](slices)
    assert "PixelData" in failure(write_zip(tmp_path / "a.zip", slices)).message


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("frames", [1, 44])
def test_frames_are_counted(tmp_path: Path, frames: int, fast: bool) -> None:
    def enhanced(contrast: str, number: int) -> Dataset:
        ds = make_slice(0, contrast, number, 0)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ENHANCED_MR
        ds.NumberOfFrames, ds.SeriesDescription = frames, "t1_vibe_dixon"
        return ds

    error = failure(write_zip(tmp_path / "a.zip", [enhanced("W", 4), enhanced("F", 3)]), fast=fast)
    assert error.reason is Reason.MULTIFRAME
    assert f"with {frames} frame" in error.message


def test_damaged_run_lengths_are_not_a_missing_decoder() -> None:
    ds = make_slice(1, "W", 8, 2)
    ds.compress(RLELossless, generate_instance_uid=False)
    data = bytearray(encode(ds))
    at = data.rindex(b"\xfe\xff\x00\xe0")
    data[at + 8 : at + 12] = b"\x09\0\0\0"  # nine segments, expected two
    with pytest.raises(ScanError) as caught:
        SliceParser().parse(bytes(data))
    assert caught.value.reason is Reason.UNREADABLE_DICOM
    assert "install" not in caught.value.message


def test_budgets_and_positions_tell_what_was_found() -> None:
    with pytest.raises(ScanError, match="2000 x 3000 x 10 voxels"):
        Budget().take((2000, 3000, 10), "a water file")
    with pytest.raises(ScanError, match="90000 mm"):
        check_positions(np.array([[0.0, 0.0, 90000.0]]), "water series 4")


def test_nifti_messages_ask_for_no_download(tmp_path: Path) -> None:
    stations = read_stations(write_zip(tmp_path / "a.zip", make_slices(contrasts="WF")), OPTIONS).stations
    folder = write_nifti_stations(tmp_path / "n", stations)
    path = folder / "station3_F.nii.gz"
    data = path.read_bytes()
    for changed in (data[:-4], b"", data[:8] + b"\xff" * 30 + data[38:], b"<html>"):
        path.write_bytes(changed)
        error = failure(folder)
        assert error.reason is Reason.UNREADABLE_NIFTI
        assert "download" not in error.message
