"""``ukb-infer status``, ``retry``, ``merge``, ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay, explain_reasons, print_summary

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder written by predict, project or merge.")]


def status(
    run: Run,
    errors: Annotated[int, typer.Option(metavar="N", help="How many of the last failures to show.")] = 5,
    log_ids: options.LogIds = False,
) -> None:
    """Say how far a run is, how fast, and what failed last; works while it is going on.

    Example:
        ukb-infer status run
    """
    from ukb_infer.inference.manage import run_status
    from ukb_infer.inference.words import format_duration

    found = run_status(run, errors=errors, log_ids=log_ids)
    shard = f", shard {found.shard}" if found.shard else ""
    typer.echo(f"{found.command}{shard}: {'working: ' + found.holder if found.holder else 'not working now'}")
    typer.echo(", ".join(f"{n} {name}" for name, n in found.counts.items()) + f", {found.unfinished} unfinished")
    if found.rate is not None and found.unfinished:
        left = f", {format_duration(found.seconds_left)} left" if found.seconds_left else ""
        typer.echo(f"{found.rate:.2f} scans/s{left}")
    explain_reasons(found.reasons)
    for name, words in found.last_failures:
        typer.echo(f"  {name}: {words}")


def retry(
    run: Run,
    code: Annotated[
        list[str] | None, typer.Option("--code", metavar="CODE", help="Reason code, may be repeated [default: all].")
    ] = None,
    lock: options.Lock = "auto",
) -> None:
    """Work on failed scans again, with the command and in the folder of the first time.

    Failures of the machine (timed_out, worker_died, storage_failed ...) need no retry: the same command as before tries
    them again by itself.

    Example:
        ukb-infer retry run --code slice_missing --code unreadable_zip
    """
    from ukb_infer.inference.manage import run_retry

    progress = ProgressDisplay("retry")
    try:
        count, summary = run_retry(run, tuple(code or ()), progress, lock=lock)  # type: ignore[arg-type]
    finally:
        progress.close()
    typer.echo(f"{count} failed scans were worked on again")
    print_summary(summary)
    raise typer.Exit(summary.exit_code)


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
    from ukb_infer.inference.manage import run_merge

    result = run_merge(runs, out, overwrite=overwrite, lock=lock)  # type: ignore[arg-type]
    typer.echo(", ".join(f"{n} {name}" for name, n in result.counts.items()) + f", {len(result.missing)} missing")
    explain_reasons(result.reasons)
    for path in result.files:
        typer.echo(f"  {path}")
    raise typer.Exit(result.exit_code)


def export(
    run: Run, out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write the tables.")]
) -> None:
    """Write the tables of what a run has finished so far; works while it is going on.

    Example:
        ukb-infer export run --out partial
    """
    from ukb_infer.inference.manage import run_export

    for path in run_export(run, out):
        typer.echo(f"  {path}")
