"""``ukb-infer train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import training_options as options


def train(
    projections: options.Projections,
    labels: options.Labels,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the module.")],
    targets: options.Targets = "",
    backbone: options.Backbone = None,
    members: Annotated[int | None, typer.Option(metavar="N", help="Networks of the ensemble [default: 5].")] = None,
    folds: Annotated[int | None, typer.Option(metavar="K", help="Member k never sees fold k; 0: no folds.")] = None,
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
    intended_use: Annotated[str, typer.Option(metavar="TEXT", help="Intended use, for the manifest.")] = "",
    warning: options.Warn = "",
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Train an ensemble on labelled projections.

    The result is a module for `predict`. To resume after a kill, repeat the command: checkpoints in OUT.work lead to
    the same weights. Then run `ukb-infer cross-validate` and `ukb-infer calibrate` to calibrate the intervals.

    Example:
        ukb-infer train --projections projections --labels labels.csv --targets height,weight --out my-module

        ukb-infer train --projections projections --labels truth.csv --preset fast --folds 5 --out my-module
    """
    request = options.make_request(**locals())
    from ukb_infer.training.train import run_train

    run_train(request, typer.echo)
