"""The interface of objectives; the trainer knows nothing else about them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from torch import Tensor

from ukb_infer.modules.manifest import Head
from ukb_infer.networks import build_network
from ukb_infer.networks.build import PROJECTION, Init
from ukb_infer.training.settings import Section


class Objective(Section):
    """A training objective. Its fields are the section ``objective`` of the configuration.

    Attributes:
        name: its key in the registry.
        measures: measures of validation, in the order of the columns of ``history.csv``. The first selects the
            weights; lower is better.
        overfitted: largest amount by which the first measure may be worse on new scans than on training scans before
            a network counts as overfitted.
        on_masks: whether it learns from a label per voxel, (N, x, y, z) uint8, instead of (N, T) numbers.
        head: what modules call the head.
        standardizes: whether it learns labels in standardized units, instead of as they are.
    """

    flat_names: ClassVar[Mapping[str, str]] = {"name": "objective"}
    measures: ClassVar[tuple[str, ...]]
    overfitted: ClassVar[float]
    on_masks: ClassVar[bool] = False
    head: ClassVar[Head] = "mean-variance"
    standardizes: ClassVar[bool] = True
    name: str

    def build_network(
        self, backbone: str, n_targets: int, init: Init = "random", shape: Sequence[int] = PROJECTION
    ) -> Any:
        """An untrained network with the head of this objective: two numbers for every target.

        Args:
            backbone: key of the backbone registry.
            n_targets: T.
            init: initial weights.
            shape: (channels, ...) of an image.
        """
        return build_network(backbone, n_targets, init, shape)

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor, iteration: int, count: Tensor | None = None) -> Tensor:
        """The loss to minimize, a scalar.

        Args:
            outputs: (N, ...) of the network.
            labels: (N, T) standardized, NaN where missing; or masks.
            iteration: optimizer step from 0.
            count: divisor of the sum over the labels, if other processes have the rest of the batch.
        """

    @abstractmethod
    def judge(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """The measures by name; NaN if no scan has a label.

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
        """The objective with its phases shortened to fit a number of iterations."""
        del iterations
        return self

    def is_settled(self, iteration: int) -> bool:
        """Whether the loss is now the one used in validation, so that a member may stop early."""
        del iteration
        return True
