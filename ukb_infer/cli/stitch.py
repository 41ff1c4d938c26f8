"""``ukb-infer stitch``."""

from __future__ import annotations

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay, print_summary


def stitch(
    inputs: options.Inputs,
    out: options.Out,
    contrasts: options.Contrasts = "water,fat",
    spacing: options.Spacing = "native",
    workers: options.Workers = None,
    root: options.Root = None,
    exclude: options.Exclude = None,
    strict: options.Strict = False,
    allow_missing_stations: options.AllowMissing = False,
    expected_stations: options.Expected = 6,
    timeout_s: options.Timeout = 600.0,
    quality: options.Quality = None,
    require_quality: options.RequireQuality = None,
    swaps: options.Swaps = "flag",
    shard: options.Shard = "",
    scheduler: options.Scheduler = "",
    verify: options.Verify = False,
    lock: options.Lock = "auto",
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    log_ids: options.LogIds = False,
) -> None:
    """Fuse every scan's stations into one body and write it as NIfTI, a 3D file a contrast.

    Writes FOLDER/sub-EID/ses-INSTANCE/anat/sub-EID_ses-INSTANCE_acq-dixon_rec-water_desc-fused_T1w.nii.gz, a .json
    beside each (stations, seams, gains, storage), scans.csv and quality.csv. Voxels run to the right, to the front and
    up, and sform and qform say so. fraction is F/(W+F) in 0-1. The run is continued, sharded, merged and retried as
    those of `project`.

    `volumetry` takes a label map that was drawn on it back to litres.

    Example:
        ukb-infer stitch /data/20201 --out bodies --contrasts water,fat,fraction

        ukb-infer stitch scan.zip --out bodies --contrasts in,opposed --spacing 2
    """
    from ukb_infer.inference.config import StitchConfig, default_workers
    from ukb_infer.records import ReadingOptions

    config = StitchConfig(
        inputs=tuple(inputs), out=out, root=root, exclude=tuple(exclude or ()), timeout_s=timeout_s,
        quality=quality, require_quality=require_quality,
        reading=ReadingOptions(expected_stations, allow_missing_stations, strict),
        workers=default_workers() if workers is None else workers,
        contrasts=options.split_names(contrasts), spacing=spacing, lock=lock, swaps=swaps,  # type: ignore[arg-type]
        shard=shard, scheduler=scheduler, verify=verify, dry_run=dry_run, overwrite=overwrite, log_ids=log_ids,
    )  # fmt: skip
    with ProgressDisplay("stitch") as progress:
        from ukb_infer.inference.stitch import run_stitch

        summary = run_stitch(config, progress)
    print_summary(summary)
    raise typer.Exit(summary.exit_code)
