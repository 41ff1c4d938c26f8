"""The optimizer and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from ukb_infer.training.config import Optimization


def make_optimizer(network: nn.Module, settings: Optimization) -> torch.optim.Optimizer:
    """Adam or AdamW over all trainable parameters; weight decay skips norms and biases.

    Args:
        network: to train.
        settings: section of the configuration.
    """
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return kind([g for g in groups if g["params"]], lr=settings.learning_rate)


def learning_rate_at(settings: Optimization, iteration: int) -> float:
    """Learning rate of one iteration: published step, or one cycle (10 % linear warm-up, cosine to 0.5 %).

    Args:
        settings: section of the configuration.
        iteration: from 0.
    """
    if settings.schedule == "step":
        return settings.learning_rate * (0.1 if iteration >= settings.drop_at else 1.0)
    warm = max(1, settings.iterations // 10)
    if iteration < warm:
        return settings.learning_rate * (0.05 + 0.95 * iteration / warm)
    share = (iteration - warm) / max(1, settings.iterations - warm)
    return settings.learning_rate * (0.005 + 0.995 * 0.5 * (1.0 + math.cos(math.pi * share)))
