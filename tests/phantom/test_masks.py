"""The projected organs of phantoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ukb_infer.errors import UsageError
from ukb_infer.imaging.recipes import get_recipe
from ukb_infer.phantom import render, sample_subject
from ukb_infer.phantom.cohort import write_cohort
from ukb_infer.phantom.masks import ORGANS, organ_masks
from ukb_infer.reasons import Reason


@pytest.fixture(scope="module")
def masks() -> dict[str, np.ndarray]:
    return organ_masks(sample_subject(5, 1), get_recipe("mimir-1").project, "small")


def test_every_organ_is_in_the_body(masks: dict[str, np.ndarray]) -> None:
    assert set(masks) == set(ORGANS)
    assert all(m.shape == (256, 256) and m.any() for m in masks.values())
    assert all(not (m & ~masks["body"]).any() for m in masks.values())


def test_the_body_is_where_the_projection_is_bright(masks: dict[str, np.ndarray]) -> None:
    image = get_recipe("mimir-1").project(render(sample_subject(5, 1), "small").stations)
    bright = image[:2].max(axis=0) > 40
    assert (bright & masks["body"]).sum() > 0.97 * bright.sum()


def test_the_liver_is_on_the_right_of_the_body_which_is_left_in_the_picture(masks: dict[str, np.ndarray]) -> None:
    front = masks["trunk"][:, :150].any(axis=0)
    middle = np.flatnonzero(front).mean()
    assert np.flatnonzero(masks["liver"][:, :150].any(axis=0)).mean() < middle


def test_thighs_end_at_the_knee_and_lie_below_the_liver(masks: dict[str, np.ndarray]) -> None:
    rows = {name: np.flatnonzero(masks[name].any(axis=1)) for name in ("thighs", "liver")}
    assert rows["thighs"].min() > rows["liver"].max()
    assert rows["thighs"].max() < 256


def test_the_command_writes_the_masks_beside_the_scans(tmp_path: Path) -> None:
    write_cohort(tmp_path, 2, 5, size="small", masks=get_recipe("mimir-1").project)
    with np.load(tmp_path / "masks" / "0000001_20201_2_0.npz") as found:
        assert set(found) == set(ORGANS)
        same = organ_masks(sample_subject(5, 1), get_recipe("mimir-1").project, "small")
        assert np.array_equal(found["liver"], same["liver"])


def test_masks_of_scans_with_anomalies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="masks"):
        write_cohort(tmp_path, 2, 5, anomalies=[Reason.KNEE_MISSING], masks=get_recipe("mimir-1").project)
