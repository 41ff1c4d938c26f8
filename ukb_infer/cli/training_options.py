"""Options that ``train`` and ``cross-validate`` share, and how they become a request."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ukb_infer.cli import completion
from ukb_infer.cli.options import split_names
from ukb_infer.errors import UsageError

if TYPE_CHECKING:
    from ukb_infer.training.request import TrainRequest

Labels = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="CSV, TSV, Parquet or Stata file with a column scan, or eid [and instance]; other columns: target names "
        "or UK Biobank's (p21002_i2, 21002-2.0, n_21002_2_0, `Weight | Instance 2`).",
    ),
]
Units = Annotated[
    list[str] | None,
    typer.Option("--unit", metavar="COLUMN=UNIT", help="Unit of a column if it is not the target's; repeatable."),
]
Define = Annotated[
    Path | None, typer.Option(metavar="FILE.toml", help="Your own targets: [targets.NAME] unit, lower ...")
]
# Also of other commands that train.
Device = Annotated[
    str,
    completion.choice("auto", "cpu", "cuda", help="auto, cpu or cuda; several GPUs: `train`, `pretrain` by torchrun."),
]
Processes = Annotated[
    int,
    typer.Option(
        "--processes",
        "--workers",
        metavar="N",
        help="Members trained in parallel [default: one per core on a CPU].",
        show_default=False,
    ),
]
Threads = Annotated[
    int, typer.Option(metavar="N", help="CPU threads per member [default: its share of the cores].", show_default=False)
]
Work = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder for checkpoints [default: OUT.work]; may be deleted when done."),
]
Warn = Annotated[str, typer.Option(metavar="TEXT", help="Warning shown whenever the module is used.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing result, and checkpoints of other settings.")
]

#: Options that are training settings; None keeps the value of the preset or file.
SETTINGS = (
    "backbone", "members", "folds", "iterations", "batch_size", "learning_rate", "validation", "seed", "precision",
    "deterministic",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of every command that trains networks."""

    projections: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder written by `ukb-infer project`.")]
    labels: Labels
    targets: Annotated[
        str,
        typer.Option(
            metavar="A,B,...", help="Targets to learn [default: all in the labels].", autocompletion=completion.targets
        ),
    ] = ""
    backbone: Annotated[
        str | None,
        typer.Option(
            help="resnet50, mobilenet_v3_small ... [default: the preset's].", autocompletion=completion.backbones
        ),
    ] = None
    init: Annotated[
        str,
        typer.Option(
            metavar="WHAT", help="random, imagenet (torchvision's file in the torch cache) or a weights file."
        ),
    ] = "random"
    preset: Annotated[
        str, completion.choice("mimir", "fast", help="mimir (published schedule) or fast (small networks on CPUs).")
    ] = "mimir"
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Training settings; command-line options override them.")
    ] = None
    iterations: Annotated[
        int | None, typer.Option(metavar="N", help="Optimizer steps per member; 0: by the number of labelled scans.")
    ] = None
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Scans per step.")] = None
    learning_rate: Annotated[float | None, typer.Option(metavar="RATE", help="Highest learning rate.")] = None
    validation: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the participants that chooses a network's weights; 0: keep the last [default: 0.15].",
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(metavar="N", help="Random seed.")] = None
    stratify: Annotated[
        str,
        typer.Option(
            metavar="TARGET",
            help="Give all folds a similar distribution of this target.",
            autocompletion=completion.targets,
        ),
    ] = ""
    units: Units = None
    define: Define = None
    device: Device = "auto"
    precision: Annotated[str | None, typer.Option(help="fp32, or bf16 on CUDA.")] = None
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="Reproducible on CUDA too; slower. CPUs always are.")
    ] = None
    processes: Processes = 0
    threads: Threads = 0
    work: Work = None
    warning: Warn = ""
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count the labels; write nothing.")] = False
    overwrite: Overwrite = False

    def request(self, **own: Any) -> TrainRequest:
        """Turn the options, and the ``own`` ones of the command, into a request."""
        from ukb_infer.training.config import make_config, read_config_file
        from ukb_infer.training.request import TrainRequest

        given = vars(self) | own
        preset, file = given.pop("preset"), given.pop("config")
        settings = read_config_file(file) if file else {}
        chosen = {name: given.pop(name) for name in SETTINGS}
        config = make_config(preset, **settings | {name: v for name, v in chosen.items() if v is not None})
        if config.numerics.deterministic:  # read by CUDA when it starts; the process is this command's
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        return TrainRequest(
            config=config,
            targets=split_names(given.pop("targets")),
            units=parse_units(given.pop("units") or []),
            init=self.init if self.init in ("random", "imagenet") else Path(self.init),  # type: ignore[arg-type]
            **{name: value for name, value in given.items() if name != "init"},
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
