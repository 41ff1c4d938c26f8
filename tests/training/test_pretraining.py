"""Pretraining: from files to a checkpoint, interrupted, resumed, refused."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.pretraining import memory_pool, short_config, write_heads
from ukb_infer.errors import RunError, UsageError
from ukb_infer.imaging.datasets import read_images
from ukb_infer.imaging.volumes.preprocess import VolumeSettings
from ukb_infer.networks import build_encoder, build_network, load_pretrained, transfer
from ukb_infer.training.pretrain import pool as pools
from ukb_infer.training.pretrain.config import PretrainConfig, PretrainRequest, make_pretrain_config
from ukb_infer.training.pretrain.pool import make_pool
from ukb_infer.training.pretrain.pretrain import run_pretrain
from ukb_infer.training.pretrain.pretrainer import Pretrainer

BOX = VolumeSettings(spacing_mm=10.0, size=(16, 16, 16))


def _pretrainer(folder: Path, config: PretrainConfig, device: str = "cpu") -> Pretrainer:
    folder.mkdir(parents=True, exist_ok=True)
    pool = memory_pool()
    sides = [np.array([k for k, row in enumerate(pool.rows) if row.split == s]) for s in ("train", "validation")]
    return Pretrainer(config, pool, sides[0], sides[1], folder, device)


@pytest.mark.parametrize("objective", ["mae", "hybrid"])
def test_a_killed_pretraining_continues_to_the_last_bit(objective: str, tmp_path: Path) -> None:
    config = short_config(objective, steps=40)  # a checkpoint every two steps
    whole = _pretrainer(tmp_path / "whole", config)
    whole.run(stop_at=8)
    _pretrainer(tmp_path / "cut", config).run(stop_at=5)
    resumed = _pretrainer(tmp_path / "cut", config)
    assert resumed.step == 4
    resumed.run(stop_at=8)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert (tmp_path / "whole/history.csv").read_bytes() == (tmp_path / "cut/history.csv").read_bytes()
    assert len((tmp_path / "whole/history.csv").read_text().splitlines()) == 5


def test_pretraining_learns_to_fill_in_what_is_hidden(tmp_path: Path) -> None:
    trainer = _pretrainer(tmp_path, short_config(steps=100, augment="none", batch_size=8, learning_rate=3e-3))
    trainer.run()
    losses = [row["valid_loss"] for row in trainer.history]
    assert min(losses) < 0.5 * losses[0]
    assert trainer.best.value == min(losses)
    assert torch.equal(next(iter(trainer.best.weights.values())), next(iter(trainer.network.state_dict().values())))
    assert len(list((tmp_path / "pictures").glob("*.png"))) >= 10


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    _pretrainer(tmp_path, short_config(steps=2)).run(stop_at=1)
    with pytest.raises(RunError, match="other settings"):
        _pretrainer(tmp_path, short_config(steps=2, seed=5))


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path: Path) -> None:
    trainer = _pretrainer(tmp_path, short_config())
    with torch.no_grad():
        next(trainer.network.encoder.parameters()).fill_(float("inf"))
    with pytest.raises(RunError, match="`learning_rate`"):
        trainer.run()


# -- preprocessing ----------------------------------------------------------------------------------------------------


def test_a_broken_file_is_a_row_with_a_code_and_contrasts_share_a_box(tmp_path: Path) -> None:
    rows = [replace(row, status="ok", codes=()) for row in read_images(write_heads(tmp_path / "d", 3, broken=1))]
    (tmp_path / "work").mkdir()
    pool = make_pool(rows, tmp_path / "work", BOX)
    assert len(rows) == 7
    assert [(row.modality, [str(c) for c in row.codes]) for row in pool.failed] == [("flair", ["unreadable_nifti"])]
    images = pool.take(np.arange(6))
    assert images.shape == (6, 1, 16, 16, 16)
    assert images.dtype == np.float16
    assert all(0.05 < (image != 0).mean() < 0.9 for image in images)
    first, second = (images[k] != 0 for k in (0, 1))
    assert (pool.rows[0].modality, pool.rows[1].modality) == ("t1", "t2")
    assert (first == second).mean() > 0.99
    with (tmp_path / "work/images.csv").open() as table:
        assert [row["status"] for row in csv.DictReader(table)].count("failed") == 1


def test_an_interrupted_preprocessing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_images(write_heads(tmp_path / "d", 4))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    expected = np.array(make_pool(rows, whole, BOX).take(np.arange(8)))
    monkeypatch.setattr(pools, "SESSIONS_AT_ONCE", 1)
    read = []

    def stop(done: int, total: int, failures: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_pool(rows, cut, BOX, progress=stop)
    again = make_pool(rows, cut, BOX, progress=lambda done, total, failures: read.append(done))
    assert read == [2, 4, 6, 8]  # the first session was kept
    assert np.array_equal(again.take(np.arange(8)), expected)
    read.clear()
    make_pool(rows, cut, BOX, progress=lambda done, total, failures: read.append(done))
    assert read == [8]
    changed = VolumeSettings(spacing_mm=12.0, size=(16, 16, 16))
    make_pool(rows, cut, changed, progress=lambda done, total, failures: read.append(done))
    assert read[1] == 0  # another box: from the start


def test_without_any_usable_image_the_codes_are_named(tmp_path: Path) -> None:
    rows = [replace(row, status="ok", codes=()) for row in read_images(write_heads(tmp_path / "d", 1, broken=1))]
    flair = [row for row in rows if row.modality == "flair"]
    with pytest.raises(RunError, match=r"none of the 1 images can be used.*images\.csv"):
        make_pool(flair, tmp_path, BOX)


# -- the whole command -----------------------------------------------------------------------------------------------


def _request(data: Path, out: Path, **changes: object) -> PretrainRequest:
    settings: dict[str, object] = {"config": short_config(steps=3), "device": "cpu", "workers": 0, "threads": 1}
    return PretrainRequest(data=data, out=out, **(settings | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("heads"), 5, broken=1)


def test_pretrain_ends_with_a_checkpoint_that_passes_on(heads: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    made = run_pretrain(_request(heads, tmp_path / "c", warning="Toy heads."), lines.append, show=False)
    assert made is not None
    read = load_pretrained(tmp_path / "c")
    assert (read.spec.dim, read.spec.channels, read.warning) == (3, 1, "Toy heads.")
    assert VolumeSettings(spacing_mm=read.settings["spacing_mm"], size=tuple(read.settings["size"])) == BOX
    assert read.facts["images"] == 10
    assert read.facts["participants"] == 5
    assert read.facts["modalities"] == {"t1": 5, "t2": 5}
    assert set(read.facts["software"]) == {"ukb-infer", "torch", "monai"}
    assert transfer(read, build_encoder(read.spec)).coverage == 1.0
    assert (tmp_path / "c/work/history.csv").read_text().startswith("iteration,learning_rate,train_loss,valid_loss")
    readme = (tmp_path / "c/README.md").read_text()
    assert "**Toy heads.**" in readme
    assert "objective mae, 3 steps of 4 on 10 images (5 t1, 5 t2) of 5 participants" in readme
    text = "\n".join(lines)
    assert "10 images of 5 participants (5 t1, 5 t2); 1 cannot be used" in text
    with pytest.raises(UsageError, match=r"finished pretraining.*`overwrite`"):
        run_pretrain(_request(heads, tmp_path / "c"), lines.append, show=False)


def test_other_settings_in_the_same_folder_are_refused_with_the_difference(heads: Path, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(line: str) -> None:
        if "resuming" in line:
            raise StoppedError

    run_pretrain(_request(heads, tmp_path / "c"), lambda _: None, show=False)
    (tmp_path / "c/pretrained.json").unlink()  # as if it had not finished
    with pytest.raises(UsageError, match=r"steps was 3, now 4"):
        run_pretrain(_request(heads, tmp_path / "c", config=short_config(steps=4)), lambda _: None, show=False)
    with pytest.raises(StoppedError):
        run_pretrain(_request(heads, tmp_path / "c"), stop, show=False)
    other = _request(heads, tmp_path / "c", config=short_config(steps=4), overwrite=True)
    assert run_pretrain(other, lambda _: None, show=False) is not None
    (tmp_path / "x").mkdir()
    (tmp_path / "x/mine.txt").write_text("kept")
    with pytest.raises(UsageError, match="not empty"):
        run_pretrain(_request(heads, tmp_path / "x"), lambda _: None, show=False)


def test_a_dry_run_counts_and_writes_nothing(heads: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    request = _request(heads, tmp_path / "c", config=short_config("hybrid"), dry_run=True)
    assert run_pretrain(request, lines.append) is None
    assert "10 images have a partner, 0 are paired with themselves" in "\n".join(lines)
    assert not (tmp_path / "c").exists()
    with pytest.raises(UsageError, match=r"`data`.*projections"):
        run_pretrain(_request(heads, tmp_path / "c", config=make_pretrain_config(2)), lines.append)


@pytest.mark.parametrize("objective", ["mae", "contrastive"])
def test_projections_pretrain_a_backbone_of_train(objective: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "p").mkdir()
    for person in range(1, 5):
        for instance in (2, 3):
            image = np.zeros((3, 256, 256), np.uint8)
            image[:, 40 : 120 + 10 * person, 60:160] = rng.integers(50, 200)
            np.save(tmp_path / "p" / f"{person:07d}_20201_{instance}_0.npy", image)
    config = make_pretrain_config(2, objective, steps=2, batch_size=3)
    run_pretrain(_request(tmp_path / "p", tmp_path / "c", config=config), lambda _: None, show=False)
    read = load_pretrained(tmp_path / "c")
    assert read.settings == {"scale": 1 / 64, "offset": -1.0, "size": [128, 128]}
    assert bool(read.decoder) == (objective == "mae")
    network = build_network("conv_small", 2, tmp_path / "c/encoder.safetensors")
    assert network.transfer is not None
    assert set(network.transfer.random) == {"fc.weight", "fc.bias"}


@pytest.mark.slow
def test_torchrun_pretrains_on_two_processes(heads: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    given = ["--data", heads, "--out", tmp_path / "c", "--size", "16,16,16", "--spacing", "10", "--steps", "3"]
    options = ["--batch-size", "4", "--workers", "0", "--device", "cpu", "--threads", "1"]
    command = [*torchrun, "-m", "ukb_infer", "pretrain", *map(str, given), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("checkpoint") == 1
    assert json.loads((tmp_path / "c/pretrained.json").read_text())["facts"]["steps"] == 3


@pytest.mark.gpu
@pytest.mark.parametrize("objective", ["mae", "hybrid", "contrastive"])
def test_pretraining_on_a_gpu_in_mixed_precision(objective: str, tmp_path: Path) -> None:
    trainer = _pretrainer(tmp_path, short_config(objective, steps=4, precision="bf16"), "cuda")
    trainer.run()
    assert all(np.isfinite(row["train_loss"]) for row in trainer.history)
    again = _pretrainer(tmp_path, short_config(objective, steps=4, precision="bf16"), "cuda")
    assert again.step == 4
