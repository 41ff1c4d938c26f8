"""``ukb-infer benchmark`` and ``probe``: what they print and their exit codes."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.support.few_shot import write_case, write_label
from ukb_infer.cli.app import app
from ukb_infer.errors import UsageError
from ukb_infer.evaluation.probe import ProbeConfig, read_probe_data


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize("command", ["predict", "score", "rank", "run-container"])
def test_every_help_teaches_with_an_example(command: str) -> None:
    code, text = run("benchmark", command, "--help")
    assert code == 0
    assert f"ukb-infer benchmark {command}" in text


def test_rank(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("team,task1_auroc,task2_dice,task3_mae\na,.6,.3,9\nb,.7,.2,8\nbaseline_x,.5,0,12\n")
    code, text = run("benchmark", "rank", table, "--out", tmp_path / "out", "--bootstrap", 0)
    assert code == 0
    assert text.splitlines()[0] == "1    b  1.333  1 2 1"
    assert "not ranked: baseline_x" in text
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["ranking.csv"]


def test_run_container_then_score(tmp_path: Path) -> None:
    for k in (1, 2, 3):
        write_case(tmp_path / "data", f"sub_{k}", ("t1", "t2"), 30.0 * k)
    script = tmp_path / "predict.py"
    script.write_text(
        "import pathlib, sys\nout = pathlib.Path(sys.argv[-1])\n"
        "sys.exit('bad scan') if out.stem == 'sub_2' else out.write_text('31')\n"
    )
    pred = tmp_path / "pred"
    code, text = run(
        "benchmark", "run-container", f"{sys.executable} {script}", "--data", tmp_path / "data",
        "--task", "fomo25-brain-age", "--out", pred,
    )  # fmt: skip
    assert code == 3
    assert "sub_2: exit_code: exit code 1: bad scan" in text
    assert "2 ok, 1 failed; slowest case" in text
    code, text = run(
        "benchmark", "score", pred, "--labels", tmp_path / "data", "--suite", "fomo25", "--task", "task3",
        "--out", tmp_path / "scores",
    )  # fmt: skip
    assert code == 0
    assert f"fomo25-brain-age  mae {(1 + 100 + 59) / 3:.4g}" in text
    assert "3 cases, 1 missing" in text


def test_errors_name_the_flag(tmp_path: Path) -> None:
    write_label(tmp_path / "labels" / "sub_1", 1.0)
    done = CliRunner().invoke(
        app, ["benchmark", "score", str(tmp_path), "--labels", str(tmp_path), "--suite", "x", "--out", str(tmp_path)]
    )
    assert "--suite: got 'x', expected fomo25, fomo26, body" in str(done.exception)


def test_probe(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    people = [f"sub_{k:02d}" for k in range(40)]
    sex = rng.integers(0, 2, 40)
    features = rng.standard_normal((40, 3)) + 2 * sex[:, None]
    frame = pd.DataFrame(features, columns=["feature_0", "feature_1", "feature_2"]).assign(participant=people)
    frame.to_csv(tmp_path / "e.csv", index=False)
    pd.DataFrame({"participant_id": people, "sex": sex}).to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    code, text = run(
        "probe", tmp_path / "e.csv", "--labels", tmp_path / "p.tsv", "--target", "sex", "--out", tmp_path / "out",
        "--seeds", 2, "--replicates", 50,
    )  # fmt: skip
    assert code == 0
    assert text.startswith("auroc  ")
    assert "40 participants, classes 0, 1, 2 seeds" in text
    (tmp_path / "pred").mkdir()
    for name, vector in zip(people, features, strict=True):
        np.save(tmp_path / "pred" / f"{name}.npy", vector.astype(np.float32))
    code, again = run(
        "probe", tmp_path / "pred", "--labels", tmp_path / "p.tsv", "--target", "sex", "--out", tmp_path / "out2",
        "--seeds", 2, "--replicates", 50,
    )  # fmt: skip
    assert code == 0
    assert again.splitlines()[:2] == text.splitlines()[:2]
    np.save(tmp_path / "pred" / "sub_99.npy", np.ones((2, 2)))
    with pytest.raises(UsageError, match="cannot be read together"):
        read_probe_data(
            ProbeConfig(embeddings=tmp_path / "pred", labels=tmp_path / "p.tsv", target="sex", out=tmp_path)
        )
