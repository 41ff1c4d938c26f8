"""``ukb-infer retry``."""

from __future__ import annotations

from typing import Annotated

import typer

from ukb_infer.cli import completion, options
from ukb_infer.cli.common import ProgressDisplay, finish


def retry(
    run: options.Run,
    codes: Annotated[
        list[str] | None,
        typer.Option(
            "--code",
            metavar="CODE",
            help="Reason code to retry; repeatable [default: all].",
            autocompletion=completion.reasons,
        ),
    ] = None,
    lock: options.Lock = "auto",
) -> None:
    """Process the failed scans of a run again.

    It repeats the run's original command for them. Machine failures (timed_out, worker_died, storage_failed ...) need
    no retry: repeating the original command tries them again. A merged run cannot be retried: retry its shards, then
    merge again.

    Example:
        ukb-infer retry run --code slice_missing --code unreadable_zip
    """
    with ProgressDisplay("retry") as progress:
        from ukb_infer.inference.retry import run_retry

        count, summary = run_retry(run, tuple(codes or ()), progress, lock=lock)  # type: ignore[arg-type]
    typer.echo(f"{count} failed scans were processed again")
    finish(summary)
