"""Phantom files, read back by plain pydicom, nibabel and by our reader."""

from __future__ import annotations

import collections
import io
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest

from ukb_infer.errors import ScanError, UsageError
from ukb_infer.imaging import project_path, project_stations
from ukb_infer.phantom import ANOMALIES, render, sample_subject, write_cohort, write_scan
from ukb_infer.phantom.anomalies import find_anomaly
from ukb_infer.reasons import Kind, Reason
from ukb_infer.records import ReadingOptions, Station
from ukb_infer.targets import TARGETS

SCAN = "0000003_20201_2_0"
SUBJECT = sample_subject(9, 3)


@pytest.fixture(scope="module")
def stations() -> tuple[Station, ...]:
    return render(SUBJECT, "small").stations


@pytest.fixture(scope="module")
def flawless(stations: tuple[Station, ...]) -> np.ndarray:
    return project_stations(stations)


def _read_with_pydicom(path: Path) -> dict[str, list[pydicom.Dataset]]:
    series = collections.defaultdict(list)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".dcm"):
                ds = pydicom.dcmread(io.BytesIO(archive.read(name)))
                assert name == f"{ds.SOPInstanceUID}.dcm"
                series[int(ds.SeriesNumber)].append(ds)
    return series


def test_a_zip_is_biobank_like_and_holds_the_stations(tmp_path: Path, stations: tuple[Station, ...]) -> None:
    path = write_scan(stations, tmp_path, SCAN)
    series = _read_with_pydicom(path)
    assert sorted(series) == list(range(1, 25))
    for number, slices in series.items():
        station = stations[(number - 1) // 4]
        slices.sort(key=lambda d: -float(d.ImagePositionPatient[2]))
        contrast = ("in", "opp", "F", "W")[(number - 1) % 4]
        assert slices[0].SeriesDescription == f"Dixon_{'BH_17s' if 2 <= station.number <= 4 else 'noBH'}_{contrast}"
        assert slices[0].PatientID == "0000003"
        volume = np.stack([d.pixel_array for d in slices], axis=-1)
        w, f = station.water.astype(int), station.fat.astype(int)
        assert np.array_equal(volume, {"in": w + f, "opp": abs(w - f), "F": f, "W": w}[contrast])
        positions = np.array([d.ImagePositionPatient for d in slices], np.float32)
        assert np.array_equal(positions.max(axis=0), station.position_mm)
        assert [np.float32(v) for v in slices[0].PixelSpacing] == [np.float32(v) for v in station.spacing_mm[:2]]
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("manifest.csv").decode().splitlines()
    assert "series discription" in lines[0]
    assert len(lines[1].split(",")) == len(lines[0].split(",")) + 1


def test_the_same_scan_gives_the_same_bytes(tmp_path: Path, stations: tuple[Station, ...]) -> None:
    one = write_scan(stations, tmp_path / "a", SCAN).read_bytes()
    assert one == write_scan(stations, tmp_path / "b", SCAN).read_bytes()


def test_every_format_gives_the_same_projection(
    tmp_path: Path, stations: tuple[Station, ...], flawless: np.ndarray
) -> None:
    for form in ("zip", "dicom", "nifti"):
        projection = project_path(write_scan(stations, tmp_path, SCAN, form), ReadingOptions())
        assert projection.flags == ()
        assert projection.stations == 6
        assert np.abs(projection.image.astype(int) - flawless).max() <= 1


def test_nifti_affines_are_ras(tmp_path: Path, stations: tuple[Station, ...]) -> None:
    folder = write_scan(stations, tmp_path, SCAN, "nifti")
    image = nib.load(folder / "station2_W.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    station = stations[1]
    first_lps = (
        np.array([-1, -1, 1]) * (image.affine @ [image.shape[0] - 1, image.shape[1] - 1, image.shape[2] - 1, 1])[:3]
    )
    assert first_lps == pytest.approx(station.position_mm, abs=1e-3)
    assert int(np.asarray(image.dataobj)[-1, -1, -1]) == int(station.water[0, 0, 0])


def _outcome(path: Path) -> tuple[Reason | None, tuple[Reason, ...], np.ndarray | None]:
    try:
        projection = project_path(path, ReadingOptions())
    except ScanError as error:
        return error.reason, (), None
    return None, projection.flags, projection.image


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("anomaly", [a for a in ANOMALIES if not ANOMALIES[a].effect], ids=lambda a: a.value)
def test_every_anomaly_is_found_by_its_own_code(
    tmp_path: Path, stations: tuple[Station, ...], flawless: np.ndarray, anomaly: Reason, seed: int
) -> None:
    for form in ANOMALIES[anomaly].formats:
        failure, flags, image = _outcome(write_scan(stations, tmp_path, SCAN, form, anomaly, seed))
        kind = anomaly.kind
        if kind in (Kind.FAILURE, Kind.FAILURE_OR_FLAG):
            assert failure is anomaly
        elif kind is Kind.FLAG:
            assert (failure, flags) == (None, (anomaly,))
        else:
            assert (failure, flags) == (None, ())
            assert np.array_equal(image, flawless)


@pytest.mark.parametrize("seed", range(5))
def test_a_missing_station_is_found_wherever_it_is(tmp_path: Path, stations: tuple[Station, ...], seed: int) -> None:
    """Seeds 3 and 4 leave out the last and the first station."""
    path = write_scan(stations, tmp_path, SCAN, "zip", Reason.STATION_MISSING, seed)
    assert _outcome(path)[0] is Reason.STATION_MISSING
    if seed >= 3:
        projection = project_path(path, ReadingOptions(allow_missing_stations=True))
        assert projection.flags == (Reason.STATION_MISSING,)
        assert projection.stations == 5


def test_a_repaired_duplicate_equals_the_flawless_scan(
    tmp_path: Path, stations: tuple[Station, ...], flawless: np.ndarray
) -> None:
    """The spoiled acquisition is older: using the newest gives the flawless projection."""
    path = write_scan(stations, tmp_path, SCAN, "zip", Reason.DUPLICATE_STATION, 1)
    assert np.array_equal(project_path(path, ReadingOptions()).image, flawless)


def test_strict_turns_flags_into_failures(tmp_path: Path, stations: tuple[Station, ...]) -> None:
    path = write_scan(stations, tmp_path, SCAN, "zip", Reason.SLICE_INTERPOLATED)
    with pytest.raises(ScanError, match="strict: a flag is a failure"):
        project_path(path, ReadingOptions(strict=True))


def test_an_anomaly_of_another_format_is_refused(tmp_path: Path, stations: tuple[Station, ...]) -> None:
    with pytest.raises(UsageError, match="needs `format` nifti, got zip"):
        write_scan(stations, tmp_path, SCAN, "zip", Reason.OBLIQUE)
    with pytest.raises(UsageError, match="slice_missing"):
        find_anomaly("slice_misssing")


def test_a_cohort_has_truths_and_anomalies(tmp_path: Path) -> None:
    write_cohort(tmp_path, 3, 5, size="small", anomalies=[Reason.METAL, Reason.NO_FAT_SERIES])
    truth = pd.read_csv(tmp_path / "truth.csv", dtype={"eid": str})
    assert list(truth.columns) == ["scan", "eid", "instance", "array", *TARGETS]
    assert list(truth["scan"]) == [f"000000{k}_20201_2_0" for k in (1, 2, 3)]
    assert list(truth["eid"]) == ["0000001", "0000002", "0000003"]
    assert (tmp_path / "anomalies.csv").read_text() == (
        "scan,anomaly\n0000001_20201_2_0,metal\n0000002_20201_2_0,no_fat_series\n"
    )
    assert len(list(tmp_path.glob("*.zip"))) == 3
    with pytest.raises(UsageError, match="`overwrite`"):
        write_cohort(tmp_path, 3, 5, size="small")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "`count`"),
        ({"seed": -1}, "`seed`"),
        ({"format": "tar"}, "`format`"),
        ({"size": "tiny"}, "`size`"),
    ],
)
def test_contradictory_cohorts_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    arguments = {"count": 1, "seed": 1} | change
    with pytest.raises(UsageError, match=message):
        write_cohort(tmp_path / "x", **arguments)  # type: ignore[arg-type]
