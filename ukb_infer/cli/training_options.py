"""Options that ``train`` and ``cross-validate`` share, and how they become a configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ukb_infer.cli import completion
from ukb_infer.errors import UsageError

if TYPE_CHECKING:
    from ukb_infer.training.request import TrainRequest

Projections = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder written by `ukb-infer project`.")]
Labels = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="CSV, TSV, Parquet or Stata file with a column scan, or eid [and instance]; other columns: target names "
        "or UK Biobank's (p21002_i2, 21002-2.0, n_21002_2_0, `Weight | Instance 2`).",
    ),
]
Targets = Annotated[
    str,
    typer.Option(
        metavar="A,B,...", help="Targets to learn [default: all in the labels].", autocompletion=completion.targets
    ),
]
Units = Annotated[
    list[str] | None,
    typer.Option("--unit", metavar="COLUMN=UNIT", help="Unit of a column if it is not the target's; repeatable."),
]
Define = Annotated[
    Path | None, typer.Option(metavar="FILE.toml", help="Your own targets: [targets.NAME] unit, lower ...")
]
Preset = Annotated[
    str, completion.choice("mimir", "fast", help="mimir (published schedule) or fast (small networks on CPUs).")
]
Config = Annotated[
    Path | None, typer.Option(metavar="FILE.toml", help="Training settings; command-line options override them.")
]
Backbone = Annotated[
    str | None,
    typer.Option(help="resnet50, mobilenet_v3_small ... [default: the preset's].", autocompletion=completion.backbones),
]
Initial = Annotated[
    str,
    typer.Option(metavar="WHAT", help="random, imagenet (torchvision's file in the torch cache) or a weights file."),
]
Iterations = Annotated[
    int | None, typer.Option(metavar="N", help="Optimizer steps per member; 0: by the number of labelled scans.")
]
Validation = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Share of the participants that chooses a network's weights; 0: keep the last [default: 0.15].",
    ),
]
BatchSize = Annotated[int | None, typer.Option(metavar="N", help="Scans per step.")]
LearningRate = Annotated[float | None, typer.Option(metavar="RATE", help="Highest learning rate.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Random seed.")]
Stratify = Annotated[
    str,
    typer.Option(
        metavar="TARGET",
        help="Give all folds a similar distribution of this target.",
        autocompletion=completion.targets,
    ),
]
Device = Annotated[
    str,
    completion.choice("auto", "cpu", "cuda", help="auto, cpu or cuda; several GPUs: start the command with torchrun."),
]
Processes = Annotated[
    int,
    typer.Option(metavar="N", help="Members trained in parallel [default: one per core on a CPU].", show_default=False),
]
Threads = Annotated[
    int, typer.Option(metavar="N", help="CPU threads per member [default: its share of the cores].", show_default=False)
]
Work = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder for checkpoints [default: OUT.work]; may be deleted when done."),
]
Precision = Annotated[str | None, typer.Option(help="fp32, or bf16 on CUDA.")]
Deterministic = Annotated[
    bool | None, typer.Option("--deterministic", help="Reproducible on CUDA too; slower. CPUs always are.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing result, and checkpoints of other settings.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read and count the labels; write nothing.")]
Warn = Annotated[str, typer.Option(metavar="TEXT", help="Warning shown whenever the module is used.")]


#: Options that are training settings; None keeps the value of the preset or file.
SETTINGS = (
    "backbone", "members", "folds", "iterations", "batch_size", "learning_rate", "validation", "seed", "precision",
    "deterministic",
)  # fmt: skip


def make_request(
    preset: str, config: Path | None, targets: str, units: list[str] | None, init: str, **given: Any
) -> TrainRequest:
    """Turn the options of a command into a request.

    Args:
        preset: name of the base configuration.
        config: TOML file with settings that override the preset.
        targets: names, separated by commas.
        units: one COLUMN=UNIT each.
        init: random, imagenet or a file.
        given: the other options: :data:`SETTINGS` and attributes of the request.
    """
    from ukb_infer.training.config import make_config, read_config_file
    from ukb_infer.training.request import TrainRequest

    settings = read_config_file(config) if config else {}
    chosen = {name: given.pop(name) for name in SETTINGS}
    resolved = make_config(preset, **settings | {name: v for name, v in chosen.items() if v is not None})
    if resolved.numerics.deterministic:  # read by CUDA when it starts; the process is this command's
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return TrainRequest(
        config=resolved,
        targets=tuple(t.strip() for t in targets.split(",") if t.strip()),
        units=parse_units(units or []),
        init=init if init in ("random", "imagenet") else Path(init),  # type: ignore[arg-type]
        **given,
    )


def parse_units(given: list[str]) -> dict[str, str]:
    """Parse ``COLUMN=UNIT`` items.

    Raises:
        UsageError: an item has another form.
    """
    units = {}
    for text in given:
        column, sign, unit = text.rpartition("=")
        if not sign or not column or not unit:
            raise UsageError(field="units", got=text, expected="COLUMN=UNIT, e.g. p23280_i2=g")
        units[column] = unit
    return units
