"""Training: folds, batches, resuming to the last bit, and a whole tiny demonstration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.training import make_data, make_trainer, small_config
from ukb_infer.demo.ensemble import DemoConfig, make_demo
from ukb_infer.demo.phantoms import PhantomSet, make_phantom_set
from ukb_infer.errors import RunError, UsageError
from ukb_infer.modules import load_module, verify_module
from ukb_infer.training.batches import BatchSampler
from ukb_infer.training.config import PRESETS, Augmentation, make_config
from ukb_infer.training.dataset import Draws, participant_folds, translate
from ukb_infer.training.ensemble import Standardization, member_rows, train_members
from ukb_infer.training.optimizer import learning_rate_at
from ukb_infer.training.trainer import Trainer


def test_a_killed_run_continues_to_the_last_bit(tmp_path: Path) -> None:
    data, config = make_data(), small_config()
    whole = make_trainer(tmp_path / "whole", data, config)
    whole.run()
    make_trainer(tmp_path / "cut", data, config).run(stop_at=6)
    resumed = make_trainer(tmp_path / "cut", data, config)
    assert resumed.iteration == 4
    resumed.run()
    for name, value in whole.best.weights.items():
        assert torch.equal(value, resumed.best.weights[name]), name
    assert (tmp_path / "whole" / "history.csv").read_bytes() == (tmp_path / "cut" / "history.csv").read_bytes()
    assert len((tmp_path / "whole" / "history.csv").read_text().splitlines()) == 4


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    data = make_data()
    make_trainer(tmp_path, data, small_config()).run(stop_at=4)
    with pytest.raises(RunError, match="other settings"):
        make_trainer(tmp_path, data, small_config(seed=5))


def test_a_checkpoint_of_another_version_is_refused_in_words(tmp_path: Path) -> None:
    """Version 1 wrote its state without a format."""
    data, config = make_data(), small_config()
    torch.save({"identity": "TrainConfig", "iteration": 4, "rng": torch.get_rng_state()}, tmp_path / "checkpoint.pt")
    with pytest.raises(RunError, match=r"written by another version of ukb-infer.*remove"):
        make_trainer(tmp_path, data, config)


def test_training_leaves_torch_as_the_caller_had_it(tmp_path: Path) -> None:
    data, config = make_data(), small_config(deterministic=True)
    torch.manual_seed(77)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    standardization = Standardization.fit(data.labels, data.targets)
    train_members(config.changed(iterations=1), data, standardization, tmp_path, threads=2, show=False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[1:]


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path: Path) -> None:
    data = make_data()
    trainer = make_trainer(tmp_path, data, small_config(gradient_clip=0.0))
    with torch.no_grad():
        trainer.network.model.classifier.bias.fill_(float("inf"))
    with pytest.raises(RunError, match="`learning_rate`"):
        trainer.run()


def test_training_learns_what_the_picture_shows(tmp_path: Path) -> None:
    """A few iterations on squares must beat predicting the mean (standardized MSE 1)."""
    data = make_data()
    trainer = make_trainer(
        tmp_path, data, small_config().changed(iterations=60, warmup_mse=59, validate_every=60, max_shift=0)
    )
    trainer.run()
    trainer.average.load_state_dict(trainer.best.weights)
    rows = np.arange(18)
    predicted = trainer.predict(rows).numpy()[..., 0]
    error = (predicted - trainer.batches.labels[rows]) ** 2
    assert np.nanmean(error[:, 0]) < 0.7


def test_folds_keep_a_participants_scans_together() -> None:
    people = np.array([f"{k // 2}" for k in range(100)])
    folds = participant_folds(people, 5, 3)
    for name in np.unique(people):
        assert len(set(folds[people == name])) == 1
    assert np.bincount(folds).tolist() == [20] * 5
    assert np.array_equal(folds, participant_folds(people, 5, 3))
    with pytest.raises(UsageError, match="`folds`"):
        participant_folds(people, 51, 3)


@pytest.mark.parametrize("batch_size", [5, 7, 19, 20, 64])
def test_every_row_is_seen_once_a_shuffle(batch_size: int) -> None:
    """Also where the batch does not divide the rows: nothing is left out at the end of a shuffle."""
    sampler = BatchSampler(np.arange(40, 60), batch_size, 1)
    seen = np.concatenate([sampler.batch(k)[0] for k in range(40)])
    for start in range(0, 100, 20):
        assert sorted(seen[start : start + 20]) == list(range(40, 60))
    assert all(sampler.batch(k)[0].size == min(batch_size, 20) for k in range(10))


def test_the_sampler_depends_on_its_arguments_alone() -> None:
    sampler = BatchSampler(np.arange(40, 60), 7, 1)
    sampler.batch(3)
    rows, rng = sampler.batch(7)
    again, same = BatchSampler(np.arange(40, 60), 7, 1).batch(7)
    assert np.array_equal(rows, again)
    assert rng.random() == same.random()


def test_a_left_out_fold_is_neither_learned_from_nor_chosen_by() -> None:
    people = np.array([f"p{k // 2}" for k in range(200)])
    fold = participant_folds(people, 5, 0)
    config = make_config("fast", members=10, folds=5)
    drawn = set()
    for member in range(10):
        train, valid = member_rows(config, member, fold, people)
        assert not set(people[train]) & set(people[valid])
        assert (fold[train] != member % 5).all()
        assert (fold[valid] != member % 5).all()
        assert len(train) + len(valid) == (fold != member % 5).sum()
        assert len(valid) == 2 * 12  # 15 % of 80 participants
        drawn.add(tuple(valid))
    assert len(drawn) == 10  # each member its own
    train, valid = member_rows(make_config("fast", validation=0.0), 0, None, people)
    assert (len(train), len(valid)) == (200, 0)


def test_what_is_kept_follows_from_the_validation_alone(tmp_path: Path) -> None:
    """With validation the best weights, without it the last ones; patience ends the waiting."""
    data, config = make_data(), small_config()
    standardized = Standardization.fit(data.labels, data.targets).apply(data.labels)
    trainer = Trainer(config, 0, data, standardized, np.arange(18), np.arange(18, 24), tmp_path / "a")
    trainer.run()
    best = min(trainer.history, key=lambda row: row["valid_nll"])
    assert trainer.best.iteration == best["iteration"]
    assert trainer.best.value == best["valid_nll"]
    alone = Trainer(config, 0, data, standardized, np.arange(18), np.arange(0), tmp_path / "b")
    alone.run()
    assert alone.best.iteration == 12
    assert all(np.isnan(row["valid_nll"]) for row in alone.history)
    impatient = config.changed(patience=1, iterations=400, validate_every=2, learning_rate=1e-9, warmup_mse=3)
    stopped = Trainer(impatient, 0, data, standardized, np.arange(18), np.arange(18, 24), tmp_path / "c")
    stopped.run()
    assert stopped.iteration < 400
    assert (tmp_path / "c/best.safetensors").is_file()


def test_weight_decay_leaves_norms_and_biases_alone(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_data(), small_config(weight_decay=0.1))
    decayed, free = trainer.optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(trainer.network.parameters()))


def test_few_scans_are_trained_for_fewer_iterations() -> None:
    fast = make_config("fast")
    assert [fast.resolved(n).optimization.iterations for n in (100, 1000, 5000)] == [500, 2300, 4000]
    assert fast.resolved(100).validation.every == 25
    assert fast.resolved(100).flat()["warmup_mse"] == 125
    assert make_config("mimir").resolved(100).optimization.iterations == 10_000
    assert fast.resolved(100).resolved(100) == fast.resolved(100)


def test_translations_are_integer_and_fill_with_zeros() -> None:
    images = np.random.default_rng(0).integers(1, 255, (50, 3, 32, 32), dtype=np.uint8)
    shifted = translate(images, Draws.draw(50, Augmentation(max_shift=4), np.random.default_rng(1)).shifts)
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
    mimir, steps = PRESETS["mimir"], PRESETS["mimir"].optimization
    assert (mimir.network.backbone, steps.optimizer, steps.batch_size) == ("resnet50", "adam", 32)
    assert mimir.augmentation.max_shift == 16
    assert [learning_rate_at(steps, k) for k in (0, 7999, 8000, 9999)] == pytest.approx([5e-5, 5e-5, 5e-6, 5e-6])
    with pytest.raises(UsageError, match=r"`preset`.*did you mean fast"):
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
    config = DemoConfig(training=100, calibration=40, evaluation=10, members=2, iterations=12, workers=2, visits=22)
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
    for name in ("module.json", "visits.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "22 pairs of visits of synthetic phantoms" in (tmp_path / "one" / "visits.json").read_text()
