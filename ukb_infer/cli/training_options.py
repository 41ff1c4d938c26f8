"""Options that ``train`` and ``cross-validate`` share, and their way into a configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ukb_infer.errors import UsageError

if TYPE_CHECKING:
    from ukb_infer.training.request import TrainRequest

Projections = Annotated[Path, typer.Option(metavar="FOLDER", help="Projections, from `ukb-infer project`.")]
Labels = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="CSV, TSV, Parquet or Stata file with a column scan, or eid [and instance]; other columns: target names "
        "or UK Biobank's (p21002_i2, 21002-2.0, n_21002_2_0, `Weight | Instance 2`).",
    ),
]
Targets = Annotated[str, typer.Option(metavar="A,B,...", help="Targets to learn [default: all the labels have].")]
Units = Annotated[
    list[str] | None,
    typer.Option("--unit", metavar="COLUMN=UNIT", help="Unit of a column where it is not the target's; repeatable."),
]
Define = Annotated[
    Path | None, typer.Option(metavar="FILE.toml", help="Targets of your own: [targets.NAME] unit, lower ...")
]
Preset = Annotated[str, typer.Option(help="mimir (published schedule) or fast (small networks on CPUs).")]
Config = Annotated[
    Path | None, typer.Option(metavar="FILE.toml", help="Any setting of the training; options win over it.")
]
Backbone = Annotated[str | None, typer.Option(help="resnet50, mobilenet_v3_small ... [default: the preset's].")]
Initial = Annotated[
    str, typer.Option(metavar="WHAT", help="random, imagenet (torchvision's file in the torch cache) or a file.")
]
Iterations = Annotated[
    int | None, typer.Option(metavar="N", help="Optimizer steps a member; 0 chooses by the number of labelled scans.")
]
Validation = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Participants each network sets aside to choose its best weights [default: 0.15]; 0 keeps the last ones.",
    ),
]
BatchSize = Annotated[int | None, typer.Option(metavar="N", help="Scans a step.")]
LearningRate = Annotated[float | None, typer.Option(metavar="RATE", help="Highest learning rate.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Of everything random.")]
Stratify = Annotated[str, typer.Option(metavar="TARGET", help="Make this target's distribution alike in all folds.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda; several GPUs: start the command with torchrun.")]
Processes = Annotated[
    int, typer.Option(metavar="N", help="Members trained at a time [default: one a core on a CPU].", show_default=False)
]
Threads = Annotated[
    int, typer.Option(metavar="N", help="CPU threads a member [default: its share of the cores].", show_default=False)
]
Work = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Checkpoints [default: OUT.work]; may go when done.")]
Precision = Annotated[str | None, typer.Option(help="fp32, or bf16 on CUDA.")]
Deterministic = Annotated[
    bool | None, typer.Option("--deterministic", help="The same bits every time on CUDA too; slower. CPUs always do.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a result, or checkpoints of other settings.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read the labels, count, and write nothing.")]
Warn = Annotated[str, typer.Option(metavar="TEXT", help="Shown wherever the module is used.")]


#: Options that are settings of the configuration; those not given leave the preset or the file as it is.
SETTINGS = (
    "backbone", "members", "folds", "iterations", "batch_size", "learning_rate", "validation", "seed", "precision",
    "deterministic",
)  # fmt: skip


def make_request(
    preset: str, config: Path | None, targets: str, units: list[str] | None, init: str, **given: Any
) -> TrainRequest:
    """All options of a command to a request.

    Args:
        preset: name of the configuration to begin with.
        config: file with settings that change it.
        targets: names, separated by commas.
        units: COLUMN=UNIT each.
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
    """``COLUMN=UNIT`` to a table.

    Raises:
        UsageError: another form.
    """
    units = {}
    for text in given:
        column, sign, unit = text.rpartition("=")
        if not sign or not column or not unit:
            raise UsageError(field="units", got=text, expected="COLUMN=UNIT, e.g. p23280_i2=g")
        units[column] = unit
    return units
