"""``ukb-infer zscores``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import epidemiology_options as options
from ukb_infer.cli.options import split_names


def zscores(
    run: options.Run,
    phenotypes: Annotated[
        Path, typer.Option(metavar="FILE", help="Age, sex, height (cm) and other covariates, keyed by eid or scan.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV, TSV or Parquet [default: RUN/zscores.csv].")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Curves saved before, instead of fitting them to this run.")
    ] = None,
    save_reference: Annotated[
        Path | None,
        typer.Option("--save-reference", metavar="FILE", help="Save the fitted curves (JSON, no individual data)."),
    ] = None,
    covariates: Annotated[
        str, typer.Option(metavar="A,B,...", help="Covariates besides age, sex and height, such as the centre.")
    ] = "",
    quality: options.QualityOf = "use",
) -> None:
    """Write the z-score and percentile of every estimate given age, sex and height.

    The curves are fitted to the first visit of every participant of the run (at least 200 of a sex), or read from
    --reference. The interval of a z-score is that of the estimate, widened by the error of the curve.
    ukb_infer.read_estimates(run, zscores=True) joins the table to the estimates.

    Example:
        ukb-infer zscores run --phenotypes export.csv --save-reference curves.json

        ukb-infer zscores clinic --phenotypes patients.csv --reference curves.json --out z.csv
    """
    from ukb_infer.epidemiology.zscores import ZscoresConfig, run_zscores

    config = ZscoresConfig(
        run=run, phenotypes=phenotypes, out=out, reference=reference, save_reference=save_reference,
        covariates=split_names(covariates), quality=options.checked_quality(quality),
    )  # fmt: skip
    typer.echo(f"  {run_zscores(config, lambda line: typer.echo(line, err=True))}")
