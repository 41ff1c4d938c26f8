"""``ukb-infer export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options


def export(
    run: options.Run, out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write the tables.")]
) -> None:
    """Write the tables of what a run has finished so far; works while it is going on.

    Example:
        ukb-infer export run --out partial
    """
    from ukb_infer.runs.export import run_export

    for path in run_export(run, out):
        typer.echo(f"  {path}")
