"""Options that several commands share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from ukb_infer.cli.app import app
from ukb_infer.cli.shared import After, shares


@dataclass(frozen=True, kw_only=True)
class Shared:
    out: Annotated[str, typer.Option(help="Folder.")]
    seed: Annotated[int, typer.Option(help="Seed.")] = 3


@shares(Shared)
def paint(
    *,
    shared: Shared,
    color: Annotated[str, After("out"), typer.Option(help="Color.")],
    shade: Annotated[int, typer.Option(help="Shade.")] = 1,
    gloss: Annotated[bool, After("seed"), typer.Option("--gloss", help="Gloss.")] = False,
) -> None:
    """Paint."""
    typer.echo(f"{shared} {color} {shade} {gloss}")


one = typer.Typer(rich_markup_mode=None)
one.command()(paint)


def shown(application: typer.Typer, *arguments: str) -> list[str]:
    text = CliRunner().invoke(application, [*arguments, "--help"]).output
    return re.findall(r"(?m)^  (--[a-z-]+)", text.split("Options:")[1])


def test_an_option_of_a_command_stands_where_it_says() -> None:
    assert shown(one)[:5] == ["--out", "--color", "--shade", "--seed", "--gloss"]


def test_the_command_gets_the_shared_options_as_one_object() -> None:
    result = CliRunner().invoke(one, ["--out", "a", "--color", "red", "--seed", "7"])
    assert result.output == f"{Shared(out='a', seed=7)} red 1 False\n"


def test_stitch_project_and_predict_show_their_shared_options_alike() -> None:
    of = {name: shown(app, name) for name in ("stitch", "project", "predict")}
    common = set(of["stitch"]) - {"--contrasts", "--spacing"}
    assert len(common) == 19
    for options in of.values():
        assert [o for o in options if o in common] == [o for o in of["stitch"] if o in common]
