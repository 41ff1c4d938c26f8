"""``ukb-infer probe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import show
from ukb_infer.cli.options import split_names


def probe(
    embeddings: Annotated[
        Path,
        typer.Argument(metavar="FILE|PRED", help="Embeddings written by `ukb-infer embed`, or a folder of <sub>.npy."),
    ],
    labels: Annotated[
        Path, typer.Option(metavar="FILE", help="Table with one row per participant, e.g. participants.tsv.")
    ],
    target: Annotated[str, typer.Option(metavar="NAME", help="Its column to read from the features.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the tables.")],
    groups: Annotated[
        str, typer.Option(metavar="A,B,...", help="Its columns over which fairness is judged, e.g. sex,site.")
    ] = "",
    seeds: Annotated[int, typer.Option(metavar="N", help="Divisions of the participants.")] = 5,
    replicates: Annotated[int, typer.Option(metavar="N", help="Bootstrap replicates; 0: no intervals.")] = 500,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the first division and of the bootstrap.")] = 0,
) -> None:
    """Say how much of a label a linear layer reads from frozen features.

    As in FOMO26: 13 learning rates of 20 epochs on 40 % of the participants, the best chosen on 10 %, judged on the
    rest; text or few values are classes, many numbers a regression. Writes probe.csv, seeds.csv and groups.csv, with
    95 % bootstrap intervals over participants and seeds. Fairness is the mean over the columns of 1 - (best group -
    worst group).

    Example:
        ukb-infer probe embeddings.parquet --labels participants.tsv --target sex --groups site --out probe
    """
    from ukb_infer.evaluation.probe import ProbeConfig, run_probe

    report = run_probe(
        ProbeConfig(
            embeddings=embeddings,
            labels=labels,
            target=target,
            out=out,
            groups=split_names(groups),
            seeds=seeds,
            replicates=replicates,
            seed=seed,
        )
    )
    rows = [(name, show.interval(value)) for name, value in report.metrics.items()]
    show.table(("metric", "value"), rows, [f"{name}  {value}" for name, value in rows])
    kind = f"classes {', '.join(report.classes)}" if report.classes else "regression"
    typer.echo(f"{report.participants} participants, {kind}, {seeds} seeds")
    for path in report.files:
        typer.echo(f"  {path}")
