"""``ukb-infer explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion, options
from ukb_infer.cli.common import ProgressDisplay, print_summary

METHODS = ("integrated-gradients", "occlusion", "gradcam")


def explain(
    inputs: options.Inputs,
    out: options.Out,
    targets: Annotated[
        list[str],
        typer.Option(
            "--target", metavar="NAME", help="Target to explain; repeatable.", autocompletion=completion.targets
        ),
    ],
    modules: options.Modules = None,
    method: Annotated[
        str, completion.choice(*METHODS, help="integrated-gradients, occlusion (slower) or gradcam (coarse).")
    ] = "integrated-gradients",
    of: Annotated[
        str, completion.choice("mean", "variance", help="mean: the estimate; variance: what makes the networks unsure.")
    ] = "mean",
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Picture to start from: a projection, or a folder of them (their mean) [default: the module's own "
            "mean picture].",
        ),
    ] = None,
    cohort: Annotated[
        bool, typer.Option("--cohort", help="Also average the maps over all scans, aligned by the body's outline.")
    ] = False,
    phenotypes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table with eid and sex: averages of women and men apart.")
    ] = None,
    png: Annotated[bool, typer.Option("--png/--no-png", help="Write each map over its scan.")] = True,
    device: options.Device = "auto",
    workers: options.Workers = None,
    root: options.Root = None,
    exclude: options.Exclude = None,
    allow_missing_stations: options.AllowMissing = False,
    expected_stations: options.Expected = 6,
    timeout_s: options.Timeout = 600.0,
    swaps: options.Swaps = "flag",
    shard: options.Shard = "",
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    log_ids: options.LogIds = False,
) -> None:
    """Show which pixels of a scan its estimates rest on.

    Writes FOLDER/SCAN_TARGET.npy, float32 (256, 256) on the projection's own pixels and not negative, and a picture
    of it over the scan. A map says what the networks used, not what causes what. The run is continued as those of
    `project`.

    Example:
        ukb-infer explain /data/20201 --out maps --modules my-module --target AtlasVatVolume --target liverFat

        ukb-infer explain projections --out unsure --target age --of variance --cohort --phenotypes people.csv
    """
    from ukb_infer.explain.explain import ExplainConfig, run_explain
    from ukb_infer.inference.config import default_workers
    from ukb_infer.records import ReadingOptions

    config = ExplainConfig(
        inputs=tuple(inputs), out=out, root=root, exclude=tuple(exclude or ()), timeout_s=timeout_s,
        reading=ReadingOptions(expected_stations, allow_missing_stations),
        workers=default_workers() if workers is None else workers, modules=tuple(modules or ()),
        targets=tuple(dict.fromkeys(targets)), method=method, of=of, baseline=baseline,  # type: ignore[arg-type]
        device=device, png=png, cohort=cohort, phenotypes=phenotypes, swaps=swaps,  # type: ignore[arg-type]
        shard=shard, dry_run=dry_run, overwrite=overwrite, log_ids=log_ids,
    )  # fmt: skip
    with ProgressDisplay("explain") as progress:
        summary = run_explain(config, progress)
    print_summary(summary)
    raise typer.Exit(summary.exit_code)
