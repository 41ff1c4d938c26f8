"""``ukb-infer project``."""

from __future__ import annotations

from typing import Annotated

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay, print_summary


def project(
    inputs: options.Inputs,
    out: options.Out,
    workers: options.Workers = None,
    png: Annotated[bool, typer.Option("--png", help="Also write a picture of each projection.")] = False,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Also write the fused volumes as NIfTI (110 MB a scan).")
    ] = False,
    root: options.Root = None,
    exclude: options.Exclude = None,
    strict: options.Strict = False,
    allow_missing_stations: options.AllowMissing = False,
    expected_stations: options.Expected = 6,
    timeout: options.Timeout = 600.0,
    shard: options.Shard = "",
    scheduler: options.Scheduler = "",
    verify: options.Verify = False,
    lock: options.Lock = "auto",
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    log_ids: options.LogIds = False,
) -> None:
    """Fuse and project every scan, without estimating anything.

    Writes FOLDER/<scan>.npy, uint8 (3, 256, 256), and scans.csv. `predict` takes the folder as input.

    Example:
        ukb-infer project /data/20201 --out projections --png

        ukb-infer predict projections --out run --modules my-module
    """
    from ukb_infer.inference.config import ProjectConfig, default_workers
    from ukb_infer.inference.projecting import run_project
    from ukb_infer.records import ReadingOptions

    config = ProjectConfig(
        inputs=tuple(inputs),
        out=out,
        root=root,
        reading=ReadingOptions(expected_stations, allow_missing_stations, strict),
        workers=default_workers() if workers is None else workers,
        timeout_s=timeout,
        exclude=tuple(exclude or ()),
        png=png,
        volumes=volumes,
        overwrite=overwrite,
        dry_run=dry_run,
        log_ids=log_ids,
        shard=shard,
        scheduler=scheduler,
        verify=verify,
        lock=lock,  # type: ignore[arg-type]
    )
    progress = ProgressDisplay("project")
    try:
        summary = run_project(config, progress)
    finally:
        progress.close()
    print_summary(summary)
    raise typer.Exit(summary.exit_code)
