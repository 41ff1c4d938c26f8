"""``ukb-infer cross-validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import training_options as options


def cross_validate(
    projections: options.Projections,
    labels: options.Labels,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the out-of-fold predictions.")],
    targets: options.Targets = "",
    folds: Annotated[int, typer.Option(metavar="K", help="Number of folds.")] = 10,
    members: Annotated[
        int | None,
        typer.Option(metavar="N", help="Networks per fold; use as many as the module has [default: the preset's, 5]."),
    ] = None,
    backbone: options.Backbone = None,
    init: options.Initial = "random",
    preset: options.Preset = "mimir",
    config: options.Config = None,
    iterations: options.Iterations = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    validation: options.Validation = None,
    seed: options.Seed = None,
    stratify: options.Stratify = "",
    units: options.Units = None,
    define: options.Define = None,
    device: options.Device = "auto",
    precision: options.Precision = None,
    deterministic: options.Deterministic = None,
    processes: options.Processes = 0,
    threads: options.Threads = 0,
    work: options.Work = None,
    warning: options.Warn = "",
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Predict labelled scans out of fold, for calibrate.

    Every scan is predicted by networks that never saw its participant. Trains folds x members networks exactly as train
    does, so that calibrate can transfer their errors to the module. Writes predictions.csv (means, variances, labels,
    folds) and history.csv. Both visits of a participant are always in the same fold. To resume a killed run, repeat the
    command.

    Example:
        ukb-infer cross-validate --projections projections --labels labels.csv --preset fast --out cv

        ukb-infer calibrate cv --module my-module && ukb-infer evaluate cv --labels labels.csv --out agreement
    """
    request = options.make_request(**locals())
    from ukb_infer.training.cross_validate import run_cross_validate

    run_cross_validate(request, typer.echo)
