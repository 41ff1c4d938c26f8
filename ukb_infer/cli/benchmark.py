"""``ukb-infer benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion, show
from ukb_infer.cli.common import Command
from ukb_infer.cli.options import split_names

app = typer.Typer(help="Suites of tasks: score, rank, run containers.", no_args_is_help=True, rich_markup_mode=None)

Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the tables.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the bootstrap.")]


@app.command(cls=Command)
def rank(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV: team, taskN_METRIC [, track, taskN_METRIC_lower and _upper].")
    ],
    out: Out,
    rules: Annotated[str, completion.choice("fomo25", "fomo26", help="fomo25 or fomo26 (weighted tasks).")] = "fomo25",
    bootstrap: Annotated[int, typer.Option(metavar="N", help="Replicates that show how stable places are.")] = 1000,
    seed: Seed = 0,
    without: Annotated[str, typer.Option(metavar="A,B,...", help="Teams to leave out.")] = "",
    ties: Annotated[
        str, completion.choice("average", "min", help="Equal results share their average rank, or the best of them.")
    ] = "average",
) -> None:
    """Rank submissions by the rules of FOMO25 or FOMO26.

    Writes ranking.csv (unrounded ranks) and stability.csv (places over the bootstrap). Teams are ranked within their
    track; rows named baseline_* are read and left out; empty cells count as one more than the valid submissions.

    Example:
        ukb-infer benchmark rank results.csv --out ranks
    """
    from ukb_infer.evaluation.ranking import run_rank

    result = run_rank(
        table,
        out,
        rules=rules,
        bootstrap=bootstrap,
        seed=seed,
        without=split_names(without),
        ties=ties,  # type: ignore[arg-type]
    )
    rows = [
        (str(r.place[k]), r.track, team, f"{r.overall[k]:.3f}", " ".join(f"{v:g}" for v in r.tasks[k]))
        for r in result.rankings
        for k, team in enumerate(r.teams)
    ]
    show.table((">place", "track", "team", ">overall", "tasks"), rows, ("  ".join(row) for row in rows))
    if result.baselines:
        typer.echo(f"not ranked: {', '.join(result.baselines)}")
    for path in result.files:
        typer.echo(f"  {path}")
