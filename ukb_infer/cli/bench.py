"""``ukb-infer bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import show


def bench(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the results.")] = Path("ukb-infer-bench"),
    quick: Annotated[bool, typer.Option("--quick", help="A few rounds: for trying, not for quoting.")] = False,
) -> None:
    """Measure this machine: every figure a ratio against a floor measured in the same run.

    Writes bench.md, bench.json, scaling.csv and scaling.png. Takes some minutes; let the machine do nothing else.

    Example:
        ukb-infer bench --out bench
    """
    from ukb_infer.performance.bench import BenchConfig, run_benchmarks, table

    config = BenchConfig.quick(out) if quick else BenchConfig(out)
    rows = run_benchmarks(config, lambda line: typer.echo(line, err=True))
    show.markdown("\n".join(table(rows)))
    typer.echo(f"\n{out}")
