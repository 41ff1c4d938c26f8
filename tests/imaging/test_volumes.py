"""Fused volumes as NIfTI and projections as PNG."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.support.made_stations import Plan, make_stations, stack_plans
from ukb_infer.imaging.recipes import RECIPES, Recipe
from ukb_infer.imaging.recipes.mimir1.constants import GRID_SPACING_MM
from ukb_infer.imaging.recipes.mimir1.fusion import fuse_stations
from ukb_infer.imaging.volumes.export import save_png, write_volumes


def test_volumes_are_read_back_as_they_were(tmp_path: Path) -> None:
    volume = fuse_stations(make_stations(stack_plans([Plan(x_mm=-20.0, y_mm=8.0)] * 2, [24.0])))
    water, fat = write_volumes(volume, tmp_path / "new", "0000001_20201_2_0")
    assert [p.name for p in (water, fat)] == ["0000001_20201_2_0_water.nii.gz", "0000001_20201_2_0_fat.nii.gz"]
    for path, expected in ((water, volume.water), (fat, volume.fat)):
        image = nibabel.load(path)
        assert image.get_data_dtype() == np.float32
        np.testing.assert_array_equal(np.asarray(image.dataobj), expected.astype(np.float32))
        np.testing.assert_allclose(image.affine, volume.affine, rtol=1e-6)  # stored in float32
        np.testing.assert_allclose(image.header.get_qform(), volume.affine, atol=1e-4)  # quaternion in float32
        np.testing.assert_allclose(image.header.get_zooms(), GRID_SPACING_MM, rtol=1e-6)
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.header.get_xyzt_units()[0] == "mm"
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted([water.name, fat.name])


def test_volumes_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    volume = fuse_stations(make_stations([Plan()]))
    first = [p.read_bytes() for p in write_volumes(volume, tmp_path / "a", "0000001_20201_2_0")]
    second = [p.read_bytes() for p in write_volumes(volume, tmp_path / "b", "0000002_20201_2_0")]
    assert first == second


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
