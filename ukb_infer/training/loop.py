"""The training loop of one member, resumable to the last bit on a CPU (floor 4)."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ukb_infer.errors import RunError
from ukb_infer.networks import MeanVarianceNetwork, build_network
from ukb_infer.networks.build import Init
from ukb_infer.regression.losses import gaussian_nll, masked_mse
from ukb_infer.storage import atomic_path, atomic_write_text
from ukb_infer.training.config import TrainConfig
from ukb_infer.training.dataset import BatchSampler, LabelledProjections, translate

Progress = Callable[[int, int, float, float], None]

#: Batches over which batch-norm statistics are fitted before each validation.
RECALIBRATION_BATCHES = 30


def learning_rate_at(config: TrainConfig, iteration: int) -> float:
    """Learning rate of one iteration: published step, or one cycle (10 % linear warm-up, cosine to 0.5 %)."""
    if config.schedule == "step":
        return config.learning_rate * (0.1 if iteration >= config.drop_at else 1.0)
    warm = max(1, config.iterations // 10)
    if iteration < warm:
        return config.learning_rate * (0.05 + 0.95 * iteration / warm)
    share = (iteration - warm) / max(1, config.iterations - warm)
    return config.learning_rate * (0.005 + 0.995 * 0.5 * (1.0 + math.cos(math.pi * share)))


class MemberTrainer:
    """Trains one member; ``state`` is everything needed to go on.

    Args:
        config: how.
        member: number of the member from 0; its seed is ``config.seed + member``.
        data: projections and labels.
        standardized: (N, T) float32 standardized labels.
        train_rows: rows to learn from.
        valid_rows: rows to validate on (may be empty).
        folder: where checkpoint.pt and history.csv go.
        device: torch device.
        init: initial weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        member: int,
        data: LabelledProjections,
        standardized: NDArray[np.float32],
        train_rows: NDArray[np.int64],
        valid_rows: NDArray[np.int64],
        folder: Path,
        device: str = "cpu",
        init: Init = "random",
    ) -> None:
        self.config, self.data, self.standardized = config, data, standardized
        self.train_rows, self.valid_rows, self.folder = train_rows, valid_rows, folder
        self.device = torch.device(device)
        torch.manual_seed(config.seed + member)
        self.network = build_network(config.backbone, len(data.targets), init).to(self.device)
        self.average = build_network(config.backbone, len(data.targets)).to(self.device)
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = self._make_optimizer()
        self.sampler = BatchSampler(train_rows, config.batch_size, config.seed + member)
        self.iteration, self.best_nll = 0, math.inf
        self.best: dict[str, Tensor] = {k: v.clone() for k, v in self.average.state_dict().items()}
        self.history: list[dict[str, float]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    # -- state ---------------------------------------------------------------------------------------------------

    def _make_optimizer(self) -> torch.optim.Optimizer:
        kind = torch.optim.AdamW if self.config.optimizer == "adamw" else torch.optim.Adam
        return kind(self.network.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay)

    @property
    def checkpoint(self) -> Path:
        """File with the state."""
        return self.folder / "checkpoint.pt"

    def _identity(self) -> str:
        plain = asdict(self.config) | {
            "targets": self.data.targets,
            "rows": [len(self.train_rows), len(self.valid_rows)],
        }
        return repr(plain)

    def _save(self) -> None:
        state = {
            "identity": self._identity(),
            "iteration": self.iteration,
            "best_nll": self.best_nll,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "history": self.history,
        }
        with atomic_path(self.checkpoint) as partial:
            torch.save(state, partial)
        self._write_history()

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state: dict[str, Any] = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["identity"] != self._identity():
            raise RunError(
                f"{self.checkpoint.name} in the work folder was made with other settings or data; "
                "use another folder or remove it"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration, self.best_nll, self.best = state["iteration"], state["best_nll"], state["best"]
        self.history = state["history"]
        torch.set_rng_state(state["rng"].cpu())

    def _write_history(self) -> None:
        import io

        buffer = io.StringIO()
        if self.history:
            writer = csv.DictWriter(buffer, list(self.history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.history)
        atomic_write_text(self.folder / "history.csv", buffer.getvalue())

    # -- steps ---------------------------------------------------------------------------------------------------

    def _batch(self) -> tuple[Tensor, Tensor]:
        rows, rng = self.sampler.batch(self.iteration)
        images = translate(np.asarray(self.data.images[np.sort(rows)]), self.config.max_shift, rng)
        labels = self.standardized[np.sort(rows)]
        return torch.from_numpy(images).to(self.device), torch.from_numpy(labels).to(self.device)

    def _forward(self, network: nn.Module, images: Tensor) -> Tensor:
        scaled = self.config.scaling.apply(images)
        if self.device.type == "cuda":
            scaled = scaled.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            output: Tensor = network(scaled)
        return output.float()

    def _step(self) -> float:
        images, labels = self._batch()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.config, self.iteration)
        self.network.train()
        prediction = self._forward(self.network, images)
        if self.iteration < self.config.warmup_mse:
            loss = masked_mse(prediction, labels)
        else:
            loss = gaussian_nll(prediction, labels, beta=self.config.beta)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RunError(
                f"the loss became {value} at iteration {self.iteration}; the last good checkpoint is kept. "
                "Lower --learning-rate, lengthen --warmup-mse, or check the labels for extreme values"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.gradient_clip > 0:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self._update_average()
        return value

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average_decay, (1.0 + self.iteration) / (10.0 + self.iteration))
        for kept, new in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point and self.config.average_decay > 0:
                kept.lerp_(new, 1.0 - decay)
            else:
                kept.copy_(new)

    @torch.inference_mode()
    def predict(self, rows: NDArray[np.int64], weights: dict[str, Tensor] | None = None) -> NDArray[np.float32]:
        """Standardized (rows, T, 2) of the averaged network, or of given weights."""
        if weights is not None:
            self.average.load_state_dict(weights)
        self.average.eval()
        outputs = [
            self._forward(self.average, torch.from_numpy(np.asarray(self.data.images[part])).to(self.device)).cpu()
            for part in np.array_split(np.sort(rows), max(1, math.ceil(rows.size / 64)))
        ]
        return np.asarray(torch.cat(outputs).numpy(), np.float32)

    def _recalibrate(self) -> None:
        """Fit the averaged network's batch-norm statistics to its own weights over some training batches.

        Running statistics lag behind weights that move and are averaged; without this the network in evaluation mode
        is another one than was trained.
        """
        norms = [m for m in self.average.modules() if isinstance(m, nn.BatchNorm2d)]
        if not norms:
            return
        momenta = [m.momentum for m in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        self.average.train()
        with torch.inference_mode():
            for k in range(RECALIBRATION_BATCHES):
                rows, rng = self.sampler.batch(k)
                images = translate(np.asarray(self.data.images[np.sort(rows)]), self.config.max_shift, rng)
                self._forward(self.average, torch.from_numpy(images).to(self.device))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.average.eval()

    def _validate(self, train_loss: float) -> None:
        self._recalibrate()
        if self.valid_rows.size:
            prediction = torch.from_numpy(self.predict(self.valid_rows))
            labels = torch.from_numpy(self.standardized[np.sort(self.valid_rows)])
            nll = float(gaussian_nll(prediction, labels))
            mse = float(masked_mse(prediction, labels))
        else:
            nll, mse = train_loss, math.nan
        if nll < self.best_nll:
            self.best_nll = nll
            self.best = {k: v.clone() for k, v in self.average.state_dict().items()}
        self.history.append(
            {
                "iteration": self.iteration,
                "learning_rate": learning_rate_at(self.config, self.iteration),
                "train_loss": train_loss,
                "valid_nll": nll,
                "valid_mse": mse,
            }
        )

    def run(self, progress: Progress | None = None, stop_at: int | None = None) -> MeanVarianceNetwork:
        """Train to the end, or to ``stop_at`` for tests, and return the network with the best validation NLL.

        Raises:
            RunError: the loss is not finite.
        """
        last = self.config.iterations if stop_at is None else stop_at
        window: list[float] = []
        while self.iteration < last:
            window.append(self._step())
            self.iteration += 1
            if self.iteration % self.config.validate_every == 0 or self.iteration == self.config.iterations:
                loss = float(np.mean(window))
                window.clear()
                self._validate(loss)
                self._save()
                if progress is not None:
                    progress(self.iteration, self.config.iterations, loss, self.best_nll)
        self.average.load_state_dict(self.best)
        return self.average.eval()
