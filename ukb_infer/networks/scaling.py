"""From the projection's 8-bit values to what a network was trained on (floor 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ukb_infer.errors import UsageError
from ukb_infer.geometry import PROJECTION_SIZE


@dataclass(frozen=True)
class InputScaling:
    """``x = uint8 * scale + offset``, after averaging blocks of pixels down to ``size`` where given.

    The published weights take the values as they are: scale 1, offset 0, full size.

    Attributes:
        scale: factor.
        offset: summand.
        size: (rows, cols) that divide 256, or None for the full 256 x 256.
    """

    scale: float = 1.0
    offset: float = 0.0
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.size is not None and any(n < 32 or PROJECTION_SIZE % n for n in self.size):
            raise UsageError(f"input scaling: size {self.size} must divide {PROJECTION_SIZE} and be at least 32")

    def apply(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Scale a batch on the device it is on.

        Args:
            images: (N, 3, 256, 256) uint8.
            dtype: of the result.

        Returns:
            (N, 3, rows, cols).
        """
        values = images.to(dtype)
        if self.size is not None:
            kernel = (values.shape[2] // self.size[0], values.shape[3] // self.size[1])
            if kernel != (1, 1):
                values = functional.avg_pool2d(values, kernel)
        return values * self.scale + self.offset
