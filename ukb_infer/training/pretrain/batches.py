"""Batches of views: rows are drawn, paired, read ahead by a thread and, on a CPU, varied there too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ukb_infer.imaging.datasets import ImageRow
from ukb_infer.training.batches import BatchSampler
from ukb_infer.training.distributed import Ranks
from ukb_infer.training.objectives.unlabelled import Views, in_views
from ukb_infer.training.pretrain.augment import HEADS, Viewer, bodies
from ukb_infer.training.pretrain.config import PROJECTION_SCALING, PretrainConfig
from ukb_infer.training.pretrain.pool import Pool

#: Images that are validated at a time, and most that are.
JUDGED_AT_ONCE, MOST_JUDGED = 16, 64
_TRAINING, _VALIDATION = 3, 4


def partners(rows: Sequence[ImageRow], among: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The images that each may be paired with.

    Another contrast of the same session, or else the same contrast at another visit, or any image at another visit, or
    else itself.

    Args:
        rows: all images.
        among: which of them may be used.
    """
    people: dict[tuple[str, str], list[int]] = defaultdict(list)
    for k in among.tolist():
        people[rows[k].dataset, rows[k].participant].append(k)
    found = {}
    for group in people.values():
        for k in group:
            own, others = rows[k], [j for j in group if j != k]
            session = [j for j in others if rows[j].session == own.session and rows[j].modality != own.modality]
            visits = [j for j in others if rows[j].session != own.session]
            same = [j for j in visits if rows[j].modality == own.modality]
            found[k] = np.array(session or same or visits or [k], np.int64)
    return found


class ViewBatches:
    """Views of any step; they depend on the step and the settings alone.

    Args:
        pool: images.
        train: rows to learn from.
        valid: rows that validate.
        config: of the pretraining.
        device: of the views.
        threads: CPU threads of the reader.
    """

    def __init__(
        self,
        pool: Pool,
        train: NDArray[np.int64],
        valid: NDArray[np.int64],
        config: PretrainConfig,
        device: torch.device,
        threads: int,
    ) -> None:
        self.pool, self.config, self.device, self.ranks = pool, config, device, Ranks.current()
        self.valid = valid[:MOST_JUDGED]
        self.train = train
        self.sampler = BatchSampler(train, config.optimization.batch_size, config.seed)
        look = HEADS if config.dim == 3 else bodies(PROJECTION_SCALING.scale, PROJECTION_SCALING.offset)
        objective = config.objective
        self.viewer = Viewer(look, config.augment, objective.mask_ratio, objective.aligned)
        both = np.concatenate([train, self.valid]) if objective.views == 2 else train[:0]
        # train and validation share no participant, so no pair crosses over
        self.partners = partners(pool.rows, both)
        self._ahead: tuple[int, Future[Views | tuple[Tensor, Tensor]]] | None = None
        self._reader = ThreadPoolExecutor(1, "views", torch.set_num_threads, (threads,))

    def take(self, step: int) -> Views:
        """This process's share of a step's batch; the next is made in the background."""
        ahead = self._ahead
        got = (
            ahead[1].result()
            if ahead is not None and ahead[0] == step
            else self._reader.submit(self._read, step).result()
        )
        self._ahead = (step + 1, self._reader.submit(self._read, step + 1))
        return got if isinstance(got, Views) else self._views(*got, step)

    def validation(self) -> list[Views]:
        """Views of the validation images, always the same: masked but not varied."""
        found = []
        for k, first in enumerate(range(0, self.valid.size, JUDGED_AT_ONCE)):
            rng = np.random.default_rng([self.config.seed, k, _VALIDATION])
            images, alike = self._gather(self.valid[first : first + JUDGED_AT_ONCE], rng)
            found.append(self.viewer.views(self._scaled(images), alike.to(self.device), rng, vary=False))
        return found

    def close(self) -> None:
        """Stop reading ahead."""
        self._ahead = None
        self._reader.shutdown(cancel_futures=True)

    def _read(self, step: int) -> Views | tuple[Tensor, Tensor]:
        """Views on a CPU; for a GPU, which varies them faster, the stored images."""
        rows = np.sort(self.sampler.batch(step)[0])[self.ranks.share()]
        images, alike = self._gather(rows, self._generator(step))
        return self._views(images, alike, step) if self.device.type == "cpu" else (images, alike)

    def _generator(self, step: int, stage: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, step, _TRAINING, self.ranks.rank, stage])

    def _views(self, images: Tensor, alike: Tensor, step: int) -> Views:
        return self.viewer.views(self._scaled(images), alike.to(self.device), self._generator(step, 1))

    def _gather(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Stored images (V, N, C, *size) and whether both show the same contrast, (N,)."""
        views = rows[None]
        if self.config.objective.views == 2:
            views = np.stack([rows, np.array([rng.choice(self.partners[k]) for k in rows.tolist()], np.int64)])
        kinds = np.array([[self.pool.rows[k].modality for k in view] for view in views.tolist()])
        return torch.from_numpy(self.pool.take(views)), torch.from_numpy((kinds == kinds[0]).all(axis=0))

    def _scaled(self, images: Tensor) -> Tensor:
        """As the network takes them, on the device: (V, N, C, *size) float32."""
        images = images.to(self.device, non_blocking=True)
        if self.config.dim == 3:
            return images.float()
        return in_views(PROJECTION_SCALING.apply(images.flatten(0, 1)), images)
