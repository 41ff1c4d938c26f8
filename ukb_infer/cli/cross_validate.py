"""``ukb-infer cross-validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import training_options as options


def cross_validate(
    projections: options.Projections,
    labels: options.Labels,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder of the out-of-fold predictions.")],
    targets: options.Targets = "",
    folds: Annotated[int, typer.Option(metavar="K", help="Parts of the participants.")] = 10,
    members: Annotated[
        int, typer.Option(metavar="N", help="Networks a fold; as many as the module has, to calibrate it exactly.")
    ] = 1,
    backbone: options.Backbone = None,
    init: options.Initial = "random",
    preset: options.Preset = "mimir",
    config: options.Config = None,
    iterations: options.Iterations = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    seed: options.Seed = None,
    stratify: options.Stratify = "",
    units: options.Units = None,
    define: options.Define = None,
    device: options.Device = "auto",
    precision: options.Precision = None,
    deterministic: options.Deterministic = False,
    processes: options.Processes = 0,
    threads: options.Threads = 0,
    work: options.Work = None,
    warning: options.Warn = "",
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Predict every labelled scan by networks that never saw its participant.

    Writes predictions.csv (means, variances, labels, folds) and history.csv. Killed at any moment, the same command
    continues. Both visits of a participant are always in the same fold.

    Example:
        ukb-infer cross-validate --projections projections --labels labels.csv --preset fast --out cv

        ukb-infer calibrate cv --module my-module && ukb-infer evaluate cv --labels labels.csv --out agreement
    """
    from ukb_infer.training.run import run_cross_validate

    changes = {
        "backbone": backbone, "folds": folds, "iterations": iterations, "batch_size": batch_size,
        "learning_rate": learning_rate, "seed": seed, "precision": precision, "deterministic": deterministic or None,
    }  # fmt: skip
    request = options.make_request(
        projections, labels, out, preset, config, changes, targets=targets, units=units, init=init, define=define,
        device=device, processes=processes, threads=threads, work=work, stratify=stratify, overwrite=overwrite,
        dry_run=dry_run,
        warning=warning,
    )  # fmt: skip
    run_cross_validate(request, members, typer.echo)
