"""Several processes on one member, by torch's own DistributedDataParallel started with torchrun (floor 4)."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; one process is the usual case.

    Attributes:
        rank: number of this process from 0.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """As the process group says; a lonely process where there is none."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self) -> slice:
        """Which scans of a batch are this process's."""
        return slice(self.rank, None, self.world)

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network whose gradients are averaged over the processes; its parameters stay those of ``network``."""
        if self.world == 1:
            return network
        return nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def label_count(self, labels: Tensor) -> Tensor | None:
        """Labels present in the whole batch over the processes, so that averaged gradients are those of one process."""
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
