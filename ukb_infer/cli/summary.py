"""``ukb-infer summary``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import epidemiology_options as options


def summary(
    run: options.Run,
    phenotypes: Annotated[
        Path, typer.Option(metavar="FILE", help="Age, sex, height and the variables of --model, keyed by eid or scan.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the summary.")],
    by: Annotated[str, typer.Option(metavar="COLUMN", help="Also group by a column of few values.")] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="FORMULA",
            help='An association to summarize, such as "liverFat ~ age + sex" or "logistic: {liverFat > 5.5} ~ age"; '
            "repeatable.",
        ),
    ] = None,
    labels: options.Labels = None,
    trained_on: options.TrainedOn = "",
    out_of_fold: options.OutOfFold = None,
    min_count: Annotated[
        int, typer.Option("--min-count", metavar="N", help="Fewest people behind any number, at least 5.")
    ] = 5,
    instance: options.Instance = None,
    quality: options.QualityOf = "use",
    units: options.Units = None,
    define: options.Define = None,
) -> None:
    """Summarize a run so that nothing in it shows one person.

    Writes counts.csv (by sex and age), statistics.csv (mean and sd of every target), quantiles.csv (curves over age),
    reasons.csv, reference.json (curves given age, sex and height, for `zscores`) and, with --model and --labels,
    associations.csv (as `associate` estimates them). People in groups below --min-count are in no number, margins
    included; counts are rounded to its multiples, everything else to steps larger than one person's part. No extremes,
    ids, names or paths. docs/summary.md says what is checked and what cannot be. Your platform's rules and its airlock
    still apply.

    Example:
        ukb-infer summary run --phenotypes export.csv --out summary

        ukb-infer summary run --phenotypes p.csv --labels fat.csv --trained-on none --model "liverFat ~ age" --out s
    """
    from ukb_infer.cli.training_options import parse_units
    from ukb_infer.epidemiology.cohort import Sources
    from ukb_infer.epidemiology.summary import SummaryConfig, run_summary

    sources = Sources(
        run=run, labels=labels, phenotypes=phenotypes, out_of_fold=out_of_fold, trained_on=trained_on,
        units=parse_units(units or []), define=define, instance=instance, quality=options.checked_quality(quality),
    )  # fmt: skip
    config = SummaryConfig(sources=sources, out=out, by=by, models=tuple(model or ()), min_count=min_count)
    for path in run_summary(config, lambda line: typer.echo(line, err=True)):
        typer.echo(f"  {path}")
