"""Errors in the caller's terms: argument names from the library, flags from the command line."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from ukb_infer.cli.app import main
from ukb_infer.cli.common import Command
from ukb_infer.errors import RunError, UkbInferError, UsageError


def _work(error: UkbInferError) -> str:
    """What a command says when the library raises this error."""
    app = typer.Typer(add_completion=False)

    @app.command(cls=Command)
    def work(
        folders: Annotated[list[Path], typer.Argument(metavar="CV...")],
        batch_size: Annotated[int, typer.Option("--batch-size", "-b")] = 1,
        level: Annotated[float, typer.Option("--ci")] = 0.95,
    ) -> None:
        raise error

    result = CliRunner().invoke(app, ["cv"])
    assert type(result.exception) is type(error)
    return str(result.exception)


def test_the_library_names_its_argument() -> None:
    error = UsageError(field="batch_size", got=1, expected="at least 2")
    assert str(error) == "`batch_size`: got 1, expected at least 2"
    assert (error.field, error.got, error.expected) == ("batch_size", 1, "at least 2")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.field, again.got) == (str(error), "batch_size", 1)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UsageError(field="batch_size", got=1, expected="at least 2"), "--batch-size: got 1, expected at least 2"),
        (UsageError("has no meaning without `folders`", field="level"), "--ci: has no meaning without CV"),
        (RunError("lower `batch_size`, or run `status` again"), "lower --batch-size, or run `status` again"),
        (UsageError("nothing to rename"), "nothing to rename"),
    ],
)
def test_a_command_names_its_flags(error: UkbInferError, said: str) -> None:
    assert _work(error) == said


NOT_THERE = (
    "predict nowhere --out out",
    "project nowhere --out out",
    "stitch nowhere --out out",
    "dataset nowhere --out out",
    "volumetry nowhere.nii --scan nowhere.zip",
    "pretrain --data nowhere --out out",
    "embed nowhere --module phantom-demo --out a.csv",
    "adapt --task fomo25-infarct --data nowhere --pretrained none --out out",
    "probe nowhere.csv --labels a --target b --out out",
    "train --projections nowhere --labels nowhere.csv --targets age --out out",
    "modules import-mimir nowhere --out out",
    "modules verify nowhere",
    "modules fit-outliers nowhere --projections nowhere",
    "calibrate nowhere --module nowhere",
    "evaluate nowhere --labels nowhere.csv --out out",
    "status nowhere",
    "retry nowhere",
    "merge nowhere --out out",
    "export nowhere --out out",
    "report nowhere --out a.html",
    "explain nowhere --modules phantom-demo --target age --out out",
    "explain {here} --modules nowhere --target age --out out",
    "associate nowhere --labels a --phenotypes b --model liverFat~age --out out",
    "changes nowhere",
    "gwas-inputs nowhere --labels a --covariates nowhere --out out",
    "zscores nowhere --phenotypes a --out a.csv",
    "summary nowhere --phenotypes a --out out",
    "benchmark predict --module phantom-demo --data nowhere --out out",
    "benchmark score nowhere --labels nowhere --suite fomo25 --out out",
    "benchmark rank nowhere.csv --out out",
    "benchmark run-container true --data nowhere --task fomo25-infarct --out out",
)


@pytest.mark.parametrize("line", NOT_THERE)
def test_what_is_not_there_is_named_and_ends_with_2(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ukb-infer", *line.format(here=tmp_path).split()])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err.replace("WARNING", "")
    assert (ended.value.code, "Traceback" in said, "Errno" in said) == (2, False, False)
    assert "nowhere" in said or "a: " in said, said
    assert list(tmp_path.iterdir()) == []
