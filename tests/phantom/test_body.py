"""The synthetic body: population, truths, rendering."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ukb_infer.phantom import ANATOMY_DETERMINED, ANOMALIES, render, sample_subject, truths
from ukb_infer.phantom.anatomy import Region, Tissue, middle_mm
from ukb_infer.phantom.sampling import is_left, station_grids
from ukb_infer.phantom.true_values import TissueVolumes
from ukb_infer.protocol import IN_PLANE_SPACING_MM, PROTOCOL
from ukb_infer.reasons import Reason
from ukb_infer.targets import TARGETS

SUBJECTS = [sample_subject(3, k) for k in range(120)]


@pytest.fixture(scope="module")
def population() -> list[dict[str, float]]:
    return [truths(s) for s in SUBJECTS]


def test_the_same_seed_gives_the_same_body_and_another_does_not() -> None:
    one, again, other = sample_subject(1, 5), sample_subject(1, 5), sample_subject(2, 5)
    assert one == again != other
    assert truths(one) == truths(again)
    first, second = render(one, "small"), render(again, "small")
    for a, b in zip(first.stations, second.stations, strict=True):
        assert np.array_equal(a.water, b.water)
        assert np.array_equal(a.fat, b.fat)


def test_truths_cover_the_registry_in_its_order(population: list[dict[str, float]]) -> None:
    assert list(population[0]) == list(TARGETS)
    assert set(TARGETS) > ANATOMY_DETERMINED
    assert len(ANATOMY_DETERMINED) == 66


def test_truths_are_plausible_for_adults(population: list[dict[str, float]]) -> None:
    for name, spec in TARGETS.items():
        values = np.array([p[name] for p in population])
        assert np.isfinite(values).all(), name
        assert values.min() >= (spec.plausible_min or 0.0), name
        assert values.max() <= (spec.plausible_max or 1.0), name
    bmi = np.array([p["weight"] / (p["height"] / 100) ** 2 for p in population])
    assert 24 < bmi.mean() < 29
    assert 0.35 < np.mean([p["sex"] for p in population]) < 0.65


def test_parts_add_up_exactly(population: list[dict[str, float]]) -> None:
    for p in population:
        for limb in ("Arm", "Leg"):
            for part in ("FatMass", "LeanMass", "TotalMass"):
                both = p[f"Dxa{limb}{part}Left"] + p[f"Dxa{limb}{part}Right"]
                assert both == pytest.approx(p[f"Dxa{limb}s{part}"])
        assert p["DxaTotalFatMass"] + p["DxaTotalLeanMass"] == pytest.approx(p["DxaTotalTissueMass"])
        share = 100 * p["DxaTotalFatMass"] / p["DxaTotalTissueMass"]
        assert share == pytest.approx(p["DxaTotalTissueFatPercentage"])
        assert p["DxaTotalTissueMass"] < p["weight"] * 1.01
        index = (p["AtlasVatVolume"] + p["AtlasAsatVolume"]) / (p["height"] / 100) ** 2
        assert index == pytest.approx(p["AtlasTotalAbdominalAdiposeTissueIndex"])
        thighs = [p[f"Atlas{n}ThighLeanMuscle{s}"] for n in ("Anterior", "Posterior") for s in ("Left", "Right")]
        assert sum(thighs) == pytest.approx(p["AtlasTotalThighMuscleVolume"])


def test_what_no_picture_tells_is_mostly_noise(population: list[dict[str, float]]) -> None:
    pulse = np.array([p["pulseRate"] for p in population])
    vat = np.array([p["AtlasVatVolume"] for p in population])
    assert 7.0 < pulse.std() < 12.0
    assert np.corrcoef(pulse, vat)[0, 1] ** 2 < 0.3


def test_stations_have_the_geometry_of_the_protocol() -> None:
    stations = render(SUBJECTS[0]).stations
    assert len(stations) == 6
    for station, plan in zip(stations, PROTOCOL, strict=True):
        assert station.shape == (plan.rows, plan.cols, plan.slices)
        assert station.water.dtype == station.fat.dtype == np.uint16
        assert station.spacing_mm == pytest.approx([IN_PLANE_SPACING_MM, IN_PLANE_SPACING_MM, plan.slice_spacing_mm])
    tops = [float(s.position_mm[2]) for s in stations]
    lengths = [s.shape[2] * float(s.spacing_mm[2]) for s in stations]
    overlaps = [tops[k] - lengths[k] - tops[k + 1] for k in range(5)]
    assert all(-40 < o < -34 for o in overlaps)
    assert len({float(s.position_mm[1]) for s in stations}) > 1


def test_small_stations_cover_the_same_body() -> None:
    full, small = render(SUBJECTS[0]).stations, render(SUBJECTS[0], "small").stations
    for a, b in zip(full, small, strict=True):
        assert b.shape == tuple(n // 2 for n in a.shape)
        assert b.water.mean() == pytest.approx(a.water.mean(), rel=0.1)


def test_left_is_where_the_subject_has_it() -> None:
    """The liver lies on the subject's right, which is low x in LPS."""
    water = render(SUBJECTS[1]).stations[2].water.astype(float)
    bright = (water > 380).sum(axis=(0, 2))
    half = bright.size // 2
    assert bright[:half].sum() > 1.5 * bright[half:].sum()


def test_the_pictures_fat_follows_the_truth() -> None:
    """Fat signal summed over the field and true fat volume agree across subjects."""
    subjects = SUBJECTS[:12]
    signal = [
        sum(float(s.fat.sum(dtype=np.int64)) * s.spacing_mm.prod() for s in render(x, "small").stations)
        for x in subjects
    ]
    volume = [TissueVolumes(x).sum((Tissue.SUBCUTANEOUS_FAT, Tissue.VISCERAL_FAT), tuple(Region)[1:]) for x in subjects]
    assert np.corrcoef(signal, volume)[0, 1] > 0.95


def test_liver_fat_shows_in_the_liver() -> None:
    fractions, true = [], []
    for subject in SUBJECTS[:15]:
        station = render(subject, "small").stations[2]
        water, fat = station.water.astype(float), station.fat.astype(float)
        bright = (water + fat) > 330
        region = np.zeros_like(bright)
        region[20:40, 40:52, 2:8] = True
        chosen = bright & region & (water > fat)
        fractions.append(float((fat[chosen] / (water + fat)[chosen]).mean()))
        true.append(subject.liver_fat)
    assert np.corrcoef(fractions, true)[0, 1] > 0.8


@pytest.mark.parametrize("effect", [reason.value for reason, anomaly in ANOMALIES.items() if anomaly.effect], ids=str)
def test_every_effect_changes_the_picture(effect: str) -> None:
    plain = render(SUBJECTS[2], "small").stations
    changed = render(SUBJECTS[2], "small", frozenset({Reason(effect)})).stations
    differs = [not np.array_equal(a.water, b.water) for a, b in zip(plain, changed, strict=True)]
    assert any(differs)
    if effect == "fat_water_swap":
        assert sum(differs) == 1
    if effect == "fat_water_swap_leg":
        assert differs == [False] * 4 + [True] * 2


def test_a_swapped_leg_is_a_whole_leg_of_a_body_that_lies_askew() -> None:
    subject = replace(SUBJECTS[2], lean_x=0.03, offset_x_mm=-20.0)
    plain = render(subject, "small").stations[4]
    changed = render(subject, "small", frozenset({Reason.FAT_WATER_SWAP_LEG})).stations[4]
    grid = station_grids(subject, "small")[4]
    left = is_left(subject, grid).transpose(1, 2, 0)
    expected = left if subject.index % 2 else ~left
    inside = np.s_[:, :, 2:-2]  # ends alias, after the swap
    assert np.array_equal(changed.water[inside], np.where(expected, plain.fat, plain.water)[inside])
    assert np.array_equal(changed.fat[inside], np.where(expected, plain.water, plain.fat)[inside])
    middle = middle_mm(subject, grid.z_mm)
    assert middle[0] - middle[-1] == pytest.approx(0.03 * (grid.z_mm[0] - grid.z_mm[-1]))


def test_an_effect_that_is_no_appearance_is_refused() -> None:
    with pytest.raises(ValueError, match="slice_missing"):
        render(SUBJECTS[0], "small", frozenset({Reason.SLICE_MISSING}))
