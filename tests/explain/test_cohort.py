"""Landmarks of outlines, and maps moved from one outline to another."""

from __future__ import annotations

import numpy as np
import pytest

from ukb_infer.explain.cohort import Outline, align, find_outline
from ukb_infer.imaging.recipes import get_recipe
from ukb_infer.phantom import render, sample_subject
from ukb_infer.phantom.masks import organ_masks


@pytest.mark.parametrize("index", [1, 2, 3])
def test_landmarks_of_phantoms_are_where_the_organs_are(index: int) -> None:
    subject, recipe = sample_subject(88, index), get_recipe("mimir-1")
    outline = find_outline(recipe.project(render(subject, "small").stations))
    masks = organ_masks(subject, recipe.project, "small")
    first_row = {name: int(np.flatnonzero(masks[name][:, :120].any(axis=1))[0]) for name in ("arms", "thighs")}
    assert outline.rows[1] == pytest.approx(first_row["arms"], abs=24)
    assert first_row["thighs"] - 24 < outline.rows[2] < first_row["thighs"] + 60  # thick thighs touch at the top
    assert np.all(np.diff(outline.rows) > 0)


def test_a_point_moves_with_its_landmarks() -> None:
    own = Outline(np.array([10.0, 50.0, 150.0, 250.0]), ((20.0, 120.0), (160.0, 240.0)))
    common = Outline(np.array([20.0, 60.0, 140.0, 240.0]), ((30.0, 110.0), (170.0, 230.0)))
    saliency = np.zeros((256, 256), np.float32)
    saliency[49:52, 69:72] = 1.0  # at the shoulders, in the middle of the front view
    moved = align(saliency, own, common)
    row, col = np.unravel_index(int(moved.argmax()), moved.shape)
    assert (row, col) == (pytest.approx(60, abs=1), pytest.approx(70, abs=1))
    assert moved.sum() == pytest.approx(1.0)


def test_a_map_on_its_own_outline_stays() -> None:
    own = Outline(np.array([0.0, 50.0, 150.0, 255.0]), ((0.0, 127.0), (128.0, 255.0)))
    saliency = np.random.default_rng(0).random((256, 256))
    assert align(saliency, own, own) == pytest.approx(saliency / saliency.sum())
