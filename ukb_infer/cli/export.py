"""``ukb-infer export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options


def export(
    run: options.Run, out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the tables.")]
) -> None:
    """Write the tables of the scans finished so far.

    It can be used while the run works.

    Example:
        ukb-infer export run --out partial
    """
    from ukb_infer.runs.export import run_export

    for path in run_export(run, out):
        typer.echo(f"  {path}")
