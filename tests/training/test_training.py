"""Training: folds, batches, resuming to the last bit, and a whole tiny demonstration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ukb_infer.errors import RunError, UsageError
from ukb_infer.modules import load_module, verify_module
from ukb_infer.training.config import PRESETS, TrainConfig, make_config
from ukb_infer.training.dataset import BatchSampler, Draws, LabelledProjections, participant_folds, translate
from ukb_infer.training.demo import DemoConfig, make_demo
from ukb_infer.training.ensemble import Standardization
from ukb_infer.training.loop import MemberTrainer, learning_rate_at
from ukb_infer.training.phantoms import PhantomSet, make_phantom_set


def _data(count: int = 24) -> LabelledProjections:
    """Bright squares whose size and place are the labels; some labels are missing."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 3, 256, 256), np.uint8)
    labels = rng.uniform(20, 90, (count, 2))
    for k, (size, place) in enumerate(labels):
        images[k, :, int(place) : int(place + size), 60 : int(60 + size)] = 200
    labels[::5, 1] = np.nan
    return LabelledProjections(images, labels, np.array([f"p{k // 2}" for k in range(count)]), ("weight", "waist"))


def _config(**changes: object) -> TrainConfig:
    return make_config(
        "fast",
        iterations=12,
        batch_size=6,
        validate_every=4,
        warmup_mse=3,
        members=1,
        **changes,  # type: ignore[arg-type]
    )


def _trainer(folder: Path, data: LabelledProjections, config: TrainConfig) -> MemberTrainer:
    standardized = Standardization.fit(data.labels, data.targets).apply(data.labels)
    return MemberTrainer(config, 0, data, standardized, np.arange(18), np.arange(18, 24), folder)


def test_a_killed_run_continues_to_the_last_bit(tmp_path: Path) -> None:
    data, config = _data(), _config()
    whole = _trainer(tmp_path / "whole", data, config)
    whole.run()
    _trainer(tmp_path / "cut", data, config).run(stop_at=6)
    resumed = _trainer(tmp_path / "cut", data, config)
    assert resumed.iteration == 4
    resumed.run()
    for name, value in whole.best.items():
        assert torch.equal(value, resumed.best[name]), name
    assert (tmp_path / "whole" / "history.csv").read_bytes() == (tmp_path / "cut" / "history.csv").read_bytes()
    assert len((tmp_path / "whole" / "history.csv").read_text().splitlines()) == 4


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    data = _data()
    _trainer(tmp_path, data, _config()).run(stop_at=4)
    with pytest.raises(RunError, match="other settings"):
        _trainer(tmp_path, data, _config(seed=5))


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path: Path) -> None:
    data = _data()
    trainer = _trainer(tmp_path, data, _config(gradient_clip=0.0))
    with torch.no_grad():
        trainer.network.model.classifier.bias.fill_(float("inf"))
    with pytest.raises(RunError, match="--learning-rate"):
        trainer.run()


def test_training_learns_what_the_picture_shows(tmp_path: Path) -> None:
    """A few iterations on squares must beat predicting the mean (standardized MSE 1)."""
    data = _data()
    trainer = _trainer(tmp_path, data, replace(_config(), iterations=60, warmup_mse=59, validate_every=60, max_shift=0))
    trainer.run()
    trainer.network.load_state_dict(trainer.best)
    rows = np.arange(18)
    predicted = trainer.predict(rows, trainer.best)[..., 0]
    error = (predicted - trainer.standardized[rows]) ** 2
    assert np.nanmean(error[:, 0]) < 0.7


def test_folds_keep_a_participants_scans_together() -> None:
    people = np.array([f"{k // 2}" for k in range(100)])
    folds = participant_folds(people, 5, 3)
    for name in np.unique(people):
        assert len(set(folds[people == name])) == 1
    assert np.bincount(folds).tolist() == [20] * 5
    assert np.array_equal(folds, participant_folds(people, 5, 3))
    with pytest.raises(UsageError, match="--folds"):
        participant_folds(people, 51, 3)


def test_every_row_is_seen_once_an_epoch() -> None:
    sampler = BatchSampler(np.arange(40, 60), 5, 1)
    seen = np.concatenate([sampler.batch(k)[0] for k in range(4)])
    assert sorted(seen) == list(range(40, 60))
    assert np.array_equal(sampler.batch(7)[0], BatchSampler(np.arange(40, 60), 5, 1).batch(7)[0])


def test_translations_are_integer_and_fill_with_zeros() -> None:
    images = np.random.default_rng(0).integers(1, 255, (50, 3, 32, 32), dtype=np.uint8)
    shifted = translate(images, Draws.draw(50, 4, 0.0, False, np.random.default_rng(1)).shifts)
    moved = 0
    for before, after in zip(images, shifted, strict=True):
        rows, cols = np.nonzero(after[0])
        dy, dx = rows.min() or rows.max() - 31, cols.min() or cols.max() - 31
        assert np.abs([dy, dx]).max() <= 4
        expected = np.roll(before, (dy, dx), axis=(1, 2))
        inside = after > 0
        assert np.array_equal(after[inside], expected[inside])
        moved += (dy, dx) != (0, 0)
    assert moved > 40


def test_the_published_preset_is_the_default() -> None:
    mimir = PRESETS["mimir"]
    assert (mimir.backbone, mimir.optimizer, mimir.batch_size, mimir.max_shift) == ("resnet50", "adam", 32, 16)
    assert [learning_rate_at(mimir, k) for k in (0, 7999, 8000, 9999)] == pytest.approx([5e-5, 5e-5, 5e-6, 5e-6])
    for changes, flag in (({"folds": 1}, "--folds"), ({"batch_size": 1}, "--batch-size"), ({"beta": 2.0}, "--beta")):
        with pytest.raises(UsageError, match=flag):
            make_config("mimir", **changes)
    with pytest.raises(UsageError, match="--preset"):
        make_config("fats")


def test_a_target_without_spread_is_refused() -> None:
    with pytest.raises(UsageError, match="waist"):
        Standardization.fit(np.array([[1.0, 5.0], [2.0, 5.0]]), ("weight", "waist"))


def test_phantom_sets_continue_and_repeat(tmp_path: Path) -> None:
    images, labels = make_phantom_set(PhantomSet(1, 4, small_every=1), tmp_path / "a", workers=1)
    again, same = make_phantom_set(PhantomSet(1, 4, small_every=1), tmp_path / "b", workers=1)
    assert images.shape == (4, 3, 256, 256)
    assert np.array_equal(images, again)
    assert np.array_equal(labels, same)


@pytest.mark.slow
def test_a_tiny_demonstration_ends_with_a_verified_module(tmp_path: Path) -> None:
    """Everything the shipped module went through, small; and twice gives the same table."""
    config = DemoConfig(training=100, calibration=40, evaluation=20, members=2, iterations=30, workers=2)
    lines: list[str] = []
    for name in ("one", "two"):
        make_demo(tmp_path / name, tmp_path / f"work-{name}", config, overwrite=False, say=lines.append)
    assert verify_module(tmp_path / "one") == []
    module = load_module(tmp_path / "one")
    assert len(module.manifest.targets) == 72
    assert module.manifest.targets[0].calibration.method == "conformal"
    tables = [
        [line for line in (tmp_path / n / "README.md").read_text().splitlines() if line.startswith("| ")]
        for n in ("one", "two")
    ]
    assert tables[0] == tables[1]
    assert (tmp_path / "one" / "module.json").read_bytes() == (tmp_path / "two" / "module.json").read_bytes()
