"""The checkpoint of pretraining: a folder with an encoder, a decoder and ``pretrained.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ukb_infer.errors import ModuleError
from ukb_infer.networks.build import Transfer
from ukb_infer.networks.encoder import FIRST_CONVOLUTION, FIRST_SHORTCUT, EncoderSpec, adapt_first_convolution
from ukb_infer.storage import atomic_write_bytes, atomic_write_text
from ukb_infer.storage.plain import from_plain

FACTS_NAME, ENCODER_NAME, DECODER_NAME = "pretrained.json", "encoder.safetensors", "decoder.safetensors"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A pretrained encoder.

    Attributes:
        spec: of the encoder.
        settings: how its input was made: ``spacing_mm`` and ``size`` of a volume (the arguments of ``VolumeSettings``),
            or ``scale``, ``offset`` and ``size`` of a projection (those of ``InputScaling``).
        state: weights of the encoder.
        decoder: weights of the decoder that reconstructs; empty if there is none.
        facts: objective, steps, counts of the data, software, warning.
    """

    spec: EncoderSpec
    settings: Mapping[str, Any]
    state: Mapping[str, Tensor]
    decoder: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def warning(self) -> str:
        """What every user of the weights must know, or ""."""
        return str(self.facts.get("warning", ""))


@dataclass(frozen=True)
class _File:
    schema: int
    spec: dict[str, Any]
    settings: dict[str, Any]
    facts: dict[str, Any]


def save_pretrained(folder: Path, pretrained: Pretrained) -> None:
    """Write a checkpoint; ``pretrained.json``, which makes it one, comes last.

    Args:
        folder: exists.
        pretrained: to write.
    """
    for name, state in ((ENCODER_NAME, pretrained.state), (DECODER_NAME, pretrained.decoder)):
        if state:
            plain = {key: value.detach().float().cpu().contiguous() for key, value in state.items()}
            atomic_write_bytes(folder / name, to_bytes(plain))
    own = {"schema": SCHEMA, "spec": asdict(pretrained.spec), "settings": dict(pretrained.settings)}
    atomic_write_text(folder / FACTS_NAME, json.dumps(own | {"facts": dict(pretrained.facts)}, indent=2) + "\n")


def load_pretrained(folder: Path) -> Pretrained:
    """Read a checkpoint.

    Args:
        folder: written by ``pretrain``.

    Raises:
        ModuleError: it is not a checkpoint, or damaged.
    """
    path = folder / FACTS_NAME
    if not path.is_file():
        raise ModuleError(f"{folder} has no {FACTS_NAME}; expected a folder written by `ukb-infer pretrain`")
    try:
        read = from_plain(_File, json.loads(path.read_text(encoding="utf-8")))
        if read.schema != SCHEMA:
            raise ModuleError(f"{path}: got schema {read.schema}, expected {SCHEMA}; use the version that wrote it")
        spec = EncoderSpec(**read.spec)
        state = load_file(folder / ENCODER_NAME)
        decoder = load_file(folder / DECODER_NAME) if (folder / DECODER_NAME).is_file() else {}
    except ModuleError:
        raise
    except Exception as error:
        raise ModuleError(f"{folder}: damaged ({type(error).__name__}: {error}); pretrain or copy it again") from error
    if any(name not in state or state[name].shape[1] != spec.channels for name in (FIRST_CONVOLUTION, FIRST_SHORTCUT)):
        raise ModuleError(f"{folder / ENCODER_NAME}: its weights are not those of {FACTS_NAME}; copy it again")
    return Pretrained(spec=spec, settings=read.settings, state=state, decoder=decoder, facts=read.facts)


def load_fitting(network: nn.Module, state: Mapping[str, Tensor]) -> Transfer:
    """Load every tensor of the same name and shape.

    Args:
        network: changed in place.
        state: weights of this or another network.
    """
    own = network.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    network.load_state_dict(fitting, strict=False)
    return Transfer(
        tuple(fitting), tuple(k for k in own if k not in fitting), tuple(k for k in state if k not in fitting)
    )


def transfer(pretrained: Pretrained, encoder: nn.Module) -> Transfer:
    """Give an encoder the pretrained weights; the first convolution is adapted to its channels.

    Args:
        pretrained: to take from.
        encoder: changed in place; an :class:`~ukb_infer.networks.encoder.Encoder` or a network with its names.

    Returns:
        The coverage.
    """
    first = encoder.state_dict().get(FIRST_CONVOLUTION)
    channels = pretrained.spec.channels if first is None else first.shape[1]
    return load_fitting(encoder, adapt_first_convolution(pretrained.state, channels))
