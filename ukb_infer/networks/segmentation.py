"""An encoder with the decoder of a segmentation, and what it says of a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ukb_infer.errors import UsageError
from ukb_infer.networks.backbones import get_backbone
from ukb_infer.networks.build import Init, Transfer, transfer_pretrained
from ukb_infer.networks.decoders import SegmentationDecoder
from ukb_infer.networks.encoder import EncoderSpec, build_encoder, pool_levels, run_levels

#: Probability of the background at every voxel before training. Lesions fill so little of a head that from equal
#: probabilities a short training does nothing but learn this.
BACKGROUND = 0.98
#: Of the windows that slide over a volume: share by which they overlap, and windows at a time.
OVERLAP, WINDOWS_AT_ONCE = 0.5, 4


class Segmented(NamedTuple):
    """What one network says of N volumes.

    Attributes:
        probabilities: (N, labels, x, y, z), the background first.
        volumes: (N, T, 2): volume of every label in voxels, and the logarithm of its variance.
        features: (N, F) of the encoder on the whole volume.
    """

    probabilities: Tensor
    volumes: Tensor
    features: Tensor


class _UNet(nn.Module):
    """Encoder and decoder; the encoder's tensors have the names of a pretrained encoder."""

    def __init__(self, spec: EncoderSpec, labels: int) -> None:
        super().__init__()
        self.levels = build_encoder(spec).levels
        self.decoder = SegmentationDecoder(spec, labels)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.decoder(images, run_levels(self.levels, images))
        return logits


class SegmentationNetwork(nn.Module):
    """A logit per voxel and label.

    Args:
        spec: of the encoder.
        n_targets: labels without the background.
        patch: (x, y, z) voxels that the network sees at once in evaluation; None for all.

    Attributes:
        transfer: which tensors a checkpoint covered; None for random weights.
    """

    def __init__(self, spec: EncoderSpec, n_targets: int, patch: Sequence[int] | None = None) -> None:
        super().__init__()
        self.spec, self.n_targets, self.patch = spec, n_targets, None if patch is None else tuple(patch)
        self.model = _UNet(spec, n_targets + 1)
        self.transfer: Transfer | None = None

    @property
    def width(self) -> int:
        """F: number of features."""
        return self.spec.features

    def encode(self, images: Tensor) -> Tensor:
        """(N, C, x, y, z) float -> (N, F) features of the whole volume."""
        return pool_levels(run_levels(self.model.levels, images))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, x, y, z) float -> (N, labels, x, y, z) logits; in evaluation by a sliding window where one is set."""
        if self.training or self.patch is None or self.patch == tuple(images.shape[2:]):
            logits: Tensor = self.model(images)
            return logits
        from monai.inferers import sliding_window_inference

        windows: Tensor = sliding_window_inference(
            images, self.patch, WINDOWS_AT_ONCE, self.model, overlap=OVERLAP, mode="gaussian"
        )
        return windows

    def segment(self, images: Tensor) -> Segmented:
        """(N, C, x, y, z) float -> probabilities, volumes and features.

        A label's volume is the number of voxels at which it is the most probable. Its variance is that of the sum of
        independent voxels, p (1 - p) each, and of one voxel at least.
        """
        probabilities = torch.softmax(self(images).float(), dim=1)
        voxels = torch.nn.functional.one_hot(probabilities.argmax(dim=1), probabilities.shape[1])
        counts = voxels.flatten(1, 3).sum(dim=1)[:, 1:].float()
        foreground = probabilities[:, 1:].flatten(2)
        variances = (foreground * (1.0 - foreground)).sum(dim=2).clamp(min=1.0)
        volumes = torch.stack([counts, variances.log()], dim=2)
        return Segmented(probabilities, volumes, self.encode(images).float())


def build_segmentation(
    backbone: str, n_targets: int, shape: Sequence[int], init: Init = "random", patch: Sequence[int] | None = None
) -> SegmentationNetwork:
    """Build one member.

    Args:
        backbone: ``conv_small`` or ``conv_base``.
        n_targets: labels without the background.
        shape: (channels, x, y, z) of an image.
        init: ``random``, or the folder of a checkpoint of ``pretrain``.
        patch: (x, y, z) voxels that the network sees at once; None for all.

    Raises:
        UsageError: a backbone without decoder, or a checkpoint of another one.
    """
    found = get_backbone(backbone)
    if found.imagenet or len(shape) != 4:
        raise UsageError(f"a segmentation is of volumes, by conv_small or conv_base; got {backbone} of {tuple(shape)}")
    preset = backbone.removeprefix("conv_")
    spec = EncoderSpec(dim=3, channels=shape[0], preset=preset)  # type: ignore[arg-type]
    network = SegmentationNetwork(spec, n_targets, patch)
    with torch.no_grad():
        bias: Any = network.model.decoder.classify.bias
        bias[0] = math.log(BACKGROUND * n_targets / (1.0 - BACKGROUND))
        bias[1:] = 0.0
    if init != "random":
        if isinstance(init, str):
            raise UsageError(field="init", got=init, expected="random, or the folder of a checkpoint")
        network.transfer = transfer_pretrained(network.model, init, spec)
    return network
