"""``ukb-infer bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import show


def bench(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the results.")] = Path("ukb-infer-bench"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Only a few rounds: for a try, not for figures to report.")
    ] = False,
) -> None:
    """Measure speed and memory on this machine.

    Every figure is a ratio to a floor measured in the same run. Writes bench.md, bench.json, scaling.csv and
    scaling.png. Takes about ten minutes; run nothing else meanwhile.

    Example:
        ukb-infer bench --out bench
    """
    from ukb_infer.performance.bench import BenchConfig, run_benchmarks, table

    config = BenchConfig.quick(out) if quick else BenchConfig(out)
    rows = run_benchmarks(config, lambda line: typer.echo(line, err=True))
    show.markdown("\n".join(table(rows)))
    typer.echo(f"\n{out}")
