"""Several processes for one member, with torch's DistributedDataParallel and torchrun."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among those that train together (usually one).

    Attributes:
        rank: number of this process from 0.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """From the process group; a single process if there is none."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self) -> slice:
        """This process's part of a batch."""
        return slice(self.rank, None, self.world)

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Wrap a network so that gradients and batch statistics are those of the whole batch.

        Its parameters and buffers stay those of ``network``.

        Args:
            network: on its device.
            device: of this process.
        """
        if self.world == 1:
            return network
        synchronize_batch_norm(network)
        return nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def label_count(self, labels: Tensor) -> Tensor | None:
        """Number of labels in the whole batch, so that averaged gradients equal those of a single process."""
        if self.world == 1:
            return None
        count = torch.isfinite(labels).sum().to(torch.float32)
        distributed.all_reduce(count)
        return count.clamp(min=1) / self.world

    def mean(self, value: Tensor) -> float:
        """Mean over the processes."""
        if self.world > 1:
            value = value.clone()
            distributed.all_reduce(value)
            value /= self.world
        return float(value)

    def wait(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            distributed.barrier()


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, on any device.

    torch's own ``SyncBatchNorm`` does the same on CUDA only. Sums travel in float32 by one differentiable all-reduce.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, rows, cols) -> the same, normalized by the statistics of the whole batch while training."""
        if not self.training:
            return super().forward(images)
        values = images.float()
        own = torch.cat(
            [values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), values.new_tensor([values[:, 0].numel()])]
        )
        total = cast(Tensor, all_reduce(own))  # type: ignore[no-untyped-call]
        count = total[-1]
        mean, square = (total[:-1] / count).chunk(2)
        variance = (square - mean.square()).clamp(min=0.0)
        self._track(mean.detach(), (variance * count / (count - 1)).detach())
        shape = (1, -1, 1, 1)
        normal = (values - mean.view(shape)) * torch.rsqrt(variance.view(shape) + self.eps)
        return (normal * self.weight.view(shape) + self.bias.view(shape)).to(images.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics with the unbiased variance, as torch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def synchronize_batch_norm(network: nn.Module) -> None:
    """Replace every batch norm by a synchronized one with the same parameters and statistics.

    Args:
        network: changed in place; the names in its state dict stay.
    """
    for name, child in network.named_children():
        if type(child) is nn.BatchNorm2d:
            twin = SynchronizedBatchNorm(child.num_features, child.eps, child.momentum)
            twin.weight, twin.bias = child.weight, child.bias
            twin.running_mean, twin.running_var = child.running_mean, child.running_var
            twin.num_batches_tracked = child.num_batches_tracked
            setattr(network, name, twin)
        else:
            synchronize_batch_norm(child)


def start_ranks(device: str) -> str:
    """Join the processes that torchrun started, if it did.

    Args:
        device: ``cpu`` or ``cuda``.

    Returns:
        Device of this process: with torchrun each takes its own GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 or distributed.is_initialized():
        return device
    if device.startswith("cuda"):
        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(local)
        distributed.init_process_group("nccl")
        return f"cuda:{local}"
    distributed.init_process_group("gloo")
    return device


def stop_ranks() -> None:
    """Leave the process group."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
