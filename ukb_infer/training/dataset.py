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


def participant_folds(participants: NDArray[np.str_], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of every scan; all scans of a participant fall into the same fold.

    Args:
        participants: (N,) participant of every scan.
        folds: number of folds, at least 2 and at most the number of participants.
        seed: of the shuffle.

    Returns:
        (N,) fold numbers from 0.
    """
    names, index = np.unique(participants, return_inverse=True)
    if not 2 <= folds <= names.size:
        raise UsageError(f"--folds: got {folds}, expected 2 to the number of participants ({names.size})")
    order = np.random.default_rng(seed).permutation(names.size)
    fold_of = np.empty(names.size, np.int64)
    fold_of[order] = np.arange(names.size) % folds
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


def translate(images: NDArray[np.uint8], max_shift: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shift every image by its own integer translation, filling with zeros (as published: up to 16 px).

    Args:
        images: (N, 3, rows, cols) uint8.
        max_shift: pixels.
        rng: source of the shifts.
    """
    if max_shift == 0:
        return images
    shifted = np.zeros_like(images)
    rows, cols = images.shape[2:]
    for k, (dy, dx) in enumerate(rng.integers(-max_shift, max_shift + 1, (len(images), 2))):
        to_y, from_y = slice(max(0, dy), rows + min(0, dy)), slice(max(0, -dy), rows + min(0, -dy))
        to_x, from_x = slice(max(0, dx), cols + min(0, dx)), slice(max(0, -dx), cols + min(0, -dx))
        shifted[k, :, to_y, to_x] = images[k, :, from_y, from_x]
    return shifted
