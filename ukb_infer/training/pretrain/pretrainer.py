"""The loop of pretraining; on a CPU, resuming is bit-identical."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ukb_infer.errors import RunError
from ukb_infer.training.averaging import BestWeights, copy_of
from ukb_infer.training.checkpoint import Checkpoint
from ukb_infer.training.distributed import Ranks
from ukb_infer.training.history import TensorBoardLog
from ukb_infer.training.objectives.unlabelled import PretrainingNetwork, Views
from ukb_infer.training.optimizer import learning_rate_at, make_optimizer
from ukb_infer.training.pretrain.batches import ViewBatches
from ukb_infer.training.pretrain.config import PretrainConfig
from ukb_infer.training.pretrain.pictures import save_picture
from ukb_infer.training.pretrain.pool import Pool

#: Steps done, of how many, loss, best validation loss.
Progress = Callable[[int, int, float, float], None]
#: Pictures of one pretraining.
PICTURES = 10


class Pretrainer:
    """Pretrains an encoder, or goes on from its checkpoint.

    Args:
        config: of the pretraining.
        pool: images.
        train: rows to learn from.
        valid: rows that validate (may be empty).
        folder: of checkpoint.pt, history.csv and pictures; exists.
        device: torch device.
        threads: CPU threads.

    Attributes:
        step: optimizer steps done.
        network: being trained.
        best: weights that validate best; without validation the last ones.
        history: one row per validation.
    """

    def __init__(
        self,
        config: PretrainConfig,
        pool: Pool,
        train: NDArray[np.int64],
        valid: NDArray[np.int64],
        folder: Path,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        self.config, self.folder, self.ranks = config, folder, Ranks.current()
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        self.network: PretrainingNetwork = config.objective.build_network(config.spec).to(self.device)
        if self.device.type == "cuda":
            layout = torch.channels_last_3d if config.dim == 3 else torch.channels_last
            self.network.to(memory_format=layout)
        torch.manual_seed(config.seed + self.ranks.rank)
        self.model = self.ranks.wrap(self.network, self.device)
        self.optimizer = make_optimizer(self.network, config.optimization)
        self.batches = ViewBatches(pool, train, valid, config, self.device, threads)
        self.step, self.history = 0, list[dict[str, float]]()
        self.best = BestWeights(copy_of(self.network))
        identity = json.dumps([config.model_dump(mode="json"), len(train), len(valid)], sort_keys=True)
        self.checkpoint = Checkpoint(folder / "checkpoint.pt", self.device, identity)
        self._resume()

    def run(self, progress: Progress | None = None, stop_at: int | None = None) -> None:
        """Train to the end; then the network has the best weights.

        Args:
            progress: called after every step.
            stop_at: step to stop at, for tests.

        Raises:
            RunError: the loss is not finite, or a checkpoint cannot be written.
        """
        steps = self.config.optimization.iterations
        last, seen = steps if stop_at is None else stop_at, list[dict[str, float]]()
        log = TensorBoardLog(self.folder) if self.ranks.is_first else None
        try:
            while self.step < last:
                terms = self._step()
                seen.append(terms)
                self.step += 1
                if self.step % self.config.every == 0 or self.step == steps:
                    self._validate(seen)
                    seen.clear()
                    if log is not None:
                        self.save()
                        log.write(self.history[-1])
                if progress is not None and self.ranks.is_first:
                    progress(self.step, steps, terms["loss"], self.best.value)
        finally:
            if log is not None:
                log.close()
            self.batches.close()
        if self.step == steps:
            self.network.load_state_dict(self.best.weights)

    def _step(self) -> dict[str, float]:
        """One optimizer step; returns the terms of the loss."""
        settings, views = self.config.optimization, self.batches.take(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(settings, self.step)
        self.network.train()
        terms = self._terms(self.model, views)[0]
        loss = torch.stack(list(terms.values())).sum()
        found = {name: self.ranks.mean(value.detach()) for name, value in (terms | {"loss": loss}).items()}
        if not math.isfinite(found["loss"]):
            raise RunError(
                f"the loss became {found['loss']} at step {self.step}; the last good checkpoint is kept. Lower "
                "`learning_rate` and start again in another folder"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if settings.gradient_clip > 0:
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.gradient_clip)
        self.optimizer.step()
        return found

    def _terms(self, model: nn.Module, views: Views) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms of the loss and outputs of the network for a batch."""
        half = self.config.numerics.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            outputs: dict[str, Tensor] = model(views.inputs)
        progress = self.step / self.config.optimization.iterations
        return self.config.objective.terms(outputs, views, progress), outputs

    @torch.inference_mode()
    def _validate(self, seen: list[dict[str, float]]) -> None:
        """Judge the network on the validation images, keep it if it is the best, record the curves."""
        self.network.eval()
        judged, weights, shown = list[float](), list[int](), False
        for views in self.batches.validation():
            terms, outputs = self._terms(self.network, views)
            judged.append(float(torch.stack(list(terms.values())).sum()))
            weights.append(views.inputs.shape[1])
            if not shown:
                shown = self._picture(views, outputs)
        valid = float(np.average(judged, weights=weights)) if judged else math.nan
        self.best.offer(self.network, valid, self.step)
        means = {name: float(np.mean([terms[name] for terms in seen])) for name in seen[0]}
        row = {
            "iteration": float(self.step),
            "learning_rate": learning_rate_at(self.config.optimization, self.step - 1),
        }
        self.history.append(
            row | {"train_loss": means.pop("loss"), "valid_loss": valid} | {f"train_{k}": v for k, v in means.items()}
        )

    def _picture(self, views: Views, outputs: dict[str, Tensor]) -> bool:
        """Save a picture now and then; True."""
        validations = math.ceil(self.config.optimization.iterations / self.config.every)
        due = (
            len(self.history) % max(1, validations // PICTURES) == 0 or self.step == self.config.optimization.iterations
        )
        if due and self.ranks.is_first and "reconstruction" in outputs:
            save_picture(self.folder / "pictures" / f"step{self.step:06d}.png", views, outputs["reconstruction"])
        return True

    def save(self) -> None:
        """Write the checkpoint.

        Raises:
            RunError: it cannot be written.
        """
        parts = {name: getattr(self, name).state_dict() for name in ("network", "optimizer")}
        self.checkpoint.save(parts | {"iteration": self.step, "history": self.history, "best": vars(self.best)})

    def _resume(self) -> None:
        state: dict[str, Any] | None = self.checkpoint.load()
        if state is None:
            return
        for name in ("network", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.history, self.best = state["iteration"], state["history"], BestWeights(**state["best"])


@contextmanager
def borrowed_torch(threads: int, device: str) -> Iterator[None]:
    """Set the threads and generators for a pretraining; restore the caller's afterwards.

    Args:
        threads: of this process on a CPU.
        device: of the pretraining.
    """
    before = torch.get_num_threads()
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
