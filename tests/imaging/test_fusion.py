"""Steps 3 to 8 of the recipe: geometry, trimming, blending, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from tests.support.made_stations import Plan, make_stations, stack_plans
from ukb_infer.errors import ScanError
from ukb_infer.imaging.recipes.mimir1.constants import GRID_SPACING_MM, TRIMMED_END_SLICES
from ukb_infer.imaging.recipes.mimir1.fusion import (
    fade_weights,
    fuse_stations,
    overlap_factors,
    place_stations,
    resample_station,
    trim_overlaps,
)
from ukb_infer.protocol import IN_PLANE_SPACING_MM
from ukb_infer.reasons import Reason
from ukb_infer.records import Station


def constant(station: Station, value: int) -> Station:
    return replace(station, water=np.full_like(station.water, value), fat=np.full_like(station.fat, value))


def test_a_station_on_the_grid_is_not_resampled() -> None:
    (station,) = make_stations([Plan()])
    volume = fuse_stations([station])
    ends = slice(TRIMMED_END_SLICES, -TRIMMED_END_SLICES)
    np.testing.assert_array_equal(volume.water, station.water[:, :, ::-1].transpose(1, 0, 2)[:, :, ends])
    np.testing.assert_array_equal(volume.fat, station.fat[:, :, ::-1].transpose(1, 0, 2)[:, :, ends])


@pytest.mark.parametrize(("offset_voxels", "expected"), [(0.009, False), (0.011, True)])
def test_the_grid_tolerance_is_a_hundredth_of_a_voxel(offset_voxels: float, expected: bool) -> None:
    plans = stack_plans([Plan(), Plan(x_mm=(1 + offset_voxels) * IN_PLANE_SPACING_MM)], [24.0])
    boxes = place_stations(make_stations(plans))
    assert not boxes.needs_resampling(0)
    assert boxes.needs_resampling(1) is expected


def test_resampling_is_trilinear_with_clamped_coordinates() -> None:
    plans = stack_plans([Plan(), Plan(x_mm=3.1, y_mm=-2.9, slice_spacing_mm=4.1, rows=33)], [24.0])
    stations = make_stations(plans)
    boxes = place_stations(stations)
    for index, station in enumerate(stations):
        shape = boxes.box_end[index] - boxes.box_start[index]
        step = (boxes.end[index] - boxes.start[index]) / boxes.dims[index]
        axes = [(np.arange(shape[a]) - (boxes.start[index, a] - boxes.box_start[index, a])) / step[a] for a in range(3)]
        expected = map_coordinates(
            station.water.astype(np.float64), np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest"
        )
        # float32 storage of values up to 600 rounds by at most 3e-5
        np.testing.assert_allclose(resample_station(station.water, boxes, index), expected, atol=5e-5)


@pytest.mark.parametrize(
    ("overlap", "foot", "head", "kept"), [(1, 0, 0, 1), (8, 0, 0, 8), (9, 0, 1, 8), (12, 2, 2, 8), (13, 2, 3, 8)]
)
def test_overlaps_are_trimmed_to_eight(overlap: int, foot: int, head: int, kept: int) -> None:
    upper, lower = trim_overlaps(place_stations(make_stations(stack_plans([Plan()] * 2, [3.0 * overlap]))))
    assert (upper.foot, lower.head, upper.overlap_below, lower.overlap_above) == (foot, head, kept, kept)
    assert (upper.head, upper.overlap_above, lower.foot, lower.overlap_below) == (0, 0, 0, 0)


@pytest.mark.parametrize("overlap", range(1, 9))
def test_fading_weights_of_both_stations_add_to_one(overlap: int) -> None:
    weights = fade_weights(overlap)
    np.testing.assert_allclose(weights + weights[::-1], 1.0, rtol=1e-6)  # float32
    assert np.all(np.diff(weights) > 0)
    assert weights[0] == np.float32(1 / (overlap + 1))


def test_factors_put_the_means_on_a_line() -> None:
    upper, lower = np.array([4.0, 2.0, 0.0]), np.array([1.0, 2.0, 0.0])
    factors = overlap_factors(upper, lower, 10.0, 20.0)
    np.testing.assert_allclose((upper + lower)[:2] * factors[:2], [12.5, 15.0])
    assert factors[2] == 1.0  # nothing to correct where the sum is 0


def test_equal_stations_fuse_to_themselves_and_unequal_ones_to_a_ramp() -> None:
    stations = make_stations(stack_plans([Plan(), Plan(), Plan()], [24.0, 9.0]))
    same = fuse_stations([constant(s, 500) for s in stations])
    np.testing.assert_allclose(same.water, 500.0, rtol=1e-6)  # float32 weights
    ramp = fuse_stations([constant(s, v) for s, v in zip(stations, (300, 600, 600), strict=True)])
    profile = ramp.water.mean(axis=(0, 1))[::-1]  # head first
    first = stations[0].shape[2] - 8 - TRIMMED_END_SLICES
    np.testing.assert_allclose(profile[:first], 300.0, rtol=1e-6)
    np.testing.assert_allclose(profile[first : first + 8], 300 + 300 * np.arange(1, 9) / 9, rtol=1e-6)
    np.testing.assert_allclose(profile[first + 8 :], 600.0, rtol=1e-6)


def test_contrasts_are_corrected_each_on_its_own() -> None:
    stations = [constant(s, 200) for s in make_stations(stack_plans([Plan()] * 2, [24.0]))]
    stations[1] = replace(stations[1], fat=np.full_like(stations[1].fat, 900))
    volume = fuse_stations(stations)
    np.testing.assert_allclose(volume.water, 200.0, rtol=1e-6)
    assert volume.fat.max() == pytest.approx(900.0)
    assert volume.fat.min() == pytest.approx(200.0)


@pytest.mark.parametrize("shift_mm", [0.0, 3.7])
@pytest.mark.parametrize("z_mm", [74.0, -8.0], ids=["upper station", "lower station"])
def test_the_affine_finds_a_spot_where_it_was(shift_mm: float, z_mm: float) -> None:
    """A Gaussian spot at a known place in patient coordinates (LPS), off the seam, is found there in RAS."""
    spot = np.array([40.0, 52.0, z_mm])
    plans = stack_plans(
        [Plan(x_mm=-7.0, y_mm=11.0), Plan(x_mm=-7.0 - shift_mm, y_mm=11.0 + shift_mm, slice_spacing_mm=4.5)], [30.0]
    )
    stations = []
    for k, plan in enumerate(plans):
        x = plan.x_mm + np.arange(plan.cols) * plan.spacing_mm - spot[0]
        y = plan.y_mm + np.arange(plan.rows) * plan.spacing_mm - spot[1]
        z = plan.z_mm - np.arange(plan.slices) * plan.slice_spacing_mm - spot[2]
        square = y[:, None, None] ** 2 + x[None, :, None] ** 2 + z[None, None, :] ** 2
        voxels = (1000.0 * np.exp(-square / 32.0)).astype(np.float32)
        position = np.array([plan.x_mm, plan.y_mm, plan.z_mm], np.float32)
        spacing = np.array([plan.spacing_mm, plan.spacing_mm, plan.slice_spacing_mm])
        stations.append(Station(k + 1, voxels, voxels, position, spacing))
    volume = fuse_stations(stations)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in volume.water.shape), indexing="ij"), axis=-1)
    centre = (grid * volume.water[..., None]).sum(axis=(0, 1, 2)) / volume.water.sum()
    found = volume.affine @ np.append(centre, 1.0)
    # Sampling a spot of 4 mm sd every 4.5 mm and interpolating it moves its centre by a few hundredths of a mm.
    np.testing.assert_allclose(found[:3], spot * [-1.0, -1.0, 1.0], atol=0.1)
    np.testing.assert_allclose(np.abs(np.diag(volume.affine)[:3]), GRID_SPACING_MM)


def test_a_gap_names_the_stations_and_its_width() -> None:
    stations = make_stations(stack_plans([Plan()] * 3, [24.0, -12.0]))
    with pytest.raises(ScanError, match=r"stations 2 and 3 are 12\.0 mm apart") as caught:
        fuse_stations(stations)
    assert caught.value.reason is Reason.STATIONS_DO_NOT_OVERLAP


def test_touching_stations_do_not_overlap() -> None:
    with pytest.raises(ScanError, match="stations_do_not_overlap"):
        fuse_stations(make_stations(stack_plans([Plan()] * 2, [0.0])))


def test_a_station_shorter_than_its_overlaps_is_refused() -> None:
    stations = make_stations(stack_plans([Plan(), Plan(slices=16), Plan()], [24.0, 24.0]))
    with pytest.raises(ScanError, match="station 2 has 16 slices") as caught:
        fuse_stations(stations)
    assert caught.value.reason is Reason.STATION_TOO_SHORT


def test_the_shortest_station_that_fits_is_used() -> None:
    assert fuse_stations(make_stations(stack_plans([Plan(), Plan(slices=17), Plan()], [24.0, 24.0]))).water.any()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x_mm": 5000.0}, Reason.IMPLAUSIBLE_GEOMETRY),
        ({"y_mm": float("nan")}, Reason.IMPLAUSIBLE_GEOMETRY),
        ({"z_mm": float("inf")}, Reason.IMPLAUSIBLE_GEOMETRY),
        ({"slice_spacing_mm": 0.0}, Reason.IMPLAUSIBLE_GEOMETRY),
        ({"z_mm": 400.0}, Reason.IMPLAUSIBLE_GEOMETRY),
        ({"slice_spacing_mm": 1e6}, Reason.IMPLAUSIBLE_GEOMETRY),
    ],
)
def test_impossible_geometry_is_refused_before_memory_is_taken(change: dict[str, float], reason: Reason) -> None:
    first, second = stack_plans([Plan(), Plan()], [24.0])
    good, bad = make_stations([first, second])
    changed = replace(second, **change)
    bad = replace(
        bad,
        position_mm=np.array([changed.x_mm, changed.y_mm, changed.z_mm], np.float32),
        spacing_mm=np.array([changed.spacing_mm, changed.spacing_mm, changed.slice_spacing_mm]),
    )
    with pytest.raises(ScanError) as caught:
        fuse_stations([good, bad])
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("plan", "reason"), [(Plan(rows=20), Reason.IMPLAUSIBLE_GEOMETRY), (Plan(slices=8), Reason.STATION_TOO_SHORT)]
)
def test_too_little_to_project_is_refused(plan: Plan, reason: Reason) -> None:
    with pytest.raises(ScanError) as caught:
        fuse_stations(make_stations([plan]))
    assert caught.value.reason is reason


def test_no_station_is_refused() -> None:
    with pytest.raises(ScanError, match="station_missing"):
        fuse_stations([])
