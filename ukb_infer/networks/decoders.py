"""Decoders: from an encoder's features back to the grid of its input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ukb_infer.networks.encoder import EncoderSpec, crop_like, double_convolution, need_monai


class _Up(nn.Module):
    """Twice the resolution, then two convolutions, with or without the encoder's features of that level.

    With and without skips the same parts have the same names, so that what fits is transferred.
    """

    def __init__(self, dim: int, inputs: int, outputs: int, *, skip: bool) -> None:
        super().__init__()
        self.enlarge = _enlarge(dim, inputs, outputs)
        self.block = double_convolution(dim, outputs * (2 if skip else 1), outputs)

    def forward(self, coarse: Tensor, size: Sequence[int], skip: Tensor | None = None) -> Tensor:
        finer = crop_like(self.enlarge(coarse), size)
        found: Tensor = self.block(finer if skip is None else torch.cat([finer, skip], dim=1))
        return found


def _enlarge(dim: int, inputs: int, outputs: int) -> nn.Module:
    kind = nn.ConvTranspose3d if dim == 3 else nn.ConvTranspose2d
    return kind(inputs, outputs, 2, 2)


def _sizes(spec: EncoderSpec, size: Sequence[int]) -> list[tuple[int, ...]]:
    """Size of every level, finest first."""
    found, current = [], tuple(size)
    for stride in spec.strides:
        current = tuple(-(-side // stride) for side in current)
        found.append(current)
    return found


class ReconstructionDecoder(nn.Module):
    """From the deepest level alone to images: no skips past which the encoder could be spared its work.

    Args:
        spec: of the encoder.
        inputs: channels of what is decoded; None for the encoder's deepest level.
        condition: length of a vector per image that scales and shifts every channel of every level (norms would remove
            it from the input, where it is the same everywhere; Huang and Belongie 2017); 0 for none.
    """

    def __init__(self, spec: EncoderSpec, inputs: int | None = None, condition: int = 0) -> None:
        need_monai()
        super().__init__()
        self.spec, widths = spec, spec.widths
        entries = (widths[-1] if inputs is None else inputs, *widths[-2:0:-1])
        self.ups = nn.ModuleList(
            _Up(spec.dim, entry, width, skip=False) for entry, width in zip(entries, widths[-2::-1], strict=True)
        )
        self.conditions = nn.ModuleList(nn.Linear(condition, 2 * width) for width in widths[-2::-1] if condition)
        channels, kind = spec.channels, nn.Conv3d if spec.dim == 3 else nn.Conv2d
        self.last = _enlarge(spec.dim, widths[0], channels) if spec.strides[0] == 2 else kind(widths[0], channels, 1)

    def forward(
        self, deepest: Tensor, size: Sequence[int], condition: Tensor | None = None, *, above: int = 0
    ) -> Tensor:
        """(N, inputs, ...) -> (N, channels, *size).

        Args:
            deepest: level to decode.
            size: of the image it was made from.
            condition: (N, length) vector of each image.
            above: levels that ``deepest`` lies above the deepest one; the decoder starts there.
        """
        current = deepest
        for k, level in enumerate(reversed(_sizes(self.spec, size)[:-1])):
            if k < above:
                continue
            current = self.ups[k](current, level)
            if condition is not None:
                scale, shift = self.conditions[k](condition)[(..., *(None,) * len(size))].chunk(2, dim=1)
                current = current * (1 + scale) + shift
        return crop_like(self.last(current), size)


class SegmentationDecoder(nn.Module):
    """A U-Net's decoder: the encoder's features of every level, and at full resolution the image itself.

    Args:
        spec: of the encoder.
        labels: outputs per voxel, with the background.
    """

    def __init__(self, spec: EncoderSpec, labels: int) -> None:
        need_monai()
        super().__init__()
        self.spec, widths = spec, spec.widths
        self.ups = nn.ModuleList(
            _Up(spec.dim, entry, width, skip=True) for entry, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        kind = nn.Conv3d if spec.dim == 3 else nn.Conv2d
        self.full: nn.Module | None = None
        self.finest: nn.Module | None = None
        width = widths[0]
        if spec.strides[0] == 2:
            width = widths[0] // 2
            self.full = _enlarge(spec.dim, widths[0], width)
            self.finest = double_convolution(spec.dim, width + spec.channels, width)
        self.classify = kind(width, labels, 1)

    def forward(self, images: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """(N, C, *size) and the encoder's levels -> (N, labels, *size) logits.

        Args:
            images: the encoder's input.
            levels: its output.
        """
        current = levels[-1]
        for up, skip in zip(self.ups, levels[-2::-1], strict=True):
            current = up(current, skip.shape[2:], skip)
        if self.full is not None and self.finest is not None:
            current = crop_like(self.full(current), images.shape[2:])
            current = self.finest(torch.cat([current, images.to(current.dtype)], dim=1))
        logits: Tensor = self.classify(current)
        return logits
