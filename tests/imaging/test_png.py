"""Projections as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ukb_infer.imaging.recipes import RECIPES, Recipe
from ukb_infer.imaging.volumes.export import save_png


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_png_shows_the_three_channels(tmp_path: Path, recipe: Recipe) -> None:
    image = np.random.default_rng(0).integers(0, 256, recipe.shape, dtype=np.uint8)
    save_png(image, tmp_path / "pictures" / "scan.png", recipe)
    _, rows, cols = recipe.shape
    with Image.open(tmp_path / "pictures" / "scan.png") as picture:
        assert (picture.size, picture.mode) == ((3 * cols, rows), "L")
        shown = np.asarray(picture)
    for channel in range(3):
        np.testing.assert_array_equal(shown[:, cols * channel : cols * (channel + 1)], image[channel])


@pytest.mark.parametrize("shape", [(256, 256, 3), (3, 512, 512)])
def test_only_projections_become_pictures(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"projection of mimir-1 is uint8 \(3, 256, 256\), got uint8"):
        save_png(np.zeros(shape, np.uint8), tmp_path / "scan.png", RECIPES["mimir-1"])
    assert not list(tmp_path.iterdir())
