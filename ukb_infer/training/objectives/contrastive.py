"""Contrastive learning: two images of a participant are alike, those of others are not (Chen et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ukb_infer.networks.encoder import EncoderSpec, build_encoder, pool_level
from ukb_infer.training.objectives.unlabelled import PretrainingNetwork, Unlabelled, Views, in_views

#: Length of the vectors that are compared.
PROJECTED = 64


class ContrastiveNetwork(PretrainingNetwork):
    """Encoder and a small head, which is thrown away.

    Args:
        spec: of the encoder.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.encoder, self.decoder = build_encoder(spec), None
        width = spec.deepest_features
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, PROJECTED))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """(V, N, C, *size) -> ``vectors`` (V, N, 64) of length one."""
        levels = self.encoder(inputs.flatten(0, 1))
        vectors = functional.normalize(self.head(pool_level(levels[-1])).float(), dim=1)
        return {"vectors": in_views(vectors, inputs)}


class Contrastive(Unlabelled):
    """Cross-entropy of finding the partner among all other images of the batch, both ways.

    Attributes:
        mask_ratio: share of the image that is masked.
        temperature: of the similarities; smaller is stricter.
    """

    views = 2
    aligned = False
    name: Literal["contrastive"] = "contrastive"
    mask_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    temperature: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1

    def build_network(self, spec: EncoderSpec) -> PretrainingNetwork:
        """An untrained encoder with its head."""
        return ContrastiveNetwork(spec)

    def terms(self, outputs: Mapping[str, Tensor], views: Views, progress: float) -> dict[str, Tensor]:
        """``contrast``: cross-entropy over the 2 N - 1 other images of each image.

        Args:
            outputs: of the network.
            views: not used.
            progress: not used.
        """
        del views, progress
        vectors = outputs["vectors"]
        count, flat = vectors.shape[1], vectors.flatten(0, 1)
        alike = flat @ flat.T / self.temperature
        itself = torch.eye(2 * count, dtype=torch.bool, device=flat.device)
        partner = torch.arange(2 * count, device=flat.device).roll(count)
        return {"contrast": functional.cross_entropy(alike.masked_fill(itself, -1e9), partner)}
