"""Masked reconstruction: find what was hidden from what is left (masked autoencoder; He et al. 2022).

Masked voxels are 0 at the input and nothing else of them reaches the network: masking comes before every change of
intensity. The decoder sees only the deepest level; skips would spare the encoder its work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from ukb_infer.networks.decoders import ReconstructionDecoder
from ukb_infer.networks.encoder import EncoderSpec, build_encoder
from ukb_infer.training.objectives.unlabelled import PretrainingNetwork, Unlabelled, Views, in_views


class MaskedAutoencoder(PretrainingNetwork):
    """Encoder and decoder without skips.

    Args:
        spec: of the encoder.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.encoder = build_encoder(spec)
        self.decoder: nn.Module = ReconstructionDecoder(spec)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """(V, N, C, *size) -> ``reconstruction`` of the same shape."""
        images = inputs.flatten(0, 1)
        found = self.decoder(self.encoder(images)[-1], images.shape[2:])
        return {"reconstruction": in_views(found, inputs)}


class MaskedReconstruction(Unlabelled):
    """Mean squared error on the masked voxels.

    Attributes:
        mask_ratio: share of the image that is masked, in blocks of 4 voxels (in 2D a sixteenth of a side).
    """

    name: Literal["mae"] = "mae"
    mask_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.6

    def build_network(self, spec: EncoderSpec) -> PretrainingNetwork:
        """An untrained masked autoencoder."""
        return MaskedAutoencoder(spec)

    def terms(self, outputs: Mapping[str, Tensor], views: Views, progress: float) -> dict[str, Tensor]:
        """``reconstruction``: mean squared error over masked voxels.

        Args:
            outputs: of the network.
            views: of the batch.
            progress: not used.
        """
        del progress
        hidden = views.hidden.to(views.targets.dtype)
        error = (outputs["reconstruction"].float() - views.targets).square() * hidden
        return {"reconstruction": error.sum() / (hidden.sum() * views.targets.shape[2]).clamp(min=1.0)}
