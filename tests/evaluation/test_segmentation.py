"""Dice and surface Dice."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ukb_infer.evaluation.segmentation import dice, surface_dice

Mask = NDArray[np.bool_]


def elements(mask: Mask, spacing: tuple[float, float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (N, 3) in mm and areas (N,) in mm² of the surface in every cell of eight voxels, one by one."""
    from skimage.measure import marching_cubes, mesh_surface_area

    padded = np.pad(mask, 1).astype(float)
    centres, areas = [], []
    for place in np.ndindex(*(n - 1 for n in padded.shape)):
        cell = padded[tuple(slice(p, p + 2) for p in place)]
        if cell.min() == cell.max():
            continue
        vertices, faces, *_ = marching_cubes(cell, 0.5, spacing=spacing, method="lorensen")
        centres.append((np.array(place) + 0.5) * spacing)
        areas.append(mesh_surface_area(vertices, faces))
    return np.array(centres), np.array(areas)


def by_brute_force(a: Mask, b: Mask, spacing: tuple[float, float, float], tolerance: float) -> float:
    (at, area_a), (bt, area_b) = elements(a, spacing), elements(b, spacing)
    distances = np.sqrt(((at[:, None, :] - bt[None, :, :]) ** 2).sum(axis=2))
    near_a, near_b = distances.min(axis=1) <= tolerance, distances.min(axis=0) <= tolerance
    return float((area_a[near_a].sum() + area_b[near_b].sum()) / (area_a.sum() + area_b.sum()))


def blob(seed: int, level: float = 0.0) -> Mask:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((12, 11, 10)), 2.0)
    return np.asarray(noise > np.quantile(noise, 0.8 + level))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.8, 3.0), (2.0, 1.0, 1.0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_surface_dice_is_that_of_brute_force(seed: int, spacing: tuple[float, float, float]) -> None:
    for other in (blob(seed, 0.08), blob(seed + 10), np.roll(blob(seed), 1, axis=2)):
        expected = by_brute_force(blob(seed), other, spacing, 1.0)
        assert surface_dice(blob(seed), other, spacing) == pytest.approx(
            expected, abs=0.002
        )  # MONAI and skimage split a few ambiguous cells differently


def test_masks_without_voxels() -> None:
    empty, some = np.zeros((5, 5, 5)), np.zeros((5, 5, 5))
    some[2, 2, 2] = 1
    assert (dice(empty, empty), dice(empty, some), dice(some, empty), dice(some, some)) == (1, 0, 0, 1)
    ones = (1.0, 1.0, 1.0)
    assert (surface_dice(empty, empty, ones), surface_dice(empty, empty, ones, both_empty=1.0)) == (0, 1)
    assert (surface_dice(empty, some, ones), surface_dice(some, empty, ones), surface_dice(some, some, ones)) == (
        0,
        0,
        1,
    )


def test_dice_of_overlapping_boxes() -> None:
    a, b = np.zeros((6, 4, 4)), np.zeros((6, 4, 4))
    a[:4], b[2:] = 1, 1
    assert dice(a, b) == pytest.approx(2 * 32 / (64 + 64))


def test_the_spacing_decides_whether_a_shift_counts() -> None:
    box = np.zeros((20, 20, 20), bool)
    box[6:14, 6:14, 6:14] = True
    shifted = np.roll(box, 1, axis=0)
    assert surface_dice(box, shifted, (1.0, 1.0, 1.0)) == 1.0
    assert surface_dice(box, shifted, (0.5, 1.0, 1.0)) == 1.0
    apart = surface_dice(box, shifted, (3.0, 1.0, 1.0))
    assert apart == pytest.approx(by_brute_force(box, shifted, (3.0, 1.0, 1.0), 1.0), abs=0.002)
    assert 0.5 < apart < 0.9  # the two faces across the shift are lost, the four along it mostly agree
    assert surface_dice(box, shifted, (3.0, 1.0, 1.0), tolerance_mm=3.0) == 1.0


def test_a_mask_at_the_edge_of_the_image_has_a_closed_surface() -> None:
    corner = np.zeros((6, 6, 6), bool)
    corner[:3, :3, :3] = True
    inner = np.pad(corner, 4)
    other = np.zeros_like(corner)
    other[:3, :3, :1] = True
    expected = surface_dice(inner, np.pad(other, 4), (1.0, 1.0, 1.0))
    assert surface_dice(corner, other, (1.0, 1.0, 1.0)) == pytest.approx(expected)


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        dice(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)))
