"""The synthetic body as the scanner sees it, against the tissue model behind the true values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.phantom import render, sample_subject, truths
from ukb_infer.phantom.anatomy import N_LABELS, Body, Region, Tissue, paint_level
from ukb_infer.phantom.population import Subject, irreducible_sd
from ukb_infer.phantom.sampling import station_grids
from ukb_infer.phantom.true_values import LEVEL_MM, TissueVolumes
from ukb_infer.reasons import Reason

SUBJECTS = [sample_subject(11, k) for k in range(6)]
#: Tissues with more fat than water signal.
FAT_BRIGHT = (Tissue.SUBCUTANEOUS_FAT, Tissue.VISCERAL_FAT, Tissue.MARROW)


def _pictured_fat_litres(subject: Subject) -> tuple[float, float, float]:
    """Litres of voxels with more fat than water, each overlap once; bottom and top of the field, mm."""
    grids = station_grids(subject, "full")
    litres, end = 0.0, np.inf
    for grid, station in zip(grids, render(subject).stations, strict=True):
        new = grid.z_mm < end
        water, fat = station.water[:, :, new], station.fat[:, :, new]
        litres += float(((fat > water) & (fat > 230)).sum()) * float(station.spacing_mm.prod()) * 1e-6
        end = grid.z_mm[-1] - 0.5 * grid.slice_spacing_mm
    return litres, end, float(grids[0].z_mm[0])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_pictures_fat_volume_is_the_models(subject: Subject) -> None:
    """Within 5 %: the true values count on a grid of 4.5 x 4.5 x 6 mm, and arms of wide subjects leave the field."""
    pictured, bottom, top = _pictured_fat_litres(subject)
    levels = np.arange(0.03 * subject.height_mm, 0.888 * subject.height_mm, LEVEL_MM)
    inside = (levels >= bottom) & (levels <= top)
    labels = [16 * region + tissue for region in tuple(Region)[1:] for tissue in FAT_BRIGHT]
    model = float(TissueVolumes(subject).litres[inside][:, labels].sum())
    assert pictured == pytest.approx(model, rel=0.05)


def _labels(subject: Subject, fraction: float) -> NDArray[np.uint8]:
    body_mm = np.array([fraction * subject.height_mm])
    labels = np.zeros((180, 240), np.uint8)
    paint_level(Body(subject, body_mm).shapes()[0], body_mm[0], -268.0, -60.0, 2.232, 0, labels)
    return labels


def test_levels_hold_the_organs_of_their_height() -> None:
    subject = replace(SUBJECTS[0], leg_share=1.0, offset_x_mm=0.0, lean_x=0.0)
    found = {h: {Tissue(int(v) % 16) for v in np.unique(_labels(subject, h))} for h in (0.74, 0.65, 0.52, 0.40)}
    assert {Tissue.LUNG, Tissue.HEART, Tissue.MARROW} <= found[0.74]
    assert {Tissue.LIVER, Tissue.KIDNEY, Tissue.VISCERAL_FAT, Tissue.BOWEL} <= found[0.65]
    assert {Tissue.BLADDER, Tissue.MARROW} <= found[0.52]
    assert {Tissue.ANTERIOR_THIGH_MUSCLE, Tissue.POSTERIOR_THIGH_MUSCLE, Tissue.CORTICAL_BONE} <= found[0.40]
    assert max(int(_labels(subject, h).max()) for h in found) < N_LABELS


def test_thigh_muscles_lie_in_front_and_behind() -> None:
    labels = _labels(SUBJECTS[0], 0.40) % 16
    front = np.nonzero(labels == Tissue.ANTERIOR_THIGH_MUSCLE)[0].mean()
    back = np.nonzero(labels == Tissue.POSTERIOR_THIGH_MUSCLE)[0].mean()
    assert front < back


def test_one_limb_changes_its_own_side_only() -> None:
    plain = replace(SUBJECTS[0], leg_left=1.0, leg_right=1.0)
    larger = replace(plain, leg_left=1.06)
    one, other = TissueVolumes(plain), TissueVolumes(larger)
    muscle = (Tissue.ANTERIOR_THIGH_MUSCLE, Tissue.POSTERIOR_THIGH_MUSCLE)
    assert other.sum(muscle, (Region.LEG_RIGHT,)) == pytest.approx(one.sum(muscle, (Region.LEG_RIGHT,)), rel=1e-6)
    ratio = other.sum(muscle, (Region.LEG_LEFT,)) / one.sum(muscle, (Region.LEG_LEFT,))
    assert ratio == pytest.approx(1.06**2, rel=0.02)  # an area; the counting grid is 4.5 mm


def test_lungs_are_dark_and_the_table_is_faint() -> None:
    station = render(SUBJECTS[0]).stations[1]
    labels = _labels(SUBJECTS[0], 0.74)
    assert (labels % 16 == Tissue.LUNG).mean() > 0.02
    table = station.water[-15:].astype(float)
    assert 3.0 < np.median(table) < 40.0
    assert np.median(table) < 0.1 * np.percentile(station.water, 95)


def test_a_field_without_knees_shows_the_head() -> None:
    """The field moves up by 230 mm; its first 72 mm, blank without a head, hold skull and brain."""
    shifted = render(SUBJECTS[1], "small", frozenset({Reason.KNEE_MISSING})).stations
    assert (shifted[0].water[:, :, :12] > 150).sum() > 500


def test_every_subjects_truth_moves_with_its_cause() -> None:
    subject = SUBJECTS[2]
    plain = truths(subject)
    for change, name in (
        ({"visceral": 1.4 * subject.visceral}, "AtlasVatVolume"),
        ({"liver_scale": 1.1 * subject.liver_scale}, "liverVolume"),
        ({"kidney_scale": 1.1 * subject.kidney_scale}, "kidneyParenchymalVolume"),
        ({"adiposity": 1.2 * subject.adiposity}, "AtlasAsatVolume"),
        ({"muscle": 1.1 * subject.muscle}, "AtlasTotalThighMuscleVolume"),
    ):
        assert truths(replace(subject, **change))[name] > 1.05 * plain[name], name


def test_pulse_and_grip_have_the_stated_irreducible_spread() -> None:
    """The draw enters the truth linearly, so one unit of it moves the truth by the stated spread."""
    subject = SUBJECTS[3]
    for name, place in (("pulseRate", 0), ("gripStrengthRight", 1)):
        noise = list(subject.noise)
        noise[place] = 0.0
        base = truths(replace(subject, noise=tuple(noise)))[name]
        noise[place] = 1.0
        assert truths(replace(subject, noise=tuple(noise)))[name] - base == pytest.approx(irreducible_sd(name))
    with pytest.raises(UsageError, match="pulseRate"):
        irreducible_sd("liverVolume")


@pytest.mark.parametrize("index", [45, 64, 90])
def test_a_level_is_the_same_in_every_station(index: int) -> None:
    """These subjects' arms used to jump by 18 to 28 mm where two stations meet; float32 shapes allow 0.01 mm."""
    subject = sample_subject(11, index)
    grids = station_grids(subject, "full")
    heights = np.unique(np.concatenate([grid.z_mm for grid in grids]))
    whole = Body(subject, heights).shapes()
    for grid in grids:
        same = whole[np.searchsorted(heights, grid.z_mm)]
        np.testing.assert_allclose(Body(subject, grid.z_mm).shapes(), same, atol=0.01)
