"""``ukb-infer evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import training_options as options


def evaluate(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of predict or cross-validate, or a MIMIR predictions.csv.")
    ],
    labels: options.Labels,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder of tables and figures.")],
    targets: Annotated[str, typer.Option("--targets", metavar="A,B,...", help="Targets to judge [default: all].")] = "",
    units: options.Units = None,
    define: options.Define = None,
    replicates: Annotated[int, typer.Option(metavar="N", help="Bootstrap replicates of participants; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the bootstrap.")] = 0,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw figures as PDF and PNG.")] = True,
) -> None:
    """Compare the estimates of a run with labels.

    Writes metrics.csv, metrics.md and figures; prints the table next to the accuracy published for MIMIR.

    Example:
        ukb-infer evaluate run --labels labels.csv --out agreement
    """
    from ukb_infer.cli.training_options import parse_units
    from ukb_infer.report.agreement import EvaluateConfig, run_evaluate

    config = EvaluateConfig(
        run,
        labels,
        out,
        targets=tuple(t.strip() for t in targets.split(",") if t.strip()),
        units=parse_units(units or []),
        define=define,
        replicates=replicates,
        seed=seed,
        figures=figures,
    )
    result = run_evaluate(config, lambda line: typer.echo(line, err=True))
    typer.echo(result.table)
    for path in result.files:
        typer.echo(f"  {path}")
