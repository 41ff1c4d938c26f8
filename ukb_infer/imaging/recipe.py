"""The form of what a network sees, and the recipe record; the registry is :mod:`ukb_infer.imaging.recipes`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ukb_infer.records import Station


@dataclass(frozen=True, kw_only=True)
class ImageForm:
    """The arrays that a network sees.

    Attributes:
        name: in options, manifests and runs.
        shape: (channels, rows, cols) of a projection, (channels, x, y, z) of volumes; with ``dtype`` it identifies a
            recipe.
        dtype: NumPy's name of the type, e.g. ``uint8``.
        channels: one name per channel.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    channels: tuple[str, ...]

    @property
    def form(self) -> str:
        """Type and shape in words, e.g. ``uint8 (3, 256, 256)``."""
        return form_of(self.dtype, self.shape)

    def fits(self, dtype: object, shape: Sequence[int]) -> bool:
        """Whether an array of this type and shape may be one of these.

        Args:
            dtype: of NumPy or torch.
            shape: of one array.
        """
        return form_of(dtype, shape) == self.form


@dataclass(frozen=True, kw_only=True)
class Recipe(ImageForm):
    """How checked stations become a projection; attributes as in :class:`ImageForm`, and:

    Attributes:
        project: stations, head first, to the projection; raises ScanError if they cannot be projected.
    """

    project: Callable[[Sequence[Station]], NDArray[Any]]


def form_of(dtype: object, shape: Sequence[int]) -> str:
    """Type and shape of an array in words.

    Args:
        dtype: of NumPy or torch.
        shape: of the array.
    """
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
