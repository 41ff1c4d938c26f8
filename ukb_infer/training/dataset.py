"""Projections from one memory map, labels beside them, augmentation in NumPy (floor 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import UsageError


@dataclass(frozen=True)
class LabelledProjections:
    """Training data.

    Attributes:
        images: (N, 3, 256, 256) uint8, usually a memory map.
        labels: (N, T) float64 in natural units, NaN where missing.
        participants: (N,) text that is equal for the scans of one participant.
        targets: T names.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.float64]
    participants: NDArray[np.str_]
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.images), len(self.labels), len(self.participants)}
        if len(sizes) != 1 or self.labels.shape[1] != len(self.targets):
            raise UsageError(
                f"training data disagree: {len(self.images)} projections, {self.labels.shape} labels, "
                f"{len(self.participants)} participants, {len(self.targets)} targets"
            )


def participant_folds(
    participants: NDArray[np.str_], folds: int, seed: int, stratify: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Fold of every scan; all scans of a participant fall into the same fold.

    Args:
        participants: (N,) participant of every scan.
        folds: number of folds, at least 2 and at most the number of participants.
        seed: of the shuffle.
        stratify: (N,) values whose distribution should be alike in all folds, NaN where missing: participants are
            sorted by their mean and dealt out in groups of ``folds``.

    Returns:
        (N,) fold numbers from 0.
    """
    names, index = np.unique(participants, return_inverse=True)
    if not 2 <= folds <= names.size:
        raise UsageError(f"--folds: got {folds}, expected 2 to the number of participants ({names.size})")
    rng = np.random.default_rng(seed)
    order = rng.permutation(names.size)
    fold_of = np.empty(names.size, np.int64)
    if stratify is None:
        fold_of[order] = np.arange(names.size) % folds
        return fold_of[index]
    present = np.isfinite(stratify)
    count = np.bincount(index[present], minlength=names.size)
    total = np.bincount(index[present], stratify[present], minlength=names.size)
    level = np.where(count > 0, total / np.maximum(count, 1), np.inf)
    ranked = order[np.argsort(level[order], kind="stable")]
    for start in range(0, names.size, folds):
        group = ranked[start : start + folds]
        fold_of[group] = rng.permutation(folds)[: group.size]
    return fold_of[index]


class BatchSampler:
    """Endless seeded batches of row numbers, every row once per epoch; its state is three numbers.

    Args:
        rows: rows to draw from.
        batch_size: rows a batch.
        seed: of the shuffles.
    """

    def __init__(self, rows: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, min(batch_size, rows.size), seed

    def batch(self, iteration: int) -> tuple[NDArray[np.int64], np.random.Generator]:
        """Rows of one iteration and the generator for its augmentation; depends on nothing but the arguments."""
        per_epoch = max(1, self.rows.size // self.batch_size)
        epoch, step = divmod(iteration, per_epoch)
        order = np.random.default_rng([self.seed, epoch, 1]).permutation(self.rows)
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        return chosen, np.random.default_rng([self.seed, iteration, 2])


@dataclass(frozen=True)
class Draws:
    """Random numbers of one batch's augmentation, drawn for the whole batch whatever part of it is used.

    Attributes:
        shifts: (N, 2) rows and columns, pixels.
        gains: (N, 2) factors of water and fat.
        flips: (N,) whether to mirror left and right.
    """

    shifts: NDArray[np.int64]
    gains: NDArray[np.float64]
    flips: NDArray[np.bool_]

    @classmethod
    def draw(cls, count: int, max_shift: int, intensity: float, flip: bool, rng: np.random.Generator) -> Draws:
        """Draw; what is switched off draws nothing."""
        shifts = rng.integers(-max_shift, max_shift + 1, (count, 2)) if max_shift else np.zeros((count, 2), np.int64)
        gains = rng.uniform(1.0 - intensity, 1.0 + intensity, (count, 2)) if intensity else np.ones((count, 2))
        flips = rng.random(count) < 0.5 if flip else np.zeros(count, bool)
        return cls(shifts, gains, flips)

    def part(self, chosen: slice) -> Draws:
        """The numbers of some of the scans."""
        return Draws(self.shifts[chosen], self.gains[chosen], self.flips[chosen])


def augment(images: NDArray[np.uint8], draws: Draws) -> NDArray[np.uint8]:
    """Shift, scale and mirror every image by its own numbers.

    Shifts are integer and fill with zeros (as published: up to 16 px). Gains act on water and fat and leave the fat
    fraction, the third channel, as it is.

    Args:
        images: (N, 3, rows, cols) uint8; not changed.
        draws: of these images.
    """
    changed = translate(images, draws.shifts)
    for k in np.flatnonzero((draws.gains != 1.0).any(axis=1)):
        scaled = np.rint(changed[k, :2] * draws.gains[k, :, None, None])
        changed[k, :2] = np.clip(scaled, 0, 255).astype(np.uint8)
    changed[draws.flips] = changed[draws.flips, :, :, ::-1]
    return changed


def translate(images: NDArray[np.uint8], shifts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Shift every image by whole pixels, filling with zeros.

    Args:
        images: (N, 3, rows, cols) uint8.
        shifts: (N, 2) rows and columns.

    Returns:
        A new array.
    """
    shifted = np.zeros_like(images)
    rows, cols = images.shape[2:]
    for k, (dy, dx) in enumerate(shifts):
        to_y, from_y = slice(max(0, dy), rows + min(0, dy)), slice(max(0, -dy), rows + min(0, -dy))
        to_x, from_x = slice(max(0, dx), cols + min(0, dx)), slice(max(0, -dx), cols + min(0, -dx))
        shifted[k, :, to_y, to_x] = images[k, :, from_y, from_x]
    return shifted
