"""The registry of recipes: what each makes, and that looking at it loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.support.made_stations import Plan, make_stations, stack_plans
from tests.support.pydicom_stations import REFERENCE, REFERENCE_SCANS, read_plainly
from ukb_infer.errors import UsageError
from ukb_infer.imaging.recipes import DEFAULT_RECIPE, RECIPES, Recipe, find_recipe, get_recipe
from ukb_infer.imaging.recipes.mimir1.reference import project_stations_reference

STATIONS = make_stations(stack_plans([Plan(), Plan(slice_spacing_mm=4.5, slices=20)], [30.0]))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_recipe_makes_what_it_says(recipe: Recipe) -> None:
    image = recipe.project(STATIONS)
    assert (image.dtype, image.shape) == (recipe.dtype, recipe.shape)
    assert len(recipe.channels) == recipe.shape[0]
    assert RECIPES[recipe.name] is recipe
    assert find_recipe(image.dtype, image.shape) is recipe


def test_the_default_is_the_published_recipe() -> None:
    assert DEFAULT_RECIPE == "mimir-1"
    assert RECIPES["mimir-1"].form == "uint8 (3, 256, 256)"
    assert RECIPES["mimir-1-hires"].form == "uint8 (3, 512, 512)"


def test_an_unknown_recipe_is_refused_with_the_nearest_and_all() -> None:
    with pytest.raises(
        UsageError, match=r"`recipe`: unknown 'mimir1'; did you mean mimir-1.*choices: mimir-1, mimir-1-hires"
    ):
        get_recipe("mimir1")


@pytest.mark.parametrize(("dtype", "shape"), [(np.int8, (3, 256, 256)), (np.uint8, (3, 256, 512)), (np.uint8, (3,))])
def test_other_arrays_are_of_no_recipe(dtype: type, shape: tuple[int, ...]) -> None:
    assert find_recipe(np.dtype(dtype), shape) is None


def test_looking_at_the_registry_loads_no_reader_and_no_compiler() -> None:
    code = (
        "import sys; from ukb_infer.imaging.recipes import RECIPES; "
        "print(sorted({'numba', 'pydicom', 'nibabel', 'numpy', 'torch', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("scan", REFERENCE_SCANS)
def test_hires_of_the_reference_scans_is_the_plain_one(scan: str) -> None:
    stations = read_plainly(REFERENCE / f"{scan}.zip")
    recipe = get_recipe("mimir-1-hires")
    np.testing.assert_array_equal(recipe.project(stations), project_stations_reference(stations, recipe.shape[1]))
