"""Label maps back to the stations: known volumes and fat fractions come out exactly, in any orientation."""

from __future__ import annotations

import csv
import io
import warnings
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from tests.support.made_stations import Plan, make_stations, stack_plans
from ukb_infer.errors import ScanError, UsageError
from ukb_infer.imaging.readers.nifti import read_label_map
from ukb_infer.imaging.volumes.export import write_stitch
from ukb_infer.imaging.volumes.grid import FusedGrid, make_grid
from ukb_infer.imaging.volumes.stitch import fat_fraction, make_stitch
from ukb_infer.imaging.volumes.volumetry import LabelMeasure, labels_of_station, measure_labels, place_labels
from ukb_infer.inference.volumetry import read_names, run_volumetry
from ukb_infer.phantom import write_scan
from ukb_infer.records import ReadingOptions, ScanKey, Station, Stations

VOXEL_LITRES = 2.23214293**2 * 3.0 / 1e6
UPPER, LOWER = (300, 100), (100, 300)  # fat fractions 0.25 and 0.75


def two_stations(lower: Plan | None = None, overlap_mm: float = 24.0) -> list[Station]:
    """Uniform stations, 30 slices of 3 mm above ``lower``."""
    plans = stack_plans([Plan(slices=30), lower or Plan(slices=30)], [overlap_mm])
    stations = make_stations(plans)
    for station, (water, fat) in zip(stations, (UPPER, LOWER), strict=True):
        station.water[...], station.fat[...] = water, fat
    return stations


def blank(grid: FusedGrid) -> np.ndarray:
    return np.zeros(grid.shape, np.int16)


def measure(values: np.ndarray, stations: list[Station], rule: str = "native") -> list[LabelMeasure]:
    return measure_labels(place_labels(values, make_grid(stations, rule).affine, stations), stations)


def test_a_box_has_its_voxels_times_their_volume_and_its_stations_fat_fraction() -> None:
    stations = two_stations()
    values = blank(make_grid(stations))
    values[5:15, 10:20, 30:40] = 7  # feet first: the lower station ends at 26 - 4
    values[5:15, 10:20, 2:5] = 3
    low, high = measure(values, stations)
    assert (low.label, low.voxels, high.label, high.voxels) == (3, 300, 7, 1000)
    assert high.volume_litres == pytest.approx(1000 * VOXEL_LITRES, rel=1e-14)
    assert low.volume_litres == pytest.approx(300 * VOXEL_LITRES, rel=1e-14)
    assert (high.mean_fat_fraction, low.mean_fat_fraction) == (pytest.approx(0.25), pytest.approx(0.75))
    assert (high.outside_litres, high.station_litres[1], low.station_litres[0]) == (0.0, 0.0, 0.0)


def test_in_an_overlap_nothing_counts_twice() -> None:
    """Over the eight slices of the seam the weights of either station are 1/9 ... 8/9: half each."""
    stations = two_stations()
    values = blank(make_grid(stations))
    values[:, :, 18:26] = 1
    (seam,) = measure(values, stations)
    assert seam.volume_litres == pytest.approx(values.sum() * VOXEL_LITRES, rel=1e-12)
    np.testing.assert_allclose(seam.station_litres, seam.volume_litres / 2, rtol=1e-6)
    assert seam.mean_fat_fraction == pytest.approx(0.5, rel=1e-6)
    values[:, :, 18:26] = 0
    values[:, :, 18] = 1  # its lowest slice: 8/9 of the lower station
    (slice_,) = measure(values, stations)
    assert slice_.mean_fat_fraction == pytest.approx((0.25 + 8 * 0.75) / 9, rel=1e-6)


@pytest.mark.parametrize("rule", ["native", "recipe", "2", "5"])
def test_volumes_are_conserved_on_every_grid(rule: str) -> None:
    stations = make_stations(
        [
            Plan(x_mm=-20.0, y_mm=8.0, z_mm=100.0),
            Plan(x_mm=-20.0, y_mm=8.0, z_mm=46.0, slice_spacing_mm=4.5, slices=20),
            Plan(x_mm=-18.7, y_mm=6.9, z_mm=-22.4, rows=44, cols=38, slice_spacing_mm=3.5),
        ]
    )
    grid = make_grid(stations, rule)
    values = np.random.default_rng(1).integers(0, 4, grid.shape)
    measures = measure(values, stations, rule)
    for m in measures:
        litres = (values == m.label).sum() * np.prod(grid.spacing_mm) / 1e6
        assert m.volume_litres + m.outside_litres == pytest.approx(litres, rel=1e-12)
        assert sum(m.station_litres) == pytest.approx(m.volume_litres, rel=1e-12)
        assert m.outside_litres > 0  # beside the smaller station
        assert 0 < m.mean_fat_fraction < 1


def test_where_only_one_of_two_stations_reaches_it_has_the_whole_voxel() -> None:
    stations = two_stations(Plan(slices=30, cols=30))
    values = blank(make_grid(stations))
    values[:10, :, 18:26] = 1  # the patient's left: columns run there, and the lower station has 10 fewer
    values[-10:, :, 18:26] = 2
    left, right = measure(values, stations)
    assert left.mean_fat_fraction == pytest.approx(0.25)
    assert left.volume_litres == pytest.approx((values == 1).sum() * VOXEL_LITRES, rel=1e-12)
    assert (left.outside_litres, left.station_litres[1]) == (0.0, 0.0)
    assert right.mean_fat_fraction == pytest.approx(0.5, rel=1e-6)


def test_voxels_of_other_thickness_count_with_the_part_that_lies_in_the_label() -> None:
    """Slices of 4.5 mm with fat fractions rising by 0.01: the mean over any slabs of 3 mm is that over their mm."""
    stations = two_stations(Plan(slices=30, slice_spacing_mm=4.5), overlap_mm=30.0)
    steps = np.arange(30)
    stations[1].water[...], stations[1].fat[...] = 100 - steps, steps
    grid = make_grid(stations)
    values = blank(grid)
    values[4:9, 4:9, 5:8] = 1
    (found,) = measure(values, stations)
    top = float(stations[1].position_mm[2]) + 2.25
    low, high = (float(grid.affine[2, 3]) + 3.0 * (k - 0.5) for k in (5, 8))
    edges = top - 4.5 * np.arange(31)
    inside = np.clip(np.minimum(edges[:-1], high) - np.maximum(edges[1:], low), 0, None)
    assert inside.sum() == pytest.approx(9.0)
    assert found.mean_fat_fraction == pytest.approx((inside * steps).sum() / 9.0 / 100, rel=1e-6)


@pytest.mark.parametrize("rule", ["native", "3.4"])
def test_stations_off_the_grid_in_every_axis_agree_with_brute_force(rule: str) -> None:
    """24 x 24 x 24 points a voxel of the map, each with the fat fraction of the station's voxel that it lies in."""
    rng = np.random.default_rng(3)
    lower = Plan(x_mm=-18.7, y_mm=6.9, z_mm=22.4, rows=44, cols=38, slice_spacing_mm=4.1)
    stations = make_stations([Plan(x_mm=-20.0, y_mm=8.0, z_mm=100.0, slices=30), lower])
    station = stations[1]
    station.fat[...] = rng.integers(0, 101, station.shape)
    station.water[...] = 100 - station.fat
    grid = make_grid(stations, rule)
    values = blank(grid)
    values[8:12, 9:12, 4:8] = rng.integers(0, 2, (4, 3, 4))
    (found,) = measure(values, stations, rule)
    points = np.argwhere(values)[:, None] + (np.stack(np.mgrid[:24, :24, :24], -1).reshape(-1, 3) + 0.5) / 24 - 0.5
    lps = (nibabel.affines.apply_affine(grid.affine, points.reshape(-1, 3))) * (-1, -1, 1)
    col, row, up = ((lps - station.position_mm) / station.spacing_mm[[1, 0, 2]]).T
    own = station.fat[np.rint(row).astype(int), np.rint(col).astype(int), np.rint(-up).astype(int)]
    assert found.station_litres[0] == 0.0
    assert found.mean_fat_fraction == pytest.approx(own.mean() / 100, abs=2e-3)


def test_voxels_without_signal_have_volume_and_no_fat_fraction() -> None:
    stations = two_stations()
    stations[0].water[:23], stations[0].fat[:23] = 0, 0
    values = blank(make_grid(stations))
    values[5:15, :, 30:40] = 1
    values[5:15, -10:, 30:40] = 2  # in front: rows run to the back
    half, dark = measure(values, stations)
    assert half.mean_fat_fraction == pytest.approx(0.25)
    assert np.isnan(dark.mean_fat_fraction)
    assert dark.volume_litres == pytest.approx(1000 * VOXEL_LITRES, rel=1e-12)


def test_labels_on_the_stations_own_voxels() -> None:
    stations = two_stations(Plan(slices=30, slice_spacing_mm=6.0))
    grid = make_grid(stations)
    values = blank(grid)
    values[3, 5, :] = 4
    placed = place_labels(values, grid.affine, stations)
    for k, station in enumerate(stations):
        own = labels_of_station(placed, k)
        rows, cols, slices = np.nonzero(own)
        assert own.shape == station.shape
        assert (set(rows), set(cols)) == ({45 - 5}, {39 - 3})
        assert set(own[own > 0]) == {4}
        expected = 30 if k else 30 - 4  # the upper station's first four slices were cut off the volume
        assert abs(len(set(slices)) - expected) <= 2 * k  # the lower one's last 12 mm too


# -- orientation ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Station], np.ndarray, np.ndarray]:
    """Stations, a random label map on them, and its affine as a file holds it."""
    stations = make_stations(stack_plans([Plan(slices=30), Plan(slices=20, slice_spacing_mm=4.5)], [24.0]))
    grid = make_grid(stations)
    values = np.zeros(grid.shape, np.int16)
    values[4:30, 7:25, 3:31] = np.random.default_rng(0).integers(0, 3, (26, 18, 28))
    return stations, values, grid.affine.astype(np.float32).astype(np.float64)


def test_the_affine_decides_in_all_48_orientations(drawn: tuple[list[Station], np.ndarray, np.ndarray]) -> None:
    stations, values, affine = drawn
    expected = measure_labels(place_labels(values, affine, stations), stations)
    image = nibabel.Nifti1Image(values, affine)
    seen = set()
    for axes, signs in product(permutations(("RL", "AP", "SI")), product((0, 1), repeat=3)):
        codes = tuple(pair[sign] for pair, sign in zip(axes, signs, strict=True))
        turned = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes)))
        found = place_labels(np.asarray(turned.dataobj), turned.affine, stations)
        np.testing.assert_array_equal(found.values, values)
        assert measure_labels(found, stations) == expected
        seen.add(codes)
    assert len(seen) == 48


def test_a_part_of_the_volume_is_as_good_as_the_whole(drawn: tuple[list[Station], np.ndarray, np.ndarray]) -> None:
    stations, values, affine = drawn
    part = nibabel.Nifti1Image(values, affine).slicer[3:31, 6:26, 2:32]
    found = place_labels(np.asarray(part.dataobj), part.affine, stations)
    assert found.offset == (3, 6, 2)
    assert measure_labels(found, stations) == measure_labels(place_labels(values, affine, stations), stations)


@pytest.mark.parametrize("defect", ["moved", "scaled", "anisotropic", "turned", "beyond", "mirrored"])
def test_a_map_that_does_not_belong_to_the_scan_is_refused(
    drawn: tuple[list[Station], np.ndarray, np.ndarray], defect: str
) -> None:
    stations, values, affine = drawn
    affine = affine.copy()
    if defect == "moved":
        affine[0, 3] += 0.8
    elif defect == "scaled":
        affine[:3, :3] *= 1.02
    elif defect == "anisotropic":
        affine[2, 2] = 2.5
    elif defect == "turned":
        angle = np.deg2rad(2.0)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        affine[:3, :3] = turn @ affine[:3, :3]
    elif defect == "beyond":
        affine[2, 3] += 3.0
    else:
        affine[0, 0] = -affine[0, 0]
    with pytest.raises(UsageError, match=r"`labels`: .*expected .*stitch"):
        place_labels(values, affine, stations)


@pytest.mark.parametrize(
    ("value", "message"), [(0.5, "fractions"), (np.nan, "fractions"), (-1.0, "negative"), (0.0, "holds no label")]
)
def test_values_that_are_no_labels_are_refused(
    drawn: tuple[list[Station], np.ndarray, np.ndarray], value: float, message: str
) -> None:
    stations, values, affine = drawn
    wrong = np.zeros(values.shape)
    wrong[0, 0, 0] = value
    with warnings.catch_warnings(action="error"), pytest.raises(UsageError, match=f"`labels`: .*{message}"):
        place_labels(wrong, affine, stations)


# -- files ------------------------------------------------------------------------------------------------------------


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_from_file_to_table(tmp_path: Path) -> None:
    stations = two_stations()
    for station in stations:
        station.water[0, 0, 0] = station.fat[0, 0, 0] = 1  # constant images are refused
    scan = write_scan(stations, tmp_path, "0000001_20201_2_0")
    grid = make_grid(stations)
    values = blank(grid)
    values[5:15, 10:20, 30:40] = 7
    image = nibabel.Nifti1Image(values, grid.affine)
    image.header.set_intent("label")
    nibabel.save(image, tmp_path / "liver.nii.gz")
    (tmp_path / "names.tsv").write_text("index\tname\n7\tliver\n9\tspleen\n")
    reading = ReadingOptions(expected_stations=2)
    text = run_volumetry(
        str(tmp_path / "liver.nii.gz"), str(scan), names=tmp_path / "names.tsv", out=tmp_path / "made/out.csv",
        stations=tmp_path / "own", options=reading,
    )  # fmt: skip
    liver, spleen = rows_of(text)
    assert (tmp_path / "made/out.csv").read_text() == text
    assert (liver["eid"], liver["instance"], liver["label"], liver["name"]) == ("0000001", "2", "7", "liver")
    assert float(liver["volume_litres"]) == pytest.approx(1000 * VOXEL_LITRES, rel=1e-14)
    assert float(liver["mean_fat_fraction"]) == pytest.approx(0.25)
    assert (spleen["name"], spleen["voxels"], spleen["mean_fat_fraction"]) == ("spleen", "0", "")
    assert set(liver) == set(spleen)
    own = nibabel.load(tmp_path / "own" / "liver_station-1.nii.gz")
    assert own.shape == (40, 46, 30)
    np.testing.assert_allclose(own.affine, stations[0].affine, rtol=1e-6)
    assert np.asarray(own.dataobj).sum() == 7000


def test_maps_that_simpleitk_writes_are_read(tmp_path: Path) -> None:
    """Drawn on a file of `stitch`, by a program of the other convention of axes."""
    stations = two_stations()
    made = make_stitch(Stations(tuple(stations)), ScanKey.from_name("0000001_20201_2_0"), ("water",), "native")
    image = SimpleITK.ReadImage(str(write_stitch(made, ("water",), tmp_path)[0]))
    drawn = SimpleITK.Image(image.GetSize(), SimpleITK.sitkUInt8)
    drawn.CopyInformation(image)
    drawn[5:15, 10:20, 30:40] = 7
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(drawn, "LPS"), str(tmp_path / "turned.nii.gz"))
    values, affine = read_label_map(tmp_path / "turned.nii.gz")
    assert nibabel.aff2axcodes(affine) == ("L", "P", "S")
    expected = np.zeros(made.grid.shape)
    expected[5:15, 10:20, 30:40] = 7
    np.testing.assert_array_equal(place_labels(values, affine, stations).values, expected)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    scan = tmp_path / "0000001_20201_2_0.zip"
    with pytest.raises(UsageError, match=r"`labels`: .*is not a file"):
        run_volumetry(tmp_path / "none.nii", scan)
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), None), tmp_path / "lost.nii")
    with pytest.raises(ScanError, match=r"missing_affine: the label map"):
        run_volumetry(tmp_path / "lost.nii", scan)
    (tmp_path / "names.csv").write_text("id,text\n1,liver\n")
    with pytest.raises(UsageError, match="`names`: has the columns id, text"):
        read_names(tmp_path / "names.csv")
    (tmp_path / "names.csv").write_text("label,name\none,liver\n")
    with pytest.raises(UsageError, match=r"`names`: the column label should hold whole numbers"):
        read_names(tmp_path / "names.csv")


def test_the_fat_fraction_of_nothing_is_0() -> None:
    np.testing.assert_array_equal(fat_fraction(np.array([0.0, 1.0]), np.array([0.0, 3.0])), [0.0, 0.75])
