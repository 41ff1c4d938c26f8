"""Recipe ``mimir-1``, the published projection, and ``mimir-1-hires``, the same at twice the size.

Importing this loads no library; the functions are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ukb_infer.imaging.recipe import Recipe
from ukb_infer.imaging.recipes.mimir1.constants import HIRES_SIZE, SIZE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ukb_infer.records import Station


def _project(stations: Sequence[Station], size: int) -> NDArray[np.uint8]:
    from ukb_infer.imaging.recipes.mimir1.fast import project_stations

    return project_stations(stations, size)


def _recipe(name: str, size: int) -> Recipe:
    return Recipe(
        name=name,
        shape=(3, size, size),
        dtype="uint8",
        channels=("water", "fat", "fat_fraction"),
        project=partial(_project, size=size),
    )


MIMIR_1 = _recipe("mimir-1", SIZE)
MIMIR_1_HIRES = _recipe("mimir-1-hires", HIRES_SIZE)
