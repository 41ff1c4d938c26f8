"""What every objective answers; the trainer knows nothing else about it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor

from ukb_infer.networks import MeanVarianceNetwork
from ukb_infer.networks.build import Init
from ukb_infer.training.settings import Section


class Objective(Section):
    """What a network is trained for. Its fields are the section ``objective`` of the configuration.

    Attributes:
        name: its key in the registry.
        measures: what validation computes, in the order of the columns of ``history.csv``. The first chooses the
            weights that are kept; lower is better.
        overfitted: how far the first measure may be worse on new scans than on learned ones, before a network is said
            to have learned by heart.
    """

    flat_names: ClassVar[Mapping[str, str]] = {"name": "objective"}
    measures: ClassVar[tuple[str, ...]]
    overfitted: ClassVar[float]
    name: str

    @abstractmethod
    def build_network(self, backbone: str, n_targets: int, init: Init = "random") -> MeanVarianceNetwork:
        """An untrained network with the head of this objective.

        Args:
            backbone: key of the backbone registry.
            n_targets: T.
            init: initial weights.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor, iteration: int, count: Tensor | None = None) -> Tensor:
        """What is minimized, a scalar.

        Args:
            outputs: (N, ...) of the network.
            labels: (N, T) standardized, NaN where missing.
            iteration: optimizer step from 0.
            count: what the sum over the labels is divided by, where other processes hold the rest of the batch.
        """

    @abstractmethod
    def judge(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """The measures by name; NaN where no scan has a label.

        Args:
            outputs: (N, ...) of the network in evaluation.
            labels: (N, T) standardized, NaN where missing.
        """

    def check(self, iterations: int) -> None:
        """Refuse settings that contradict the number of iterations.

        Raises:
            UsageError: names the setting.
        """

    def within(self, iterations: int) -> Self:
        """The objective with its phases shortened to what a training of so many iterations leaves them."""
        del iterations
        return self

    def is_settled(self, iteration: int) -> bool:
        """Whether the loss is by now the one that validation judges, so that a member may stop early."""
        del iteration
        return True
