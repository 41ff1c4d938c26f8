"""``ukb-infer gwas-inputs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion
from ukb_infer.cli import epidemiology_options as options
from ukb_infer.cli.options import split_names


def gwas_inputs(
    run: options.Run,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the files, which hold individual data.")],
    labels: options.Labels = None,
    phenotypes: Annotated[
        Path | None,
        typer.Option(
            "--covariates",
            metavar="FILE",
            help="Age, sex, principal components ...: a table keyed by eid (CSV, TSV, Parquet, Stata).",
        ),
    ] = None,
    targets: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="Targets to write [default: those of run and labels].",
            autocompletion=completion.targets,
        ),
    ] = "",
    use: Annotated[str, typer.Option(metavar="A,B,...", help="Covariates to write [default: all of the file].")] = "",
    rank_normal: Annotated[
        bool, typer.Option("--rank-normal", help="Rank-based inverse normal transformation of the phenotypes.")
    ] = False,
    trained_on: options.TrainedOn = "",
    out_of_fold: options.OutOfFold = None,
    instance: Annotated[int, typer.Option(metavar="N", help="Visit, 2 or 3: a GWAS takes one per participant.")] = 2,
    quality: options.QualityOf = "use",
    units: options.Units = None,
    define: options.Define = None,
) -> None:
    """Write phenotypes and covariates for regenie, PLINK and SAIGE.

    A GWAS of estimates finds the variants of their errors, too. Each target therefore becomes three phenotypes,
    measured and estimated values of the labelled and estimated values of the others; run the same GWAS on each, then
    `gwas-combine`. gwas.json records the correlation that it needs.

    Example:
        ukb-infer gwas-inputs run --labels fat.csv --covariates pcs.tsv --rank-normal --trained-on none --out g
    """
    from ukb_infer.cli.training_options import parse_units
    from ukb_infer.epidemiology.cohort import Sources
    from ukb_infer.epidemiology.gwas_inputs import GwasInputsConfig, run_gwas_inputs

    sources = Sources(
        run=run, labels=labels, phenotypes=phenotypes, out_of_fold=out_of_fold, trained_on=trained_on,
        units=parse_units(units or []), define=define, instance=instance, quality=options.checked_quality(quality),
        estimated=split_names(targets),
    )  # fmt: skip
    config = GwasInputsConfig(
        sources=sources, targets=split_names(targets), covariates=split_names(use), out=out, rank_normal=rank_normal
    )
    for path in run_gwas_inputs(config, lambda line: typer.echo(line, err=True)):
        typer.echo(f"  {path}")
