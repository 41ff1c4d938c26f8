"""``ukb-infer gwas-combine``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_FORMS = "Summary statistics of regenie, PLINK 2 or SAIGE"


def gwas_combine(
    observed: Annotated[Path, typer.Argument(metavar="OBSERVED", help=f"{_FORMS}: measured values of the labelled.")],
    estimated: Annotated[Path, typer.Argument(metavar="ESTIMATED", help="The same: estimated values of the labelled.")],
    unlabelled: Annotated[Path, typer.Argument(metavar="UNLABELLED", help="The same: estimated values of the others.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Table to write, tab-separated.")],
    correlation: Annotated[
        str | None,
        typer.Option(
            metavar="R|gwas.json",
            help="Correlation of measurement and estimate given the covariates; the gwas.json of gwas-inputs has it "
            "[default: estimated from the results].",
        ),
    ] = None,
    target: Annotated[str, typer.Option(metavar="NAME", help="Target in gwas.json, if it has several.")] = "",
) -> None:
    """Combine three GWAS into one that is valid.

    Takes the results of the three phenotypes of `gwas-inputs`, made with the same program, covariates and variants, and
    writes for every variant beta, se, z, p and the effective n: how many measured participants would be as informative.
    Errors of the estimates, heritable or not, cancel.

    Example:
        ukb-infer gwas-combine observed.regenie estimated.regenie rest.regenie --correlation gwas.json --out fat.tsv
    """
    from ukb_infer.epidemiology.gwas_combine import GwasCombineConfig, run_gwas_combine

    config = GwasCombineConfig(
        observed=observed, estimated=estimated, unlabelled=unlabelled, out=out, correlation=correlation, target=target
    )
    run_gwas_combine(config, lambda line: typer.echo(line, err=True))
    typer.echo(f"  {out}")
