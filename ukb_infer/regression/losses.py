"""Losses of mean-variance regression."""

from __future__ import annotations

import torch
from torch import Tensor

from ukb_infer.regression.log_variance import CENTRE, HALF_RANGE


def log_variance(raw: Tensor) -> Tensor:
    """Bounded log-variance of raw outputs (any shape): the rule of :mod:`ukb_infer.regression.log_variance`."""
    z = (raw - CENTRE) / HALF_RANGE
    return CENTRE + HALF_RANGE * z * torch.rsqrt(1.0 + z.square())


def gaussian_nll(
    prediction: Tensor, target: Tensor, *, beta: float = 0.0, count: Tensor | float | None = None
) -> Tensor:
    """Masked Gaussian negative log-likelihood ``exp(-s) (y - mu)^2 + s`` (Kendall & Gal 2017; as published).

    ``s`` is the bounded log-variance of the raw output, as at inference.

    Args:
        prediction: (N, T, 2) mean and raw log-variance, standardized units.
        target: (N, T) standardized labels; NaN where missing.
        beta: weight each term by its variance to the power beta (beta-NLL, Seitzer et al. 2022); 0 for the plain loss.
        count: divisor of the sum, if this batch has only part of the labels (several processes).

    Returns:
        Mean over the labels present; 0 if there are none.
    """
    mean, s = prediction[..., 0], log_variance(prediction[..., 1])
    present = torch.isfinite(target)
    residual = torch.where(present, target, mean.detach()) - mean
    loss = torch.exp(-s) * residual.square() + s
    if beta > 0.0:
        loss = loss * torch.exp(beta * s).detach()
    return (loss * present).sum() / (present.sum().clamp(min=1) if count is None else count)


def masked_mse(prediction: Tensor, target: Tensor, *, count: Tensor | float | None = None) -> Tensor:
    """Masked mean squared error of the means; used as a warm-up before the variances are learned.

    Args:
        prediction: (N, T, 2).
        target: (N, T), NaN where missing.
        count: as in :func:`gaussian_nll`.
    """
    mean = prediction[..., 0]
    present = torch.isfinite(target)
    residual = torch.where(present, target, mean.detach()) - mean
    return (residual.square() * present).sum() / (present.sum().clamp(min=1) if count is None else count)
