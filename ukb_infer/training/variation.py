"""Augmentation of volumes: parameters are drawn per case, then applied to image and mask together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

#: Largest rotation about each axis, radians; scaling; shift as a share of the box.
_ANGLE, _SCALE, _SHIFT = 0.2, 0.12, 0.06
#: Standard deviations of gain, offset, smooth field and noise, in robust standard deviations of the head.
_GAIN, _OFFSET, _FIELD, _NOISE = 0.15, 0.15, 0.15, 0.1
#: Points of the smooth field along each axis.
_FIELD_POINTS = 4

Varied = tuple[NDArray[np.float32], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class VolumeVariation:
    """How training volumes are varied.

    Attributes:
        spatial: rotate, scale, shift and mirror.
        intensity: change gain and offset of every contrast, add a smooth field and noise, within the head.
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
            values, labels = _move(values, labels, rng, self.mirror)
        if self.intensity:
            values = _change(values, rng)
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


def _move(
    values: Tensor, labels: Tensor | None, rng: np.random.Generator, mirror: bool
) -> tuple[Tensor, Tensor | None]:
    """Rotate, scale, shift and mirror (C, X, Y, Z) and its (X, Y, Z) mask alike."""
    angles, scale = rng.uniform(-_ANGLE, _ANGLE, 3), 1.0 + rng.uniform(-_SCALE, _SCALE)
    shift, flipped = rng.uniform(-2 * _SHIFT, 2 * _SHIFT, 3), mirror and rng.random() < 0.5
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (k for k in range(3) if k != axis)
        step = np.eye(3)
        step[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = turn @ step
    size = np.array(values.shape[1:], float)
    matrix = np.diag(1.0 / size) @ (turn / scale) @ np.diag(size)  # grids are in halves of the box, not voxels
    if flipped:
        matrix[:, 0] *= -1.0
    theta = np.concatenate([matrix, shift[:, None]], axis=1)[::-1]  # torch names the last axis first
    theta = np.concatenate([theta[:, 2::-1], theta[:, 3:]], axis=1)
    grid = functional.affine_grid(
        torch.from_numpy(theta[None].copy()).float(), [1, 1, *values.shape[1:]], align_corners=False
    )
    moved = functional.grid_sample(values[None], grid, align_corners=False)[0]
    if labels is None:
        return moved, None
    return moved, functional.grid_sample(labels[None, None], grid, mode="nearest", align_corners=False)[0, 0]


def _change(values: Tensor, rng: np.random.Generator) -> Tensor:
    """Change the contrasts (C, X, Y, Z) within the head, which is where they are not 0."""
    channels, head = len(values), values != 0
    shape = (channels, 1, 1, 1)
    gain = torch.from_numpy(np.exp(rng.normal(0.0, _GAIN, shape))).float()
    offset = torch.from_numpy(rng.normal(0.0, _OFFSET, shape)).float()
    points = torch.from_numpy(rng.normal(0.0, _FIELD, (1, channels, *[_FIELD_POINTS] * 3))).float()
    field = functional.interpolate(points, values.shape[1:], mode="trilinear", align_corners=True)[0]
    noise = torch.from_numpy(rng.standard_normal(tuple(values.shape), np.float32)) * (_NOISE * float(rng.random()))
    return torch.where(head, values * gain * (1.0 + field) + offset + noise, values)
