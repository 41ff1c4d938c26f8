"""Training data: images in one memory map, labels, augmentation of projections in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.training.config import Augmentation


@dataclass(frozen=True)
class LabelledImages:
    """Training data.

    Attributes:
        images: (N, channels, rows, cols) of one recipe, or (N, channels, x, y, z) volumes; usually a memory map.
        labels: (N, T) float64 in natural units, NaN where missing.
        participants: (N,) text, equal for the scans of one participant.
        targets: T names.
        masks: (N, x, y, z) uint8 labels of every voxel, for a segmentation.
    """

    images: NDArray[Any]
    labels: NDArray[np.float64]
    participants: NDArray[np.str_]
    targets: tuple[str, ...]
    masks: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.images), len(self.labels), len(self.participants)}
        if len(sizes) != 1 or self.labels.shape[1] != len(self.targets):
            raise UsageError(
                f"training data disagree: {len(self.images)} images, {self.labels.shape} labels, "
                f"{len(self.participants)} participants, {len(self.targets)} targets"
            )


def participant_folds(
    participants: NDArray[np.str_], folds: int, seed: int, stratify: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Fold of every scan; all scans of a participant are in the same fold.

    Args:
        participants: (N,) participant of every scan.
        folds: number of folds, at least 2 and at most the number of participants.
        seed: of the shuffle.
        stratify: (N,) values whose distribution should be similar in all folds, NaN where missing: participants are
            sorted by their mean and distributed in groups of ``folds``.

    Returns:
        (N,) fold numbers from 0.
    """
    names, index = np.unique(participants, return_inverse=True)
    if not 2 <= folds <= names.size:
        raise UsageError(field="folds", got=folds, expected=f"2 to the number of participants ({names.size})")
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


def validation_rows(
    participants: NDArray[np.str_], rows: NDArray[np.int64], share: float, seed: int
) -> NDArray[np.int64]:
    """Rows set aside for the validation of one member, by participant.

    Args:
        participants: (N,) participant of every scan.
        rows: rows available to the member.
        share: of their participants, rounded, at least one; 0 for none.
        seed: of the choice.

    Returns:
        Some of ``rows``, sorted; none if ``share`` is 0 or there are fewer than 3 participants.
    """
    names = np.unique(participants[rows])
    if share == 0.0 or names.size < 3:
        return rows[:0]
    count = max(1, round(share * names.size))
    chosen = np.random.default_rng([seed, 3]).permutation(names)[:count]
    return rows[np.isin(participants[rows], chosen)]


@dataclass(frozen=True)
class Draws:
    """Random numbers of one batch's augmentation, drawn for the whole batch, whichever part is used.

    Attributes:
        shifts: (N, 2) rows and columns, pixels.
        gains: (N, 2) factors of water and fat.
        flips: (N,) whether to mirror left and right.
    """

    shifts: NDArray[np.int64]
    gains: NDArray[np.float64]
    flips: NDArray[np.bool_]

    @classmethod
    def draw(cls, count: int, settings: Augmentation, rng: np.random.Generator) -> Draws:
        """Draw the numbers; disabled augmentations draw none.

        Args:
            count: N.
            settings: how much to vary.
            rng: source of the numbers.
        """
        shift, intensity = settings.max_shift, settings.intensity
        shifts = rng.integers(-shift, shift + 1, (count, 2)) if shift else np.zeros((count, 2), np.int64)
        gains = rng.uniform(1.0 - intensity, 1.0 + intensity, (count, 2)) if intensity else np.ones((count, 2))
        flips = rng.random(count) < 0.5 if settings.flip else np.zeros(count, bool)
        return cls(shifts, gains, flips)

    def part(self, chosen: slice) -> Draws:
        """The numbers of some of the scans."""
        return Draws(self.shifts[chosen], self.gains[chosen], self.flips[chosen])


def augment(images: NDArray[Any], draws: Draws) -> NDArray[Any]:
    """Shift, scale and mirror every image.

    Shifts are integer and fill with zeros (as published: up to 16 px). Gains act on water and fat and leave the fat
    fraction, the third channel, as it is.

    Args:
        images: (N, channels, rows, cols); not changed.
        draws: of these images.
    """
    changed = translate(images, draws.shifts)
    for k in np.flatnonzero((draws.gains != 1.0).any(axis=1)):
        scaled = np.rint(changed[k, :2] * draws.gains[k, :, None, None])
        changed[k, :2] = np.clip(scaled, 0, np.iinfo(images.dtype).max).astype(images.dtype)
    changed[draws.flips] = changed[draws.flips, :, :, ::-1]
    return changed


def translate(images: NDArray[Any], shifts: NDArray[np.int64]) -> NDArray[Any]:
    """Shift every image by whole pixels, filling with zeros.

    Args:
        images: (N, channels, rows, cols).
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
