"""Configuration of training in sections, with the two presets."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf, model_validator

from ukb_infer.errors import UsageError
from ukb_infer.networks import InputScaling
from ukb_infer.networks.backbones import get_backbone
from ukb_infer.text import suggest
from ukb_infer.training.objectives import OBJECTIVES, Objective, Regression
from ukb_infer.training.settings import Section

#: Settings that checkpoints and modules of earlier versions do not have, with the values that they had.
_OMITTED = (("objective", "regression"), ("volumes", "none"), ("on_fold", False), ("probe_first", False))
#: Optimizer steps of a member if chosen by the number of labels.
MOST_ITERATIONS = 4_000


def _not_one(folds: int) -> int:
    if folds == 1:
        raise ValueError
    return folds


class _Scaling(Section):
    flat_names: ClassVar[Mapping[str, str]] = {key: f"scaling.{key}" for key in ("scale", "offset", "size")}
    scale: float = 1.0
    offset: float = 0.0
    size: Annotated[tuple[int, int] | None, Field(strict=False, description="[rows, cols], e.g. [128, 128]")] = None


def _scaling(value: Any) -> Any:
    """Convert a table of a file to an input scaling."""
    return InputScaling(**dict(_Scaling(**value))) if isinstance(value, Mapping) else value


class Ensemble(Section):
    """The networks of a module.

    Attributes:
        members: their number.
        folds: cross-validation folds; member k leaves out fold k modulo folds; 0 trains every member on everything.
        seed: random seed; member k uses seed + k.
    """

    members: Annotated[int, Field(ge=1)] = 5
    folds: Annotated[int, Field(ge=0, description="0 or at least 2"), AfterValidator(_not_one)] = 0
    seed: Annotated[int, Field(ge=0)] = 0


class Network(Section):
    """One network.

    Attributes:
        backbone: key of the backbone registry.
        scaling: of its input; in a file ``{scale, offset, size}``.
        probe_first: fit the head to the features of the initial weights before the first step.
    """

    backbone: Annotated[str, AfterValidator(lambda name: get_backbone(name).name)] = "resnet50"
    scaling: Annotated[
        InstanceOf[InputScaling],
        BeforeValidator(_scaling),
        Field(description="e.g. {scale = 0.0156, offset = -1.0, size = [128, 128]}"),
    ] = InputScaling()
    probe_first: bool = False


class Optimization(Section):
    """Optimizer and schedule.

    Attributes:
        iterations: optimizer steps of each member; 0: chosen by :meth:`TrainConfig.resolved`.
        batch_size: scans per step.
        optimizer: ``adam`` or ``adamw``.
        learning_rate: initial (``step``) or highest (``one-cycle``) learning rate.
        schedule: ``step`` divides by 10 at ``drop_at``; ``one-cycle`` warms up and anneals.
        drop_at: iteration of the drop.
        weight_decay: of AdamW.
        gradient_clip: largest gradient norm; 0 for none.
    """

    iterations: Annotated[int, Field(ge=0)] = 10_000
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: Annotated[float, Field(gt=0.0)] = 5e-5
    schedule: Literal["step", "one-cycle"] = "step"
    drop_at: int = 8_000
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    gradient_clip: Annotated[float, Field(ge=0.0)] = 0.0


class Augmentation(Section):
    """Augmentation of training scans.

    Attributes:
        max_shift: integer translations up to this many pixels.
        intensity: random gains of water and fat of up to this share; 0 for none.
        flip: left-right flips; not allowed with targets of one side.
        volumes: how volumes, for which the others do not count, are varied: none, spatial, intensity or all.
    """

    max_shift: Annotated[int, Field(ge=0, le=64)] = 16
    intensity: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    flip: bool = False
    volumes: Literal["none", "spatial", "intensity", "all"] = "none"


class Validation(Section):
    """How a member chooses its weights.

    Attributes:
        share: of a member's participants set aside for validation; the weights that validate best are kept. 0: all
            are used for training and the last weights are kept.
        patience: validations without improvement after which a member stops early; 0: never.
        every: iterations between validations and checkpoints; 0: a twentieth of all iterations.
        average_decay: decay of the exponential moving average of the weights that is kept; 0 for none.
        on_fold: validate each member on the fold that it leaves out, instead of a share of the others.
    """

    flat_names: ClassVar[Mapping[str, str]] = {"share": "validation", "every": "validate_every"}
    share: Annotated[float, Field(ge=0.0, le=0.5)] = 0.15
    patience: Annotated[int, Field(ge=0)] = 0
    every: Annotated[int, Field(ge=0)] = 500
    average_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    on_fold: bool = False


class Numerics(Section):
    """How numbers are computed.

    Attributes:
        precision: ``fp32``, or ``bf16`` on CUDA.
        deterministic: only deterministic kernels (CPU training always is deterministic).
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = False


class TrainConfig(Section):
    """Configuration of training; every attribute is a section."""

    ensemble: Ensemble = Ensemble()
    network: Network = Network()
    optimization: Optimization = Optimization()
    objective: Objective = Regression()
    augmentation: Augmentation = Augmentation()
    validation: Validation = Validation()
    numerics: Numerics = Numerics()

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.optimization.iterations:
            self.objective.check(self.optimization.iterations)
        return self

    def changed(self, **changes: Any) -> TrainConfig:
        """A copy with changed settings.

        Args:
            changes: settings by name (``batch_size=8``), sections as tables (``optimization={"batch_size": 8}``), or
                both. Fewer iterations also shorten the objective's phases, unless those are given.

        Raises:
            UsageError: an unknown setting, a value that is not allowed, or one setting given twice.
        """
        given = _by_section(changes)
        sections = {name: _section(name, own, given[name]) for name, own in self}
        if iterations := given["optimization"].get("iterations"):
            sections["objective"] = _section("objective", sections["objective"].within(iterations), given["objective"])
        return TrainConfig(**sections)

    def flat(self) -> dict[str, Any]:
        """All settings as plain values by name, without sections; defaults of the newer ones are omitted."""
        plain = {
            section.flat_names.get(key, key): asdict(value) if key == "scaling" else value
            for _, section in self
            for key, value in section
        }
        return {k: v for k, v in plain.items() if (k, v) not in _OMITTED}

    def resolved(self, scans: int) -> TrainConfig:
        """The configuration with every 0 that means a default replaced by its number.

        Few scans are soon overfitted, and further steps only make the networks overconfident:
        300 + 2 steps per scan, at most :data:`MOST_ITERATIONS` (measured on phantoms: see ``docs/training.md``).

        Args:
            scans: labelled scans in the whole table, so that a fold trains as long as the module.
        """
        iterations = self.optimization.iterations or min(MOST_ITERATIONS, 300 + 2 * scans)
        return self.changed(iterations=iterations, validate_every=self.validation.every or max(1, iterations // 20))


def _places() -> dict[str, tuple[str, str]]:
    """Name of a setting without sections -> its section and its name there."""
    sections = [(name, type(own)) for name, own in TrainConfig() if name != "objective"]
    sections += [("objective", kind) for kind in OBJECTIVES.values()]
    return {kind.flat_names.get(key, key): (name, key) for name, kind in sections for key in kind.model_fields}


def _by_section(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings in their sections, from settings with and without.

    Raises:
        UsageError: an unknown name, or one setting given twice with different values.
    """
    places, found = _places(), {name: dict[str, Any]() for name in TrainConfig.model_fields}
    for key, value in settings.items():
        if key in found and isinstance(value, Mapping | Section):
            given = {(key, inner): v for inner, v in dict(value).items()}
        elif key in places:
            given = {places[key]: value}
        elif key in found:
            raise UsageError(field=key, got=value, expected=f"a section, e.g. [{key}] with one setting per line")
        else:
            known = sorted({*places, *found})
            raise UsageError(f"no such setting{suggest(key, known)} (choices: {', '.join(known)})", field=key)
        for (section, name), v in given.items():
            if name in found[section] and found[section][name] != v:
                raise UsageError(f"given twice: {found[section][name]!r} and {v!r}", field=f"{section}.{name}")
            found[section][name] = v
    return found


def _section(name: str, own: Section, given: dict[str, Any]) -> Any:
    """A section with changed settings; another objective starts from its own defaults."""
    if name != "objective":
        return type(own)(**(dict(own) | given))
    chosen = given.get("name", dict(own)["name"])
    if not isinstance(chosen, str) or chosen not in OBJECTIVES:
        near = suggest(str(chosen), OBJECTIVES)
        raise UsageError(f"unknown {chosen!r}{near} (choices: {', '.join(OBJECTIVES)})", field="objective")
    kind = OBJECTIVES[chosen]
    return kind(**((dict(own) if isinstance(own, kind) else {}) | given))


#: ``mimir`` is the published schedule; ``fast`` suits small networks on CPUs.
PRESETS: dict[str, TrainConfig] = {
    "mimir": TrainConfig(),
    "fast": TrainConfig(
        network=Network(backbone="mobilenet_v3_small", scaling=InputScaling(1.0 / 64.0, -1.0, (128, 128))),
        optimization=Optimization(
            iterations=0, optimizer="adamw", learning_rate=3e-3, schedule="one-cycle", weight_decay=1e-4,
            gradient_clip=5.0,
        ),
        objective=Regression(warmup_mse=300, beta=0.5),
        augmentation=Augmentation(max_shift=4),
        validation=Validation(every=0, average_decay=0.998),
    ),
}  # fmt: skip


def make_config(preset: str, **changes: Any) -> TrainConfig:
    """Preset with changes.

    Args:
        preset: name in :data:`PRESETS`.
        changes: as for :meth:`TrainConfig.changed`.

    Raises:
        UsageError: unknown preset or a contradiction.
    """
    if preset not in PRESETS:
        near = suggest(preset, PRESETS)
        raise UsageError(f"unknown {preset!r}{near} (choices: {', '.join(PRESETS)})", field="preset")
    return PRESETS[preset].changed(**changes)


def read_config_file(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file, with or without sections, for :func:`make_config`.

    Raises:
        UsageError: unreadable, an unknown key, or a value that is not allowed.
    """
    try:
        sections = _by_section(tomllib.loads(path.read_text(encoding="utf-8")))
        for name, own in TrainConfig():
            _section(name, own, sections[name])
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as TOML ({error})", field="config") from error
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).replace('`', '')}", field="config") from error
    return {flat: sections[s][key] for flat, (s, key) in _places().items() if key in sections[s]}
