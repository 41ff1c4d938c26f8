"""Training of one member; on a CPU, resuming is bit-identical."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ukb_infer.errors import RunError
from ukb_infer.networks.build import Init
from ukb_infer.networks.speed import channels_last_of
from ukb_infer.storage import atomic_write_bytes
from ukb_infer.training.averaging import BestWeights, batches_to_recalibrate, copy_of, recalibrate, update_average
from ukb_infer.training.batches import Batches, BatchSampler
from ukb_infer.training.checkpoint import Checkpoint
from ukb_infer.training.config import TrainConfig
from ukb_infer.training.dataset import LabelledImages
from ukb_infer.training.distributed import Ranks
from ukb_infer.training.history import TensorBoardLog
from ukb_infer.training.optimizer import learning_rate_at, make_optimizer
from ukb_infer.training.probe_start import fit_head
from ukb_infer.training.recipe import TRAINING_VERSION
from ukb_infer.training.variation import VolumeVariation

Progress = Callable[[int, int, float, float], None]

#: Fewest training scans on which a network is evaluated, next to its validation scans.
MIN_JUDGED = 32
#: Batch size of the evaluation.
JUDGED_AT_ONCE = 64
#: The same for volumes, which take longer.
MIN_JUDGED_VOLUMES, VOLUMES_AT_ONCE = 4, 4


class Trainer:
    """Trains one member, or resumes from its checkpoint.

    Args:
        config: of the training.
        member: number of the member from 0; its seed is the ensemble's + member.
        data: images and labels.
        standardized: (N, T) float32 standardized labels; a segmentation learns from ``data.masks`` instead.
        train_rows: training rows.
        valid_rows: validation rows (may be empty).
        folder: of checkpoint.pt and history.csv.
        device: torch device.
        init: initial weights.

    Attributes:
        iteration: optimizer steps done.
        network: being trained; ``average`` is validated and kept.
        best: weights to keep.
        history: one row per validation.
    """

    def __init__(
        self,
        config: TrainConfig,
        member: int,
        data: LabelledImages,
        standardized: NDArray[np.float32],
        train_rows: NDArray[np.int64],
        valid_rows: NDArray[np.int64],
        folder: Path,
        device: str = "cpu",
        init: Init = "random",
    ) -> None:
        self.config = config = config.resolved(len(data.labels))
        self.objective, self.ranks = config.objective, Ranks.current()
        self.train_rows, self.valid_rows, self.folder = train_rows, valid_rows, folder
        self.device = torch.device(device)
        seed = config.ensemble.seed + member
        torch.manual_seed(seed)
        self.network = self._build(data, init)
        self.average = self._build(data, "random")
        sampler = BatchSampler(train_rows, config.optimization.batch_size, seed)
        self.on_volumes = data.images.ndim == 5
        labels = data.masks if self.objective.on_masks and data.masks is not None else standardized
        varied = self._volume_variation(len(data.targets)) if self.on_volumes else config.augmentation
        self.batches = Batches(data.images, labels, sampler, varied, self.ranks.share())
        self.iteration, self.history = 0, list[dict[str, float]]()
        if config.network.probe_first and init != "random":
            self._fit_head(standardized)
        self.model = self.ranks.wrap(self.network, self.device)  # all processes get the weights of the first
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = make_optimizer(self.network, config.optimization)
        self.best = BestWeights(copy_of(self.average))
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = Checkpoint(folder / "checkpoint.pt", self.device, self._identity(data.targets))
        self._resume()

    def run(self, progress: Progress | None = None, stop_at: int | None = None) -> dict[str, Tensor]:
        """Train to the end and return the weights that are kept.

        Args:
            progress: called after every iteration.
            stop_at: iteration to stop at, for tests.

        Raises:
            RunError: the loss is not finite, or a checkpoint cannot be written.
        """
        settings = self.config.optimization
        last, losses = settings.iterations if stop_at is None else stop_at, list[float]()
        log = TensorBoardLog(self.folder)
        if self.iteration == 0 and self.config.network.probe_first:
            self._offer()
        try:
            while self.iteration < last and not self.is_done:
                loss = self._step()
                losses.append(loss)
                self.iteration += 1
                if self.iteration % self.config.validation.every == 0 or self.iteration == settings.iterations:
                    loss = float(np.mean(losses))
                    losses.clear()
                    self._validate(loss)
                    if self.ranks.is_first:
                        self.save()
                        log.write(self.history[-1])
                if progress is not None and self.ranks.is_first:
                    progress(self.iteration, settings.iterations, loss, self.best.value)
        finally:
            log.close()
            self.batches.close()
            self.ranks.wait()
        if self.is_done and self.ranks.is_first:
            self._keep_weights()
        return self.best.weights

    @property
    def is_done(self) -> bool:
        """Whether all iterations are done, or validation has not improved within the patience."""
        validation = self.config.validation
        waited = (self.iteration - self.best.iteration) / max(1, validation.every)
        impatient = validation.patience > 0 and self.valid_rows.size > 0 and waited >= validation.patience
        over = self.iteration >= self.config.optimization.iterations
        return over or (impatient and self.objective.is_settled(self.iteration))

    # -- one iteration ---------------------------------------------------------------------------------------------

    def _step(self) -> float:
        """One optimizer step; returns the loss."""
        images, labels = (torch.from_numpy(part).to(self.device) for part in self.batches.take(self.iteration))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.config.optimization, self.iteration)
        self.network.train()
        outputs = self._forward(self.model, images)
        loss = self.objective.loss(outputs, labels, self.iteration, self.ranks.label_count(labels))
        value = self.ranks.mean(loss.detach())
        if not math.isfinite(value):
            raise RunError(
                f"the loss became {value} at iteration {self.iteration}; the last good checkpoint is kept. "
                "Lower `learning_rate`, lengthen the warm-up, or check the labels for extreme values"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.optimization.gradient_clip > 0:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimization.gradient_clip)
        self.optimizer.step()
        update_average(self.average, self.network, self.config.validation.average_decay, self.iteration)
        return value

    def _forward(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """(N, channels, ...) to the outputs of the network, or of a part of it, in float32."""
        scaled = self.config.network.scaling.apply(images)
        if self.device.type == "cuda":
            scaled = scaled.contiguous(memory_format=channels_last_of(scaled.ndim))
        half = self.config.numerics.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            outputs = network(scaled)
        return outputs.float()

    # -- one validation --------------------------------------------------------------------------------------------

    def _validate(self, train_loss: float) -> None:
        """Evaluate the averaged network, keep it if it is the best, and record the curves."""
        some = range(batches_to_recalibrate(self.train_rows.size, self.config.optimization))
        whole = (torch.from_numpy(self.batches.read(k, whole=True)[0]).to(self.device) for k in some)
        recalibrate(self.average, whole, self._forward)
        first = self.objective.measures[0]
        fewest = MIN_JUDGED_VOLUMES if self.on_volumes else MIN_JUDGED
        learned = self._judge(self.train_rows[: max(fewest, self.valid_rows.size)])
        judged = self._offer()
        self.history.append(
            {
                "iteration": self.iteration,
                "learning_rate": learning_rate_at(self.config.optimization, self.iteration),
                "train_loss": train_loss,
                f"train_{first}": learned[first],
            }
            | {f"valid_{name}": judged[name] for name in self.objective.measures}
        )

    def _offer(self) -> dict[str, float]:
        """Judge the averaged network on the validation rows, and keep it if it is the best."""
        first, judged = self.objective.measures[0], self._judge(self.valid_rows)
        # all processes stop at the same iteration
        judged[first] = self.ranks.mean(torch.tensor(judged[first], device=self.device))
        self.best.offer(self.average, judged[first], self.iteration)
        return judged

    def _judge(self, rows: NDArray[np.int64]) -> dict[str, float]:
        """The objective's measures of the averaged network on some rows, without augmentation; NaN without rows."""
        if not rows.size:
            return dict.fromkeys(self.objective.measures, math.nan)
        rows = np.sort(rows)
        return self.objective.judge(self.predict(rows), torch.from_numpy(self.batches.labels[rows]))

    @torch.inference_mode()
    def predict(self, rows: NDArray[np.int64]) -> Tensor:
        """Outputs of the averaged network, on the CPU: (rows, ...)."""
        return self._over(self.average.eval(), rows)

    def _over(self, network: Callable[[Tensor], Tensor], rows: NDArray[np.int64]) -> Tensor:
        """Outputs of a network or a part of it for rows in rising order, a few at a time, on the CPU."""
        at_once = VOLUMES_AT_ONCE if self.on_volumes else JUDGED_AT_ONCE
        outputs = [
            self._forward(network, torch.from_numpy(np.asarray(self.batches.images[part])).to(self.device)).cpu()
            for part in np.array_split(np.sort(rows), max(1, math.ceil(rows.size / at_once)))
        ]
        return torch.cat(outputs)

    @torch.inference_mode()
    def _fit_head(self, standardized: NDArray[np.float32]) -> None:
        """Start from a head that fits the frozen features of the training rows."""
        network: Any = self.network.eval()
        found = self._over(network.encode, self.train_rows).numpy()
        labels = standardized[np.sort(self.train_rows)]
        fit_head(self.network, found, labels, classes=not self.objective.standardizes)

    # -- state -----------------------------------------------------------------------------------------------------

    def _build(self, data: LabelledImages, init: Init) -> nn.Module:
        shape = data.images.shape[1:]
        network = self.objective.build_network(self.config.network.backbone, len(data.targets), init, shape)
        layout = channels_last_of(data.images.ndim) if self.device.type == "cuda" else torch.contiguous_format
        return network.to(self.device, memory_format=layout)  # type: ignore[no-any-return]

    def _volume_variation(self, n_targets: int) -> VolumeVariation:
        kind, objective = self.config.augmentation.volumes, self.objective
        patches = {"patch": objective.patch, "foreground": objective.foreground} if objective.on_masks else {}  # type: ignore[attr-defined]
        return VolumeVariation(
            spatial=kind in ("spatial", "all"), intensity=kind in ("intensity", "all"),
            mirror=not objective.on_masks or n_targets == 1, **patches,
        )  # fmt: skip

    def _identity(self, targets: tuple[str, ...]) -> str:
        rows = [len(self.train_rows), len(self.valid_rows)]
        facts = {"targets": targets, "rows": rows, "training_version": TRAINING_VERSION}
        return json.dumps(self.config.flat() | facts, sort_keys=True)

    def save(self) -> None:
        """Write the checkpoint.

        Raises:
            RunError: it cannot be written.
        """
        parts = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimizer")}
        own = {"iteration": self.iteration, "history": self.history, "best": vars(self.best)}
        self.checkpoint.save(parts | own)

    def _resume(self) -> None:
        state: dict[str, Any] | None = self.checkpoint.load()
        if state is None:
            return
        for name in ("network", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.iteration, self.history, self.best = state["iteration"], state["history"], BestWeights(**state["best"])

    def _keep_weights(self) -> None:
        """Write the best and the last weights next to the checkpoint, as safetensors."""
        for name, state in (("best", self.best.weights), ("last", self.average.state_dict())):
            plain = {k: v.detach().cpu().contiguous() for k, v in state.items()}
            atomic_write_bytes(self.folder / f"{name}.safetensors", to_bytes(plain))
