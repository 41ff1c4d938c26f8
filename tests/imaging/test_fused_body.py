"""The fused body: the recipe on its own grid, placed right on every grid, stored without losing what matters."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

import ukb_infer
from tests.support.made_stations import Plan, make_stations, stack_plans
from tests.support.small_scans import SLICES, make_slices, picture, select, write_nifti_stations, write_zip
from ukb_infer.errors import ScanError, UsageError
from ukb_infer.imaging.reading import read_stations
from ukb_infer.imaging.recipes.mimir1.fusion import fuse_stations
from ukb_infer.imaging.series import Contrast
from ukb_infer.imaging.volumes.export import describe, write_stitch
from ukb_infer.imaging.volumes.names import check_contrasts, check_spacing_rule, image_path, subject_label
from ukb_infer.imaging.volumes.nifti import choose_storage
from ukb_infer.imaging.volumes.stitch import Stitch, make_stitch
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, ScanKey, Station, Stations

KEY = ScanKey.from_name("0000001_20201_2_0")
#: Stations on the grid, off it in every axis, and with other slice spacings and matrices.
STATIONS = make_stations(
    [
        Plan(x_mm=-20.0, y_mm=8.0, z_mm=100.0),
        Plan(x_mm=-20.0, y_mm=8.0, z_mm=46.0, slice_spacing_mm=4.5, slices=20),
        Plan(x_mm=-18.7, y_mm=6.9, z_mm=-22.4, rows=44, cols=38, slice_spacing_mm=3.5),
    ]
)


def stitch(stations: list[Station], *contrasts: str, spacing: str = "native") -> Stitch:
    return make_stitch(Stations(tuple(stations)), KEY, contrasts or ("water", "fat"), spacing)


def constant_stations(plans: list[Plan], values: list[tuple[float, float]], dtype: type = np.uint16) -> list[Station]:
    """Stations of one water and one fat value each."""
    return [
        Station(s.number, np.full(s.shape, water, dtype), np.full(s.shape, fat, dtype), s.position_mm, s.spacing_mm)
        for s, (water, fat) in zip(make_stations(plans), values, strict=True)
    ]


def test_on_the_recipes_grid_every_voxel_is_the_recipes() -> None:
    volume = fuse_stations(STATIONS)
    made = stitch(STATIONS, spacing="recipe")
    for name, expected in (("water", volume.water), ("fat", volume.fat)):
        planes = np.stack(list(made.planes(name)))
        np.testing.assert_array_equal(planes.transpose(2, 1, 0)[::-1, ::-1], expected)
    turned = volume.affine @ np.append(np.array(expected.shape) * (1, 1, 0) - (1, 1, 0), 1.0)
    np.testing.assert_allclose(made.grid.affine[:3, 3], turned[:3], atol=1e-9)


def test_native_is_the_finest_spacing_of_the_stations() -> None:
    assert stitch(STATIONS).grid.spacing_mm == pytest.approx((2.23214293, 2.23214293, 3.0))
    coarse = make_stations(stack_plans([Plan(spacing_mm=4.0, slice_spacing_mm=5.0)] * 2, [40.0]))
    made = stitch(coarse)
    assert made.grid.spacing_mm == pytest.approx((4.0, 4.0, 5.0))
    assert not any(made.grid.boxes.needs_resampling(k) for k in range(2))
    inside = made.image("water")[:, :, -4]  # above the seam: the voxels as they were stored
    expected = coarse[0].water[:, :, 2 + 3]  # 12 mm of 5 mm slices are cut at the end
    np.testing.assert_array_equal(inside, expected[::-1, ::-1].T)


@pytest.mark.parametrize("spacing", ["native", "recipe", "1.5", "4", "10"])
def test_a_point_of_the_body_is_where_the_affine_says(spacing: str) -> None:
    """A bright voxel block at known LPS millimetres, in every station."""
    plans = stack_plans([Plan(x_mm=-60.0, y_mm=-40.0, slices=40)] * 3, [24.0, 36.0])
    for number in range(3):
        stations = constant_stations(plans, [(10, 10)] * 3)
        stations[number].water[30:34, 8:12, 18:22] = 1000
        row, col, between = stations[number].spacing_mm
        lps = stations[number].position_mm + np.array([9.5 * col, 31.5 * row, -19.5 * between])
        made = stitch(stations, spacing=spacing)
        bright = np.clip(made.image("water") - 10.5, 0, None)  # less what the background gives
        centre = np.array([(bright.sum(axis=other) @ np.arange(bright.shape[axis])) for axis, other in
                           ((0, (1, 2)), (1, (0, 2)), (2, (0, 1)))]) / bright.sum()  # fmt: skip
        ras = made.grid.affine @ np.append(centre, 1.0)
        np.testing.assert_allclose(ras[:3], lps * (-1, -1, 1), atol=0.35 * max(made.grid.spacing_mm))


def test_all_spacings_show_the_same_part_of_the_body() -> None:
    def ends(spacing: str) -> np.ndarray:
        grid = stitch(STATIONS, spacing=spacing).grid
        low, high = (grid.affine @ np.append(corner, 1.0) for corner in ((0, 0, 0), np.array(grid.shape) - 1))
        return np.stack([low[:3], high[:3]])

    for spacing in ("1", "2", "2.5"):
        assert np.abs(ends(spacing) - ends("recipe")).max() <= 3.5


def test_seams_of_a_uniform_body_are_invisible() -> None:
    plans = stack_plans([Plan(x_mm=-60.0, slices=30)] * 3, [24.0, 30.0])
    for spacing in ("native", "2", "5"):
        image = stitch(constant_stations(plans, [(400, 100)] * 3), spacing=spacing).image("water")
        np.testing.assert_allclose(image, 400.0, rtol=1e-6)


def test_the_fat_fraction_is_f_over_w_plus_f_and_0_without_signal() -> None:
    stations = constant_stations([Plan()], [(300, 100)])
    stations[0].water[:5], stations[0].fat[:5] = 0, 0
    image = stitch(stations, "fraction").image("fraction")
    assert set(np.unique(image)) == {np.float32(0.0), np.float32(0.25)}
    plans = stack_plans([Plan(slices=30)] * 2, [24.0])
    brighter = constant_stations(plans, [(300, 100), (600, 200)])
    made = stitch(brighter, "fraction")  # stations of other brightness, water and fat alike
    np.testing.assert_allclose(made.image("fraction"), 0.25, rtol=1e-6)
    assert {seam["Gains"] for seam in describe(made, "fraction", choose_storage(1.0))["Seams"]} == {None}
    negative = constant_stations([Plan()], [(-50, 100)], np.float32)
    assert stitch(negative, "fraction").image("fraction").max() == 1.0


def test_files_are_3d_with_equal_sform_and_qform_and_keep_whole_numbers(tmp_path: Path) -> None:
    made = stitch(STATIONS, "water", "fraction")
    paths = write_stitch(made, ("water", "fraction"), tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in paths] == [
        f"sub-0000001/ses-2/anat/sub-0000001_ses-2_acq-dixon_rec-{label}_desc-fused_T1w.nii.gz"
        for label in ("water", "fatfraction")
    ]
    for path, name in zip(paths, ("water", "fraction"), strict=True):
        image = nibabel.load(path)
        assert (image.ndim, image.shape, image.get_data_dtype()) == (3, made.grid.shape, np.int16)
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_array_equal(image.get_sform(), image.get_qform())
        np.testing.assert_allclose(image.affine, made.grid.affine, rtol=1e-6)
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
        assert image.header.get_xyzt_units()[0] == "mm"
        expected, found = made.image(name).astype(float), np.asarray(image.dataobj)
        facts = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        step = facts["Storage"]["Slope"]
        assert np.abs(found - expected).max() <= step / 2 + 1e-6
        assert facts["Storage"]["LargestRounding"] == pytest.approx(np.abs(found - expected).max(), abs=1e-4 * step)
        whole = expected == np.rint(expected)
        np.testing.assert_array_equal(found[whole], expected[whole])
        again = tmp_path / "again"
        assert [p.read_bytes() for p in write_stitch(made, (name,), again)] == [path.read_bytes()]


def test_storage_is_lossless_where_nothing_was_interpolated_and_float_beyond_int16(tmp_path: Path) -> None:
    stations = make_stations([Plan()])
    image = nibabel.load(write_stitch(stitch(stations), ("water",), tmp_path)[0])
    expected = stations[0].water[:, :, 4:-4][::-1, ::-1, ::-1].transpose(1, 0, 2)
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
    facts = json.loads(next(tmp_path.rglob("*.json")).read_text())["Storage"]
    assert facts["Lossless"]
    assert choose_storage(32767.0).slope == 1.0
    assert choose_storage(32768.0).dtype == "float32"
    assert choose_storage(16383.5) == choose_storage(16000.0)
    assert choose_storage(0.0).dtype == "int16"
    assert choose_storage(1e-35).dtype == "float32"
    bright = constant_stations([Plan()], [(40001, 50001)])
    bright[0].water[3, 3] = 65535
    big = nibabel.load(write_stitch(stitch(bright), ("water",), tmp_path / "b")[0])
    assert big.get_data_dtype() == np.float32
    assert set(np.unique(np.asarray(big.dataobj))) == {40001.0, 65535.0}


def test_the_sidecar_says_where_seams_lie_and_what_they_gained() -> None:
    plans = stack_plans([Plan(slices=30)] * 2, [24.0])
    made = stitch(constant_stations(plans, [(100, 50), (200, 50)]))
    facts = describe(made, "water", choose_storage(200.0))
    (seam,) = facts["Seams"]
    assert (seam["Upper"], seam["Lower"], seam["AcquiredOverlapMm"]) == (1, 2, pytest.approx(24.0))
    assert seam["LowerOverUpper"] == pytest.approx(2.0)
    first, end = seam["Slices"]
    image = made.image("water")
    np.testing.assert_allclose(image[0, 0, first - 1 : end + 1], np.linspace(200, 100, 10), rtol=1e-6)  # feet first
    np.testing.assert_allclose(seam["UpperWeights"], np.arange(1, 9) / 9, rtol=1e-6)
    blended = 100 * np.array(seam["UpperWeights"]) + 200 * (1 - np.array(seam["UpperWeights"]))
    np.testing.assert_allclose(blended * seam["Gains"], image[0, 0, first:end], rtol=1e-5)
    ranges = [s["Slices"] for s in facts["Stations"]]
    assert ranges == [[first, made.grid.shape[2]], [0, end]]
    assert facts["Swaps"] is None
    swaps = ({"Station": 2, "Kind": "whole", "Action": "corrected"},)
    scan = Stations(made.scan.stations, swaps=swaps)
    assert describe(make_stitch(scan, KEY, ("water",), "native"), "water", choose_storage(200.0))["Swaps"] == list(
        swaps
    )
    assert facts["GeneratedBy"] == [{"Name": "ukb-infer", "Version": ukb_infer.__version__}]
    assert json.loads(json.dumps(facts)) == facts


def test_touching_stations_of_a_coarse_grid_are_stitched_and_gaps_refused() -> None:
    close = make_stations(stack_plans([Plan(slices=30)] * 2, [3.0]))
    assert stitch(close, spacing="10").image("water").shape[2] == stitch(close, spacing="10").grid.shape[2]
    apart = make_stations(stack_plans([Plan(slices=30)] * 2, [-6.0]))
    for spacing in ("native", "10"):
        with pytest.raises(ScanError) as failure:
            stitch(apart, spacing=spacing)
        assert failure.value.reason is Reason.STATIONS_DO_NOT_OVERLAP


# -- in-phase and opposed-phase ---------------------------------------------------------------------------------------


def test_other_contrasts_are_read_only_where_they_are_asked_for(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "0000001_20201_2_0.zip", make_slices())
    plain = read_stations(path, ReadingOptions())
    assert all(s.in_phase is None and s.opposed_phase is None for s in plain.stations)
    for fast in (True, False):
        read = read_stations(path, ReadingOptions(), also=(Contrast.OPPOSED_PHASE,), use_fast_path=fast)
        for k, station in enumerate(read.stations):
            assert station.in_phase is None
            expected = np.stack([picture(k, "opp", index) for index in range(SLICES)], axis=2)
            np.testing.assert_array_equal(station.opposed_phase, expected)
            np.testing.assert_array_equal(station.water, plain.stations[k].water)


def test_nifti_stations_have_the_other_contrasts_by_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "0000001_20201_2_0.zip", make_slices())
    read = read_stations(path, ReadingOptions(), also=(Contrast.IN_PHASE, Contrast.OPPOSED_PHASE))
    folder = write_nifti_stations(tmp_path / "nifti", read.stations)
    for station in read.stations:
        for word, voxels in (("in", station.in_phase), ("opp", station.opposed_phase)):
            turned = voxels[::-1, ::-1, ::-1].transpose(1, 0, 2)
            nibabel.save(nibabel.Nifti1Image(turned, station.affine), folder / f"station{station.number}_{word}.nii.gz")
    again = read_stations(folder, ReadingOptions(), also=(Contrast.IN_PHASE, Contrast.OPPOSED_PHASE))
    for one, other in zip(read.stations, again.stations, strict=True):
        np.testing.assert_array_equal(one.in_phase, other.in_phase)
        np.testing.assert_array_equal(one.opposed_phase, other.opposed_phase)


@pytest.mark.parametrize("defect", ["absent", "moved", "short"])
def test_a_contrast_that_is_not_there_or_elsewhere_fails_with_its_code(tmp_path: Path, defect: str) -> None:
    slices = make_slices()
    own = select(slices, 3, "in")
    if defect == "moved":
        for ds in own:
            ds.ImagePositionPatient = [float(ds.ImagePositionPatient[0]) + 4.0, *ds.ImagePositionPatient[1:]]
    else:
        gone = own if defect == "absent" else own[-2:]
        slices = [ds for ds in slices if not any(ds is other for other in gone)]
    path = write_zip(tmp_path / "0000001_20201_2_0.zip", slices)
    assert len(read_stations(path, ReadingOptions(), also=(Contrast.OPPOSED_PHASE,)).stations) == 6
    with pytest.raises(ScanError, match="station 3") as failure:
        read_stations(path, ReadingOptions(), also=(Contrast.IN_PHASE,))
    assert failure.value.reason is Reason.CONTRAST_MISSING


# -- names and options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scan", "path"),
    [
        ("0000007_20201_3_0", "sub-0000007/ses-3/anat/sub-0000007_ses-3_acq-dixon_rec-fat_desc-fused_T1w.nii.gz"),
        ("0000007_20201_3_1", "sub-0000007/ses-3/anat/sub-0000007_ses-3_acq-dixon_rec-fat_run-2_desc-fused_T1w.nii.gz"),
        ("phantom", "sub-phantom/anat/sub-phantom_acq-dixon_rec-fat_desc-fused_T1w.nii.gz"),
    ],
)
def test_names_are_bids(scan: str, path: str) -> None:
    assert str(image_path(ScanKey.from_name(scan), "fat")) == path


def test_scans_whose_names_differ_in_signs_only_do_not_share_files() -> None:
    names = ("eg_20201_abdo", "eg-20201-abdo", "eg.20201.abdo", "eg20201abdo")
    labels = {subject_label(ScanKey.from_name(name)) for name in names}
    assert len(labels) == 4
    assert all(label.isalnum() for label in labels)


def test_options_are_checked_in_words() -> None:
    assert check_contrasts(["fraction", "water", "water"]) == ("water", "fraction")
    assert [check_spacing_rule(text) for text in ("native", "2.50", "10")] == ["native", "2.5", "10"]
    for wrong in ("inphase", ""):
        with pytest.raises(UsageError, match=r"`contrasts`: unknown .*choices: water, fat, in, opposed, fraction"):
            check_contrasts([wrong])
    with pytest.raises(UsageError, match="`contrasts`: none given"):
        check_contrasts([])
    for wrong in ("0.1", "nan", "2mm", "inf", "-2"):
        with pytest.raises(UsageError, match=r"`spacing`: got .* expected native, recipe or 0.5 to 10"):
            check_spacing_rule(wrong)


def test_a_projection_is_not_stitched(tmp_path: Path) -> None:
    np.save(tmp_path / "0000001_20201_2_0.npy", np.zeros((3, 256, 256), np.uint8))
    with pytest.raises(ScanError, match="give the zip or folder it is of"):
        ukb_infer.stitch(tmp_path / "0000001_20201_2_0.npy")
