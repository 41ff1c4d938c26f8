"""Training on volumes: every objective, resuming to the last bit, image and mask varied alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.heads import SIZE, make_volumes
from ukb_infer.training.config import TrainConfig, make_config
from ukb_infer.training.trainer import Trainer
from ukb_infer.training.variation import VolumeVariation

NAMES = ("regression", "classification", "segmentation")


def volume_config(name: str, **changes: object) -> TrainConfig:
    given = {"iterations": 6, "batch_size": 4, "validate_every": 2, "members": 1, "learning_rate": 1e-2}
    own = {"scaling": {"scale": 1.0}, "backbone": "conv_small", "volumes": "all", "average_decay": 0.0}
    return make_config("fast", objective=name, **(given | own | changes))


def make_trainer(folder: Path, config: TrainConfig) -> Trainer:
    data = make_volumes()
    labels = data.labels.astype(np.float32)
    return Trainer(config, 0, data, labels, np.arange(8), np.arange(8, 12), folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_training_on_volumes_continues_to_the_last_bit(name: str, tmp_path: Path) -> None:
    config = volume_config(name)
    whole = make_trainer(tmp_path / "whole", config)
    whole.run()
    make_trainer(tmp_path / "cut", config).run(stop_at=3)
    resumed = make_trainer(tmp_path / "cut", config)
    assert resumed.iteration == 2
    resumed.run()
    assert all(torch.equal(value, resumed.best.weights[key]) for key, value in whole.best.weights.items())
    assert len(whole.history) == 3


def test_a_segmentation_finds_what_it_has_learned(tmp_path: Path) -> None:
    config = volume_config("segmentation", iterations=40, validate_every=20, volumes="none", patch=[16, 16, 16])
    trainer = make_trainer(tmp_path, config)
    trainer.run()
    assert trainer.history[-1]["valid_dice_error"] < 0.5  # nothing found is 1
    assert trainer.predict(np.arange(3)).shape == (3, 2, *SIZE)


def test_a_class_is_learned(tmp_path: Path) -> None:
    changes = {"iterations": 40, "validate_every": 20, "volumes": "none", "learning_rate": 1e-3}
    trainer = make_trainer(tmp_path, volume_config("classification", **changes))
    trainer.run()
    assert trainer.history[-1]["train_cross_entropy"] < 0.3  # a fair guess is 0.69


def test_image_and_mask_move_alike() -> None:
    data = make_volumes(4, channels=1)
    assert data.masks is not None
    as_image = data.masks[:, None].astype(np.float32)
    vary = VolumeVariation(spatial=True, intensity=False)
    moved, masks = vary(as_image, data.masks, [np.random.default_rng(k) for k in range(4)])
    assert not np.array_equal(masks, data.masks)
    assert ((moved[:, 0] > 0.5) == (masks == 1)).mean() > 0.995
    again, _ = vary(as_image, data.masks, [np.random.default_rng(k) for k in range(4)])
    assert np.array_equal(moved, again)


def test_mirroring_is_the_only_change_of_handedness() -> None:
    """A mark on the right stays there without mirroring, and is on the left in about half the cases with it."""
    image = np.zeros((1, 1, *SIZE), np.float32)
    image[0, 0, 18:22, 10:14, 6:10] = 1.0
    sides = {}
    for mirror in (False, True):
        vary = VolumeVariation(spatial=True, intensity=False, mirror=mirror)
        found = [vary(image, image[:, 0].astype(np.uint8), [np.random.default_rng(k)])[0][0, 0] for k in range(20)]
        sides[mirror] = sum(bool(v[: SIZE[0] // 2].sum() > v[SIZE[0] // 2 :].sum()) for v in found)
    assert sides[False] == 0
    assert 4 <= sides[True] <= 16


def test_intensities_change_within_the_head_only() -> None:
    data = make_volumes(2)
    vary = VolumeVariation(spatial=False, intensity=True)
    varied, labels = vary(data.images, data.labels, [np.random.default_rng(k) for k in range(2)])
    assert labels is data.labels
    outside = data.images == 0
    assert not varied[outside].any()
    assert not np.array_equal(varied, data.images)


def test_patches_are_centred_on_the_foreground() -> None:
    data = make_volumes(8)
    assert data.masks is not None
    vary = VolumeVariation(spatial=False, intensity=False, patch=(8, 8, 8), foreground=1.0)
    images, masks = vary(data.images, data.masks, [np.random.default_rng(k) for k in range(8)])
    assert images.shape == (8, 2, 8, 8, 8)
    has = data.masks.reshape(8, -1).any(axis=1)
    assert np.array_equal(masks.reshape(8, -1).any(axis=1), has)
