"""``ukb-infer calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="CV", help="Folder of `ukb-infer cross-validate`.")],
    module: Annotated[str, typer.Option("--module", metavar="MODULE", help="Module to calibrate, by name or folder.")],
    method: Annotated[
        str,
        typer.Option(
            help="conformal, or a variance factor: coverage (published matching) or closed-form (minimal NLL)."
        ),
    ] = "conformal",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and print, but write nothing.")] = False,
) -> None:
    """Fit a module's intervals on out-of-fold predictions and write them into its manifest.

    Example:
        ukb-infer calibrate cv --module my-module
    """
    from ukb_infer.training.calibrating import run_calibrate

    fitted = run_calibrate(folder, module, method=method, dry_run=dry_run, say=typer.echo)
    width = max(len(f.name) for f in fitted)
    typer.echo(f"{'target':<{width}}  labels  variance factor  95 % half width (sd)")
    for f in fitted:
        typer.echo(f"{f.name:<{width}}  {f.labels:>6}  {f.factor:>15.3f}  {f.half_width95:>20.2f}")
    typer.echo("nothing was written (--dry-run)" if dry_run else f"{module}: calibrated by {method}")
