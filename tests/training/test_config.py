"""The configuration: in sections or not, from files and calls, strict, with errors in the caller's terms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ukb_infer.cli.app import app
from ukb_infer.errors import UsageError
from ukb_infer.networks import InputScaling
from ukb_infer.training.config import TrainConfig, make_config, read_config_file
from ukb_infer.training.progress import MemberDisplay


def _read(folder: Path, text: str) -> TrainConfig:
    path = folder / "c.toml"
    path.write_text(text)
    return make_config("fast", **read_config_file(path))


def test_a_file_says_the_same_with_and_without_sections(tmp_path: Path) -> None:
    flat = _read(
        tmp_path,
        "members = 2\niterations = 50\nlearning_rate = 1\nscaling = {scale = 0.5, size = [64, 64]}\nflip = true\n"
        "beta = 0.2\nvalidation = 0.3\nvalidate_every = 5\nprecision = 'fp32'\nobjective = 'regression'\n",
    )
    sections = _read(
        tmp_path,
        "[ensemble]\nmembers = 2\n[optimization]\niterations = 50\nlearning_rate = 1\n[network.scaling]\nscale = 0.5\n"
        "size = [64, 64]\n[augmentation]\nflip = true\n[objective]\nname = 'regression'\nbeta = 0.2\n[validation]\n"
        "share = 0.3\nevery = 5\n[numerics]\nprecision = 'fp32'\n",
    )
    assert flat == sections
    assert (flat.optimization.iterations, flat.optimization.learning_rate) == (50, 1.0)
    assert flat.network.scaling == InputScaling(0.5, 0.0, (64, 64))
    assert (flat.augmentation.flip, flat.validation.share, flat.validation.every) == (True, 0.3, 5)
    assert flat.network.backbone == "mobilenet_v3_small"  # the preset's, where the file says nothing
    assert make_config("mimir", optimization={"batch_size": 8}, members=2) == make_config(
        "mimir", batch_size=8, members=2
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iteratons = 5", "did you mean iterations"),
        ("[optimisation]\nbatch_size = 8", "did you mean optimization"),
        ("[optimization]\nbatchsize = 8", "batchsize: no such setting; did you mean batch_size"),
        ("optimization = 3", "expected a section"),
        ("iterations = 'five'", "iterations: got 'five', expected an integer"),
        ("batch_size = true", "batch_size: got True, expected an integer, at least 2"),
        ("flip = 1", "flip: got 1, expected true or false"),
        ("learning_rate = nan", "learning_rate: got nan, expected a number, above 0"),
        ("weight_decay = inf", "weight_decay: got inf"),
        ("scaling = 3", "expected e.g."),
        ("scaling = {size = [64, 64.0]}", r"scaling.size: got \[64, 64.0\]"),
        ("objective = 'regresion'", "did you mean regression"),
        ("batch_size = 4\n[optimization]\nbatch_size = 8", "optimization.batch_size: given twice: 4 and 8"),
        ("a = ", "TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_its_own_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"`config`: .*c\.toml.*{words}"):
        _read(tmp_path, text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folds": 1}, "`folds`: got 1, expected 0 or at least 2"),
        ({"batch_size": 1}, "`batch_size`: got 1, expected an integer, at least 2"),
        ({"beta": 2.0}, "`beta`: got 2.0, expected a number, at least 0, at most 1"),
        ({"validation": 0.7}, "`validation`: got 0.7"),
        ({"precision": "fp16"}, "`precision`: got 'fp16', expected fp32 or bf16"),
        ({"iterations": 20, "warmup_mse": 20}, "`warmup_mse`: got 20, expected below `iterations`"),
        ({"max_shift": 65}, "`max_shift`: got 65, expected an integer, at least 0, at most 64"),
    ],
)
def test_a_contradiction_names_the_setting(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_config("mimir", **changes)


def test_the_command_line_names_its_flags(tmp_path: Path) -> None:
    command = ["train", "--projections", str(tmp_path), "--labels", "labels.csv", "--out", str(tmp_path / "mod")]
    for arguments, words in (
        (["--batch-size", "1"], "--batch-size: got 1"),
        (["--stratify", "height"], "--stratify: is useless without --folds"),
        (["--unit", "weight"], "--unit: got 'weight'"),
        (["--config", str(tmp_path / "none.toml")], "--config: "),
    ):
        result = CliRunner().invoke(app, [*command, *arguments])
        assert str(result.exception).startswith(words)


def test_fewer_iterations_shorten_the_warm_up_that_nobody_asked_for() -> None:
    assert make_config("fast", iterations=20, beta=0.1).flat()["warmup_mse"] == 5
    assert make_config("fast", iterations=20, warmup_mse=7).flat()["warmup_mse"] == 7


def test_what_is_recorded_compares_with_what_was_recorded_before() -> None:
    """Manifests and working folders keep settings by name, as version 1 wrote them, whatever the sections."""
    assert make_config("mimir").flat() == {
        "backbone": "resnet50", "members": 5, "folds": 0, "iterations": 10_000, "batch_size": 32, "optimizer": "adam",
        "learning_rate": 5e-5, "schedule": "step", "drop_at": 8_000, "weight_decay": 0.0, "warmup_mse": 0, "beta": 0.0,
        "max_shift": 16, "intensity": 0.0, "flip": False, "average_decay": 0.0, "validation": 0.15, "patience": 0,
        "validate_every": 500, "gradient_clip": 0.0, "seed": 0, "precision": "fp32", "deterministic": False,
        "scaling": {"scale": 1.0, "offset": 0.0, "size": None},
    }  # fmt: skip


def test_an_unknown_backbone_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="unknown backbone 'resnet5'; did you mean resnet50"):
        make_config("fast", backbone="resnet5")


def test_progress_without_validation_names_no_best(capsys: pytest.CaptureFixture[str]) -> None:
    show = MemberDisplay(0, 1, "nll", show=True)
    show(1, 2, 0.5, float("nan"))
    show(2, 2, 0.25, 0.125)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "member 1: 1/2  loss 0.500"
    assert re.fullmatch(r"member 1: 2/2  loss 0\.250  best validation NLL 0\.125  [\d.]+ it/s", second)
