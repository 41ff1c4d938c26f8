"""``ukb-infer summary``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import epidemiology_options as options


def summary(
    run: options.Run,
    phenotypes: Annotated[Path, typer.Option(metavar="FILE", help="Age and sex, keyed by eid or scan.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the summary.")],
    by: Annotated[str, typer.Option(metavar="COLUMN", help="Also group by a column of few values.")] = "",
    min_count: Annotated[
        int, typer.Option("--min-count", metavar="N", help="Fewest people behind any number, at least 5.")
    ] = 5,
    instance: options.Instance = None,
    quality: options.QualityOf = "use",
) -> None:
    """Summarize a run so that nothing in it shows one person.

    Writes counts.csv (by sex and age), statistics.csv (mean and sd of every target), quantiles.csv (curves over age)
    and reasons.csv. People in groups below --min-count are in no number, margins included; counts are rounded to its
    multiples, and means, sds and quantiles to steps larger than one person's part. No extremes, ids, names or paths.
    docs/summary.md says what is checked and what cannot be. Your platform's rules and its airlock still apply.

    Example:
        ukb-infer summary run --phenotypes export.csv --out summary
    """
    from ukb_infer.epidemiology.summary import SummaryConfig, run_summary

    config = SummaryConfig(
        run=run, phenotypes=phenotypes, out=out, by=by, min_count=min_count, instance=instance,
        quality=options.checked_quality(quality),
    )  # fmt: skip
    for path in run_summary(config, lambda line: typer.echo(line, err=True)):
        typer.echo(f"  {path}")
