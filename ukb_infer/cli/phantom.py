"""``ukb-infer phantom``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion
from ukb_infer.cli.common import ProgressDisplay

Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the scans.")]
Count = Annotated[int, typer.Option(metavar="N", help="Number of scans.")]
Seed = Annotated[int, typer.Option(metavar="S", help="Seed of the population.")]
Format = Annotated[str, completion.choice("zip", "dicom", "nifti", help="zip, dicom or nifti.")]
Size = Annotated[
    str, completion.choice("full", "small", help="full (40 MB a body, 2 to 10 MB a head) or small (7 MB; below 1 MB).")
]
Heads = Annotated[
    str,
    completion.choice(
        "fomo60k",
        "infarct",
        "meningioma",
        "brain-age",
        "ukb",
        "trigeminal",
        "polymicrogyria",
        metavar="LAYOUT",
        show_default=False,
        help="Write heads instead of bodies: fomo60k (unlabelled clinical scans), infarct, meningioma, brain-age, "
        "trigeminal or polymicrogyria (labelled cases of a task), ukb (zips of fields 20252 and 20253).",
    ),
]
Sites = Annotated[
    list[str] | None,
    typer.Option(
        "--site",
        metavar="NAME",
        help="Heads: sites in turn, repeatable [default: site_a to site_e]. Bodies: ukb, or second (four stations at "
        "3 T). `list` describes them.",
    ),
]
Anomalies = Annotated[
    list[str] | None,
    typer.Option(
        "--anomaly",
        metavar="NAME",
        help="Give the next of the first scans this defect; repeatable; `list` prints the names.",
        autocompletion=completion.anomalies,
    ),
]
Masks = Annotated[
    bool, typer.Option("--masks", help="Bodies: also write the region of each organ in the projection, masks/*.npz.")
]
Workers = Annotated[int, typer.Option(metavar="N", help="Worker processes.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier cohort.")]


def phantom(
    out: Out,
    count: Count = 4,
    seed: Seed = 1,
    format: Format = "zip",
    size: Size = "full",
    heads: Heads = "",
    sites: Sites = None,
    anomalies: Anomalies = None,
    masks: Masks = False,
    workers: Workers = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write synthetic scans, with true values in truth.csv.

    Bodies are neck-to-knee Dixon scans as UK Biobank's. Heads (--heads) are brain MRI in the layouts of FOMO60K and of
    its few-shot tasks, scanned at sites that differ in field strength, contrast, resolution, orientation and noise:
    leave a site out of the training data, and it is unseen.

    Example:
        ukb-infer phantom --out phantoms --count 10 --seed 7 --anomaly slice_missing --anomaly unreadable_zip

        ukb-infer phantom --out other_site --count 10 --site second

        ukb-infer phantom --heads fomo60k --out pool --count 200 --site site_a --site site_b --site site_c

        ukb-infer phantom --heads meningioma --out task --count 24 --site site_d --size small
    """
    if heads:
        _write_heads(out, heads, count, seed, size, sites or [], format, anomalies, workers, overwrite)
        return
    from ukb_infer.imaging.recipes import DEFAULT_RECIPE, get_recipe
    from ukb_infer.phantom.anomalies import anomaly_names, find_anomaly
    from ukb_infer.phantom.cohort import describe_bodies, one_site, write_cohort

    if sites == ["list"]:
        typer.echo(describe_bodies())
        return
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
            site=one_site(sites or ()),
            masks=get_recipe(DEFAULT_RECIPE).project if masks else None,
        )
    typer.echo(f"{count} synthetic scans in {out}, true values in {table}")


def _write_heads(
    out: Path, heads: str, count: int, seed: int, size: str, sites: list[str], format: str,
    anomalies: list[str] | None, workers: int, overwrite: bool,
) -> None:  # fmt: skip
    """Write heads instead of bodies."""
    from ukb_infer.phantom.heads.cohort import check_heads, write_heads
    from ukb_infer.phantom.heads.sites import describe_sites

    if sites == ["list"]:
        typer.echo(describe_sites())
        return
    check_heads(format, anomalies or ())
    with ProgressDisplay("phantom", "head") as progress:
        table = write_heads(
            out, heads, count, seed, sites=sites, size=size, workers=workers,  # type: ignore[arg-type]
            progress=lambda done, total: progress(done, total, 0), overwrite=overwrite,
        )  # fmt: skip
    typer.echo(f"{count} synthetic heads in {out}, true values in {table}")
