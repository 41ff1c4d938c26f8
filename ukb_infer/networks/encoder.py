"""Convolutional encoders for volumes and projections: what pretraining makes and tasks put a head on."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ukb_infer.errors import UsageError
from ukb_infer.text import suggest

#: Filters of the finest level, number of levels, stride of the first level.
PRESETS: dict[str, tuple[int, int, int]] = {"small": (16, 4, 2), "base": (32, 5, 1)}
#: Weights that meet the input, in the state of an encoder: of the first convolution and of its shortcut.
FIRST_CONVOLUTION, FIRST_SHORTCUT = "levels.0.conv1.conv.weight", "levels.0.conv3.conv.weight"
_SLOPE = 0.01


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder.

    Attributes:
        dim: 3 for volumes, 2 for projections.
        channels: C of the input.
        preset: ``small`` (four levels from 16 filters, the first at half resolution) or ``base`` (five levels from
            32 filters, the first at full resolution).
    """

    dim: Literal[2, 3]
    channels: int
    preset: Literal["small", "base"] = "small"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            near = suggest(str(self.preset), PRESETS)
            raise UsageError(f"unknown {self.preset!r}{near} (choices: {', '.join(PRESETS)})", field="preset")
        if self.dim not in (2, 3) or self.channels < 1:
            raise UsageError(
                f"an encoder has 2 or 3 dimensions and 1 or more channels, got {self.dim}, {self.channels}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Filters per level, finest first."""
        first, levels, _ = PRESETS[self.preset]
        return tuple(first << k for k in range(levels))

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each level to the one before (the first: to the input)."""
        _, levels, stem = PRESETS[self.preset]
        return (stem,) + (2,) * (levels - 1)

    @property
    def features(self) -> int:
        """F: length of the pooled features, two per filter of every level."""
        return 2 * sum(self.widths)

    @property
    def deepest_features(self) -> int:
        """Length of the pooled features of the deepest level alone."""
        return 2 * self.widths[-1]


def need_monai() -> None:
    """Refuse to go on without the extra ``foundation``.

    Raises:
        UsageError: with the line that installs it.
    """
    if importlib.util.find_spec("monai") is None:
        raise UsageError(
            'these networks are built from MONAI, which is not installed; pip install "ukb-infer[foundation]"'
        )


def double_convolution(dim: int, inputs: int, outputs: int, stride: int = 1, *, local: bool = True) -> nn.Module:
    """Two convolutions of side 3, each with norm and leaky ReLU, and a shortcut past both.

    With shortcuts, 150 steps of masked reconstruction explained twice as much of what the mean head leaves unexplained
    (8 % instead of 4 %), in the same time.

    Args:
        dim: 2 or 3.
        inputs: channels.
        outputs: channels.
        stride: of the first convolution.
        local: normalize every channel for itself, which removes a scanner's contrast; else all channels together,
            which keeps their proportions.
    """
    from monai.networks.blocks.dynunet_block import UnetResBlock

    norm = ("instance", {"affine": True}) if local else ("group", {"num_groups": 1, "affine": True})
    act = ("leakyrelu", {"inplace": True, "negative_slope": _SLOPE})
    block: nn.Module = UnetResBlock(dim, inputs, outputs, 3, stride, norm, act)
    return block


class Encoder(nn.Module):
    """Images to features at every level.

    Levels normalize every channel for itself, which removes a scanner's contrast. The deepest one normalizes all its
    channels together: one by one, a channel that answers to lesions would look the same with a lesion and with noise.
    (All levels together: differences between scans would shrink from level to level, to a third at the deepest.)

    Args:
        spec: of the encoder.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        need_monai()
        super().__init__()
        self.spec = spec
        inputs, last = (spec.channels, *spec.widths), len(spec.widths) - 1
        self.levels = nn.ModuleList(
            double_convolution(spec.dim, inputs[k], width, stride, local=k < last)
            for k, (width, stride) in enumerate(zip(spec.widths, spec.strides, strict=True))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, *size) -> features (N, width, *size / stride, rounded up) per level, finest first."""
        return run_levels(self.levels, images)

    def pool(self, levels: Sequence[Tensor]) -> Tensor:
        """Features per level -> (N, F): mean and largest value of every channel of every level."""
        return pool_levels(levels)


def run_levels(levels: nn.ModuleList, images: Tensor) -> list[Tensor]:
    """(N, C, *size) -> the output of every level, finest first.

    Args:
        levels: of an encoder.
        images: of its channels.
    """
    found: list[Tensor] = []
    for level in levels:
        found.append(level(found[-1] if found else images))
    return found


def pool_level(level: Tensor) -> Tensor:
    """(N, width, ...) -> (N, 2 width): mean and largest value of every channel."""
    flat = level.flatten(2)
    return torch.cat([flat.mean(dim=2), flat.amax(dim=2)], dim=1)


def pool_levels(levels: Sequence[Tensor]) -> Tensor:
    """Features per level -> (N, F): :func:`pool_level` of each, finest first.

    A value of the deepest level comes from most of the image, so that a small lesion is lost in it; the largest values
    of the finer levels are the local evidence.
    """
    return torch.cat([pool_level(level) for level in levels], dim=1)


def build_encoder(spec: EncoderSpec) -> Encoder:
    """An untrained encoder.

    Raises:
        UsageError: MONAI is not installed.
    """
    return Encoder(spec)


def adapt_first_convolution(state: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Weights of an encoder for another number of input channels.

    The first convolution and its shortcut get the mean of their filters over the channels for every new channel, scaled
    so that an image repeated in all channels gives the same features as before.

    Args:
        state: of an encoder; not changed.
        channels: wanted.
    """
    changed = dict(state)
    for name in (FIRST_CONVOLUTION, FIRST_SHORTCUT):
        first = state[name]
        if first.shape[1] != channels:
            changed[name] = (first.sum(dim=1, keepdim=True) / channels).repeat_interleave(channels, dim=1)
    return changed


class ConvBackbone(nn.Module):
    """An encoder with a linear layer, in the form of torchvision's models.

    Its tensors have the encoder's names, so that a pretrained encoder is an initial weight file.

    Args:
        spec: of the encoder.
        apart: contrasts that the encoder, which has one channel, sees one at a time; their features lie side by side.
            0 for images that it sees whole.
    """

    def __init__(self, spec: EncoderSpec, apart: int = 0) -> None:
        super().__init__()
        self.spec, self.apart = spec, apart
        self.levels = build_encoder(spec).levels
        self.fc = nn.Linear(spec.features * max(1, apart), 1)

    @property
    def groups(self) -> tuple[int, ...]:
        """Numbers of features that belong together: means and largest values of every level, contrast by contrast."""
        return tuple(width for width in self.spec.widths for _ in range(2)) * max(1, self.apart)

    def encode(self, images: Tensor) -> Tensor:
        """(N, C, ...) -> (N, F), or (N, C F) apart."""
        if not self.apart:
            return pool_levels(run_levels(self.levels, images))
        each = images.reshape(-1, 1, *images.shape[2:])
        return pool_levels(run_levels(self.levels, each)).reshape(len(images), -1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, ...) -> (N, outputs)."""
        output: Tensor = self.fc(self.encode(images))
        return output


def _conv(preset: Literal["small", "base"], dim: Literal[2, 3], channels: int, *, apart: bool = False) -> ConvBackbone:
    spec = EncoderSpec(dim=dim, channels=1 if apart else channels, preset=preset)
    return ConvBackbone(spec, channels if apart else 0)


def conv_small(weights: Any = None, dim: Literal[2, 3] = 2, channels: int = 3) -> ConvBackbone:
    """Small encoder.

    Args:
        weights: of the registry of backbones; there are no published ones.
        dim: 3 for volumes, 2 for projections.
        channels: of the input.
    """
    del weights
    return _conv("small", dim, channels)


def conv_base(weights: Any = None, dim: Literal[2, 3] = 2, channels: int = 3) -> ConvBackbone:
    """Large encoder; arguments as of :func:`conv_small`."""
    del weights
    return _conv("base", dim, channels)


def conv_small_apart(weights: Any = None, dim: Literal[2, 3] = 2, channels: int = 3) -> ConvBackbone:
    """Small encoder that sees one channel at a time; arguments as of :func:`conv_small`."""
    del weights
    return _conv("small", dim, channels, apart=True)


def conv_base_apart(weights: Any = None, dim: Literal[2, 3] = 2, channels: int = 3) -> ConvBackbone:
    """Large encoder that sees one channel at a time; arguments as of :func:`conv_small`."""
    del weights
    return _conv("base", dim, channels, apart=True)


def crop_like(values: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, ...) cut or padded with zeros at the far ends to a size.

    Args:
        values: any.
        size: along the last axes.
    """
    ends: list[int] = []
    for have, want in zip(reversed(values.shape[2:]), reversed(size), strict=True):
        ends += [0, want - have]
    return functional.pad(values, ends) if any(ends) else values
