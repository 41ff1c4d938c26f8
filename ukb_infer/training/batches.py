"""Batches of training scans, read ahead by a thread."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.training.config import Augmentation
from ukb_infer.training.dataset import Draws, augment
from ukb_infer.training.variation import VolumeVariation

Batch = tuple[NDArray[Any], NDArray[Any]]


class BatchSampler:
    """Endless seeded batches of row numbers: consecutive shuffles of all rows, cut into batches.

    Every row occurs once per shuffle. A batch may contain the end of one shuffle and the start of the next, and then,
    rarely, a row twice. The state is three numbers.

    Args:
        rows: rows to draw from.
        batch_size: rows per batch.
        seed: of the shuffles.
    """

    def __init__(self, rows: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, min(batch_size, rows.size), seed

    def batch(self, iteration: int) -> tuple[NDArray[np.int64], np.random.Generator]:
        """Rows of one iteration and the generator for its augmentation; depends only on the arguments."""
        epoch, first = divmod(iteration * self.batch_size, self.rows.size)
        stream = self._shuffle(epoch)
        if first + self.batch_size > self.rows.size:
            stream = np.concatenate([stream, self._shuffle(epoch + 1)])
        return stream[first : first + self.batch_size], np.random.default_rng([self.seed, iteration, 2])

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch, 1]).permutation(self.rows)


class Batches:
    """Augmented images and standardized labels of any iteration.

    Args:
        images: (N, channels, ...), usually a memory map.
        labels: (N, T) float32 standardized, NaN where missing; or (N, x, y, z) uint8 masks.
        sampler: chooses the scans of an iteration.
        augmentation: how they are varied; a :class:`VolumeVariation` for volumes.
        share: this process's part of a batch.
    """

    def __init__(
        self,
        images: NDArray[Any],
        labels: NDArray[Any],
        sampler: BatchSampler,
        augmentation: Augmentation | VolumeVariation,
        share: slice,
    ) -> None:
        self.images, self.labels, self.sampler = images, labels, sampler
        self.augmentation, self.share = augmentation, share
        self._ahead: tuple[int, Future[Batch]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def read(self, iteration: int, *, whole: bool = False) -> Batch:
        """One iteration's batch.

        Args:
            iteration: from 0.
            whole: the whole batch instead of this process's share.
        """
        rows, rng = self.sampler.batch(iteration)
        rows = np.sort(rows)
        share = slice(None) if whole else self.share
        if isinstance(self.augmentation, VolumeVariation):
            part = rows[share]
            return self.augmentation(self.images[part], self.labels[part], rng.spawn(rows.size)[share])
        draws = Draws.draw(rows.size, self.augmentation, rng)
        return augment(np.asarray(self.images[rows[share]]), draws.part(share)), self.labels[rows[share]]

    def take(self, iteration: int) -> Batch:
        """One iteration's batch; the next is read in the background."""
        ahead = self._ahead
        batch = ahead[1].result() if ahead is not None and ahead[0] == iteration else self.read(iteration)
        self._ahead = (iteration + 1, self._reader.submit(self.read, iteration + 1))
        return batch

    def close(self) -> None:
        """Stop reading ahead."""
        self._ahead = None
        self._reader.shutdown(cancel_futures=True)
