"""``ukb-infer phantom``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion
from ukb_infer.cli.common import ProgressDisplay


def phantom(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the scans.")],
    count: Annotated[int, typer.Option(metavar="N", help="Number of scans.")] = 4,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the population.")] = 1,
    format: Annotated[str, completion.choice("zip", "dicom", "nifti", help="zip, dicom or nifti.")] = "zip",
    size: Annotated[str, completion.choice("full", "small", help="full (40 MB a zip) or small (7 MB).")] = "full",
    anomalies: Annotated[
        list[str] | None,
        typer.Option(
            "--anomaly",
            metavar="NAME",
            help="Give the next of the first scans this defect; repeatable; `list` prints the names.",
            autocompletion=completion.anomalies,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", help="Worker processes.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier cohort.")] = False,
) -> None:
    """Write synthetic scans, with true values in truth.csv.

    Example:
        ukb-infer phantom --out phantoms --count 10 --seed 7 --anomaly slice_missing --anomaly unreadable_zip
    """
    from ukb_infer.phantom.anomalies import anomaly_names, find_anomaly
    from ukb_infer.phantom.cohort import write_cohort

    if anomalies == ["list"]:
        typer.echo("\n".join(anomaly_names()))
        return
    with ProgressDisplay("phantom") as progress:
        table = write_cohort(
            out,
            count,
            seed,
            format,  # type: ignore[arg-type]
            size,  # type: ignore[arg-type]
            [find_anomaly(name) for name in anomalies or ()],
            workers=workers,
            overwrite=overwrite,
            progress=lambda done, total: progress(done, total, 0),
        )
    typer.echo(f"{count} synthetic scans in {out}, true values in {table}")
