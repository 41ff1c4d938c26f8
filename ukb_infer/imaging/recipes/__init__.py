"""The registry of recipes: how checked stations become a projection.

A recipe is a subpackage that creates a :class:`Recipe`, and an entry in :data:`RECIPES`. Importing this loads neither
NumPy nor anything heavier.
"""

from __future__ import annotations

from collections.abc import Sequence

from ukb_infer.errors import UsageError
from ukb_infer.imaging.recipe import Recipe
from ukb_infer.imaging.recipes.mimir1 import MIMIR_1, MIMIR_1_HIRES
from ukb_infer.text import suggest

__all__ = ["DEFAULT_RECIPE", "RECIPES", "Recipe", "find_recipe", "get_recipe", "recipe_forms"]

#: All recipes by name.
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (MIMIR_1, MIMIR_1_HIRES)}
DEFAULT_RECIPE = MIMIR_1.name


def get_recipe(name: str) -> Recipe:
    """Recipe by exact name.

    Raises:
        UsageError: unknown recipe; the message suggests the nearest and lists all.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown {name!r}{suggest(name, RECIPES)} (choices: {', '.join(RECIPES)})", field="recipe")
    return RECIPES[name]


def find_recipe(dtype: object, shape: Sequence[int]) -> Recipe | None:
    """The recipe whose projections have this type and shape, or None.

    Args:
        dtype: of NumPy or torch.
        shape: of one projection, (channels, rows, cols).
    """
    return next((recipe for recipe in RECIPES.values() if recipe.fits(dtype, shape)), None)


def recipe_forms() -> str:
    """All recipes with type and shape, for messages."""
    return ", ".join(f"{recipe.name} {recipe.form}" for recipe in RECIPES.values())
