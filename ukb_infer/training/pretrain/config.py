"""Configuration and request of pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from ukb_infer.errors import UsageError
from ukb_infer.imaging.volumes.preprocess import VolumeSettings
from ukb_infer.networks import InputScaling
from ukb_infer.networks.encoder import EncoderSpec
from ukb_infer.networks.pretrained import FACTS_NAME
from ukb_infer.text import suggest
from ukb_infer.training.config import Numerics, Optimization
from ukb_infer.training.objectives import PRETRAINING, Unlabelled
from ukb_infer.training.settings import Section

#: Steps between checkpoints: a twentieth of all, at most this many.
MOST_BETWEEN = 200
#: Of projections: the values of the preset `fast` of `train`, so that its weights fit what it sees.
PROJECTION_SCALING = InputScaling(1.0 / 64.0, -1.0, (128, 128))
#: Share of the participants that validate where the images table names none.
VALIDATION_SHARE = 0.1


class Augment(Section):
    """What is varied.

    Attributes:
        spatial: turns, sizes, shifts and, for heads, left and right.
        intensity: contrast, bias field, blur and noise of the input; the target keeps its own.
    """

    spatial: bool = True
    intensity: bool = True


#: Names of `--augment`.
AUGMENT: dict[str, Augment] = {
    "all": Augment(),
    "spatial": Augment(intensity=False),
    "intensity": Augment(spatial=False),
    "none": Augment(spatial=False, intensity=False),
}


class Box(Section):
    """The box that heads are brought to; the head fills it.

    Attributes:
        spacing_mm: isotropic.
        size: (X, Y, Z) voxels.
    """

    spacing_mm: Annotated[float, Field(gt=0.0, le=20.0)] = 3.5
    size: Annotated[
        tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]],
        Field(description="three numbers of voxels, at least 16, e.g. 48,48,32"),
    ] = (48, 48, 32)


class PretrainConfig(Section):
    """Configuration of pretraining.

    Attributes:
        dim: 3 for volumes, 2 for projections.
        preset: size of the encoder.
        objective: what is learned.
        seed: of weights, order, masks and augmentation.
        optimization: optimizer and schedule.
        augment: what is varied.
        box: of volumes.
        numerics: how numbers are computed.
    """

    flat_names: ClassVar[Mapping[str, str]] = {}
    dim: Literal[2, 3] = 3
    preset: Literal["small", "base"] = "small"
    objective: SerializeAsAny[Unlabelled]
    seed: Annotated[int, Field(ge=0)] = 0
    optimization: Optimization
    augment: Augment = Augment()
    box: Box = Box()
    numerics: Numerics = Numerics()

    @property
    def spec(self) -> EncoderSpec:
        """Of the encoder: heads are seen one contrast at a time, projections whole."""
        return EncoderSpec(dim=self.dim, channels=1 if self.dim == 3 else 3, preset=self.preset)

    @property
    def volumes(self) -> VolumeSettings:
        """How heads are brought to their box."""
        return VolumeSettings(spacing_mm=self.box.spacing_mm, size=self.box.size)

    def flat(self) -> dict[str, Any]:
        """All settings as plain values by name, without sections."""
        whole = self.model_dump(mode="json")
        found = {key: whole[key] for key in ("dim", "preset", "seed")}
        optimization = dict(whole["optimization"])
        found |= {"steps": optimization.pop("iterations")} | optimization | whole["augment"] | whole["numerics"]
        found |= whole["box"] if self.dim == 3 else {}
        objective = dict(whole["objective"])
        return found | {"objective": objective.pop("name")} | objective

    @property
    def every(self) -> int:
        """Steps between two validations and checkpoints."""
        return max(1, min(MOST_BETWEEN, self.optimization.iterations // 20))

    def input_settings(self) -> dict[str, Any]:
        """How inputs are made, for the checkpoint."""
        found = asdict(self.volumes if self.dim == 3 else PROJECTION_SCALING)
        return found | {"size": list(found["size"])}


def _size(given: str | tuple[int, int, int]) -> Any:
    """Three numbers of a text; what is no number is refused by the section."""
    if not isinstance(given, str):
        return given
    parts = tuple(part.strip() for part in given.split(","))
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def make_pretrain_config(
    dim: int = 3,
    objective: str = "mae",
    preset: str = "small",
    *,
    steps: int = 5000,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    augment: str = "all",
    seed: int = 0,
    precision: str = "fp32",
    spacing_mm: float = 3.5,
    size: str | tuple[int, int, int] = (48, 48, 32),
) -> PretrainConfig:
    """A configuration from plain values.

    Args:
        dim: 2 or 3.
        objective: name in ``PRETRAINING``.
        preset: small or base.
        steps: optimizer steps.
        batch_size: images per step; for objectives of pairs, pairs.
        learning_rate: highest, reached after a tenth of the steps.
        augment: all, spatial, intensity or none.
        seed: random seed.
        precision: fp32, or bf16 on CUDA.
        spacing_mm: of the box of heads.
        size: of the box, voxels; also as text, ``48,48,32``.

    Raises:
        UsageError: a value that is not allowed.
    """
    for field, name, known in (("objective", objective, PRETRAINING), ("augment", augment, AUGMENT)):
        if name not in known:
            raise UsageError(f"unknown {name!r}{suggest(name, known)} (choices: {', '.join(known)})", field=field)
    if steps < 1:
        raise UsageError(field="steps", got=steps, expected="1 or more")
    optimization = Optimization(
        iterations=steps, batch_size=batch_size, optimizer="adamw", learning_rate=learning_rate, schedule="one-cycle",
        weight_decay=1e-2, gradient_clip=1.0,
    )  # fmt: skip
    numerics: dict[str, Any] = {"precision": precision}
    sizes: dict[str, Any] = {"dim": dim, "preset": preset, "seed": seed}
    kind: Any = PRETRAINING[objective]
    return PretrainConfig(
        **sizes, objective=kind(), optimization=optimization, augment=AUGMENT[augment],
        box=Box(spacing_mm=spacing_mm, size=_size(size)), numerics=Numerics(**numerics),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PretrainRequest:
    """What to pretrain on, and where.

    Attributes:
        data: folder of images, or images.csv of ``dataset``.
        out: folder of the checkpoint; ``work`` inside holds what resuming needs.
        config: of the pretraining.
        device: auto, cpu or cuda.
        workers: processes that read images; 0 for none beside this one, None for one per core.
        threads: CPU threads; 0 for all cores. Kept when a pretraining is resumed.
        warning: for whoever uses the weights.
        overwrite: replace an existing result, and a pretraining of other settings.
        dry_run: count and stop.
    """

    data: Path
    out: Path
    config: PretrainConfig
    device: str = "auto"
    workers: int | None = None
    threads: int = 0
    warning: str = ""
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(field="device", got=self.device, expected="auto, cpu or cuda")
        for name in ("workers", "threads"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(field=name, got=getattr(self, name), expected="0 or more")
        if self.config.numerics.precision == "bf16" and self.device == "cpu":
            raise UsageError("bf16 needs CUDA; on a CPU use fp32", field="precision")

    @property
    def work(self) -> Path:
        """Folder of what resuming needs."""
        return self.out / "work"

    def check_out(self) -> None:
        """Refuse to replace a finished checkpoint or to write among other files.

        Raises:
            UsageError: ``out`` is a file, or holds a finished checkpoint or something else.
        """
        if self.out.is_file():
            raise UsageError(f"{self.out} is a file, expected a folder", field="out")
        if self.overwrite or not self.out.is_dir() or not any(self.out.iterdir()):
            return
        if (self.out / FACTS_NAME).is_file():
            raise UsageError(f"`out` {self.out} holds a finished pretraining; choose another folder or use `overwrite`")
        if not self.work.is_dir():
            raise UsageError(f"`out` {self.out} is not empty; choose another folder")
