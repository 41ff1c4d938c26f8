"""``ukb-infer evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion, show
from ukb_infer.cli import training_options as options
from ukb_infer.cli.options import split_names


def evaluate(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder written by predict or cross-validate, or a MIMIR predictions.csv."),
    ],
    labels: options.Labels,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for tables and figures.")],
    targets: Annotated[
        str,
        typer.Option(metavar="A,B,...", help="Targets to evaluate [default: all].", autocompletion=completion.targets),
    ] = "",
    units: options.Units = None,
    define: options.Define = None,
    replicates: Annotated[
        int, typer.Option(metavar="N", help="Bootstrap replicates over participants; 0: no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the bootstrap.")] = 0,
    divisors: Annotated[
        list[str] | None,
        typer.Option(
            "--divisor",
            metavar="TARGET=N",
            help="Unit divisor of a target in a MIMIR predictions.csv, from the module's metadata.txt; repeatable.",
        ),
    ] = None,
    phenotypes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table with sex, age or both, for groups [default: the labels].")
    ] = None,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw figures as PDF and PNG.")] = True,
) -> None:
    """Compare the estimates of a run with labels.

    Writes metrics.csv, metrics.md, a card with groups and the items of TRIPOD+AI (MODULE.md, report.html) and figures;
    prints the metrics next to the accuracy published for MIMIR.

    Example:
        ukb-infer evaluate run --labels labels.csv --out agreement
    """
    from ukb_infer.report.evaluate import EvaluateConfig, run_evaluate

    config = EvaluateConfig(
        run,
        labels,
        out,
        targets=split_names(targets),
        units=options.parse_units(units or []),
        define=define,
        replicates=replicates,
        seed=seed,
        figures=figures,
        phenotypes=phenotypes,
        divisors=_divisors(divisors or []),
    )
    result = run_evaluate(config, lambda line: typer.echo(line.replace("`divisors`", "--divisor"), err=True))
    show.markdown(result.table)
    for path in result.files:
        typer.echo(f"  {path}")


def _divisors(given: list[str]) -> dict[str, float]:
    """Parse ``TARGET=N`` items.

    Raises:
        UsageError: an item has another form, or an unknown target.
    """
    from ukb_infer.errors import UsageError
    from ukb_infer.targets import get_target

    found = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise UsageError(field="divisors", got=text, expected="TARGET=N with N above 0, e.g. liverVolume=1000")
        found[get_target(name.strip()).name] = value
    return found
