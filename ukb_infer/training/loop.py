"""The training loop of one member, resumable to the last bit on a CPU (floor 4)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ukb_infer.errors import RunError
from ukb_infer.networks import MeanVarianceNetwork, build_network
from ukb_infer.networks.build import Init
from ukb_infer.regression.losses import gaussian_nll, masked_mse
from ukb_infer.storage import atomic_path, atomic_write_bytes, atomic_write_text
from ukb_infer.training.config import TrainConfig
from ukb_infer.training.dataset import BatchSampler, Draws, LabelledProjections, augment
from ukb_infer.training.distributed import Ranks

Progress = Callable[[int, int, float, float], None]
Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]

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
        layout = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        self.network: MeanVarianceNetwork = build_network(config.backbone, len(data.targets), init)
        self.network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.average: MeanVarianceNetwork = build_network(config.backbone, len(data.targets))
        self.average.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.average.load_state_dict(self.network.state_dict())
        self.ranks = Ranks.current()
        self.model = self.ranks.wrap(self.network, self.device)
        self._ahead: tuple[int, Future[Batch]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="batches")
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
        """Write the state, whole or not at all; a full disk leaves the one before."""
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
        try:
            with atomic_path(self.checkpoint) as partial:
                torch.save(state, partial)
            self._write_history()
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            reason = " ".join(str(error).split())[:160]
            raise RunError(
                f"{self.checkpoint}: cannot be written ({reason}); free space or restore access, then run the same "
                "command again: the checkpoint before is kept"
            ) from error

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        except Exception as error:
            raise RunError(
                f"{self.checkpoint}: cannot be read ({type(error).__name__}); remove it to train this member anew"
            ) from error
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
        buffer = io.StringIO()
        if self.history:
            writer = csv.DictWriter(buffer, list(self.history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.history)
        atomic_write_text(self.folder / "history.csv", buffer.getvalue())

    # -- steps ---------------------------------------------------------------------------------------------------

    def _read(self, iteration: int) -> Batch:
        """Augmented images and labels of one iteration: this process's share of the batch."""
        rows, rng = self.sampler.batch(iteration)
        rows = np.sort(rows)
        config = self.config
        draws = Draws.draw(rows.size, config.max_shift, config.intensity, config.flip, rng)
        share = self.ranks.share()
        images = np.asarray(self.data.images[rows[share]])
        return augment(images, draws.part(share)), self.standardized[rows[share]]

    def _batch(self) -> tuple[Tensor, Tensor]:
        """The batch of this iteration; the next is read by a thread meanwhile."""
        if self._ahead is not None and self._ahead[0] == self.iteration:
            images, labels = self._ahead[1].result()
        else:
            images, labels = self._read(self.iteration)
        self._ahead = (self.iteration + 1, self._reader.submit(self._read, self.iteration + 1))
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
        prediction = self._forward(self.model, images)
        count = self.ranks.label_count(labels)
        if self.iteration < self.config.warmup_mse:
            loss = masked_mse(prediction, labels, count=count)
        else:
            loss = gaussian_nll(prediction, labels, beta=self.config.beta, count=count)
        value = self.ranks.mean(loss.detach())
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
            for k in range(min(RECALIBRATION_BATCHES, self.config.iterations)):
                images, _ = self._read(k)
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
        if nll < self.best_nll or not self.valid_rows.size:  # without validation the last weights count
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
            RunError: the loss is not finite, or a checkpoint cannot be written.
        """
        last = self.config.iterations if stop_at is None else stop_at
        window: list[float] = []
        log = TensorBoardLog(self.folder)
        try:
            while self.iteration < last:
                window.append(self._step())
                self.iteration += 1
                if self.iteration % self.config.validate_every == 0 or self.iteration == self.config.iterations:
                    loss = float(np.mean(window))
                    window.clear()
                    self._validate(loss)
                    if self.ranks.is_first:
                        self._save()
                        log.write(self.history[-1])
                if progress is not None and self.ranks.is_first:
                    progress(self.iteration, self.config.iterations, window[-1] if window else loss, self.best_nll)
        finally:
            log.close()
            self._ahead = None
            self._reader.shutdown(cancel_futures=True)
            self.ranks.wait()
        self._keep_weights()
        self.average.load_state_dict(self.best)
        return self.average.eval()

    def _keep_weights(self) -> None:
        """Leave the best and the last weights beside the checkpoint, as safetensors."""
        if self.iteration < self.config.iterations or not self.ranks.is_first:
            return
        for name, state in (("best", self.best), ("last", self.average.state_dict())):
            plain = {k: v.detach().cpu().contiguous() for k, v in state.items()}
            atomic_write_bytes(self.folder / f"{name}.safetensors", to_bytes(plain))


class TensorBoardLog:
    """Learning curves for TensorBoard, where it is installed (extra ``train``).

    Args:
        folder: of the member; events go to ``tensorboard`` inside.
    """

    def __init__(self, folder: Path) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def write(self, values: dict[str, float]) -> None:
        """Add one point to every curve."""
        if self._writer is not None:
            for name, value in values.items():
                if name != "iteration":
                    self._writer.add_scalar(name, value, int(values["iteration"]))

    def close(self) -> None:
        """Flush."""
        if self._writer is not None:
            self._writer.close()
