"""Scaling of projections to the input that a network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ukb_infer.errors import UsageError

if TYPE_CHECKING:  # manifests contain scalings and are read without torch
    from torch import Tensor

#: Shortest side of a network's input, pixels.
MIN_SIDE = 32


def divides(size: Sequence[int], full: Sequence[int]) -> bool:
    """Whether blocks of whole pixels average an image down to a size that networks take.

    Args:
        size: (rows, cols) wanted.
        full: (rows, cols) of the image.
    """
    return all(part >= MIN_SIDE and whole % part == 0 for part, whole in zip(size, full, strict=True))


@dataclass(frozen=True)
class InputScaling:
    """``x = value * scale + offset``, after averaging blocks of pixels down to ``size`` where given.

    The published weights use raw values: scale 1, offset 0, full size.

    Attributes:
        scale: factor.
        offset: summand.
        size: (rows, cols) that divide those of the projection, or None for its full size.
    """

    scale: float = 1.0
    offset: float = 0.0
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            self.check(self.size)

    def check(self, full: Sequence[int]) -> None:
        """Refuse a size that does not divide (rows, cols) of the projections.

        Raises:
            UsageError: names both sizes.
        """
        if self.size is not None and not divides(self.size, full):
            raise UsageError(
                f"input scaling: got size {self.size}, expected sides of at least {MIN_SIDE} that divide {tuple(full)}"
            )

    def apply(self, images: Tensor) -> Tensor:
        """Scale a batch on its device: (N, channels, rows, cols) float32; differentiable if the images are floats."""
        from torch.nn import functional

        values = images.float()
        if self.size is not None:
            kernel = (values.shape[2] // self.size[0], values.shape[3] // self.size[1])
            if kernel != (1, 1):
                values = functional.avg_pool2d(values, kernel)
        return values * self.scale + self.offset
