"""Cached projections, ``<scan>.npy``: safely parsed: nothing is executed."""

from __future__ import annotations

from collections.abc import Collection
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.imaging.recipe import Recipe, form_of
from ukb_infer.reasons import Reason

#: Longest .npy header that is read; that of a projection has 128 bytes.
_MAX_HEADER_BYTES = 1 << 16


def read_projection(path: Path, recipe: Recipe) -> NDArray[Any]:
    """Read a cached projection and refuse an empty one.

    Args:
        path: of the .npy.
        recipe: required recipe.

    Returns:
        Array of the recipe's shape and type.

    Raises:
        ScanError: ``bad_projection``, ``empty_image`` for a constant one, or ``input_missing``.
    """
    image = load_projection(path, (recipe,))
    if (image == image.flat[0]).all():
        raise ScanError(Reason.EMPTY_IMAGE, f"every pixel of the projection is {image.flat[0]}; project the scan again")
    return image


def load_projection(path: Path, recipes: Collection[Recipe]) -> NDArray[Any]:
    """Load a cached projection of one of several recipes, reading no more than their size.

    Args:
        path: of the .npy.
        recipes: allowed recipes.

    Returns:
        Array of one recipe's shape and type.

    Raises:
        ScanError: ``bad_projection`` or ``input_missing``.
    """
    most = max(np.dtype(recipe.dtype).itemsize * prod(recipe.shape) for recipe in recipes)
    try:
        with path.open("rb") as file:
            data = file.read(most + _MAX_HEADER_BYTES)
    except FileNotFoundError:
        raise ScanError(Reason.INPUT_MISSING, f"the projection does not exist; {Reason.INPUT_MISSING.advice}") from None
    return _parse(data, recipes)


def _parse(data: bytes, recipes: Collection[Recipe]) -> NDArray[Any]:
    """Parse the .npy format; nothing is allocated before shape and type are checked."""
    file = BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read_header[version](file)
    except Exception as error:  # NumPy raises many kinds on damaged headers
        raise _bad_projection(f"not a .npy ({type(error).__name__})", recipes) from None
    if not any(recipe.fits(dtype, shape) for recipe in recipes):
        raise _bad_projection(form_of(dtype, shape), recipes)
    if len(data) - file.tell() != dtype.itemsize * prod(shape):
        raise _bad_projection(f"{len(data) - file.tell()} bytes of pixels", recipes)
    pixels = np.frombuffer(data, dtype, offset=file.tell())
    return pixels.reshape(shape, order="F" if fortran else "C").copy(order="C")


def _bad_projection(found: str, recipes: Collection[Recipe]) -> ScanError:
    expected = " or ".join(f"{recipe.form} of recipe {recipe.name}" for recipe in recipes)
    return ScanError(
        Reason.BAD_PROJECTION, f"a cached projection is {found}, expected {expected}; project the scan again"
    )
