"""``ukb-infer export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options


def export(
    run: options.Run,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the tables.")],
    stata: Annotated[
        bool, typer.Option("--stata", help="Also estimates.dta: names of at most 32 characters, full ones as labels.")
    ] = False,
    bids: Annotated[
        bool, typer.Option("--bids", help="Also phenotype/ukb_infer.tsv and .json, for a BIDS data set.")
    ] = False,
) -> None:
    """Write the tables of the scans finished so far.

    It can be used while the run works.

    Example:
        ukb-infer export run --out partial

        ukb-infer export run --out for_stata --stata
    """
    from ukb_infer.runs.export import run_export

    for path in run_export(run, out, stata=stata, bids=bids):
        typer.echo(f"  {path}")
