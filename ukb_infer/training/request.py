"""The request of ``train`` and ``cross-validate``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ukb_infer.errors import UsageError
from ukb_infer.networks.build import Init
from ukb_infer.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train.

    Attributes:
        projections: folder written by ``project``.
        labels: table of labels.
        out: folder of the module, or of the out-of-fold predictions.
        config: of the training.
        targets: names, empty for all in the table.
        units: unit of a column or target, if not the target's own.
        define: TOML file with user-defined targets, or None.
        init: initial weights of the backbone.
        work: working folder with checkpoints; None for ``<out>.work``.
        device: auto, cpu or cuda.
        processes: members trained at a time; 0: one per core on a CPU, one on CUDA.
        threads: CPU threads of each member; 0: its share of the cores. Kept when a training is resumed.
        stratify: target whose distribution is similar in all folds, or "".
        overwrite: replace an existing result.
        dry_run: read, count and stop.
        intended_use: sentence for the manifest.
        warning: for the manifest, shown wherever the module is used.
    """

    projections: Path
    labels: Path
    out: Path
    config: TrainConfig
    targets: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    define: Path | None = None
    init: Init = "random"
    work: Path | None = None
    device: str = "auto"
    processes: int = 0
    threads: int = 0
    stratify: str = ""
    overwrite: bool = False
    dry_run: bool = False
    intended_use: str = ""
    warning: str = ""

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(field="device", got=self.device, expected="auto, cpu or cuda")
        for name in ("processes", "threads"):
            if getattr(self, name) < 0:
                raise UsageError(field=name, got=getattr(self, name), expected="0 or more")
        if self.stratify and not self.config.ensemble.folds:
            raise UsageError("is useless without `folds`; set both", field="stratify")
        if self.config.numerics.precision == "bf16" and self.device == "cpu":
            raise UsageError("bf16 needs CUDA; on a CPU use fp32", field="precision")

    @property
    def work_folder(self) -> Path:
        """Folder of the checkpoints."""
        return self.work or self.out.with_name(f"{self.out.name}.work")

    def check_out(self, result: str) -> None:
        """Refuse to replace a finished result, before training starts.

        Args:
            result: name of the file that a finished result has.

        Raises:
            UsageError: ``out`` is a file, or not empty.
        """
        if self.out.is_file():
            raise UsageError(f"{self.out} is a file, expected a folder", field="out")
        if self.overwrite or not self.out.is_dir() or not any(self.out.iterdir()):
            return
        if (self.out / result).is_file():
            raise UsageError(
                f"`out` {self.out} contains a finished result ({result}); choose another folder or use `overwrite`"
            )
        raise UsageError(f"`out` {self.out} is not empty; choose another folder")
