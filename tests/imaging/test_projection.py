"""The projection equals the reference system's, and the fast path equals the plain implementation."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.made_stations import Plan, make_stations, stack_plans
from tests.support.pydicom_stations import REFERENCE, REFERENCE_SCANS, read_plainly
from ukb_infer.errors import ScanError
from ukb_infer.imaging.recipes.mimir1 import fast as projection
from ukb_infer.imaging.recipes.mimir1.constants import BED_ROWS, HIRES_SIZE, SIZE, TRIMMED_END_SLICES
from ukb_infer.imaging.recipes.mimir1.fast import count_body, even_out, find_planes, project_stations
from ukb_infer.imaging.recipes.mimir1.fusion import fuse_stations, place_stations, trim_overlaps
from ukb_infer.imaging.recipes.mimir1.otsu import otsu_thresholds
from ukb_infer.imaging.recipes.mimir1.parts import Part, make_part
from ukb_infer.imaging.recipes.mimir1.reference import project_stations_reference
from ukb_infer.protocol import IN_PLANE_SPACING_MM
from ukb_infer.reasons import Reason
from ukb_infer.records import Station


def assert_same(image: NDArray[np.uint8], expected: NDArray[np.uint8], size: int = SIZE) -> None:
    assert image.shape == (3, size, size)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


def parts_of(stations: list[Station]) -> tuple[list[Part], tuple[int, int, int]]:
    boxes = place_stations(stations)
    trims = trim_overlaps(boxes)
    rows = boxes.extent[0] - BED_ROWS
    parts = [make_part(s, boxes, k, trim, rows) for k, (s, trim) in enumerate(zip(stations, trims, strict=True))]
    even_out(parts, trims)
    return parts, boxes.extent


def mask_of(stations: list[Station]) -> NDArray[np.bool_]:
    """The recipe's body mask in front of the table: (x, y, z)."""
    volume = fuse_stations(stations)
    total = volume.water + volume.fat
    return (total >= otsu_thresholds(total.transpose(1, 0, 2)).mean())[:, : total.shape[1] - BED_ROWS]


OFF_GRID = stack_plans(
    [Plan(), Plan(rows=50, y_mm=-4.2, x_mm=1.3, slice_spacing_mm=4.5, slices=20), Plan(rows=44, x_mm=-2.7)],
    [36.0, 31.0],
)
NEARLY_ON_GRID = stack_plans(
    [
        Plan(x_mm=-248.88394, y_mm=-187.5),
        Plan(rows=48, x_mm=-248.88394, y_mm=-187.5 - IN_PLANE_SPACING_MM, slice_spacing_mm=4.5, slices=20),
        Plan(rows=44, x_mm=-248.88394, y_mm=-187.5 + IN_PLANE_SPACING_MM, slice_spacing_mm=3.5),
    ],
    [36.0, 37.5],
)


def shifted_body(plans: list[Plan], dtype: type = np.uint16) -> list[Station]:
    """The body where the plans say, whatever their origin: made at the origin, then moved."""
    x0, y0 = min(p.x_mm for p in plans), min(p.y_mm for p in plans)
    stations = make_stations([replace(p, x_mm=p.x_mm - x0, y_mm=p.y_mm - y0) for p in plans], dtype=dtype)
    return [
        replace(s, position_mm=np.array([p.x_mm, p.y_mm, p.z_mm], np.float32))
        for s, p in zip(stations, plans, strict=True)
    ]


@pytest.mark.parametrize("scan", REFERENCE_SCANS)
def test_reference_scans_are_reproduced_exactly(scan: str) -> None:
    stations = read_plainly(REFERENCE / f"{scan}.zip")
    expected = np.load(REFERENCE / f"{scan}.npy")
    np.testing.assert_array_equal(project_stations_reference(stations), expected)
    np.testing.assert_array_equal(project_stations(stations), expected)


def test_there_are_four_reference_scans() -> None:
    assert len(REFERENCE_SCANS) == 4


@pytest.mark.parametrize("plans", [OFF_GRID, NEARLY_ON_GRID], ids=["off grid", "nearly on grid"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int16])
@pytest.mark.parametrize("ambiguous", [0, 10**9], ids=["approximate mask", "exact mask"])
def test_fast_path_equals_the_plain_one(
    plans: list[Plan], dtype: type, ambiguous: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "AMBIGUOUS_VOXELS", ambiguous)
    stations = shifted_body(plans, dtype)
    assert_same(project_stations(stations), project_stations_reference(stations))


def test_memory_order_does_not_matter() -> None:
    stations = shifted_body(NEARLY_ON_GRID)
    copies = [replace(s, water=np.ascontiguousarray(s.water), fat=np.asfortranarray(s.fat)) for s in stations]
    np.testing.assert_array_equal(project_stations(stations), project_stations(copies))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    overlaps=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    on_grid=st.booleans(),
    jitter=st.sampled_from([0.0, 1e-5, 1e-4, 3e-3, 0.02]),
)
def test_any_geometry(seed: int, overlaps: list[int], on_grid: bool, jitter: float) -> None:
    rng = np.random.default_rng(seed)
    plans = []
    for _ in range(len(overlaps) + 1):
        x, y = rng.integers(-3, 4, 2) * IN_PLANE_SPACING_MM if on_grid else rng.uniform(-7.0, 7.0, 2)
        x, y = np.array([x, y]) + rng.uniform(-jitter, jitter, 2) * IN_PLANE_SPACING_MM
        spacing = float(rng.choice([3.0, 3.5, 4.0, 4.5, rng.uniform(2.6, 6.0)]))
        slices = int(np.ceil(3.0 * rng.integers(42, 52) / spacing))
        in_plane = IN_PLANE_SPACING_MM * (1.0 if on_grid else float(rng.choice([1.0, 2.0, 0.9])))
        rows, cols = (int(n) for n in rng.integers(34, 50, 2))
        plans.append(Plan(rows, cols, slices, in_plane, spacing, float(x), float(y)))
    stations = shifted_body(stack_plans(plans, [3.0 * n for n in overlaps]))
    for size in (SIZE, HIRES_SIZE):
        assert_same(project_stations(stations, size), project_stations_reference(stations, size), size)


@pytest.mark.parametrize("plans", [OFF_GRID, NEARLY_ON_GRID], ids=["off grid", "nearly on grid"])
def test_the_exact_mask_is_the_plain_one_voxel_for_voxel(plans: list[Plan]) -> None:
    stations = shifted_body(plans)
    counts = count_body(*parts_of(stations), exact=True)
    mask = mask_of(stations)
    np.testing.assert_array_equal(counts.by_row, mask.sum(axis=(0, 2)))
    np.testing.assert_array_equal(counts.by_col, mask[: mask.shape[0] // 2].sum(axis=(1, 2)))


def test_a_doubtful_mask_is_made_again_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, extent = parts_of(shifted_body(NEARLY_ON_GRID))
    asked = []

    def spy(parts: list[Part], extent: tuple[int, int, int], *, exact: bool) -> projection.BodyCounts:
        asked.append(exact)
        return count_body(parts, extent, exact=exact)

    monkeypatch.setattr(projection, "count_body", spy)
    monkeypatch.setattr(projection, "AMBIGUOUS_VOXELS", 10**9)
    find_planes(parts, extent)
    assert asked == [False, True]


def test_planes_split_the_mask_in_half() -> None:
    stations = shifted_body(OFF_GRID)
    row, col = find_planes(*parts_of(stations))
    mask = mask_of(stations)
    assert 2 * mask[:, : row - 1].sum() < mask.sum() <= 2 * mask[:, :row].sum()
    half = mask[: mask.shape[0] // 2]
    assert 2 * half[: col - 1].sum() < half.sum() <= 2 * half[:col].sum()


def test_a_single_station_is_projected() -> None:
    stations = make_stations([Plan(slices=40)])
    assert_same(project_stations(stations), project_stations_reference(stations))


def test_head_is_up_and_coronal_left() -> None:
    (station,) = make_stations([Plan(slices=40)], seed=None)
    water = np.ones_like(station.water)
    water[2:6, 30:34, 6:10] = 1000  # front, to the subject's left, near the head
    image = project_stations([replace(station, water=water)])[0]
    rows, cols = np.nonzero(image > 200)
    shown = 40 - 2 * TRIMMED_END_SLICES
    assert rows.mean() / 256 == pytest.approx((7.5 - TRIMMED_END_SLICES + 0.5) / shown, abs=0.02)
    left, right = cols[cols < 256 * 40 / 64].mean(), cols[cols > 256 * 40 / 64].mean()
    assert left / 256 == pytest.approx((31.5 + 0.5) / (40 + 24), abs=0.02)
    assert right / 256 == pytest.approx((40 + 3.5 + 0.5) / (40 + 24), abs=0.02)


def test_the_table_is_left_out() -> None:
    (station,) = make_stations([Plan(slices=40)])
    water, fat = station.water.copy(), station.fat.copy()
    water[-BED_ROWS:], fat[-BED_ROWS:] = water[-BED_ROWS:][::-1], fat[-BED_ROWS:][::-1]  # same extremes per slice set
    np.testing.assert_array_equal(
        project_stations([replace(station, water=water, fat=fat)])[:2], project_stations([station])[:2]
    )


def test_fat_fraction_of_half_is_the_brightest_grey() -> None:
    (station,) = make_stations([Plan(slices=40)], seed=None)
    fractions = (0.0, 0.25, 0.5, 1.0)
    for fraction, grey in zip(fractions, (0, 127, 255, 255), strict=True):
        total = station.water.astype(np.float32) + station.fat
        fat = total * np.float32(fraction)
        with_ramp = replace(station, water=total - fat + 1e-6 * total, fat=fat + 1e-6 * total)
        image = project_stations([with_ramp])[2]
        assert np.bincount(image.ravel()).argmax() == grey


@pytest.mark.parametrize(("contrast", "value"), [("water", 0), ("fat", 0), ("water", 77)])
@pytest.mark.parametrize("project", [project_stations, project_stations_reference])
def test_constant_images_are_refused(contrast: str, value: int, project: object) -> None:
    (station,) = make_stations([Plan(slices=40)])
    empty = replace(station, **{contrast: np.full_like(station.water, value)})
    with pytest.raises(ScanError, match=contrast) as caught:
        project([empty])  # type: ignore[operator]
    assert caught.value.reason is Reason.EMPTY_IMAGE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_voxels_that_are_no_numbers_are_refused(value: float) -> None:
    stations = shifted_body(OFF_GRID, np.float32)
    stations[1].fat[3, 4, 5] = value
    with pytest.raises(ScanError, match="station 2") as caught:
        project_stations(stations)
    assert caught.value.reason is Reason.NON_FINITE_VALUES


@pytest.mark.parametrize("subject", [1, 2])
def test_phantoms_with_coarse_voxels(subject: int) -> None:
    from ukb_infer.phantom.population import sample_subject
    from ukb_infer.phantom.sampling import render

    stations = list(render(sample_subject(11, subject), "small").stations)
    assert_same(project_stations(stations), project_stations_reference(stations))


@pytest.mark.slow
@pytest.mark.parametrize("subject", range(4))
def test_full_size_phantoms_in_little_memory(subject: int) -> None:
    from ukb_infer.phantom.population import sample_subject
    from ukb_infer.phantom.sampling import render

    stations = list(render(sample_subject(12, subject), "full").stations)
    image = project_stations(stations)
    tracemalloc.start()
    project_stations(stations)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # beside the stations; one fused volume in float32 would be 58 MB
    assert_same(image, project_stations_reference(stations))
    parts, extent = parts_of(stations)
    approximate, exact = (count_body(parts, extent, exact=exact) for exact in (False, True))
    mask = mask_of(stations)
    np.testing.assert_array_equal(exact.by_row, mask.sum(axis=(0, 2)))
    np.testing.assert_array_equal(exact.by_col, mask[: mask.shape[0] // 2].sum(axis=(1, 2)))
    # What neglecting in-plane weights may change stays far below the margin that asks for the exact mask.
    for one, other in ((approximate.by_row, exact.by_row), (approximate.by_col, exact.by_col)):
        shift = (np.cumsum(one) - one.sum() / 2) - (np.cumsum(other) - other.sum() / 2)
        assert np.abs(shift).max() < projection.AMBIGUOUS_VOXELS / 4
