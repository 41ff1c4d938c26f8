"""Weights that a member keeps: moving average, batch-norm statistics, best so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ukb_infer.training.config import Optimization

#: Batches over which batch-norm statistics are fitted before each validation, at most ...
RECALIBRATION_BATCHES = 30
#: ... and passes over the training scans, which is fewer for small data.
RECALIBRATION_PASSES = 4


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, iteration: int) -> None:
    """Move the averaged weights towards the network's; a plain copy without decay.

    Args:
        average: changed in place.
        network: of the same architecture.
        decay: of the exponential moving average; smaller in the first iterations.
        iteration: from 0.
    """
    shortened = min(decay, (1.0 + iteration) / (10.0 + iteration))
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point and decay > 0:
            kept.lerp_(new, 1.0 - shortened)
        else:
            kept.copy_(new)


def batches_to_recalibrate(scans: int, settings: Optimization) -> int:
    """Number of batches to which batch-norm statistics are fitted.

    Args:
        scans: number of training scans.
        settings: section of the configuration.
    """
    passes = RECALIBRATION_PASSES * math.ceil(scans / settings.batch_size)
    return min(RECALIBRATION_BATCHES, passes, settings.iterations)


def recalibrate(network: nn.Module, batches: Iterable[Tensor], forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Fit a network's batch-norm statistics to its own weights over some training batches.

    Running statistics lag behind weights that change and are averaged; without this the network in evaluation mode
    would differ from the trained one.

    Args:
        network: changed in place, left in evaluation mode.
        batches: images, read only if there is batch norm.
        forward: runs the network on images as in training.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    with torch.inference_mode():
        for images in batches:
            forward(network, images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


@dataclass
class BestWeights:
    """The weights with the best validation; without validation the last ones.

    Attributes:
        weights: by name.
        value: their score, lower is better.
        iteration: of the weights.
    """

    weights: dict[str, Tensor]
    value: float = math.inf
    iteration: int = 0

    def offer(self, network: nn.Module, value: float, iteration: int) -> None:
        """Keep a network's weights if they are better, or if the score is NaN.

        Args:
            network: validated network.
            value: its score.
            iteration: of the validation.
        """
        if not value >= self.value:
            self.value, self.iteration, self.weights = value, iteration, copy_of(network)


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's weights and buffers."""
    return {k: v.clone() for k, v in network.state_dict().items()}
