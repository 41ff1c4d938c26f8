"""Errors in the caller's terms: argument names from the library, flags from the command line."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

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
