"""Checks and repairs: each defect gives its code, each repair is right to the voxel and flagged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ukb_infer.errors import ScanError
from ukb_infer.imaging.series import Contrast, Scaling, Series, SeriesHeader
from ukb_infer.imaging.stations import checks
from ukb_infer.protocol import PROTOCOL
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, Stations

ROWS, COLS, SLICES, SPACING = 4, 6, 8, 5.0
STEP = 30.0
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def series(station: int, contrast: Contrast, **header: object) -> Series:
    """One contrast of one station (from 0); number, time and position as the protocol has them."""
    order = 4 if contrast is Contrast.WATER else 3
    base = SeriesHeader(
        number=4 * station + order,
        uid=f"1.{station}.{order}",
        description="",
        contrast=contrast,
        rows=ROWS,
        cols=COLS,
        orientation=AXIAL,
        pixel_spacing_mm=(2.0, 2.0),
        time_s=1000.0 + station,
    )
    index = np.arange(SLICES)
    positions = np.stack([np.full(SLICES, -6.0), np.full(SLICES, -4.0), 100.0 - STEP * station - SPACING * index], 1)
    voxels = (100 * (order - 2) + 10 * index[:, None, None] + np.arange(ROWS * COLS).reshape(ROWS, COLS)).astype("u2")
    return Series(replace(base, **header), voxels, positions, index + 1, np.full(SLICES, 1000.0 + station))


def scan(stations: int = 6) -> list[Series]:
    return [series(station, contrast) for station in range(stations) for contrast in (Contrast.FAT, Contrast.WATER)]


def run(found: list[Series], options: ReadingOptions | None = None) -> Stations:
    """The checks in the order of ``read_stations``."""
    notes = checks.Notes()
    checks.check_one_scan(found)
    checks.check_contrasts(found)
    checks.check_axial(found)
    pairs = checks.drop_repeats(checks.pair_contrasts(found, notes), notes)
    stations = tuple(checks.build_station(number, pair, notes) for number, pair in enumerate(pairs, start=1))
    checks.check_station_count(stations, pairs, options or ReadingOptions(), notes)
    return Stations(stations, notes.flags, notes.messages)


def failure(found: list[Series], options: ReadingOptions | None = None) -> ScanError:
    with pytest.raises(ScanError) as caught:
        run(found, options)
    return caught.value


def take(item: Series, keep: object) -> Series:
    return replace(
        item,
        voxels=item.voxels[keep],
        positions_mm=item.positions_mm[keep],
        instances=item.instances[keep],
        times_s=item.times_s[keep],
    )


def shift(item: Series, mm: tuple[float, float, float]) -> Series:
    return replace(item, positions_mm=item.positions_mm + np.array(mm))


def edit(index: int, change: Callable[[Series], Series], found: list[Series] | None = None) -> list[Series]:
    """A scan of which one series is changed: 2s is the fat and 2s + 1 the water of station s, from 0."""
    found = found or scan()
    found[index] = change(found[index])
    return found


def test_clean_scan_has_no_flags() -> None:
    result = run(scan())
    assert (len(result.stations), result.flags) == (6, ())
    assert result.stations[0].shape == (ROWS, COLS, SLICES)


# -- slices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [slice(None, None, -1), [3, 1, 7, 0, 2, 6, 5, 4]])
def test_slices_are_ordered_by_position(order: object) -> None:
    result = run(edit(3, lambda item: take(item, order)))
    assert result.flags == ()
    assert np.array_equal(result.stations[1].water, run(scan()).stations[1].water)


@pytest.mark.parametrize("missing", range(1, SLICES - 1))
@pytest.mark.parametrize("contrast", [0, 1])
def test_one_interior_slice_is_interpolated_at_its_true_position(missing: int, contrast: int) -> None:
    result = run(edit(4 + contrast, lambda item: take(item, np.arange(SLICES) != missing)))
    assert result.flags == (Reason.SLICE_INTERPOLATED,)
    assert "station 3" in result.messages[0]
    clean = run(scan()).stations[2]
    repaired = result.stations[2]
    # The picture is linear in z, so interpolation restores it exactly.
    assert np.array_equal(repaired.water, clean.water)
    assert np.array_equal(repaired.fat, clean.fat)
    assert repaired.water.dtype == np.uint16
    assert np.array_equal(repaired.spacing_mm, clean.spacing_mm)


def test_interpolated_halves_round_to_even() -> None:
    def spoil(item: Series) -> Series:
        voxels = item.voxels.copy()
        voxels[2], voxels[4] = 1, 4
        voxels[2, 0, 0], voxels[4, 0, 0] = 3, 4
        return take(replace(item, voxels=voxels), np.arange(SLICES) != 3)

    repaired = run(edit(1, spoil)).stations[0].water[:, :, 3]
    assert (repaired[1, 1], repaired[0, 0]) == (2, 4)


def test_both_contrasts_may_each_lack_one_slice() -> None:
    found = edit(2, lambda item: take(item, np.arange(SLICES) != 2))
    result = run(edit(3, lambda item: take(item, np.arange(SLICES) != 5), found))
    assert result.flags == (Reason.SLICE_INTERPOLATED,)
    assert result.messages[0].count("station 2") == 2


@pytest.mark.parametrize("missing", [[2, 3], [2, 5], [1, 6]])
def test_two_missing_interior_slices_fail(missing: list[int]) -> None:
    error = failure(edit(3, lambda item: take(item, ~np.isin(np.arange(SLICES), missing))))
    assert error.reason is Reason.SLICE_MISSING
    assert "2 interior slices" in error.message
    assert "station 2" in error.message


@pytest.mark.parametrize("keep", [slice(1, None), slice(None, -1), slice(2, None), slice(1, -1)])
@pytest.mark.parametrize("contrast", [0, 1])
def test_end_slices_are_cropped_to_what_both_have(keep: slice, contrast: int) -> None:
    result = run(edit(4 + contrast, lambda item: take(item, keep)))
    assert result.flags == (Reason.END_SLICES_CROPPED,)
    clean, cropped = run(scan()).stations[2], result.stations[2]
    assert np.array_equal(cropped.water, clean.water[:, :, keep])
    assert np.array_equal(cropped.fat, clean.fat[:, :, keep])
    assert cropped.position_mm[2] == clean.position_mm[2] - SPACING * (keep.start or 0)


def test_an_interior_and_an_end_slice_may_be_missing_together() -> None:
    result = run(edit(3, lambda item: take(item, np.array([1, 2, 4, 5, 6, 7]))))
    assert set(result.flags) == {Reason.SLICE_INTERPOLATED, Reason.END_SLICES_CROPPED}
    assert np.array_equal(result.stations[1].water, run(scan()).stations[1].water[:, :, 1:])


def test_too_many_end_slices_fail() -> None:
    def longer(item: Series) -> Series:
        positions = np.repeat(item.positions_mm[:1], 20, axis=0)
        positions[:, 2] -= SPACING * np.arange(20)
        return replace(
            item,
            voxels=np.arange(20 * ROWS * COLS, dtype=np.uint16).reshape(20, ROWS, COLS),
            positions_mm=positions,
            instances=np.arange(20),
            times_s=np.zeros(20),
        )

    assert failure(edit(3, longer)).reason is Reason.SLICE_MISSING


def test_repeated_slices_keep_the_newest() -> None:
    def repeat(item: Series) -> Series:
        doubled = take(item, [0, 1, 2, 3, 3, 4, 5, 6, 7])
        voxels, times = doubled.voxels.copy(), doubled.times_s.copy()
        voxels[3], times[4] = 9999, times[4] + 5
        return replace(doubled, voxels=voxels, times_s=times)

    result = run(edit(1, repeat))
    assert result.flags == (Reason.SLICE_DUPLICATE,)
    assert np.array_equal(result.stations[0].water, run(scan()).stations[0].water)


def test_equally_new_repeated_slices_keep_the_first_instance() -> None:
    def repeat(item: Series) -> Series:
        doubled = take(item, [3, 0, 1, 2, 3, 4, 5, 6, 7])
        voxels, instances = doubled.voxels.copy(), doubled.instances.copy()
        voxels[0], instances[0] = 9999, 50
        return replace(doubled, voxels=voxels, instances=instances)

    assert np.array_equal(run(edit(1, repeat)).stations[0].water, run(scan()).stations[0].water)


def test_uneven_spacing_fails() -> None:
    def bend(item: Series) -> Series:
        positions = item.positions_mm.copy()
        positions[4, 2] += 2.0
        return replace(item, positions_mm=positions)

    assert failure(edit(5, bend)).reason is Reason.GEOMETRY_INCONSISTENT


def test_rounded_positions_are_even_enough() -> None:
    def jitter(item: Series) -> Series:
        noise = np.random.default_rng(0).uniform(-0.02, 0.02, item.positions_mm.shape)
        return replace(item, positions_mm=item.positions_mm + noise)

    assert run(edit(5, jitter)).flags == ()


def test_a_slice_shifted_in_plane_fails() -> None:
    def push(item: Series) -> Series:
        positions = item.positions_mm.copy()
        positions[4, 0] += 1.0
        return replace(item, positions_mm=positions)

    error = failure(edit(5, push))
    assert error.reason is Reason.GEOMETRY_INCONSISTENT
    assert "1.0 mm" in error.message


def test_single_slice_fails() -> None:
    found = edit(2, lambda item: take(item, slice(1)))
    assert failure(edit(3, lambda item: take(item, slice(1)), found)).reason is Reason.STATION_TOO_SHORT


@pytest.mark.parametrize("value", [np.nan, np.inf, 6000.0])
def test_absurd_positions_fail(value: float) -> None:
    def throw(item: Series) -> Series:
        positions = item.positions_mm.copy()
        positions[2, 0] = value
        return replace(item, positions_mm=positions)

    assert failure(edit(5, throw)).reason is Reason.IMPLAUSIBLE_GEOMETRY


def test_absurd_slice_spacing_fails() -> None:
    found = scan(1)
    found = [
        replace(item, positions_mm=item.positions_mm * (1, 1, 0) + np.outer(-30.0 * np.arange(SLICES), (0, 0, 1)))
        for item in found
    ]
    assert failure(found, ReadingOptions(expected_stations=1)).reason is Reason.IMPLAUSIBLE_GEOMETRY


# -- water and fat -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mm", [(0.2, 0, 0), (0, -0.5, 0), (0, 0, 0.3), (0, 0, 5.0), (0, 0, -10.0), (0, 0, 22.0)])
def test_different_positions_fail(mm: tuple[float, float, float]) -> None:
    error = failure(edit(6, lambda item: shift(item, mm)))
    assert error.reason is Reason.WATER_FAT_MISMATCH
    assert "station 4" in error.message
    assert f"{max(abs(value) for value in mm):.1f} mm" in error.message


def test_positions_within_the_tolerance_pass() -> None:
    assert run(edit(6, lambda item: shift(item, (0.05, 0.05, -0.05)))).flags == ()


def test_different_pixel_spacing_fails() -> None:
    error = failure(edit(6, lambda item: replace(item, header=replace(item.header, pixel_spacing_mm=(2.0, 2.5)))))
    assert error.reason is Reason.WATER_FAT_MISMATCH


def test_different_sizes_are_cropped_from_index_0() -> None:
    result = run(edit(6, lambda item: replace(item, voxels=item.voxels[:, :3, :5])))
    assert result.flags == (Reason.SIZE_MISMATCH,)
    clean, cropped = run(scan()).stations[3], result.stations[3]
    assert np.array_equal(cropped.water, clean.water[:3, :5])
    assert np.array_equal(cropped.fat, clean.fat[:3, :5])
    assert cropped.water.transpose(2, 0, 1).flags.c_contiguous


@pytest.mark.parametrize(
    ("drop", "reason"), [([6], Reason.NO_FAT_SERIES), ([7], Reason.NO_WATER_SERIES), ([4, 9], Reason.NO_FAT_SERIES)]
)
def test_a_contrast_missing_at_a_station_fails(drop: list[int], reason: Reason) -> None:
    error = failure([item for index, item in enumerate(scan()) if index not in drop])
    assert error.reason is reason
    assert f"station {drop[0] // 2 + 1}" in error.message


@pytest.mark.parametrize(("kept", "reason"), [(0, Reason.NO_WATER_SERIES), (1, Reason.NO_FAT_SERIES)])
def test_a_contrast_missing_everywhere_fails(kept: int, reason: Reason) -> None:
    assert failure(scan()[kept::2]).reason is reason


def test_nothing_at_all_fails() -> None:
    assert failure([]).reason is Reason.NO_WATER_SERIES


def test_pairing_survives_any_numbering() -> None:
    """With another order of the contrasts, position decides; without numbers, too."""
    clean = run(scan())
    for number in (
        lambda item: 8 * item.header.number % 49,
        lambda item: None,
        lambda item: 4 * ((item.header.number - 1) // 4) + (1 if item.is_water else 4),
    ):
        found = [replace(item, header=replace(item.header, number=number(item))) for item in scan()]
        result = run(found)
        assert result.flags == ()
        for one, other in zip(result.stations, clean.stations, strict=True):
            assert np.array_equal(one.fat, other.fat)


# -- repeats -----------------------------------------------------------------------------------------------------


def repeat_of(station: int, number: int, time: float, mm: float = 0.0) -> list[Series]:
    """A second acquisition of a station (from 0), its voxels 1000 brighter."""
    again = []
    for contrast in (Contrast.FAT, Contrast.WATER):
        item = series(station, contrast, time_s=time, number=number + (contrast is Contrast.WATER))
        again.append(
            shift(replace(item, voxels=item.voxels + np.uint16(1000), times_s=item.times_s * 0 + time), (0, 0, mm))
        )
    return again


@pytest.mark.parametrize(
    ("mm", "flag"),
    [
        (0.0, Reason.DUPLICATE_STATION),
        (0.05, Reason.DUPLICATE_STATION),
        (2.0, Reason.NEAR_DUPLICATE_STATION),
        (-4.9, Reason.NEAR_DUPLICATE_STATION),
    ],
)
@pytest.mark.parametrize("newer", [True, False])
def test_the_newest_repeat_is_used(mm: float, flag: Reason, newer: bool) -> None:
    result = run(scan() + repeat_of(2, 27, 5000.0 if newer else 10.0, mm))
    assert result.flags == (flag,)
    assert len(result.stations) == 6
    clean = run(scan()).stations[2]
    assert np.array_equal(result.stations[2].water, clean.water + (1000 if newer else 0))
    assert np.array_equal(result.stations[2].fat, clean.fat + (1000 if newer else 0))


def test_three_repeats_pair_their_own_contrasts() -> None:
    result = run(scan() + repeat_of(2, 27, 5000.0) + repeat_of(2, 31, 4000.0, 1.0))
    assert set(result.flags) == {Reason.DUPLICATE_STATION, Reason.NEAR_DUPLICATE_STATION}
    assert np.array_equal(result.stations[2].fat, run(scan()).stations[2].fat + 1000)


def test_a_broken_off_repeat_does_not_replace_a_complete_station() -> None:
    short = [take(item, slice(3)) for item in repeat_of(2, 27, 5000.0)]
    result = run(scan() + short)
    assert result.flags == (Reason.DUPLICATE_STATION,)
    assert np.array_equal(result.stations[2].water, run(scan()).stations[2].water)


def test_half_a_repeat_is_not_used() -> None:
    result = run(scan() + repeat_of(2, 27, 5000.0)[1:])
    assert result.flags == (Reason.DUPLICATE_STATION,)
    assert np.array_equal(result.stations[2].water, run(scan()).stations[2].water)


# -- the number of stations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", range(6))
@pytest.mark.parametrize("numbered", [True, False])
def test_a_missing_station_fails_or_is_flagged(missing: int, numbered: bool) -> None:
    found = [item for index, item in enumerate(scan()) if index // 2 != missing]
    if not numbered:
        found = [replace(item, header=replace(item.header, number=None)) for item in found]
    error = failure(found)
    assert error.reason is Reason.STATION_MISSING
    assert "5 stations, expected 6" in error.message
    if numbered:
        assert f"station {missing + 1} seems" in error.message
    allowed = run(found, ReadingOptions(allow_missing_stations=True))
    assert allowed.flags == (Reason.STATION_MISSING,)
    assert [station.number for station in allowed.stations] == [1, 2, 3, 4, 5]


def test_a_gap_tells_the_missing_station() -> None:
    def apart(item: Series) -> Series:
        """Stations share no more than a slice, so that leaving one out leaves a gap."""
        return shift(replace(item, header=replace(item.header, number=None)), (0, 0, -5.0 * int(item.header.uid[2])))

    found = [apart(item) for index, item in enumerate(scan()) if index // 2 != 3]
    assert "station 4 seems to be missing (a gap of" in failure(found).message


@pytest.mark.parametrize("missing", [0, 4, 5])
def test_slice_spacings_tell_the_missing_station(missing: int) -> None:
    """Without numbers and gaps, the protocol's slice spacings (3, 4.5, 4.5, 4.5, 3.5, 4 mm) tell."""
    found = []
    for index, item in enumerate(scan()):
        positions = item.positions_mm.copy()
        spacing = 2 * PROTOCOL[index // 2].slice_spacing_mm
        positions[:, 2] = 100.0 - 20.0 * (index // 2) - spacing * np.arange(SLICES)
        if index // 2 != missing:
            found.append(replace(item, positions_mm=positions, header=replace(item.header, number=None)))
    assert f"station {missing + 1} seems" in failure(found).message


def test_more_stations_are_flagged_and_any_number_is_accepted_on_request() -> None:
    assert run(scan(7)).flags == (Reason.STATION_EXTRA,)
    assert run(scan(7), ReadingOptions(expected_stations=0)).flags == ()
    assert run(scan(2), ReadingOptions(expected_stations=0)).flags == ()


# -- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 17])
def test_constant_images_fail(value: int) -> None:
    error = failure(edit(9, lambda item: replace(item, voxels=np.full_like(item.voxels, value))))
    assert error.reason is Reason.EMPTY_IMAGE
    assert "station 5" in error.message


def test_one_voxel_is_enough_to_not_be_constant() -> None:
    def speck(item: Series) -> Series:
        voxels = np.zeros_like(item.voxels)
        voxels[-1, -1, -1] = 1
        return replace(item, voxels=voxels)

    assert run(edit(9, speck)).flags == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_voxels_fail(value: float) -> None:
    def poison(item: Series) -> Series:
        voxels = item.voxels.astype(np.float32)
        voxels[3, 2, 1] = value
        return replace(item, voxels=voxels)

    assert failure(edit(8, poison)).reason is Reason.NON_FINITE_VALUES


def test_equal_rescale_is_applied_and_flagged() -> None:
    found = [replace(item, header=replace(item.header, scaling=Scaling(2.0, -3.0))) for item in scan()]
    result = run(found)
    assert result.flags == (Reason.RESCALE_APPLIED,)
    assert result.stations[0].water.dtype == np.float32
    assert np.array_equal(result.stations[0].water, run(scan()).stations[0].water * 2.0 - 3.0)


def test_unequal_rescale_is_applied_to_each_contrast() -> None:
    result = run(edit(3, lambda item: replace(item, header=replace(item.header, scaling=Scaling(2.0)))))
    plain = run(scan()).stations[1]
    assert result.flags == (Reason.RESCALE_APPLIED,)
    assert np.array_equal(result.stations[1].water, plain.water * 2.0)
    assert np.array_equal(result.stations[1].fat, plain.fat)


def test_infinite_rescale_fails() -> None:
    error = failure(edit(3, lambda item: replace(item, header=replace(item.header, scaling=Scaling(np.inf)))))
    assert error.reason is Reason.NON_FINITE_VALUES


# -- the scan ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["study_uid", "patient_id"])
def test_several_scans_in_one_input_fail(field: str) -> None:
    found = [replace(item, header=replace(item.header, **{field: "1"})) for item in scan()]
    error = failure(edit(4, lambda item: replace(item, header=replace(item.header, **{field: "0000077"})), found))
    assert error.reason is Reason.SEVERAL_SCANS
    assert "0000077" not in error.message


@pytest.mark.parametrize(
    ("orientation", "axial"),
    [
        (AXIAL, True),
        ((1.0, 1e-6, 0.0, 0.0, 1.0, -1e-6), True),
        ((np.cos(0.1), np.sin(0.1), 0.0, -np.sin(0.1), np.cos(0.1), 0.0), False),
        ((1.0, 0.0, 0.0, 0.0, 0.0, -1.0), False),
        ((0.0, 1.0, 0.0, 0.0, 0.0, -1.0), False),
        ((-1.0, 0.0, 0.0, 0.0, 1.0, 0.0), False),
        ((1.0, 0.0, 0.0, 0.0, -1.0, 0.0), False),
        ((0.0, 0.0, 0.0, 0.0, 0.0, 0.0), False),
        ((np.nan, 0.0, 0.0, 0.0, 1.0, 0.0), False),
    ],
)
def test_only_axial_slices_pass(orientation: tuple[float, ...], axial: bool) -> None:
    found = edit(2, lambda item: replace(item, header=replace(item.header, orientation=orientation)))
    if axial:
        assert run(found).flags == ()
    else:
        assert failure(found).reason is Reason.NOT_AXIAL
