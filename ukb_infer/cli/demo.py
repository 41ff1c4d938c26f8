"""``ukb-infer demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where scans and results go.")] = Path("ukb-infer-demo"),
    count: Annotated[int, typer.Option(metavar="N", help="Number of synthetic scans.")] = 4,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the phantoms.")] = 2026,
    workers: options.Workers = None,
) -> None:
    """Try everything without data: write synthetic scans, predict them, compare with their true values.

    Example:
        ukb-infer demo --count 2
    """
    from ukb_infer.demo.run import run_demo
    from ukb_infer.inference.config import default_workers

    with ProgressDisplay("demo") as progress:
        for line in run_demo(out, count, seed, workers or default_workers(), progress):
            typer.echo(line)
