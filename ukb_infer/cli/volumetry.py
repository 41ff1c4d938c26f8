"""``ukb-infer volumetry``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options


def volumetry(
    labels: Annotated[
        Path,
        typer.Argument(metavar="LABELS", help="Label map (.nii, .nii.gz) drawn on the stitched scan; 0 is nothing."),
    ],
    scan: Annotated[
        Path,
        typer.Option("--scan", metavar="ZIP", help="The scan: a 20201 zip, or a folder of DICOM or NIfTI stations."),
    ],
    names: Annotated[
        Path | None,
        typer.Option("--names", metavar="FILE", help="Table with columns label (or index) and name: CSV or TSV."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the CSV here [default: print it].")
    ] = None,
    stations: Annotated[
        Path | None,
        typer.Option("--stations", metavar="FOLDER", help="Also write the labels on every station's own voxels."),
    ] = None,
    allow_missing_stations: options.AllowMissing = False,
    expected_stations: options.Expected = 6,
    swaps: options.Swaps = "flag",
) -> None:
    """Volume in litres and mean fat fraction of every label of a map drawn on a stitched scan, as CSV.

    The map goes back to the voxels of the stations as they were acquired: each counts with the part of it that lies in
    the label, and where two stations overlap with the weights of their blending, so that nothing counts twice. The
    map's affine decides how it lies: any orientation, any spacing that `stitch` makes, cropped or whole. A map that is
    not on the grid of this scan is refused. Fat fractions are of the stations as --swaps leaves them: give what
    `stitch` was given.

    Example:
        ukb-infer volumetry liver.nii.gz --scan /data/20201/0000001_20201_2_0.zip --names names.csv --out liver.csv
    """
    from ukb_infer.inference.volumetry import run_volumetry
    from ukb_infer.records import ReadingOptions

    reading = ReadingOptions(expected_stations, allow_missing_stations)
    text = run_volumetry(
        labels, scan, names=names, out=out, stations=stations, options=reading, swaps=swaps,  # type: ignore[arg-type]
        say=lambda line: typer.echo(f"  {line}", err=True),
    )  # fmt: skip
    typer.echo(f"  {out}" if out is not None else text.rstrip("\n"))
