"""``ukb-infer embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay, explain_reasons


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Heads: session folders, folders of them, single NIfTI images, brain zips of UK Biobank. Bodies: "
            "scans or projections, as for predict.",
        ),
    ],
    module: Annotated[
        str, typer.Option(metavar="FOLDER", help="Folder written by `pretrain`, `adapt` or `train`, or a name.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="FILE.parquet or FILE.csv; FILE.npy for the vector of a single scan.")
    ],
    device: options.Device = "auto",
    workers: options.Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write the features that an encoder sees in each scan.

    One row per scan: scan, participant, session, f0, f1 ... Scans that cannot be used are left out and listed with
    their codes in FILE.failures.csv; the exit code is then 3. `ukb-infer probe` judges the features.

    Example:
        ukb-infer embed FOMO60K --module brain-pretrained --out heads.parquet
    """
    with ProgressDisplay("embed") as progress:
        from ukb_infer.inference.embed import EmbedConfig, run_embed

        config = EmbedConfig(
            inputs=tuple(inputs), module=module, out=out, device=device, workers=workers, overwrite=overwrite
        )
        summary = run_embed(config, progress)
    typer.echo(f"{summary.embedded} scans with {summary.features} features: {out}")
    explain_reasons(summary.reasons, {})
    if summary.failures:
        typer.echo(f"{len(summary.failures)} scans left out: {out.with_name(f'{out.stem}.failures.csv')}")
    if summary.warning:
        typer.echo(f"WARNING {summary.warning}", err=True)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)
