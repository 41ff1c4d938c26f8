"""``ukb-infer changes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import epidemiology_options as options


def changes(
    run: options.Run,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV, TSV or Parquet [default: RUN/changes.csv].")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measurements at both visits of some participants: gives the correlations."),
    ] = None,
    correlations: Annotated[
        str, typer.Option(metavar="FILE|R", help="Correlation of the errors of both visits: saved before, or a number.")
    ] = "",
    save_correlations: Annotated[
        Path | None, typer.Option("--save-correlations", metavar="FILE", help="Save those that --labels gave.")
    ] = None,
    module: Annotated[
        str, typer.Option(metavar="NAME", help="The run's module or its folder, if it is not found by its name.")
    ] = "",
    quality: options.QualityOf = "use",
) -> None:
    """Write how every estimate changed from imaging visit 2 to visit 3.

    Each change has an interval and a reliable-change index (change over the sd of its error; beyond the interval's
    width it is called an increase or a decrease). The errors of two visits are alike: the module says how (`modules
    fit-visits`), or --labels or --correlations. Without any they count as independent, and intervals are too wide.
    `implausible` names what no adult does: height or sitting height by 4 cm, another sex.
    ukb_infer.read_estimates(run, changes=True) joins the table.

    Example:
        ukb-infer changes run

        ukb-infer changes run --labels both_visits.csv --out changes.csv
    """
    from ukb_infer.epidemiology.changes import ChangesConfig, run_changes

    config = ChangesConfig(
        run=run, out=out, labels=labels, correlations=correlations, save_correlations=save_correlations,
        module=module, quality=options.checked_quality(quality),
    )  # fmt: skip
    typer.echo(f"  {run_changes(config, lambda line: typer.echo(line, err=True))}")
