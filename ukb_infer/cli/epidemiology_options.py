"""Options that the commands of epidemiology share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ukb_infer.cli import completion
from ukb_infer.cli.training_options import Define, Units

__all__ = ["Define", "Units"]

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder written by predict or merge.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Measurements of the estimated variables for some participants, as `train` takes them (docs/labels.md).",
    ),
]
Phenotypes = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Everything else: CSV, TSV, Parquet or Stata, keyed by eid (participant.eid, n_eid ...) or scan; columns "
        "bmi, bmi_i2, p21001_i2 ...",
    ),
]
TrainedOn = Annotated[
    str,
    typer.Option(
        "--trained-on", metavar="FILE|none",
        help="List of participants or scans that the module was trained on, which are left out; none: not of these.",
    ),
]  # fmt: skip
OutOfFold = Annotated[
    Path | None,
    typer.Option("--out-of-fold", metavar="CV", help="Folder of cross-validate: its estimates replace the run's."),
]
Estimated = Annotated[
    str,
    typer.Option(
        metavar="A,B,...", help="Targets to take from the run although --phenotypes has them too.",
        autocompletion=completion.targets,
    ),
]  # fmt: skip
Instance = Annotated[int | None, typer.Option(metavar="N", help="Use only this visit, 2 or 3.")]
QualityOf = Annotated[
    str, completion.choice("use", "all", help="use: without estimates that quality flags rule out; all: with them.")
]


def checked_quality(given: str) -> Literal["use", "all"]:
    """The choice of estimates.

    Raises:
        UsageError: neither use nor all.
    """
    from ukb_infer.errors import UsageError

    if given not in ("use", "all"):
        raise UsageError(field="quality", got=given, expected="use or all")
    return "use" if given == "use" else "all"
