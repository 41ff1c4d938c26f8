"""``ukb-infer demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for scans and results.")] = Path("ukb-infer-demo"),
    count: Annotated[int, typer.Option(metavar="N", help="Number of synthetic scans.")] = 4,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the phantoms.")] = 2026,
    workers: options.Workers = None,
) -> None:
    """Try everything without data of your own.

    Writes synthetic scans, predicts them and prints the estimates next to their true values.

    Example:
        ukb-infer demo --count 2
    """
    with ProgressDisplay("demo") as progress:
        from ukb_infer.demo.run import run_demo
        from ukb_infer.inference.config import default_workers

        for line in run_demo(out, count, seed, workers or default_workers(), progress):
            typer.echo(line)
