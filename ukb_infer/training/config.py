"""Configuration of training, with the two presets (floor 4)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ukb_infer.errors import UsageError
from ukb_infer.networks import InputScaling
from ukb_infer.targets import suggest


@dataclass(frozen=True)
class TrainConfig:
    """How one ensemble is trained; contradictions are refused in the option's own name.

    Attributes:
        backbone: key of the backbone registry.
        members: networks of the ensemble.
        folds: cross-validation folds; member k leaves out fold k modulo folds; 0 trains every member on everything.
        iterations: optimizer steps of each member.
        batch_size: scans a step.
        optimizer: ``adam`` or ``adamw``.
        learning_rate: initial (``step``) or highest (``one-cycle``) learning rate.
        schedule: ``step`` divides by 10 at ``drop_at``; ``one-cycle`` warms up and anneals.
        drop_at: iteration of the drop.
        weight_decay: of AdamW.
        warmup_mse: iterations that train the means alone first.
        beta: exponent of beta-NLL; 0 for the published loss.
        max_shift: augmentation by integer translations up to this many pixels.
        intensity: augmentation of water and fat by random gains of up to this share; 0 for none.
        flip: augmentation by left-right flips; never with targets of one side.
        average_decay: decay of the exponential moving average of the weights that is kept; 0 for none.
        validate_every: iterations between validations and checkpoints.
        gradient_clip: largest gradient norm; 0 for none.
        seed: of everything random; member k uses seed + k.
        scaling: input scaling of the networks.
        precision: ``fp32``, or ``bf16`` on CUDA.
        deterministic: only kernels that give the same bits every time (CPU training always does).
    """

    backbone: str = "resnet50"
    members: int = 5
    folds: int = 0
    iterations: int = 10_000
    batch_size: int = 32
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 5e-5
    schedule: Literal["step", "one-cycle"] = "step"
    drop_at: int = 8_000
    weight_decay: float = 0.0
    warmup_mse: int = 0
    beta: float = 0.0
    max_shift: int = 16
    intensity: float = 0.0
    flip: bool = False
    average_decay: float = 0.0
    validate_every: int = 500
    gradient_clip: float = 0.0
    seed: int = 0
    scaling: InputScaling = field(default_factory=InputScaling)
    precision: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = False

    def __post_init__(self) -> None:
        checks = (
            (self.members >= 1, "--members", "at least 1", self.members),
            (self.folds == 0 or self.folds >= 2, "--folds", "0 or at least 2", self.folds),
            (self.iterations >= 1, "--iterations", "at least 1", self.iterations),
            (self.batch_size >= 2, "--batch-size", "at least 2", self.batch_size),
            (self.learning_rate > 0, "--learning-rate", "above 0", self.learning_rate),
            (0 <= self.warmup_mse < self.iterations, "--warmup-mse", "below --iterations", self.warmup_mse),
            (0.0 <= self.beta <= 1.0, "--beta", "0 to 1", self.beta),
            (0 <= self.max_shift <= 64, "--max-shift", "0 to 64 pixels", self.max_shift),
            (0.0 <= self.intensity < 1.0, "--intensity", "0 to below 1", self.intensity),
            (0.0 <= self.average_decay < 1.0, "--average-decay", "0 to below 1", self.average_decay),
            (self.validate_every >= 1, "--validate-every", "at least 1", self.validate_every),
            (self.optimizer in ("adam", "adamw"), "optimizer", "adam or adamw", self.optimizer),
            (self.schedule in ("step", "one-cycle"), "schedule", "step or one-cycle", self.schedule),
            (self.precision in ("fp32", "bf16"), "--precision", "fp32 or bf16", self.precision),
            (self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay),
            (self.gradient_clip >= 0, "gradient_clip", "0 or more", self.gradient_clip),
        )
        for fine, flag, expected, got in checks:
            if not fine:
                raise UsageError(f"{flag}: got {got}, expected {expected}")


#: ``mimir`` is the published schedule; ``fast`` suits small networks on CPUs.
PRESETS: dict[str, TrainConfig] = {
    "mimir": TrainConfig(),
    "fast": TrainConfig(
        backbone="mobilenet_v3_small",
        iterations=4_000,
        batch_size=32,
        optimizer="adamw",
        learning_rate=3e-3,
        schedule="one-cycle",
        weight_decay=1e-4,
        warmup_mse=300,
        beta=0.5,
        max_shift=4,
        average_decay=0.998,
        gradient_clip=5.0,
        scaling=InputScaling(1.0 / 64.0, -1.0, (128, 128)),
    ),
}


def make_config(preset: str, **changes: Any) -> TrainConfig:
    """Preset with changes.

    Raises:
        UsageError: unknown preset or a contradiction.
    """
    if preset not in PRESETS:
        raise UsageError(f"--preset: unknown {preset!r}{suggest(preset, PRESETS)} (choices: {', '.join(PRESETS)})")
    return replace(PRESETS[preset], **changes)


def read_config_file(path: Path) -> dict[str, Any]:
    """Settings of a TOML file: any attribute of :class:`TrainConfig`, ``scaling`` as ``{scale, offset, size}``.

    Raises:
        UsageError: unreadable, an unknown key, or a value of the wrong kind.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {path}: cannot be read as TOML ({error})") from error
    known = {f.name: f for f in fields(TrainConfig)}
    defaults = TrainConfig()
    settings: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            raise UsageError(f"--config {path}: unknown key {key!r}{suggest(key, known)} (choices: {', '.join(known)})")
        if key == "scaling":
            settings[key] = _scaling(path, value)
            continue
        expected = type(getattr(defaults, key))
        fine = isinstance(value, expected) or (expected is float and type(value) is int)
        if not fine or (expected is int and isinstance(value, bool)):
            raise UsageError(f"--config {path}: {key} is {value!r}, expected {expected.__name__}")
        settings[key] = float(value) if expected is float else value
    return settings


def _scaling(path: Path, value: Any) -> InputScaling:
    shape = "scaling = {scale = 0.0156, offset = -1.0, size = [128, 128]}"
    if not isinstance(value, dict) or not set(value) <= {"scale", "offset", "size"}:
        raise UsageError(f"--config {path}: scaling is {value!r}, expected e.g. {shape}")
    size = value.get("size")
    if size is not None and not (isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)):
        raise UsageError(f"--config {path}: scaling.size is {size!r}, expected e.g. [128, 128]")
    default = InputScaling()
    return InputScaling(
        float(value.get("scale", default.scale)),
        float(value.get("offset", default.offset)),
        None if size is None else (size[0], size[1]),
    )
