"""Every anomaly has the defect it is named after, seen by zipfile, pydicom and nibabel alone (not by our reader)."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from tests.support.plain_reading import (
    CONTRASTS,
    OVERLAP_MM,
    SLICES,
    STEP_MM,
    by_series,
    datasets,
    members,
    noise_stations,
    of,
    z_mm,
)
from tests.support.plain_reading import volume as volume_of
from ukb_infer.errors import UsageError
from ukb_infer.phantom import ANOMALIES, anomaly_names, find_anomaly, write_scan
from ukb_infer.reasons import Kind, Reason

SCAN = "0000007_20201_2_0"
STATIONS = noise_stations()
#: Seed 1 alters station 3.
SEED, MIDDLE = 1, 3

Series = dict[int, list[pydicom.Dataset]]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def write(anomaly: Reason | None, format: str = "zip", seed: int = SEED) -> Path:
        return write_scan(STATIONS, tmp_path / f"{format}{seed}", SCAN, format, anomaly, seed)

    return write


@pytest.fixture
def read(make: Callable[..., Path]) -> Callable[..., Series]:
    def series(anomaly: Reason | None, seed: int = SEED) -> Series:
        return by_series(datasets(make(anomaly, "zip", seed)))

    return series


Make, Read = Callable[..., Path], Callable[..., Series]


def _unchanged(series: Series, *, but: tuple[int, ...] = (MIDDLE,)) -> None:
    """All stations but some are as a flawless scan has them."""
    for station in STATIONS:
        if station.number not in but:
            assert np.array_equal(volume_of(of(series, station.number, "W")), station.water)
            assert np.array_equal(volume_of(of(series, station.number, "F")), station.fat)
            expected = station.position_mm[2] - np.arange(SLICES) * station.spacing_mm[2]
            assert z_mm(of(series, station.number, "F")) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("anomaly", "dz"), [(Reason.DUPLICATE_STATION, 0.0), (Reason.NEAR_DUPLICATE_STATION, -2.5)], ids=str
)
def test_a_repeated_station_is_newer_and_better(read: Read, anomaly: Reason, dz: float) -> None:
    series = read(anomaly)
    assert sorted(series) == list(range(1, 29))
    for k, contrast in enumerate(CONTRASTS):
        old, new = of(series, MIDDLE, contrast), series[25 + k]
        assert old[0].SeriesDescription == new[0].SeriesDescription
        assert old[0].SeriesTime < new[0].SeriesTime
        assert old[0].SeriesInstanceUID != new[0].SeriesInstanceUID
        assert z_mm(new) - z_mm(old) == pytest.approx(np.full(SLICES, dz), abs=1e-5)
    truth = STATIONS[MIDDLE - 1]
    assert np.array_equal(volume_of(series[28]), truth.water)
    assert np.array_equal(volume_of(series[27]), truth.fat)
    assert not np.array_equal(volume_of(of(series, MIDDLE, "W")), truth.water)
    _unchanged(series)


@pytest.mark.parametrize(("seed", "gone"), [(0, 2), (1, 3), (2, 4), (3, 6), (4, 1)])
def test_one_station_is_missing(make: Make, read: Read, seed: int, gone: int) -> None:
    series = read(Reason.STATION_MISSING, seed)
    assert sorted({(number - 1) // 4 + 1 for number in series}) == [s for s in range(1, 7) if s != gone]
    _unchanged(series, but=(gone,))
    names = {path.name for path in make(Reason.STATION_MISSING, "nifti", seed).iterdir()}
    assert names == {f"station{s}_{c}.nii.gz" for s in range(1, 7) if s != gone for c in "WF"}


@pytest.mark.parametrize("seed", range(4))
def test_stations_leave_a_gap(read: Read, seed: int) -> None:
    """80 mm less the overlap of 9 mm (one slice spacing from the last slice to the station's end)."""
    series = read(Reason.STATIONS_DO_NOT_OVERLAP, seed)
    gaps = [
        z_mm(of(series, s, "W"))[-1] - STATIONS[s - 1].spacing_mm[2] - z_mm(of(series, s + 1, "W"))[0]
        for s in range(1, 6)
    ]
    expected = np.full(5, -OVERLAP_MM)
    expected[1 + seed % 4] += 80.0
    assert gaps == pytest.approx(expected, abs=1e-4)


def test_a_station_is_shorter_than_its_overlaps(read: Read) -> None:
    series = read(Reason.STATION_TOO_SHORT)
    short, above, below = (z_mm(of(series, s, "W")) for s in (MIDDLE, MIDDLE - 1, MIDDLE + 1))
    assert len(short) == len(of(series, MIDDLE, "F")) == 4
    length = 4 * STEP_MM
    overlap_above = short[0] - (above[-1] - STEP_MM)
    overlap_below = below[0] - (short[-1] - STEP_MM)
    assert overlap_above > 0
    assert overlap_below == pytest.approx(0.7 * length, abs=1e-4)
    assert overlap_above + overlap_below > length


def test_fat_lies_beside_water(read: Read) -> None:
    series = read(Reason.WATER_FAT_MISMATCH)
    for water, fat in zip(of(series, MIDDLE, "W"), of(series, MIDDLE, "F"), strict=True):
        difference = np.subtract(fat.ImagePositionPatient, water.ImagePositionPatient).astype(float)
        assert difference == pytest.approx([3.1, 0.0, 0.0], abs=1e-5)
    _unchanged(series)


def test_fat_is_smaller_than_water(read: Read) -> None:
    series = read(Reason.SIZE_MISMATCH)
    water, fat = (volume_of(of(series, MIDDLE, c)) for c in "WF")
    assert (water.shape[0] - fat.shape[0], water.shape[1] - fat.shape[1]) == (2, 3)
    assert np.array_equal(fat, STATIONS[MIDDLE - 1].fat[:-2, :-3])
    _unchanged(series)


def test_several_slices_are_missing(read: Read) -> None:
    series = read(Reason.SLICE_MISSING)
    steps = -np.diff(z_mm(of(series, MIDDLE, "W")))
    assert sorted(steps.round(3)) == [STEP_MM] * (SLICES - 5) + [4 * STEP_MM]
    assert len(of(series, MIDDLE, "F")) == SLICES
    _unchanged(series)


@pytest.mark.parametrize(("seed", "contrasts"), [(0, "WF"), (1, "W")])
def test_one_interior_slice_is_missing(read: Read, seed: int, contrasts: str) -> None:
    series = read(Reason.SLICE_INTERPOLATED, seed)
    middle = 2 + seed
    for contrast in "WF":
        steps = sorted(-np.diff(z_mm(of(series, middle, contrast))).round(3))
        expected = [STEP_MM] * (SLICES - 3) + [2 * STEP_MM] if contrast in contrasts else [STEP_MM] * (SLICES - 1)
        assert steps == expected
    _unchanged(series, but=(middle,))


def test_a_slice_occurs_twice(read: Read) -> None:
    series = read(Reason.SLICE_DUPLICATE)
    slices = of(series, MIDDLE, "W")
    assert len(slices) == len({ds.SOPInstanceUID for ds in slices}) == SLICES + 1
    (twice,) = np.flatnonzero(np.diff(z_mm(slices)) == 0)
    assert np.array_equal(slices[twice].pixel_array, slices[twice + 1].pixel_array)
    _unchanged(series)


@pytest.mark.parametrize(("seed", "kept"), [(0, slice(None, -1)), (1, slice(1, None))])
def test_fat_lacks_an_end_slice(read: Read, seed: int, kept: slice) -> None:
    series = read(Reason.END_SLICES_CROPPED, seed)
    middle = 2 + seed
    assert np.array_equal(volume_of(of(series, middle, "F")), STATIONS[middle - 1].fat[:, :, kept])
    assert z_mm(of(series, middle, "F")).tolist() == z_mm(of(series, middle, "W"))[kept].tolist()
    _unchanged(series, but=(middle,))


def test_slices_of_a_series_lie_apart_in_plane(read: Read) -> None:
    series = read(Reason.GEOMETRY_INCONSISTENT)
    for contrast in "WF":
        x = [float(ds.ImagePositionPatient[0]) for ds in of(series, MIDDLE, contrast)]
        assert max(x) - min(x) == pytest.approx(7.0, abs=1e-5)
    _unchanged(series)


def test_slices_are_not_axial(read: Read) -> None:
    series = read(Reason.NOT_AXIAL)
    turned = {number for number, s in series.items() for ds in s if ds.ImageOrientationPatient != [1, 0, 0, 0, 1, 0]}
    assert turned == {4 * (MIDDLE - 1) + k for k in range(1, 5)}
    normal = np.cross(*np.array(of(series, MIDDLE, "W")[0].ImageOrientationPatient, float).reshape(2, 3))
    assert abs(normal[2]) < 0.5


def test_pixels_are_a_hundredth_of_a_millimetre(read: Read) -> None:
    series = read(Reason.IMPLAUSIBLE_GEOMETRY)
    assert {tuple(ds.PixelSpacing) for ds in of(series, MIDDLE, "W") + of(series, MIDDLE, "F")} == {(0.01, 0.01)}


@pytest.mark.parametrize(("anomaly", "contrast"), [(Reason.NO_WATER_SERIES, "W"), (Reason.NO_FAT_SERIES, "F")], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_contrast_is_absent(read: Read, anomaly: Reason, contrast: str, seed: int) -> None:
    """In the whole scan (even seeds) or at one station (odd)."""
    series = read(anomaly, seed)
    lacking = [s for s in range(1, 7) if not of(series, s, contrast)]
    assert lacking == ([MIDDLE] if seed else list(range(1, 7)))
    assert sum(len(s) for s in series.values()) == SLICES * (24 - len(lacking))


def test_a_zip_without_dicom_keeps_its_manifest(make: Make) -> None:
    assert list(members(make(Reason.NO_DICOM))) == ["manifest.csv"]


def test_a_truncated_zip_does_not_open(make: Make) -> None:
    flawless = make(None).stat().st_size
    path = make(Reason.UNREADABLE_ZIP)
    assert path.stat().st_size == int(0.6 * flawless)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(path)


def test_every_member_of_an_encrypted_zip_asks_for_a_password(make: Make) -> None:
    with zipfile.ZipFile(make(Reason.ENCRYPTED_ZIP)) as archive:
        assert all(info.flag_bits & 1 for info in archive.infolist())
        with pytest.raises(RuntimeError, match="password"):
            archive.read(archive.namelist()[0])


def test_pixel_data_are_cut_short(read: Read) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom announces the early end of the file
        series = read(Reason.UNREADABLE_DICOM)
    slices = of(series, MIDDLE, "W")
    assert len(slices) == SLICES
    for ds in slices:
        assert len(ds.PixelData) == ds.Rows * ds.Columns  # half of it
        with pytest.raises(ValueError, match="pixel data"):
            _ = ds.pixel_array
    assert len(of(series, MIDDLE, "F")[0].PixelData) == 2 * slices[0].Rows * slices[0].Columns


def test_a_transfer_syntax_that_no_decoder_knows(read: Read) -> None:
    for slices in read(Reason.UNSUPPORTED_TRANSFER_SYNTAX).values():
        assert slices[0].file_meta.TransferSyntaxUID.is_private
        with pytest.raises(NotImplementedError):
            _ = slices[0].pixel_array


def test_compressed_pixels_decode_to_the_same(read: Read) -> None:
    series = read(Reason.COMPRESSED_TRANSFER_SYNTAX)
    compressed = {n for n, s in series.items() for ds in s if ds.file_meta.TransferSyntaxUID.is_compressed}
    assert compressed == {4 * (MIDDLE - 1) + k for k in range(1, 5)}
    assert of(series, MIDDLE, "W")[0].file_meta.TransferSyntaxUID == pydicom.uid.RLELossless
    _unchanged(series, but=())


def test_enhanced_mr_has_frames(read: Read) -> None:
    for slices in read(Reason.MULTIFRAME).values():
        assert {ds.SOPClassUID.name for ds in slices} == {"Enhanced MR Image Storage"}
        assert all(ds.NumberOfFrames > 1 for ds in slices)


def test_slices_of_two_examinations(read: Read) -> None:
    series = read(Reason.SEVERAL_SCANS)
    studies = {number: {ds.StudyInstanceUID for ds in s} for number, s in series.items()}
    assert len(set.union(*studies.values())) == 2
    assert studies[1] == studies[20] != studies[21] == studies[24]


@pytest.mark.parametrize(("seed", "value"), [(0, 0), (1, 77)])
def test_water_is_constant(make: Make, read: Read, seed: int, value: int) -> None:
    series = read(Reason.EMPTY_IMAGE, seed)
    middle = 2 + seed
    assert set(np.unique(volume_of(of(series, middle, "W")))) == {value}
    _unchanged(series, but=(middle,))
    image = nib.load(make(Reason.EMPTY_IMAGE, "nifti", seed) / f"station{middle}_W.nii.gz")
    assert set(np.unique(np.asarray(image.dataobj))) == {value}


def test_water_and_fat_are_rescaled_alike(read: Read) -> None:
    series = read(Reason.RESCALE_APPLIED)
    assert {(ds.RescaleSlope, ds.RescaleIntercept) for s in series.values() for ds in s} == {(2, 0)}
    _unchanged(series, but=())


def test_manifests_are_spoiled_and_slices_are_not(make: Make) -> None:
    flawless = members(make(None))
    manifest = flawless.pop("manifest.csv")
    spoiled = {
        Reason.MANIFEST_MISSPELLED: {"manifest.cvs": manifest},
        Reason.MANIFEST_MISSING: {},
        Reason.MANIFEST_CRLF: {"manifest.csv": manifest.replace(b"\n", b"\r\n")},
        Reason.MANIFEST_NO_NEWLINE: {"manifest.csv": manifest[:-1]},
    }
    for anomaly, expected in spoiled.items():
        assert members(make(anomaly)) == flawless | expected
    wrong = members(make(Reason.MANIFEST_WRONG))
    lines, truths = (text.decode().splitlines() for text in (wrong.pop("manifest.csv"), manifest))
    assert wrong == flawless
    assert len(lines) == len(truths)
    assert not set(lines[1:]) & set(truths[1:])
    # All other cells are right: only the description lies.
    assert [(v.split(",")[0], v.split(",")[7]) for v in lines[1:]] == [
        (v.split(",")[0], v.split(",")[7]) for v in truths[1:]
    ]


def test_implicit_vr_says_so_and_a_mislabelled_file_lies(read: Read, make: Make) -> None:
    implicit = read(Reason.IMPLICIT_VR)
    assert {ds.file_meta.TransferSyntaxUID for s in implicit.values() for ds in s} == {
        pydicom.uid.ImplicitVRLittleEndian
    }
    _unchanged(implicit, but=())
    honest = members(make(Reason.IMPLICIT_VR))
    for name, data in members(make(Reason.MISLABELLED_TRANSFER_SYNTAX)).items():
        if not name.endswith(".dcm"):
            continue
        meta = pydicom.filereader.read_partial(io.BytesIO(data), lambda tag, *_: tag.group > 2).file_meta
        assert meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        dataset = honest[name][132 + 12 + int.from_bytes(honest[name][140:144], "little") :]
        assert data.endswith(dataset)


@pytest.mark.parametrize(("seed", "meta"), [(0, False), (1, True)])
def test_files_without_preamble(make: Make, seed: int, meta: bool) -> None:
    """Odd seeds keep the file meta information, even ones are a bare data set."""
    path = make(Reason.NO_PREAMBLE, "zip", seed)
    starts = {data[:2] for name, data in members(path).items() if name.endswith(".dcm")}
    assert starts == {b"\x02\x00" if meta else b"\x08\x00"}
    slices = datasets(path, force=True)
    for ds in slices:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    _unchanged(by_series(slices), but=())


def test_nifti_is_tilted(make: Make) -> None:
    affine = nib.load(make(Reason.OBLIQUE, "nifti") / "station2_F.nii.gz").affine
    assert np.rad2deg(nib.affines.obliquity(affine)).max() == pytest.approx(8.0, abs=1e-3)


def test_nifti_without_affine(make: Make) -> None:
    header = nib.load(make(Reason.MISSING_AFFINE, "nifti") / "station2_F.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)


def test_nifti_cut_short(make: Make) -> None:
    with pytest.raises((EOFError, OSError)):
        nib.load(make(Reason.UNREADABLE_NIFTI, "nifti") / "station1_W.nii.gz").get_fdata()


def test_nifti_with_a_nan(make: Make) -> None:
    folder = make(Reason.NON_FINITE_VALUES, "nifti")
    assert np.isnan(nib.load(folder / "station1_W.nii.gz").get_fdata()).any()
    assert np.isfinite(nib.load(folder / "station2_W.nii.gz").get_fdata()).all()


@pytest.mark.parametrize("anomaly", ANOMALIES, ids=str)
def test_an_anomaly_is_written_in_its_formats_and_refused_in_others(tmp_path: Path, anomaly: Reason) -> None:
    for format in ("zip", "dicom", "nifti"):
        folder = tmp_path / format
        if format in ANOMALIES[anomaly].formats:
            path = write_scan(STATIONS, folder, SCAN, format, anomaly)
            if format == ANOMALIES[anomaly].formats[0]:
                first = members_or_bytes(path)
                assert first == members_or_bytes(write_scan(STATIONS, folder, SCAN, format, anomaly))
            assert [p.name for p in folder.iterdir()] == [path.name]
        else:
            with pytest.raises(UsageError, match=f"{anomaly.value} needs `format` {ANOMALIES[anomaly].formats[0]}"):
                write_scan(STATIONS, folder, SCAN, format, anomaly)
            assert not folder.exists()


def members_or_bytes(path: Path) -> object:
    return members(path) if path.is_dir() else path.read_bytes()


def test_all_appearances_and_tolerated_files_can_be_made() -> None:
    assert anomaly_names() == [reason.value for reason in ANOMALIES]
    for reason in Reason:
        if reason.kind in (Kind.APPEARANCE, Kind.TOLERATED) and reason is not Reason.EXCLUDED:
            assert reason in ANOMALIES
            assert ANOMALIES[reason].effect == (reason.kind is Kind.APPEARANCE)
            assert find_anomaly(reason.value) is reason


def test_codes_that_no_phantom_can_have_are_refused(tmp_path: Path) -> None:
    for format in ("zip", "nifti"):
        with pytest.raises(UsageError, match=r"unknown 'too_large'.*choices: duplicate_station"):
            write_scan(STATIONS, tmp_path / "x", SCAN, format, Reason.TOO_LARGE)  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("format", ["zip", "nifti"])
def test_a_scan_too_small_for_a_defect_is_refused(tmp_path: Path, format: str) -> None:
    with pytest.raises(UsageError, match="at least 3 stations of 8 slices, got 2 of 10"):
        write_scan(STATIONS[:2], tmp_path, SCAN, format, Reason.EMPTY_IMAGE)  # type: ignore[arg-type]
