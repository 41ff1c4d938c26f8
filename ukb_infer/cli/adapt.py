"""``ukb-infer adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion
from ukb_infer.cli import training_options as options
from ukb_infer.cli.common import ProgressDisplay
from ukb_infer.errors import UsageError


def _shots(text: str) -> int:
    """Number of shots; 0 for all."""
    if text == "all":
        return 0
    if not text.isdigit() or not int(text):
        raise UsageError(field="shots", got=text, expected="a number from 1, or all")
    return int(text)


Task = Annotated[
    str,
    typer.Option(
        metavar="TASK|FILE.toml",
        help="Task of the registry (fomo25-infarct, fomo25-meningioma, brain-age, body-vat ...), or your own.",
        autocompletion=completion.tasks,
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="Labelled cases: preprocessed/<sub>/ses_1/*.nii.gz with labels/<sub>/, or other layouts with a table "
        "of labels; for bodies a folder written by `project`.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="MODULE", help="Folder for the module.")]
Pretrained = Annotated[
    str,
    typer.Option(
        metavar="CKPT|none", help="Folder written by `pretrain`, or the name of a shipped one; none: random weights."
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Table of labels [default: labels beside the cases, or participants.tsv]."),
]
Shots = Annotated[str, typer.Option(metavar="N|all", help="Participants to learn from, drawn by --seed.")]
Folds = Annotated[int, typer.Option(metavar="K", help="Networks; each keeps what did best on a fold.")]
Preset = Annotated[str, completion.choice("small", "base", help="Size of the encoder and length of training.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Random seed.")]
Augment = Annotated[
    str,
    completion.choice(
        "auto", "none", "spatial", "intensity", "all", help="What is varied; auto: what suits the kind of task."
    ),
]
Steps = Annotated[int, typer.Option(metavar="N", help="Steps per network; 0: the preset's.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count the cases, check the weights; write nothing.")]


def adapt(
    task: Task,
    data: Data,
    out: Out,
    pretrained: Pretrained = "none",
    labels: Labels = None,
    shots: Shots = "all",
    folds: Folds = 5,
    preset: Preset = ("small"),
    seed: Seed = 0,
    augment: Augment = "auto",
    steps: Steps = 0,
    device: options.Device = "auto",
    processes: options.Processes = 0,
    threads: options.Threads = 0,
    work: options.Work = None,
    warning: options.Warn = "",
    dry_run: DryRun = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Adapt a pretrained encoder to a task with few labels.

    The result is a module for `predict`: K networks that vote, calibrated on the cases that each of them left out, with
    probabilities, intervals or masks. Settings are the preset's, not tuned for a task. To resume after Ctrl-C or a
    kill, repeat the command: checkpoints in MODULE.work lead to the same weights.

    Example:
        ukb-infer adapt --task fomo25-brain-age --data task3 --pretrained brain-contrastive --out brain-age

        ukb-infer adapt --task body-vat --data projections --labels labels.csv --shots 50 --out vat
    """
    with ProgressDisplay("reading cases", "case") as progress:
        from ukb_infer.tasks.adapt import run_adapt

        run_adapt(
            task, data, out, say=typer.echo, progress=progress, labels=labels, shots=_shots(shots), folds=folds,
            pretrained=None if pretrained == "none" else Path(pretrained), preset=preset, seed=seed, augment=augment,
            steps=steps, device=device, processes=processes, threads=threads, work=work, warning=warning,
            dry_run=dry_run, overwrite=overwrite,
        )  # fmt: skip
