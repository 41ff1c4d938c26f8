"""From stored images to what an objective sees: moved, masked, changed in contrast.

Numbers are drawn first, then applied to the whole batch on its device. MONAI's transforms take one volume at a time and
more than twice the time (docs/architecture.md).

The order keeps hidden voxels secret: the image is moved and becomes the target; then voxels are masked; only then
contrast, bias field, blur and noise change what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ukb_infer.networks.encoder import crop_like
from ukb_infer.training.objectives.unlabelled import Views, in_views
from ukb_infer.training.pretrain.config import Augment

#: Side of the blocks that are masked: voxels of a volume; in 2D this part of the shorter side.
BLOCK, BLOCK_SHARE = 4, 16
#: Knots of the monotone map of intensities, from lowest to highest value.
SEGMENTS = 6


@dataclass(frozen=True)
class Look:
    """How images of one kind may vary.

    Attributes:
        low: value without signal; ``high``: of the brightest tissue.
        mapped: channels whose contrast and bias field vary; the others carry a meaning, as the fat fraction does.
        zero: value outside the body.
        turn_degrees: largest turn about each axis.
        stretch: largest change of size, as a share.
        shift: largest shift, as a share of the side.
        flip: mirror left and right (first axis) half of the time.
        contrast: sd of the logarithm of the slopes of the monotone map.
        bias: sd of the logarithm of the bias field at its grid points.
        noise: largest sd of the noise, as a share of high - low.
    """

    low: float
    high: float
    mapped: int
    zero: float
    turn_degrees: float
    stretch: float
    shift: float
    flip: bool
    contrast: float
    bias: float
    noise: float


#: Heads are robust z-scores; the other sites' contrast is unlike any single map of ours.
HEADS = Look(-3.0, 3.0, 1, 0.0, 12.0, 0.15, 0.06, True, 0.6, 0.25, 0.05)


def bodies(scale: float, offset: float) -> Look:
    """Projections of bodies, uint8 scaled by value * scale + offset; left and right differ (liver), so no flips.

    Args:
        scale: factor.
        offset: summand.
    """
    return Look(offset, 255 * scale + offset, 2, offset, 4.0, 0.08, 0.06, False, 0.3, 0.12, 0.02)


@dataclass(frozen=True)
class Viewer:
    """Makes views.

    Attributes:
        look: how images may vary.
        augment: what is varied.
        mask_ratio: share that is hidden.
        aligned: move all views of a scan alike.
    """

    look: Look
    augment: Augment
    mask_ratio: float
    aligned: bool = True

    def views(self, images: Tensor, alike: Tensor, rng: np.random.Generator, *, vary: bool = True) -> Views:
        """Views of a batch.

        Args:
            images: (V, N, C, *size) float32; not changed.
            alike: (N,) bool.
            rng: source of all numbers.
            vary: False masks only, for validation.
        """
        shape, flat = images.shape, images.flatten(0, 1)
        if vary and self.augment.spatial:
            draws = draw_moves(shape[1] if self.aligned else len(flat), shape[3:], self.look, rng)
            draws = np.concatenate([draws] * (len(flat) // len(draws)))
            flat = move(flat, torch.from_numpy(draws).to(flat.device), self.look)
        targets = flat
        hidden = hidden_blocks(len(flat), shape[3:], self.mask_ratio, rng).to(flat.device)
        inputs = torch.where(hidden, 0.0, flat)
        if vary and self.augment.intensity:
            inputs = torch.where(hidden, 0.0, change_contrast(inputs, ~hidden, self.look, rng))
        return Views(in_views(inputs, images), in_views(targets, images), in_views(hidden, images), alike)


def draw_moves(count: int, size: Sequence[int], look: Look, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random affine maps in the coordinates of ``affine_grid``: last axis first, sides of 2.

    Args:
        count: number of maps.
        size: of the images.
        look: how much they vary.
        rng: source of the numbers.

    Returns:
        (count, dim, dim + 1).
    """
    dim = len(size)
    angles = np.deg2rad(rng.uniform(-look.turn_degrees, look.turn_degrees, (count, 3 if dim == 3 else 1)))
    stretch = np.exp(rng.uniform(-look.stretch, look.stretch, (count, dim)))
    shifts = rng.uniform(-2 * look.shift, 2 * look.shift, (count, dim))
    mirror = np.where(rng.random(count) < 0.5, -1.0, 1.0) if look.flip else np.ones(count)
    planes = ((0, 1), (0, 2), (1, 2)) if dim == 3 else ((0, 1),)
    linear = np.broadcast_to(np.eye(dim), (count, dim, dim)).copy()
    for (i, j), angle in zip(planes, angles.T, strict=True):
        turn = np.broadcast_to(np.eye(dim), (count, dim, dim)).copy()
        turn[:, i, i] = turn[:, j, j] = np.cos(angle)
        turn[:, i, j], turn[:, j, i] = -np.sin(angle), np.sin(angle)
        linear = linear @ turn
    linear *= stretch[:, None, :]
    linear[:, :, 0] *= mirror[:, None]
    sides = np.asarray(size, float)
    linear *= sides[None, None, :] / sides[None, :, None]  # turns are rigid in voxels, not in sides of 2
    return np.concatenate([linear[:, ::-1, ::-1], shifts[:, ::-1, None]], axis=2).astype(np.float32)


def move(images: Tensor, maps: Tensor, look: Look) -> Tensor:
    """Resample (N, C, *size) by affine maps, linearly; outside is ``look.zero``.

    Args:
        images: to be moved.
        maps: (N, dim, dim + 1).
        look: of the images.
    """
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images - look.zero, grid, padding_mode="zeros", align_corners=False)
    return moved + look.zero


def hidden_blocks(count: int, size: Sequence[int], ratio: float, rng: np.random.Generator) -> Tensor:
    """(count, 1, *size) bool: whole blocks, a share of them.

    Args:
        count: N.
        size: of the images.
        ratio: share; 0 hides nothing.
        rng: source of the numbers.
    """
    side = BLOCK if len(size) == 3 else max(1, min(size) // BLOCK_SHARE)
    grid = [-(-length // side) for length in size]
    blocks = int(np.prod(grid))
    ranks = rng.random((count, blocks)).argsort(axis=1).argsort(axis=1)
    hidden = torch.from_numpy(ranks < round(ratio * blocks)).reshape(count, 1, *grid)
    for axis in range(len(size)):
        hidden = hidden.repeat_interleave(side, dim=2 + axis)
    return crop_like(hidden, size) if list(hidden.shape[2:]) != list(size) else hidden


def change_contrast(images: Tensor, seen: Tensor, look: Look, rng: np.random.Generator) -> Tensor:
    """A random monotone map, a bias field, blur and noise; values outside the body stay.

    Args:
        images: (N, C, *size), hidden voxels 0.
        seen: (N, 1, *size) bool; only these are blurred into each other.
        look: of the images.
        rng: source of the numbers.
    """
    count, dim = len(images), images.ndim - 2
    body = images != look.zero
    mapped, rest = images[:, : look.mapped], images[:, look.mapped :]
    changed = _map(mapped, look, rng)
    coarse = rng.normal(0.0, 1.0, (count, 1, *(3,) * dim)) * look.bias * rng.random((count, 1, *(1,) * dim))
    mode = "trilinear" if dim == 3 else "bilinear"
    field = functional.interpolate(
        torch.from_numpy(np.exp(coarse)).float().to(images.device), images.shape[2:], mode=mode, align_corners=True
    )
    changed = torch.cat([(changed - look.low) * field + look.low, rest], dim=1)
    changed = _blur(changed, seen, rng)
    generator = torch.Generator(images.device).manual_seed(int(rng.integers(2**62)))
    sd = _column(rng.uniform(0.0, look.noise * (look.high - look.low), count), changed)
    noise = torch.randn(changed.shape, generator=generator, device=images.device)
    return torch.where(body, changed + sd * noise, images)


def _column(values: NDArray[np.float64], like: Tensor) -> Tensor:
    """(N,) numbers that multiply (N, C, *size)."""
    return torch.from_numpy(values.astype(np.float32)).to(like.device).reshape(-1, *(1,) * (like.ndim - 1))


def _map(values: Tensor, look: Look, rng: np.random.Generator) -> Tensor:
    """Rising and linear between knots; on average it neither brightens nor stretches."""
    slopes = np.exp(rng.normal(0.0, look.contrast, (len(values), SEGMENTS)))
    slopes *= SEGMENTS / slopes.sum(axis=1, keepdims=True)
    knots = np.linspace(look.low, look.high, SEGMENTS + 1)
    found = torch.full_like(values, look.low)
    for k in range(SEGMENTS):
        low = None if k == 0 else 0.0  # the ends go on
        high = None if k == SEGMENTS - 1 else float(knots[k + 1] - knots[k])
        part = values - float(knots[k])
        found += _column(slopes[:, k], values) * (part if low is None and high is None else part.clamp(low, high))
    return found


def _blur(images: Tensor, seen: Tensor, rng: np.random.Generator) -> Tensor:
    """Mix every voxel with the mean of three along each axis, as thick slices and low resolution do."""
    weights = seen.to(images.dtype)
    for axis in range(2, images.ndim):
        share = rng.uniform(0.0, 1.0, len(images)) * (rng.random(len(images)) < 0.4)
        if share.any():
            near = _sum_of_three(images * weights, axis) / _sum_of_three(weights, axis).clamp(min=1.0)
            images = torch.lerp(images, near, _column(share, images).expand_as(images))
    return images


def _sum_of_three(values: Tensor, axis: int) -> Tensor:
    """Sum of every voxel and its two neighbours along an axis."""
    found, last = values.clone(), values.shape[axis] - 1
    found.narrow(axis, 1, last).add_(values.narrow(axis, 0, last))
    found.narrow(axis, 0, last).add_(values.narrow(axis, 1, last))
    return found
