"""Mean and variance of every target, by the Gaussian negative log-likelihood."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from ukb_infer.errors import UsageError
from ukb_infer.regression.losses import gaussian_nll, masked_mse
from ukb_infer.training.objectives.objective import Objective


class Regression(Objective):
    """Mean-variance regression. The network's outputs are (N, T, 2): mean and raw log-variance.

    Attributes:
        beta: exponent of beta-NLL; 0 for the published loss.
        warmup_mse: initial iterations that train only the means.
    """

    measures = ("nll", "mse")
    #: At equal sd: squared errors on new scans exceed those on training scans by one predicted variance.
    overfitted = 1.0
    name: Literal["regression"] = "regression"
    beta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    warmup_mse: Annotated[int, Field(ge=0)] = 0

    def loss(self, outputs: Tensor, labels: Tensor, iteration: int, count: Tensor | None = None) -> Tensor:
        """Squared error of the means during warm-up, then (beta-)NLL.

        Args:
            outputs: (N, T, 2).
            labels: (N, T) standardized, NaN where missing.
            iteration: optimizer step from 0.
            count: divisor of the sum over the labels; None for their number.
        """
        if iteration < self.warmup_mse:
            return masked_mse(outputs, labels, count=count)
        return gaussian_nll(outputs, labels, beta=self.beta, count=count)

    def judge(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """NLL and mean squared error, in standardized units.

        Args:
            outputs: (N, T, 2).
            labels: (N, T) standardized, NaN where missing.
        """
        if not bool(torch.isfinite(labels).any()):
            return dict.fromkeys(self.measures, math.nan)
        return {"nll": float(gaussian_nll(outputs, labels)), "mse": float(masked_mse(outputs, labels))}

    def check(self, iterations: int) -> None:
        """Check that the warm-up ends."""
        if self.warmup_mse >= iterations:
            raise UsageError(field="warmup_mse", got=self.warmup_mse, expected=f"below `iterations` ({iterations})")

    def within(self, iterations: int) -> Self:
        """Limit the warm-up to a quarter of the iterations."""
        return self.model_copy(update={"warmup_mse": min(self.warmup_mse, iterations // 4)})

    def is_settled(self, iteration: int) -> bool:
        """After the warm-up."""
        return iteration > self.warmup_mse
