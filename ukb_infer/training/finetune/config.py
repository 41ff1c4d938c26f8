"""What to adapt, and the presets: settings fixed for each kind of output, the same for every task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ukb_infer.errors import UsageError
from ukb_infer.modules.manifest import ModuleInput, VolumeInput
from ukb_infer.networks import InputScaling
from ukb_infer.networks.pretrained import Pretrained
from ukb_infer.targets import TargetSpec
from ukb_infer.text import suggest
from ukb_infer.training.config import TrainConfig, make_config

Output = Literal["class", "segmentation", "regression"]
#: Objective of each output.
OBJECTIVE_OF: dict[Output, str] = {
    "class": "classification", "segmentation": "segmentation", "regression": "regression",
}  # fmt: skip
#: What is varied in training by default: in FOMO25 moving the images helped segmentation, and changing their contrast
#: hurt the others.
AUGMENT_OF: dict[Output, str] = {"class": "spatial", "segmentation": "all", "regression": "spatial"}
AUGMENTS = ("auto", "none", "spatial", "intensity", "all")
#: Validations of a member, each of which may be kept.
VALIDATIONS = 10


def probes_first(output: Output, pretrained: bool) -> bool:
    """Whether a head is fitted to the encoder's features before everything learns; a segmentation has no such head.

    Args:
        output: what is learned.
        pretrained: whether it starts from a checkpoint.
    """
    return pretrained and output != "segmentation"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Sizes and steps.

    Attributes:
        spacing_mm: of a head's box; ``size``: (x, y, z) voxels. Those of a checkpoint are used instead.
        patch: (x, y, z) voxels from which a segmentation learns at most.
        steps: of each member, by output.
        batch_size: cases per step.
        learning_rate: highest, from random weights, and of every segmentation.
        careful: highest by dimension, from a checkpoint, once the head fits its features.
        careful_steps: of each member then, of heads; more did not help them. Projections take the steps above.
        scaling: of projections; that of a checkpoint is used instead.
    """

    spacing_mm: float
    size: tuple[int, int, int]
    patch: tuple[int, int, int]
    steps: Mapping[Output, int]
    batch_size: int = 8
    learning_rate: float = 3e-3
    careful: Mapping[int, float] = field(default_factory=lambda: {2: 1e-3, 3: 3e-4})
    careful_steps: int = 100
    scaling: InputScaling

    def steps_of(self, output: Output, pretrained: bool, dimension: int) -> int:
        """Steps of each member.

        Args:
            output: what is learned.
            pretrained: whether it starts from a checkpoint.
            dimension: 3 for volumes, 2 for projections.
        """
        return self.careful_steps if dimension == 3 and probes_first(output, pretrained) else self.steps[output]


#: ``small`` runs on two CPU cores in minutes; ``base`` wants a GPU.
PRESETS: dict[str, Preset] = {
    "small": Preset(
        spacing_mm=3.5, size=(48, 48, 32), patch=(32, 32, 32),
        steps={"class": 300, "segmentation": 300, "regression": 400},
        scaling=InputScaling(1.0 / 64.0, -1.0, (128, 128)),
    ),
    "base": Preset(
        spacing_mm=1.0, size=(160, 192, 160), patch=(96, 96, 96),
        steps={"class": 2000, "segmentation": 5000, "regression": 2000}, batch_size=2, learning_rate=3e-4,
        careful={2: 1e-4, 3: 3e-5}, careful_steps=400,
        scaling=InputScaling(1.0 / 64.0, -1.0, None),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest:
    """What to adapt.

    Attributes:
        task: name.
        data: folder of cases, or of projections.
        out: folder of the module.
        dimension: 3 for volumes, 2 for projections.
        inputs: modalities of every channel.
        output: what is learned.
        targets: of the module, in the order of the head; one per label of a segmentation.
        pretrained: folder of a checkpoint; None to start from random weights.
        preset: key of :data:`PRESETS`.
        labels: table with the labels; None for those beside the cases.
        shots: participants to learn from; 0 for all.
        folds: networks, each validated on the fold that it leaves out.
        seed: of shots, folds and training.
        augment: one of :data:`AUGMENTS`; ``auto`` for the output's own.
        steps: of each member; 0 for the preset's.
        work: folder of the checkpoints; None for ``<out>.work``.
        device: auto, cpu or cuda.
        processes: members trained at a time; 0: one per core on a CPU, one on CUDA.
        threads: CPU threads of each member; 0: its share of the cores. Kept when the work is resumed.
        overwrite: replace an existing module, and checkpoints of other settings.
        dry_run: count and stop.
        warning: for the manifest.
    """

    task: str
    data: Path
    out: Path
    dimension: Literal[2, 3]
    inputs: tuple[tuple[str, ...], ...]
    output: Output
    targets: tuple[TargetSpec, ...]
    pretrained: Path | None = None
    preset: str = "small"
    labels: Path | None = None
    shots: int = 0
    folds: int = 5
    seed: int = 0
    augment: str = "auto"
    steps: int = 0
    work: Path | None = None
    device: str = "auto"
    processes: int = 0
    threads: int = 0
    overwrite: bool = False
    dry_run: bool = False
    warning: str = ""
    title: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name, known in (("preset", PRESETS), ("augment", AUGMENTS)):
            given = getattr(self, name)
            if given not in known:
                raise UsageError(f"unknown {given!r}{suggest(given, known)} (choices: {', '.join(known)})", field=name)
        for name, least in (("folds", 2), ("shots", 0), ("steps", 0), ("seed", 0), ("processes", 0), ("threads", 0)):
            if getattr(self, name) < least:
                raise UsageError(field=name, got=getattr(self, name), expected=f"{least} or more")
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(field="device", got=self.device, expected="auto, cpu or cuda")
        if self.dimension == 2 and self.output == "segmentation":
            raise UsageError("projections cannot be segmented; choose a task of class or regression", field="task")
        if self.dimension == 2 and self.labels is None:
            raise UsageError("missing; the labels of projections are in a table with a column eid", field="labels")

    @property
    def work_folder(self) -> Path:
        """Folder of the checkpoints."""
        return self.work or self.out.with_name(f"{self.out.name}.work")

    def reads(self, pretrained: Pretrained | None) -> VolumeInput:
        """How the volumes are read: the checkpoint's box, else the preset's.

        Args:
            pretrained: the checkpoint.
        """
        preset = PRESETS[self.preset]
        settings = {} if pretrained is None else pretrained.settings
        x, y, z = (int(n) for n in settings.get("size", preset.size))
        px, py, pz = (min(n, p) for n, p in zip((x, y, z), preset.patch, strict=True))
        cut = self.output == "segmentation" and (px, py, pz) != (x, y, z)
        spacing_mm = float(settings.get("spacing_mm", preset.spacing_mm))
        patch = (px, py, pz) if cut else None
        return VolumeInput(modalities=self.inputs, spacing_mm=spacing_mm, size=(x, y, z), patch=patch)

    def _backbone(self, probe: bool) -> str:
        """Encoders of heads learned from single contrasts, and see them apart where a head is fitted to them."""
        return f"conv_{self.preset}" + ("_apart" if probe and self.dimension == 3 else "")

    def config(self, pretrained: Pretrained | None, read: ModuleInput | VolumeInput | None) -> TrainConfig:
        """Everything that the training loop needs.

        Args:
            pretrained: the checkpoint.
            read: how volumes are read; None for projections.
        """
        preset, augment = PRESETS[self.preset], AUGMENT_OF[self.output] if self.augment == "auto" else self.augment
        probe = probes_first(self.output, pretrained is not None)
        steps = self.steps or preset.steps_of(self.output, pretrained is not None, self.dimension)
        scaling, settings = preset.scaling, {} if pretrained is None else dict(pretrained.settings)
        if settings and self.dimension == 2:
            size = settings.get("size")
            scaling = InputScaling(settings["scale"], settings["offset"], None if size is None else tuple(size))
        own: dict[str, Any] = {"objective": OBJECTIVE_OF[self.output]}
        if self.output == "regression":
            own |= {"beta": 0.5, "warmup_mse": steps // 4}
        if self.output == "segmentation" and isinstance(read, VolumeInput):
            own |= {"patch": read.patch}
        moves = augment in ("spatial", "all")
        return make_config(
            "fast", **own, backbone=self._backbone(probe), members=self.folds, folds=self.folds, seed=self.seed,
            scaling=scaling if self.dimension == 2 else InputScaling(), iterations=steps,
            batch_size=preset.batch_size, probe_first=probe,
            learning_rate=preset.careful[self.dimension] if probe else preset.learning_rate,
            weight_decay=1e-2, gradient_clip=1.0,
            max_shift=4 if moves else 0, intensity=0.1 if augment in ("intensity", "all") else 0.0,
            volumes=augment if self.dimension == 3 else "none", validation=0.0, on_fold=True,
            validate_every=max(1, steps // VALIDATIONS), average_decay=0.98,
        )  # fmt: skip
