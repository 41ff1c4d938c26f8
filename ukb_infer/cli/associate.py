"""``ukb-infer associate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion, show
from ukb_infer.cli import epidemiology_options as options
from ukb_infer.cli.options import split_names


def associate(
    run: options.Run,
    model: Annotated[
        str, typer.Option(metavar="FORMULA", help='Such as "liverFat ~ age + sex + bmi"; "liverFat ~ 1" is a mean.')
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for table, page and figure.")],
    labels: options.Labels = None,
    phenotypes: options.Phenotypes = None,
    family: Annotated[
        str,
        completion.choice("linear", "logistic", "poisson", "quantile", help="linear, logistic, poisson or quantile."),
    ] = "linear",
    quantile: Annotated[float, typer.Option(metavar="Q", help="Quantile of --family quantile.")] = 0.5,
    level: Annotated[float, typer.Option("--ci", metavar="LEVEL", help="Level of the intervals.")] = 0.95,
    trained_on: options.TrainedOn = "",
    out_of_fold: options.OutOfFold = None,
    estimated: options.Estimated = "",
    instance: options.Instance = None,
    quality: options.QualityOf = "use",
    units: options.Units = None,
    define: options.Define = None,
    imputations: Annotated[int, typer.Option(metavar="N", help="Imputations of an estimated exposure.")] = 50,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the imputations.")] = 0,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw the forest plot.")] = True,
) -> None:
    """Estimate an association that a paper can report.

    An estimate is not a measurement: used as if it were one, it biases coefficients and makes intervals too narrow.
    Here a target of the run may stand on either side of the formula; --labels holds measurements of it for some
    participants, and the estimators use them to correct the estimates' errors. Writes associations.csv,
    associations.md (what to report, why, and what must hold) and a forest plot. docs/valid-use.md shows what each
    estimator is for.

    Without --labels only the naive result is given, with a range of what it may hide.

    Say what the module was trained on: --trained-on none if not on the labelled scans, a list of its training scans, or
    --out-of-fold with the folder of cross-validate if it was. Otherwise labels_only is recommended.

    Example:
        ukb-infer associate run --labels fat.csv --phenotypes export.csv --model "liverFat ~ age + sex + bmi" --out fat

        ukb-infer associate run --labels fat.csv --phenotypes ex.csv --model "case ~ liverFat" --family logistic --out c
    """
    from ukb_infer.cli.training_options import parse_units
    from ukb_infer.epidemiology.associate import AssociateConfig, run_associate
    from ukb_infer.epidemiology.cohort import Sources

    sources = Sources(
        run=run, labels=labels, phenotypes=phenotypes, out_of_fold=out_of_fold, trained_on=trained_on,
        estimated=split_names(estimated), units=parse_units(units or []), define=define, instance=instance,
        quality=options.checked_quality(quality),
    )  # fmt: skip
    config = AssociateConfig(
        sources=sources, model=model, out=out, family=family, quantile=quantile, level=level, imputations=imputations,
        seed=seed, figures=figures,
    )  # fmt: skip
    result = run_associate(config, lambda line: typer.echo(line, err=True))
    show.markdown(result.page.replace("`trained_on`", "--trained-on").replace("`out_of_fold`", "--out-of-fold"))
    for path in result.files:
        typer.echo(f"  {path}")
