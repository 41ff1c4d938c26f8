"""What is written of any stations, read back by pydicom, zipfile and nibabel alone, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support.plain_reading import (
    COLS,
    CONTRASTS,
    SLICES,
    by_series,
    datasets,
    members,
    noise_stations,
    of,
    volume,
    z_mm,
)
from ukb_infer.errors import UsageError
from ukb_infer.phantom import write_scan, writers
from ukb_infer.records import Station

SCAN = "0000007_20201_2_0"
STATIONS = noise_stations()


@pytest.mark.parametrize("format", ["zip", "dicom"])
def test_dicom_holds_the_stations_over_all_16_bits(tmp_path: Path, format: str) -> None:
    series = by_series(datasets(write_scan(STATIONS, tmp_path, SCAN, format)))  # type: ignore[arg-type]
    assert sorted(series) == list(range(1, 25))
    for station in STATIONS:
        water, fat = station.water.astype(int), station.fat.astype(int)
        assert (water + fat).max() > 65535  # so that clipping is seen
        expected = {"in": np.minimum(water + fat, 65535), "opp": abs(water - fat), "F": fat, "W": water}
        for contrast in CONTRASTS:
            slices = of(series, station.number, contrast)
            assert np.array_equal(volume(slices), expected[contrast])
            assert [int(ds.InstanceNumber) for ds in slices] == list(range(1, SLICES + 1))
            first = np.array(slices[0].ImagePositionPatient, float).astype(np.float32)
            assert np.array_equal(first, station.position_mm)
            # Positions are written with nine decimals.
            falls = float(station.position_mm[2]) - np.arange(SLICES) * station.spacing_mm[2]
            assert z_mm(slices) == pytest.approx(falls, abs=1e-9)
            assert {float(ds.PixelSpacing[1]) for ds in slices} == {2.23214293}


def test_uids_tell_slices_series_and_scans_apart(tmp_path: Path) -> None:
    """No two files share a UID, not even those of two arrays or of scans whose names are no keys."""
    scans = ["0000007_20201_2_0", "0000007_20201_2_1", "0000007_20201_3_0", "eg_a", "eg_b"]
    slices = [datasets(write_scan(STATIONS[:1], tmp_path, scan)) for scan in scans]
    every = [ds for scan in slices for ds in scan]
    assert len({ds.SOPInstanceUID for ds in every}) == len(every) == 5 * 4 * SLICES
    assert len({ds.SeriesInstanceUID for ds in every}) == 5 * 4
    assert [len({ds.StudyInstanceUID for ds in scan}) for scan in slices] == [1] * 5
    assert len({ds.StudyInstanceUID for ds in every}) == 5
    for ds in every:
        assert ds.SOPInstanceUID.is_valid
        assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID


@pytest.mark.parametrize("scan", ["a00000001b", "00000077_20201_2_0"])
def test_values_of_a_slice_go_where_they_belong(tmp_path: Path, scan: str) -> None:
    """Found in review: a name that held the stand-in of InstanceNumber had PatientID overwritten."""
    slices = datasets(write_scan(STATIONS[:1], tmp_path, scan))
    assert {ds.PatientID for ds in slices} == {scan.split("_")[0]}
    assert {str(ds.PatientName) for ds in slices} == {scan.split("_")[0]}


def test_headers_say_that_no_one_was_scanned(tmp_path: Path) -> None:
    ds = datasets(write_scan(STATIONS[:1], tmp_path, SCAN))[0]
    assert (ds.Manufacturer, ds.Modality, ds.PatientID) == ("SYNTHETIC", "MR", "0000007")
    assert "no person was scanned" in ds.ImageComments
    assert (ds.BitsAllocated, ds.PixelRepresentation, ds.PhotometricInterpretation) == (16, 0, "MONOCHROME2")


def test_a_manifest_row_has_a_comma_too_many(tmp_path: Path) -> None:
    """As in UK Biobank's, the unquoted date shifts the columns after it."""
    path = write_scan(STATIONS[:2], tmp_path, SCAN)
    head, *rows = members(path)["manifest.csv"].decode().splitlines()
    assert head.split(",")[7] == "series discription"
    assert len(rows) == 2 * 4 * SLICES
    assert all(",Nov 20, 2016," in row and row.count(",") == head.count(",") + 1 for row in rows)
    assert {row.split(",")[0] for row in rows} | {"manifest.csv"} == set(zipfile.ZipFile(path).namelist())


def test_nifti_read_by_its_affine_gives_the_stations(tmp_path: Path) -> None:
    """Voxel by voxel: the LPS place of (row, col, slice) leads through the inverse affine to the same value."""
    folder = write_scan(STATIONS, tmp_path, SCAN, "nifti")
    assert {p.name for p in folder.iterdir()} == {f"station{s}_{c}.nii.gz" for s in range(1, 7) for c in "WF"}
    for station in STATIONS:
        place = np.indices(station.shape).reshape(3, -1)[[1, 0, 2]]
        step = station.spacing_mm[[1, 0, 2]] * [1, 1, -1]
        ras = (station.position_mm.astype(float) + place.T * step) * [-1, -1, 1]
        for contrast, values in (("W", station.water), ("F", station.fat)):
            image = nib.load(folder / f"station{station.number}_{contrast}.nii.gz")
            assert image.get_data_dtype() == np.uint16
            assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
            assert image.header["sform_code"] == image.header["qform_code"] == 1
            # The header keeps quaternion and offsets as float32.
            assert image.get_qform() == pytest.approx(image.get_sform(), abs=1e-4)
            index = nib.affines.apply_affine(np.linalg.inv(image.affine), ras)
            assert np.abs(index - index.round()).max() < 1e-4
            x, y, z = index.round().astype(int).T
            assert np.array_equal(np.asarray(image.dataobj)[x, y, z].reshape(station.shape), values)


@pytest.mark.parametrize("format", ["zip", "dicom", "nifti"])
def test_a_scan_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    path = write_scan(STATIONS, tmp_path, SCAN, format)  # type: ignore[arg-type]
    before = members(path)

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(writers, "_manifest", full_disk)
    monkeypatch.setattr(Station, "affine", property(full_disk))
    with pytest.raises(OSError, match="no space"):
        write_scan(STATIONS[:4], tmp_path, SCAN, format)  # type: ignore[arg-type]
    assert members(path) == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("stations", "scan", "format", "message"),
    [
        (STATIONS, "../0000001", "zip", "characters"),
        (STATIONS, "..", "nifti", "characters"),
        (STATIONS, SCAN, "tar", "`format`: got 'tar'"),
        ((), SCAN, "zip", "got none"),
        (
            [replace(STATIONS[0], water=STATIONS[0].water.astype(np.float32))],
            SCAN,
            "zip",
            "station 1 has water float32",
        ),
        ([replace(STATIONS[0], fat=STATIONS[0].fat[:-1])], SCAN, "nifti", rf"fat uint16 \(17, {COLS}, {SLICES}\)"),
    ],
)
def test_what_cannot_be_a_scan_is_refused(tmp_path: Path, stations, scan: str, format, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=message):
        write_scan(stations, tmp_path / "x", scan, format)
    assert not (tmp_path / "x").exists()


def test_importing_the_phantom_is_light() -> None:
    code = (
        "import sys, ukb_infer.phantom, ukb_infer.phantom.anomalies; "
        "print(sorted({'numba', 'pydicom', 'nibabel', 'torch', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
