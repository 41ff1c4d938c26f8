"""``ukb-infer merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import explain_reasons


def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of the shards.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder of the merged run.")],
    overwrite: options.Overwrite = False,
    lock: options.Lock = "auto",
) -> None:
    """Join the runs of shards into one, as if one machine had done all the work.

    Scans that no shard has finished are listed in missing.csv, which predict takes as an input with --root; the exit
    code is 75 then. The same scan with different results is an error.

    Example:
        ukb-infer merge shard-* --out run
    """
    from ukb_infer.runs.merge import run_merge

    result = run_merge(runs, out, overwrite=overwrite, lock=lock)  # type: ignore[arg-type]
    typer.echo(", ".join(f"{n} {name}" for name, n in result.counts.items()) + f", {len(result.missing)} missing")
    explain_reasons(result.reasons, result.levels)
    for path in result.files:
        typer.echo(f"  {path}")
    raise typer.Exit(result.exit_code)
