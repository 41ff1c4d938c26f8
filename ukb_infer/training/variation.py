"""Augmentation of volumes: parameters are drawn per case, then applied to image and mask together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ukb_infer.training.pretrain.augment import HEADS, change_contrast, draw_moves, move

Varied = tuple[NDArray[np.float32], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class VolumeVariation:
    """How training volumes are varied.

    Attributes:
        spatial: rotate, scale, shift and mirror.
        intensity: change contrast, bias field, sharpness and noise of every contrast within the head.
        mirror: whether mirroring left and right leaves the labels true.
        patch: (x, y, z) voxels that are cut out; None for the whole box.
        foreground: share of the patches that are centred on a labelled voxel.
    """

    spatial: bool
    intensity: bool
    mirror: bool = True
    patch: tuple[int, int, int] | None = None
    foreground: float = 0.5

    def __call__(
        self, images: NDArray[np.float32], labels: NDArray[Any], generators: Sequence[np.random.Generator]
    ) -> Varied:
        """Vary some cases.

        Args:
            images: (N, C, X, Y, Z); not changed.
            labels: (N, X, Y, Z) uint8 masks, which move with the images, or (N, T) numbers, which stay.
            generators: of each case, so that it depends on no other.
        """
        has_masks = labels.ndim == 4
        pairs = [
            self._one(image, labels[k] if has_masks else None, rng)
            for k, (image, rng) in enumerate(zip(images, generators, strict=True))
        ]
        varied = np.stack([image for image, _ in pairs])
        return varied, np.stack([mask for _, mask in pairs]) if has_masks else labels

    def _one(
        self, image: NDArray[np.float32], mask: NDArray[np.uint8] | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Any]:
        values = torch.from_numpy(np.array(image, np.float32))
        labels = None if mask is None else torch.from_numpy(np.array(mask, np.float32))
        if self.spatial:
            look = replace(HEADS, flip=self.mirror)
            maps = torch.from_numpy(draw_moves(1, values.shape[1:], look, rng))
            values = move(values[None], maps, look)[0]
            if labels is not None:
                grid = functional.affine_grid(maps, [1, 1, *labels.shape], align_corners=False)
                labels = functional.grid_sample(labels[None, None], grid, mode="nearest", align_corners=False)[0, 0]
        if self.intensity:  # every contrast for itself
            seen = torch.ones((len(values), 1, *values.shape[1:]), dtype=torch.bool)
            values = change_contrast(values[:, None], seen, HEADS, rng)[:, 0]
        place = self._place(values.shape[1:], labels, rng)
        return values[(slice(None), *place)].numpy(), None if labels is None else labels[place].numpy().astype(np.uint8)

    def _place(self, size: Sequence[int], labels: Tensor | None, rng: np.random.Generator) -> tuple[slice, ...]:
        """Where the patch is cut out."""
        if self.patch is None:
            return tuple(slice(0, side) for side in size)
        starts = [int(rng.integers(0, side - part + 1)) for side, part in zip(size, self.patch, strict=True)]
        wanted, chosen = rng.random() < self.foreground, rng.random()
        found = torch.nonzero(labels) if wanted and labels is not None else torch.empty((0, 3))
        if len(found):
            centre = found[int(chosen * len(found))].tolist()
            triples = zip(centre, size, self.patch, strict=True)
            starts = [int(min(max(0, middle - part // 2), side - part)) for middle, side, part in triples]
        return tuple(slice(start, start + part) for start, part in zip(starts, self.patch, strict=True))
