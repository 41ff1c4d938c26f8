"""``ukb-infer merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import explain_reasons


def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of the shards.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the merged run.")],
    overwrite: options.Overwrite = False,
    lock: options.Lock = "auto",
) -> None:
    """Merge the runs of shards into one.

    The tables are those that one machine would have written. Scans that no shard has finished give exit code 75 and are
    listed in missing.csv, which predict accepts as input with --root. Conflicting results for a scan are an error.

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
