"""``ukb-infer cross-validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import training_options as options
from ukb_infer.cli.shared import After, shares


@shares(options.TrainingOptions)
def cross_validate(
    *,
    shared: options.TrainingOptions,
    out: Annotated[
        Path, After("labels"), typer.Option(metavar="FOLDER", help="Folder for the out-of-fold predictions.")
    ],
    folds: Annotated[int, After("targets"), typer.Option(metavar="K", help="Number of folds.")] = 10,
    members: Annotated[
        int | None,
        typer.Option(metavar="N", help="Networks per fold; use as many as the module has [default: the preset's, 5]."),
    ] = None,
) -> None:
    """Predict labelled scans out of fold, for calibrate.

    Every scan is predicted by networks that never saw its participant. Trains folds x members networks exactly as train
    does, so that calibrate can transfer their errors to the module. Writes predictions.csv (means, variances, labels,
    folds), history.csv, MODULE.md and report.html (metrics, groups, the items of TRIPOD+AI). Both visits of a
    participant are always in the same fold. To resume a killed run, repeat the command.

    Example:
        ukb-infer cross-validate --projections projections --labels labels.csv --preset fast --out cv

        ukb-infer calibrate cv --module my-module && ukb-infer evaluate cv --labels labels.csv --out agreement
    """
    request = shared.request(out=out, members=members, folds=folds)
    from ukb_infer.training.cross_validate import run_cross_validate

    if run_cross_validate(request, typer.echo) is not None:
        from ukb_infer.report.card import card_of_cross_validation

        for path in card_of_cross_validation(request.out):
            typer.echo(f"  {path}")
