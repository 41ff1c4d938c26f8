"""Probability of every 0/1 target, by cross-entropy."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ukb_infer.modules.manifest import Head
from ukb_infer.training.objectives.objective import Objective


class Classification(Objective):
    """Binary cross-entropy of the logits. The network's outputs are (N, T, 2), of which the second is not used.

    The members' probabilities are combined like means: their spread is the uncertainty of the ensemble's probability.
    """

    measures = ("cross_entropy", "brier")
    #: A confident wrong answer costs as much as this over a fair guess.
    overfitted = 1.0
    head: ClassVar[Head] = "class"
    standardizes: ClassVar[bool] = False
    name: Literal["classification"] = "classification"

    def loss(self, outputs: Tensor, labels: Tensor, iteration: int, count: Tensor | None = None) -> Tensor:
        """Cross-entropy, the mean over the labels present.

        Args:
            outputs: (N, T, 2).
            labels: (N, T) 0 or 1, NaN where missing.
            iteration: not used.
            count: divisor of the sum over the labels; None for their number.
        """
        del iteration
        present = torch.isfinite(labels)
        each = functional.binary_cross_entropy_with_logits(
            outputs[..., 0], torch.where(present, labels, 0.0), reduction="none"
        )
        return (each * present).sum() / (present.sum().clamp(min=1) if count is None else count)

    def judge(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Cross-entropy and mean squared error of the probability.

        Args:
            outputs: (N, T, 2).
            labels: (N, T) 0 or 1, NaN where missing.
        """
        present = torch.isfinite(labels)
        if not bool(present.any()):
            return dict.fromkeys(self.measures, math.nan)
        error = torch.sigmoid(outputs[..., 0]) - labels
        return {"cross_entropy": float(self.loss(outputs, labels, 0)), "brier": float(error[present].square().mean())}
