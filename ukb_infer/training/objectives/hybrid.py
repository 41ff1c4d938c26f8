"""Reconstruction and contrast from pairs: anatomy that two images share, and what is each one's own.

The loss of the best method of FOMO25 ("Towards Brain MRI Foundation Models for the Clinic", arXiv 2604.11679): an image
is made of a map of its anatomy and a vector of its contrast. The anatomy of one image with the contrast of the other
must give the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ukb_infer.networks.decoders import ReconstructionDecoder
from ukb_infer.networks.encoder import EncoderSpec, build_encoder, pool_level
from ukb_infer.training.objectives.unlabelled import PretrainingNetwork, Unlabelled, Views, in_views

#: Weights of the terms, as published.
OWN, CROSS, SHARED, MODALITY, KL = 3.0, 1.0, 0.5, 0.5, 0.001
#: Error at which the loss becomes linear, z-scores.
BETA = 0.1
#: Share of the steps over which the weight of the KL term rises: 10 of 100 epochs.
KL_WARMUP = 0.1
#: Length of the vector of the contrast.
MODALITY_LATENTS = 32


class HybridNetwork(PretrainingNetwork):
    """Encoder, the two kinds of latents, and a decoder without skips.

    Args:
        spec: of the encoder.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        width = spec.widths[-1]
        convolution = nn.Conv3d if spec.dim == 3 else nn.Conv2d
        self.encoder = build_encoder(spec)
        self.shared = convolution(width, 2 * width, 1)
        self.modality = nn.Linear(spec.deepest_features, 2 * MODALITY_LATENTS)
        self.decoder: nn.Module = ReconstructionDecoder(spec, condition=MODALITY_LATENTS)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """(2, N, C, *size) -> reconstructions and latents.

        Returns:
            ``reconstruction`` and ``cross`` (2, N, C, *size), the latter with the anatomy of the other view;
            ``shared`` (2, N, width, ...) and ``modality`` (2, N, 32), means; ``kl`` (1,).
        """
        images = inputs.flatten(0, 1)
        levels = self.encoder(images)
        shared, shared_log = self.shared(levels[-1]).float().chunk(2, dim=1)
        modality, modality_log = self.modality(pool_level(levels[-1])).float().chunk(2, dim=1)
        anatomy, contrast = self._drawn(shared, shared_log), self._drawn(modality, modality_log)
        other = in_views(anatomy, inputs).flip(0).flatten(0, 1)
        size = images.shape[2:]
        return {
            "reconstruction": in_views(self._decode(anatomy, contrast, size), inputs),
            "cross": in_views(self._decode(other, contrast, size), inputs),
            "shared": in_views(shared, inputs),
            "modality": in_views(modality, inputs),
            "kl": (_kl(shared, shared_log) + _kl(modality, modality_log)).reshape(1),
        }

    def _drawn(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """A latent drawn around its mean while training."""
        if not self.training:
            return mean
        return mean + torch.exp(0.5 * log_variance.clamp(-10.0, 10.0)) * torch.randn_like(mean)

    def _decode(self, anatomy: Tensor, contrast: Tensor, size: torch.Size) -> Tensor:
        found: Tensor = self.decoder(anatomy, size, contrast)
        return found


def _kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence from the standard normal distribution, mean over the latents."""
    log = log_variance.clamp(-10.0, 10.0)
    return 0.5 * (mean.square() + log.exp() - 1.0 - log).mean()


class Hybrid(Unlabelled):
    """The published sum of five terms.

    Attributes:
        mask_ratio: share of the image that is masked.
    """

    views = 2
    name: Literal["hybrid"] = "hybrid"
    mask_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0

    def build_network(self, spec: EncoderSpec) -> PretrainingNetwork:
        """An untrained hybrid network."""
        return HybridNetwork(spec)

    def terms(self, outputs: Mapping[str, Tensor], views: Views, progress: float) -> dict[str, Tensor]:
        """Self- and cross-reconstruction, likeness of the anatomies, unlikeness of the contrasts, KL.

        Two images of the same contrast (visits) are not asked to differ in it.

        Args:
            outputs: of the network.
            views: of the batch.
            progress: share of the steps that is done.
        """

        def error(name: str) -> Tensor:
            return functional.smooth_l1_loss(outputs[name].float(), views.targets, beta=BETA)

        shared = functional.cosine_similarity(outputs["shared"][0], outputs["shared"][1], dim=1).mean()
        unlike = (~views.alike).to(shared.dtype)
        modality = functional.cosine_similarity(outputs["modality"][0], outputs["modality"][1], dim=1)
        return {
            "reconstruction": OWN * error("reconstruction"),
            "cross": CROSS * error("cross"),
            "shared": SHARED * (1.0 - shared),
            "modality": MODALITY * (modality * unlike).mean(),
            "kl": KL * min(1.0, progress / KL_WARMUP) * outputs["kl"].mean(),
        }
