"""NIfTI stations: any orientation gives the stations of the DICOM slices; what cannot be trusted is refused."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.support.small_scans import make_slices, same, station_affine, write_nifti_stations, write_zip
from ukb_infer.errors import ScanError
from ukb_infer.imaging import project_path, read_stations
from ukb_infer.imaging.readers.nifti_names import choose_files
from ukb_infer.imaging.series import Contrast, LeftOut
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, Stations

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
OPTIONS = ReadingOptions()
ONE = ReadingOptions(expected_stations=1)
#: NIfTI keeps affines as float32: coordinates of some hundred mm are rounded to about 3e-5 mm.
ROUNDING_MM = 1e-4


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Stations:
    return read_stations(write_zip(tmp_path_factory.mktemp("n") / "a.zip", make_slices(contrasts="WF")), OPTIONS)


ORIENTATIONS = [
    "".join(axes) for order in itertools.permutations(("LR", "PA", "SI")) for axes in itertools.product(*order)
]


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_all_48_orientations_give_the_dicom_stations(tmp_path: Path, expected: Stations, axes: str) -> None:
    folder = write_nifti_stations(tmp_path, expected.stations[:1], "station{}_{}.nii", axes)
    found = read_stations(folder, ONE)
    assert same(found, Stations(expected.stations[:1]), ROUNDING_MM)
    assert found.flags == ()
    assert found.stations[0].water.dtype == np.uint16
    assert found.stations[0].water.transpose(2, 0, 1).flags.c_contiguous


@pytest.mark.parametrize(
    "name", ["station{}_{}.nii.gz", "{1}{0}.nii", "a_{0}_{1}.NII.GZ", "x-{1}-{0}.nii.gz", "Dixon_BH_17s_{1}_{0}.nii.gz"]
)
def test_names(tmp_path: Path, expected: Stations, name: str) -> None:
    assert same(read_stations(write_nifti_stations(tmp_path, expected.stations, name), OPTIONS), expected, ROUNDING_MM)


def test_dcm2niix_names_pair_by_number(tmp_path: Path, expected: Stations) -> None:
    write_nifti_stations(tmp_path, expected.stations, "s{}_{}.nii")
    for path in sorted(tmp_path.iterdir()):
        station, letter = int(path.name[1]), path.name[3]
        number = 4 * station - (letter == "F")
        path.rename(tmp_path / f"Dixon_BH_17s_{letter}_{number}.nii")
        for other, shift in (("in", 3), ("opp", 2)):
            (tmp_path / f"Dixon_BH_17s_{other}_{4 * station - shift}.nii").write_bytes(b"never read")
        (tmp_path / f"Dixon_BH_17s_{letter}_{number}.json").write_text("{}")
    assert same(read_stations(tmp_path, OPTIONS), expected, ROUNDING_MM)


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("Dixon_BH_17s_W_8.nii.gz", Contrast.WATER),
        ("Dixon_BH_17s_F_7.nii.gz", Contrast.FAT),
        ("Dixon_BH_17s_W_8a.nii.gz", Contrast.WATER),
        ("station1_water.nii", Contrast.WATER),
        ("WATER3.NII", Contrast.WATER),
        ("1_fat.nii", Contrast.FAT),
        ("Dixon_BH_17s_in_5.nii.gz", None),
        ("Dixon_BH_17s_opp_6.nii.gz", None),
        ("fat_water.nii", None),
        ("t1w_head.nii.gz", None),
        ("Dixon_BH_17s_W_8.json", None),
        ("._s1_W.nii", None),
    ],
)
def test_contrast_by_name(name: str, contrast: Contrast | None) -> None:
    chosen = choose_files([name], LeftOut())
    assert [file.contrast for file in chosen] == ([] if contrast is None else [contrast])


@pytest.mark.parametrize("scan", ["9100002_20201_2_0", "9100004_20201_2_0"])
@pytest.mark.parametrize("axes", ["LPS", "RAS"])
def test_zip_and_nifti_project_alike(tmp_path: Path, scan: str, axes: str) -> None:
    options = ReadingOptions(expected_stations=4)
    zipped = REFERENCE / f"{scan}.zip"
    folder = write_nifti_stations(tmp_path / scan, read_stations(zipped, options).stations, axes=axes)
    one, other = (project_path(path, options).image.astype(int) for path in (zipped, folder))
    assert np.abs(one - other).max() <= 1  # the demand: float32 affines move the geometry by 1e-5 voxels


def image_of(stations: Stations, dtype: str = "u2") -> nibabel.Nifti1Image:
    station = stations.stations[0]
    return nibabel.Nifti1Image(np.asarray(station.water).astype(dtype), station_affine(station))


def write_pair(folder: Path, stations: Stations, change: Callable[[nibabel.Nifti1Image], object]) -> Path:
    """A water and a fat file of one station, both changed alike."""
    for letter in "WF":
        image = image_of(stations)
        changed = change(image)
        nibabel.save(changed if isinstance(changed, nibabel.Nifti1Image) else image, folder / f"s1_{letter}.nii.gz")
    return folder


def tilt(degrees: float) -> Callable[[nibabel.Nifti1Image], nibabel.Nifti1Image]:
    def change(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
        angle = np.radians(degrees)
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return nibabel.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine)

    return change


def forget_affine(image: nibabel.Nifti1Image) -> None:
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)


def scaled(factor: float) -> Callable[[nibabel.Nifti1Image], nibabel.Nifti1Image]:
    def change(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
        affine = image.affine @ np.diag([factor, factor, factor, 1.0])
        return nibabel.Nifti1Image(np.asarray(image.dataobj), affine)

    return change


def poisoned(value: float) -> Callable[[nibabel.Nifti1Image], nibabel.Nifti1Image]:
    def change(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
        voxels = np.asarray(image.dataobj).astype(np.float32)
        voxels[1, 2, 3] = value
        return nibabel.Nifti1Image(voxels, image.affine)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (tilt(2.0), Reason.OBLIQUE),
        (tilt(-1.2), Reason.OBLIQUE),
        (forget_affine, Reason.MISSING_AFFINE),
        (scaled(0.01), Reason.IMPLAUSIBLE_GEOMETRY),
        (scaled(20.0), Reason.IMPLAUSIBLE_GEOMETRY),
        (poisoned(np.nan), Reason.NON_FINITE_VALUES),
        (poisoned(-np.inf), Reason.NON_FINITE_VALUES),
        (lambda image: nibabel.Nifti1Image(np.zeros((4, 5, 6, 2), "u2"), image.affine), Reason.UNREADABLE_NIFTI),
        (lambda image: nibabel.Nifti1Image(np.zeros((4, 5, 6), "c8"), image.affine), Reason.UNSUPPORTED_PIXELS),
        (lambda image: nibabel.Nifti1Image(np.zeros((4, 5, 6), "u2"), image.affine), Reason.EMPTY_IMAGE),
    ],
)
def test_refused_files(tmp_path: Path, expected: Stations, change: Callable, reason: Reason) -> None:
    with pytest.raises(ScanError) as caught:
        read_stations(write_pair(tmp_path, expected, change), ONE)
    assert caught.value.reason is reason


def test_a_degree_of_tilt_is_accepted(tmp_path: Path, expected: Stations) -> None:
    found = read_stations(write_pair(tmp_path, expected, tilt(0.9)), ONE)
    assert np.array_equal(found.stations[0].water, expected.stations[0].water)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
def test_whole_numbers_become_uint16(tmp_path: Path, expected: Stations, dtype: str) -> None:
    def change(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
        return nibabel.Nifti1Image((np.asarray(image.dataobj) % 256).astype(dtype), image.affine)

    water = read_stations(write_pair(tmp_path, expected, change), ONE).stations[0].water
    assert water.dtype == np.uint16
    assert np.array_equal(water, expected.stations[0].water % 256)


@pytest.mark.parametrize("offset", [-800, 0.5])
def test_other_numbers_become_float32(tmp_path: Path, expected: Stations, offset: float) -> None:
    def change(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
        return nibabel.Nifti1Image((np.asarray(image.dataobj).astype(float) + offset).astype("f4"), image.affine)

    water = read_stations(write_pair(tmp_path, expected, change), ONE).stations[0].water
    assert water.dtype == np.float32
    assert np.array_equal(water, expected.stations[0].water + np.float32(offset))


def test_scaling_in_the_header_is_applied_and_flagged(tmp_path: Path, expected: Stations) -> None:
    found = read_stations(write_pair(tmp_path, expected, lambda image: image.header.set_slope_inter(0.5, 3.0)), ONE)
    assert found.flags == (Reason.RESCALE_APPLIED,)
    assert np.array_equal(found.stations[0].water, expected.stations[0].water * 0.5 + 3.0)


@pytest.mark.parametrize("cut", [0, 1, 100, 400, -1])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_cut_files(tmp_path: Path, expected: Stations, cut: int, suffix: str) -> None:
    write_nifti_stations(tmp_path, expected.stations[:1], "s{}_{}" + suffix)
    path = tmp_path / f"s1_W{suffix}"
    data = path.read_bytes()
    path.write_bytes(data[: cut if cut >= 0 else len(data) // 2])
    with pytest.raises(ScanError) as caught:
        read_stations(tmp_path, ONE)
    assert caught.value.reason is Reason.UNREADABLE_NIFTI


def test_absurd_shape_is_refused_before_reading(tmp_path: Path, expected: Stations) -> None:
    image = image_of(expected)
    image.header["dim"][1:4] = 32767
    path = tmp_path / "s1_W.nii.gz"
    path.write_bytes(gzip.compress(image.header.binaryblock + b"\0" * 4096))
    with pytest.raises(ScanError) as caught:
        read_stations(tmp_path, ONE)
    assert caught.value.reason is Reason.TOO_LARGE


def test_water_without_fat_and_shifted_fat(tmp_path: Path, expected: Stations) -> None:
    write_nifti_stations(tmp_path, expected.stations)
    path = tmp_path / "station2_F.nii.gz"
    image = nibabel.load(path)
    moved = image.affine.copy()
    moved[2, 3] += 300.0
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), moved), path)
    with pytest.raises(ScanError) as caught:
        read_stations(tmp_path, OPTIONS)
    assert caught.value.reason is Reason.WATER_FAT_MISMATCH
    path.unlink()
    with pytest.raises(ScanError) as caught:
        read_stations(tmp_path, OPTIONS)
    assert caught.value.reason is Reason.NO_FAT_SERIES
    assert "station 2" in caught.value.message
