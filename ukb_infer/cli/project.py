"""``ukb-infer project``."""

from __future__ import annotations

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay, print_summary
from ukb_infer.imaging.recipes import DEFAULT_RECIPE


def project(
    inputs: options.Inputs,
    out: options.Out,
    workers: options.Workers = None,
    recipe: options.Recipe = DEFAULT_RECIPE,
    png: options.Png = False,
    volumes: options.Volumes = False,
    root: options.Root = None,
    exclude: options.Exclude = None,
    strict: options.Strict = False,
    allow_missing_stations: options.AllowMissing = False,
    expected_stations: options.Expected = 6,
    timeout_s: options.Timeout = 600.0,
    quality: options.Quality = None,
    require_quality: options.RequireQuality = None,
    swaps: options.Swaps = "flag",
    keep_uncorrected: options.KeepUncorrected = False,
    shard: options.Shard = "",
    scheduler: options.Scheduler = "",
    verify: options.Verify = False,
    lock: options.Lock = "auto",
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    log_ids: options.LogIds = False,
) -> None:
    """Fuse and project every scan, without estimating anything.

    Writes FOLDER/<scan>.npy, with the recipe's type and shape, scans.csv and quality.csv. `predict` accepts the folder
    as input if its modules use the same recipe.

    Example:
        ukb-infer project /data/20201 --out projections --png

        ukb-infer predict projections --out run --modules my-module
    """
    from ukb_infer.inference.config import ProjectConfig, default_workers
    from ukb_infer.records import ReadingOptions

    config = ProjectConfig(
        inputs=tuple(inputs), out=out, root=root, exclude=tuple(exclude or ()), timeout_s=timeout_s,
        quality=quality, require_quality=require_quality,
        reading=ReadingOptions(expected_stations, allow_missing_stations, strict),
        workers=default_workers() if workers is None else workers,
        recipe=recipe, png=png, volumes=volumes, keep_uncorrected=keep_uncorrected, lock=lock, swaps=swaps,  # type: ignore[arg-type]
        shard=shard, scheduler=scheduler, verify=verify, dry_run=dry_run, overwrite=overwrite, log_ids=log_ids,
    )  # fmt: skip
    with ProgressDisplay("project") as progress:
        from ukb_infer.inference.project import run_project

        summary = run_project(config, progress)
    print_summary(summary)
    raise typer.Exit(summary.exit_code)
