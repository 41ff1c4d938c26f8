"""``ukb-infer status``."""

from __future__ import annotations

from typing import Annotated

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import explain_reasons


def status(
    run: options.Run,
    errors: Annotated[int, typer.Option(metavar="N", help="Number of recent failures to show.")] = 5,
    log_ids: options.LogIds = False,
) -> None:
    """Show progress, rate and recent failures of a run.

    It can be used while the run works.

    Example:
        ukb-infer status run
    """
    from ukb_infer.runs.status import run_status
    from ukb_infer.text import format_duration

    found = run_status(run, errors=errors, log_ids=log_ids)
    shard = f", shard {found.shard}" if found.shard else ""
    typer.echo(f"{found.command}{shard}: {'running: ' + found.holder if found.holder else 'not running'}")
    typer.echo(", ".join(f"{n} {name}" for name, n in found.counts.items()) + f", {found.unfinished} unfinished")
    if found.rate is not None and found.unfinished:
        left = f", {format_duration(found.seconds_left)} left" if found.seconds_left else ""
        typer.echo(f"{found.rate:.2f} scans/s{left}")
    explain_reasons(found.reasons, found.levels)
    for name, words in found.last_failures:
        typer.echo(f"  {name}: {words}")
