"""A training of a few iterations on made-up pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ukb_infer.training.config import TrainConfig, make_config
from ukb_infer.training.dataset import LabelledImages
from ukb_infer.training.ensemble import Standardization
from ukb_infer.training.trainer import Trainer


def make_data(count: int = 24) -> LabelledImages:
    """Bright squares whose size and place are the labels; some labels are missing."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 3, 256, 256), np.uint8)
    labels = rng.uniform(20, 90, (count, 2))
    for k, (size, place) in enumerate(labels):
        images[k, :, int(place) : int(place + size), 60 : int(60 + size)] = 200
    labels[::5, 1] = np.nan
    return LabelledImages(images, labels, np.array([f"p{k // 2}" for k in range(count)]), ("weight", "waist"))


def small_config(**changes: object) -> TrainConfig:
    """A short training."""
    return make_config(
        "fast",
        iterations=12,
        batch_size=6,
        validate_every=4,
        warmup_mse=3,
        members=1,
        **changes,  # type: ignore[arg-type]
    )


def make_trainer(folder: Path, data: LabelledImages, config: TrainConfig) -> Trainer:
    """Of one member."""
    standardized = Standardization.fit(data.labels, data.targets).apply(data.labels)
    return Trainer(config, 0, data, standardized, np.arange(18), np.arange(18, 24), folder)
