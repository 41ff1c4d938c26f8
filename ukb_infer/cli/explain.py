"""``ukb-infer explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion, options
from ukb_infer.cli.common import ProgressDisplay, finish
from ukb_infer.cli.shared import shares

METHODS = ("integrated-gradients", "occlusion", "gradcam")


@shares(options.ScanOptions)
def explain(
    *,
    shared: options.ScanOptions,
    targets: Annotated[
        list[str],
        typer.Option(
            "--targets",
            "--target",
            metavar="A,B,...",
            help="Targets to explain; repeatable.",
            autocompletion=completion.targets,
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
) -> None:
    """Show which pixels of a scan its estimates rest on.

    Writes FOLDER/SCAN_TARGET.npy, float32 (256, 256) on the projection's own pixels and not negative, and a picture
    of it over the scan. A map says what the networks used, not what causes what. The run is continued as those of
    `project`.

    Example:
        ukb-infer explain /data/20201 --out maps --modules my-module --targets AtlasVatVolume,liverFat

        ukb-infer explain projections --out unsure --targets age --of variance --cohort --phenotypes people.csv
    """
    from ukb_infer.explain.explain import ExplainConfig, run_explain

    config = ExplainConfig(
        modules=tuple(modules or ()), targets=options.split_names(targets), method=method, of=of,  # type: ignore[arg-type]
        baseline=baseline, device=device, png=png, cohort=cohort, phenotypes=phenotypes, **shared.settings(),
    )  # fmt: skip
    with ProgressDisplay("explain") as progress:
        summary = run_explain(config, progress)
    finish(summary)
