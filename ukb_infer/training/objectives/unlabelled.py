"""The interface of objectives that need no labels; pretraining knows nothing else about them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ukb_infer.networks.encoder import Encoder, EncoderSpec
from ukb_infer.training.settings import Section


@dataclass(frozen=True)
class Views:
    """What a network sees of a batch, and what it is to find.

    Attributes:
        inputs: (V, N, C, *size) float32: V views of each of N scans, augmented, hidden voxels 0.
        targets: the same before masking and changes of intensity.
        hidden: (V, N, 1, *size) bool, True where masked.
        alike: (N,) bool, whether all views of a scan have the same contrast.
    """

    inputs: Tensor
    targets: Tensor
    hidden: Tensor
    alike: Tensor


def in_views(values: Tensor, like: Tensor) -> Tensor:
    """(V N, ...) -> (V, N, ...).

    Args:
        values: flattened.
        like: (V, N, ...).
    """
    return values.reshape(*like.shape[:2], *values.shape[1:])


class PretrainingNetwork(nn.Module):
    """An encoder and what the objective needs beside it.

    Attributes:
        encoder: what is kept.
        decoder: kept too, for segmentation; None if the objective has none.
    """

    encoder: Encoder
    decoder: nn.Module | None


class Unlabelled(Section):
    """An objective without labels. Its fields are the section ``objective`` of the configuration.

    Attributes:
        views: V: 1 for single images, 2 for pairs of one participant (two contrasts or two visits; for a participant
            with one image, this image twice).
        aligned: whether both views of a pair are moved alike, so that one can be reconstructed from the other.
        name: its key in the registry.
        mask_ratio: share of each image that is masked.
    """

    flat_names: ClassVar[Mapping[str, str]] = {"name": "objective"}
    views: ClassVar[int] = 1
    aligned: ClassVar[bool] = True
    name: str
    mask_ratio: float

    @abstractmethod
    def build_network(self, spec: EncoderSpec) -> PretrainingNetwork:
        """An untrained network: inputs of :class:`Views` to outputs by name.

        An output ``reconstruction`` (V, N, C, *size) is shown in pictures.
        """

    @abstractmethod
    def terms(self, outputs: Mapping[str, Tensor], views: Views, progress: float) -> dict[str, Tensor]:
        """Terms of the loss by name, weighted; their sum is minimized.

        Args:
            outputs: of the network.
            views: of the batch.
            progress: share of the steps that is done, in [0, 1].
        """
