"""Every measure on stations whose value is known, and on hostile ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.support.bodies import COLS, FAT, OVERLAP, ROWS, SLICES, SPACING, STEP, WATER, cylinder, grid, station
from ukb_infer.quality import MEASURES, measure_stations
from ukb_infer.records import Station


def numbers(*stations: Station) -> dict[str, float]:
    return {name: value for name, value in measure_stations(stations).items() if isinstance(value, float)}


def one(name: str, *stations: Station) -> float:
    return numbers(*stations)[f"{name}_1"]


@pytest.mark.parametrize("noise", [5.0, 10.0, 20.0])
def test_signal_to_noise_is_signal_over_sigma(noise: float) -> None:
    """Median over the body of the brighter contrast; half the body is fat of 600, more is water of 400."""
    signal = cylinder(shell_mm=5.0)
    assert one("snr", station(signal, noise=noise)) == pytest.approx(WATER / noise, rel=0.03)


def test_a_swap_changes_no_signal_to_noise() -> None:
    signal = cylinder()
    assert one("snr", station(signal)) == pytest.approx(one("snr", station(signal[::-1])), rel=0.02)


def test_ghosts_are_noise_along_the_phase_over_noise_elsewhere() -> None:
    """A ghost of g beside noise of RMS sqrt(2) sigma, in front of the body: sqrt(1 + g2 / (2 sigma2))."""
    signal = cylinder(half_mm=(140.0, 80.0))
    assert one("ghost", station(signal)) == pytest.approx(1.0, abs=0.03)
    _, y, x = grid()
    front, beside = (y < -97.0) & (np.abs(x) < 139.0), (np.abs(x) > 157.0) & (np.abs(y) < 80.0)
    expected = pytest.approx(math.sqrt(1 + 30**2 / 200), rel=0.05)
    assert one("ghost", station(signal + 30.0 * front)) == expected
    assert one("ghost", station(signal + 30.0 * beside, phase_along="row")) == expected


def test_saturated_is_the_share_of_the_body_that_is_clipped() -> None:
    signal = cylinder()
    whole = station(signal)
    assert one("saturated", whole) < 1e-3
    clipped = Station(1, np.minimum(whole.water, 400), whole.fat, whole.position_mm, whole.spacing_mm)
    body = signal.sum(axis=0) > 0
    assert one("saturated", clipped) == pytest.approx((clipped.water.transpose(2, 0, 1) >= 400)[body].mean(), rel=0.1)


def test_empty_is_the_share_of_slices_without_signal() -> None:
    signal = cylinder()
    signal[:, :6] = 0
    assert one("empty", station(signal)) == 0  # above the head
    assert numbers(station(cylinder()), station(signal, 2))["empty_2"] == 6 / SLICES
    signal[0, 3] += WATER  # one contrast is signal
    assert one("empty", station(signal)) == 2 / SLICES
    assert one("empty", station(0 * signal, noise=0)) == 1


def test_the_bias_field_is_the_spread_of_the_logarithm_of_fat() -> None:
    signal = cylinder(shell_mm=35.0)
    assert one("bias", station(signal)) < 0.01
    z, _, _ = grid()
    slope = np.exp(0.4 * z / (SLICES * STEP))  # four blocks of means -0.15, -0.05, 0.05, 0.15
    assert one("bias", station(signal * slope)) == pytest.approx(0.1 * math.sqrt(1.25), rel=0.05)


def test_folding_is_the_share_of_the_other_end() -> None:
    upper = cylinder()
    upper[:, :20] = cylinder(-100.0, (60.0, 60.0))[:, :20]
    lower = station(upper[:, ::-1], 2)
    assert one("folding", station(upper), lower) == pytest.approx(0.0, abs=0.02)
    upper[:, -1] += 0.3 * upper[:, 0]
    assert one("folding", station(upper), lower) == pytest.approx(0.3, abs=0.02)


def test_folding_is_left_out_where_both_ends_look_alike() -> None:
    assert "folding" not in numbers(station(cylinder()), station(cylinder(), 2))


@pytest.mark.parametrize("gain", [0.5, 0.8, 1.0, 1.3])
def test_seam_gain_is_the_logarithm_of_the_ratio(gain: float) -> None:
    signal = cylinder()
    pair = station(signal, noise=0), station(signal / gain, 2, noise=0)
    assert one("seam_gain", *pair) == pytest.approx(math.log(gain), abs=0.005)


def test_seam_mismatch_is_noise_over_signal_after_the_gain() -> None:
    """Rician noise of 10 in both, the lower one's 10 g after a gain of 2; mean of W + F is 550."""
    signal = cylinder()
    level = signal.sum(axis=0)[signal.sum(axis=0) > 0].mean()
    pair = numbers(station(signal, noise=10), station(signal / 2, 2, noise=10))
    assert pair["seam_mismatch_water_1"] == pytest.approx(math.hypot(10, 20 * math.sqrt(0.68)) / level, rel=0.25)
    swapped = numbers(station(signal, noise=0), station(signal[::-1], 2, noise=0))
    share = (signal[0] > 0).sum() / (signal.sum(axis=0) > 0).sum()
    gap = math.sqrt(share * WATER**2 + (1 - share) * FAT**2) / level
    for name in ("seam_mismatch_water_1", "seam_mismatch_fat_1"):
        assert swapped[name] == pytest.approx(gap, rel=0.03)


def test_seams_are_compared_where_both_lie_between_voxels() -> None:
    """A lower station with other rows and columns, half a voxel aside: only the edges of the body differ."""
    signal = cylinder()
    lower = station(signal, 2, noise=0)
    shift = np.array([SPACING / 2, SPACING / 2, 0], np.float32)
    moved = Station(2, lower.water[:-6, :-4], lower.fat[:-6, :-4], lower.position_mm + shift, lower.spacing_mm)
    assert one("seam_gain", station(signal, noise=0), moved) == pytest.approx(0.0, abs=0.03)


def test_contact_tells_arms_from_trunk() -> None:
    signal = cylinder()
    _, y, x = grid()
    assert one("contact_arms", station(signal)) == one("contact_trunk", station(signal)) == 0
    arm = (x > 200.0) & (np.abs(y) < 45.0)
    signal[0, :10] = np.where(arm, WATER, signal[0])[:10]
    assert one("contact_arms", station(signal)) == 10 / SLICES
    assert one("contact_trunk", station(signal)) == 0
    wide = cylinder(half_mm=(300.0, 170.0))
    assert one("contact_trunk", station(wide)) == 1
    assert one("contact_arms", station(wide)) == 0


def test_voids_are_measured_where_the_body_encloses_them() -> None:
    z, y, x = grid()
    ball = np.sqrt(z**2 + y**2 + (x - 30.0) ** 2) < 40.0
    signal = cylinder() * ~ball
    plain, lungs = station(signal), 4 / 3 * math.pi * 4**3
    low = [station(cylinder(), k) for k in (1, 2, 3, 4)]
    below = numbers(*low, Station(5, plain.water, plain.fat, station(signal, 5).position_mm, plain.spacing_mm))
    assert below["void_5"] == pytest.approx(lungs, rel=0.1)
    assert below["void"] == below["void_5"]
    assert numbers(plain)["void_1"] == 0  # so large and so near the upper end: a lung
    small = cylinder() * ~(np.sqrt(z**2 + y**2 + (x - 30.0) ** 2) < 26.0)
    assert numbers(station(small))["void_1"] == pytest.approx(4 / 3 * math.pi * 2.6**3, rel=0.2)
    bone = cylinder() * ~((np.hypot(x, y) < 20.0) & (np.hypot(x, y) > 14.0))
    assert numbers(*low, station(bone, 5))["void_5"] == 0
    outside = cylinder() * ~((np.abs(x) < 30.0) & (y < 0))
    assert numbers(*low, station(outside, 5))["void_5"] == 0


def test_the_outer_five_millimetres_are_fat_unless_swapped() -> None:
    signal = cylinder()
    assert one("outer_fat_fraction", station(signal)) == pytest.approx(1.0, abs=0.03)
    assert one("outer_fat_fraction", station(signal[::-1])) == pytest.approx(0.0, abs=0.03)
    mixed = np.stack([0.25 * signal.sum(axis=0), 0.75 * signal.sum(axis=0)])
    assert one("outer_fat_fraction", station(mixed, noise=1)) == pytest.approx(0.75, abs=0.01)


def test_asymmetry_is_the_part_that_differs_between_the_sides() -> None:
    signal = cylinder(shell_mm=10.0)
    _, _, x = grid()
    assert one("asymmetry", station(signal)) < 0.02
    half = np.where(x > 0, signal[::-1], signal)
    ratio = abs(signal[0].sum() - signal[1].sum()) / signal.sum()
    assert one("asymmetry", station(half, noise=1)) == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize("x_mm", [0.0, 30.0, -60.0])
def test_off_centre_is_the_distance_from_the_isocentre(x_mm: float) -> None:
    assert one("off_centre", station(cylinder(x_mm))) == pytest.approx(abs(x_mm), abs=2.5)


def test_size_is_that_of_the_cylinder() -> None:
    area = math.pi * 14.0 * 9.5
    found = numbers(station(cylinder()), station(cylinder(), 2))
    assert found["body_area_2"] == pytest.approx(area, rel=0.02)
    length = (2 * SLICES - OVERLAP - 1) * STEP / 10.0
    assert found["body_volume"] == pytest.approx(area * length / 1000, rel=0.03)


def _person(knee_mm: float, shoulder_mm: float, count: int = 4, legs_mm: float = 160.0) -> list[Station]:
    """A neck above a shoulder, and legs whose water share dips at the knee; distances from the ends of the field."""
    length = ((SLICES - OVERLAP) * (count - 1) + SLICES - 1) * STEP
    stations = []
    for number in range(1, count + 1):
        _, y, x = grid()
        depth = ((number - 1) * (SLICES - OVERLAP) + np.arange(SLICES)[:, None, None]) * STEP
        width = np.where(depth < shoulder_mm, 50.0, np.where(depth < 0.3 * length, 160.0, legs_mm))
        outer, inner = np.hypot(x / width, y / 80.0) < 1, np.hypot(x / (width - 15.0), y / 65.0) < 1
        marrow = (np.hypot(x / 2.2, y) < 60.0) & (np.abs(length - depth - knee_mm) < 30.0)
        water, fat = WATER * (inner & ~marrow), FAT * ((outer & ~inner) | (marrow & inner))
        stations.append(station(np.stack([water, fat]), number))
    return stations


@pytest.mark.parametrize(("knee_mm", "shoulder_mm"), [(60.0, 90.0), (100.0, 40.0), (200.0, 150.0)])
def test_coverage_is_the_distance_from_knee_and_shoulder_to_the_ends(knee_mm: float, shoulder_mm: float) -> None:
    found = numbers(*_person(knee_mm, shoulder_mm))
    assert found["coverage_knee"] == pytest.approx(knee_mm, abs=9.0)
    assert found["coverage_shoulder"] == pytest.approx(shoulder_mm, abs=9.0)


def test_a_field_that_ends_above_the_knee_or_below_the_shoulder_covers_neither() -> None:
    found = numbers(*_person(-100.0, -50.0, legs_mm=110.0))
    assert found["coverage_knee"] == found["coverage_shoulder"] == 0


def test_a_block_that_is_no_person_has_neither_to_look_for() -> None:
    found = numbers(*_person(-100.0, -50.0))
    assert not {"coverage_knee", "coverage_shoulder"} & found.keys()


def test_the_headers_tell_protocol_and_pauses() -> None:
    signal = cylinder()
    found = measure_stations(
        [
            station(signal, 1, time_s=86390.0, echo_time_ms=2.39, field_tesla=1.5, scanner="A One", software="X 1"),
            station(signal, 2, time_s=20.0, echo_time_ms=5.0, field_tesla=3.0, scanner="A One", software="X 2"),
            station(signal, 3),
        ]
    )
    assert found["pause_1"] == 30.0
    assert "pause_2" not in found
    assert (found["echo_time_deviation_1"], found["echo_time_deviation_2"]) == (0.0, pytest.approx(0.23))
    assert (found["field_deviation"], found["scanner"], found["software"]) == (1.5, "A One", "X 1 / X 2")
    assert found["matrix_deviation_1"] == max(168 - ROWS, 224 - COLS, 64 - SLICES)
    assert found["spacing_deviation_1"] == pytest.approx(4.5 / 2.23214293 - 1)


def _like(voxels: np.ndarray) -> Station:
    signal = station(cylinder(), noise=0)
    return Station(1, voxels, voxels.copy(), signal.position_mm, signal.spacing_mm)


@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 3, 2), (5, 4, 3), (80, 112, 40), (4, 200, 2)])
@pytest.mark.parametrize("kind", ["zero", "constant", "noise", "largest", "negative", "float"])
def test_nothing_hostile_makes_a_number_that_is_none(shape: tuple[int, int, int], kind: str) -> None:
    rng = np.random.default_rng(1)
    voxels = {
        "zero": np.zeros(shape, np.uint16), "constant": np.full(shape, 77, np.uint16),
        "noise": rng.integers(0, 9, shape).astype(np.uint16), "largest": np.full(shape, 65535, np.uint16),
        "negative": rng.normal(-5, 3, shape).astype(np.float32), "float": rng.random(shape).astype(np.float32) * 1e30,
    }[kind]  # fmt: skip
    one = _like(voxels)
    lower = Station(2, one.water, one.fat, one.position_mm - np.array([0, 0, STEP], np.float32), one.spacing_mm)
    for stations in ([one], [one, lower]):
        found = measure_stations(stations)
        assert all(isinstance(v, str) or math.isfinite(v) for v in found.values())
        assert {name.rstrip("_0123456789") for name in found} <= set(MEASURES)


def test_measures_change_nothing_and_repeat() -> None:
    stations = [station(cylinder(), k) for k in (1, 2)]
    before = [(s.water.copy(), s.fat.copy()) for s in stations]
    assert measure_stations(stations) == measure_stations(stations)
    for kept, now in zip(before, stations, strict=True):
        assert np.array_equal(kept[0], now.water)
        assert np.array_equal(kept[1], now.fat)


def test_every_measure_says_what_it_is() -> None:
    for name, measure in MEASURES.items():
        assert measure.title, name
        assert len(measure.formula) > 20, name
        assert measure.source, name
        assert (measure.summary == "") == (measure.per == "scan"), name
