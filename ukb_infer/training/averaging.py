"""Which weights a member ends with: their moving average, its batch-norm statistics, and the best so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ukb_infer.training.config import Optimization

#: Batches over which batch-norm statistics are fitted before each validation, at most ...
RECALIBRATION_BATCHES = 30
#: ... and passes over the training scans, which is less where there are few.
RECALIBRATION_PASSES = 4


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, iteration: int) -> None:
    """Move the averaged weights towards the network's; a plain copy without decay.

    Args:
        average: changed in place.
        network: of the same form.
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
    """How many batches batch-norm statistics are fitted to.

    Args:
        scans: to learn from.
        settings: section of the configuration.
    """
    passes = RECALIBRATION_PASSES * math.ceil(scans / settings.batch_size)
    return min(RECALIBRATION_BATCHES, passes, settings.iterations)


def recalibrate(network: nn.Module, batches: Iterable[Tensor], forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Fit a network's batch-norm statistics to its own weights over some training batches.

    Running statistics lag behind weights that move and are averaged; without this the network in evaluation mode
    is another one than was trained.

    Args:
        network: changed in place, left in evaluation mode.
        batches: images, read only where there is something to fit.
        forward: gives the network its images as training does.
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
    """The weights that validated best; without validation the last ones.

    Attributes:
        weights: by name.
        value: what they scored, lower is better.
        iteration: after which they were taken.
    """

    weights: dict[str, Tensor]
    value: float = math.inf
    iteration: int = 0

    def offer(self, network: nn.Module, value: float, iteration: int) -> None:
        """Take a network's weights if they are better, or if nothing can be said (NaN).

        Args:
            network: that was validated.
            value: its score.
            iteration: after which it was.
        """
        if not value >= self.value:
            self.value, self.iteration, self.weights = value, iteration, copy_of(network)


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    """A network's weights and buffers, apart from it."""
    return {k: v.clone() for k, v in network.state_dict().items()}
