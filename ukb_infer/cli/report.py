"""``ukb-infer report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ukb_infer.cli import training_options

if TYPE_CHECKING:
    from ukb_infer.report.report import ReportConfig

Labels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Labels, as for evaluate: adds agreement and calibration.")
]
Phenotypes = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Table with sex (p31), age (p21003_i2) or both, keyed like labels.")
]
Projections = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Projections of the scans (.npy), for pictures [default: those in RUN or that it read]."
    ),
]
Saliency = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Saliency maps that explain wrote.")]
Anonymous = Annotated[
    bool, typer.Option("--anonymous", help="Leave out names, paths and messages, and shuffle the scans.")
]
Summary = Annotated[
    bool,
    typer.Option(
        "--summary", help="Without individual data: RUN is a folder of summary, or a run that --phenotypes summarize."
    ),
]
MinCount = Annotated[
    int | None,
    typer.Option("--min-count", metavar="N", help="With --summary: fewest people behind any number, at least 5."),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of predict, project or merge; or of summary.")]


def report(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page.")],
    labels: Labels = None,
    phenotypes: Phenotypes = None,
    projections: Projections = None,
    saliency: Saliency = None,
    anonymous: Anonymous = False,
    summary: Summary = False,
    min_count: MinCount = None,
    units: training_options.Units = None,
    define: training_options.Define = None,
) -> None:
    """Show a run as one page that opens without a network.

    Cohort, a table of all scans, every scan with its picture, and a mosaic to rate scans in. Pictures of more than
    2,000 scans lie in a folder beside the page.

    With --summary the page holds what `ukb-infer summary` writes and nothing of single people.

    Example:
        ukb-infer report run --out report.html --projections projections --labels labels.csv

        ukb-infer report summary --summary --out summary.html
    """
    from ukb_infer.report.report import ReportConfig

    config = ReportConfig(
        run=run, out=out, labels=labels, phenotypes=phenotypes, projections=projections, saliency=saliency,
        anonymous=anonymous, summary=summary, min_count=min_count, define=define,
        units=training_options.parse_units(units or []),
    )  # fmt: skip
    write(config)


def write(config: ReportConfig) -> None:
    """Write a report and name its files."""
    from ukb_infer.report.report import run_report

    result = run_report(config, lambda line: typer.echo(line, err=True))
    typer.echo(f"  {result.page} ({result.size / 1e6:.1f} MB)")
    if result.pictures is not None:
        typer.echo(f"  {result.pictures} (pictures: keep it beside the page)")
