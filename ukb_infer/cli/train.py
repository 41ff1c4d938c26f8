"""``ukb-infer train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import training_options as options
from ukb_infer.cli.shared import After, shares


@shares(options.TrainingOptions)
def train(
    *,
    shared: options.TrainingOptions,
    out: Annotated[Path, After("labels"), typer.Option(metavar="FOLDER", help="Folder for the module.")],
    members: Annotated[
        int | None, After("backbone"), typer.Option(metavar="N", help="Networks of the ensemble [default: 5].")
    ] = None,
    folds: Annotated[int | None, typer.Option(metavar="K", help="Member k never sees fold k; 0: no folds.")] = None,
    intended_use: Annotated[
        str, After("work"), typer.Option(metavar="TEXT", help="Intended use, for the manifest.")
    ] = "",
) -> None:
    """Train an ensemble on labelled projections.

    The result is a module for `predict`. To resume after a kill, repeat the command: checkpoints in OUT.work lead to
    the same weights. Then run `ukb-infer cross-validate` and `ukb-infer calibrate` to calibrate the intervals.

    Example:
        ukb-infer train --projections projections --labels labels.csv --targets height,weight --out my-module

        ukb-infer train --projections projections --labels truth.csv --preset fast --folds 5 --out my-module
    """
    request = shared.request(out=out, members=members, folds=folds, intended_use=intended_use)
    from ukb_infer.training.train import run_train

    run_train(request, typer.echo)
