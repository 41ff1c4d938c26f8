"""``ukb-infer dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options, show
from ukb_infer.cli.common import ProgressDisplay, explain_reasons


def dataset(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder in a layout of FOMO60K or BIDS, of UK Biobank brain zips (fields 20252, 20253), or of "
            "projections.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for images.csv.")],
    validation: Annotated[float, typer.Option(metavar="F", help="Share of participants set aside, e.g. 0.1.")] = 0.0,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the division into train and validation.")] = 0,
    workers: options.Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing table.")] = False,
) -> None:
    """List the images of a data set, try each to its last byte, and set participants aside.

    Writes FOLDER/images.csv with the columns dataset, participant, session, modality, path, status, codes, split. Files
    that cannot be used are rows with status failed and give exit code 3. All images of a participant are on the same
    side of the division; with the same seed, new participants change nobody's side.

    Example:
        ukb-infer dataset FOMO60K --out pool --validation 0.05 --seed 1

        ukb-infer dataset /data/brain_zips --out brains
    """
    from ukb_infer.imaging.datasets.dataset import make_dataset
    from ukb_infer.inference.config import default_workers

    with ProgressDisplay("dataset", "image") as progress:
        summary = make_dataset(
            folder, out, validation=validation, seed=seed, workers=default_workers() if workers is None else workers,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    found = [(d, " ".join(f"{name} {count}" for name, count in d.modalities.items())) for d in summary.datasets]
    show.table(
        ("data set", ">participants", ">validation", ">images", ">failed", "usable images"),
        [(d.dataset, str(d.participants), str(d.validation), str(d.images), str(d.failed), held) for d, held in found],
        [
            f"{d.dataset}: {d.participants} participants ({d.validation} validation), {d.images} images, "
            f"{d.failed} failed; {held}"
            for d, held in found
        ],
    )
    typer.echo(", ".join(f"{number} {status}" for status, number in summary.statuses.items()))
    explain_reasons(summary.reasons, {})
    typer.echo(f"  {summary.path}")
    raise typer.Exit(summary.exit_code)
