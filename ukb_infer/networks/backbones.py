"""The registry of backbones: torchvision models, each an encoder to pooled features and one linear head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, nn

from ukb_infer.errors import UsageError
from ukb_infer.text import suggest


def _encode(model: Any, images: Tensor) -> Tensor:
    """Features of the networks made of convolutions, a pool and a classifier: (N, 3, rows, cols) -> (N, F)."""
    return torch.flatten(model.avgpool(model.features(images)), 1)


def _encode_resnet(model: Any, images: Tensor) -> Tensor:
    stem = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    return torch.flatten(model.avgpool(model.layer4(model.layer3(model.layer2(model.layer1(stem))))), 1)


def _encode_convnext(model: Any, images: Tensor) -> Tensor:
    norm, flatten, _ = model.classifier
    encoded: Tensor = flatten(norm(model.avgpool(model.features(images))))
    return encoded


@dataclass(frozen=True)
class BackboneSpec:
    """A torchvision backbone.

    Attributes:
        name: key of this registry and of torchvision's.
        weights: which of torchvision's ImageNet weights ``--init imagenet`` takes.
        head: attribute that holds the classifier; the new linear layer takes its place (``fc``) or that of its
            last entry (a sequence whose earlier entries, norms and flattening, stay).
        keep: entries of a classifier sequence kept in front of the linear layer; the encoder ends with them.
        encode: (model, images) to the features that the linear layer sees, (N, 3, rows, cols) -> (N, F).
        one_by_one: evaluate scans one at a time on a CPU. Activations made of exp or erf (SiLU, GELU) are computed by
            vector instructions and, at the end of each thread's share of a batch, by scalar ones that round otherwise:
            a result would depend on the scan's place in the batch.
    """

    name: str
    head: str
    weights: str = "IMAGENET1K_V1"
    keep: int = 0
    encode: Callable[[Any, Tensor], Tensor] = _encode
    one_by_one: bool = False

    def build(self) -> nn.Module:
        """Torchvision's model, its weights random."""
        model: nn.Module = tv.get_model(self.name, weights=None)
        return model

    @property
    def weights_url(self) -> str:
        """Where torchvision has the ImageNet weights."""
        return str(tv.get_model_weights(self.name)[self.weights].url)


BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec("resnet18", "fc", encode=_encode_resnet),
        BackboneSpec("resnet34", "fc", encode=_encode_resnet),
        BackboneSpec("resnet50", "fc", "IMAGENET1K_V2", encode=_encode_resnet),
        BackboneSpec("mobilenet_v3_small", "classifier"),
        BackboneSpec("mobilenet_v3_large", "classifier", "IMAGENET1K_V2"),
        BackboneSpec("efficientnet_b0", "classifier", one_by_one=True),
        BackboneSpec("efficientnet_v2_s", "classifier", one_by_one=True),
        BackboneSpec("convnext_tiny", "classifier", keep=2, encode=_encode_convnext, one_by_one=True),
    )
}


def get_backbone(name: str) -> BackboneSpec:
    """Backbone by name.

    Raises:
        UsageError: unknown; the message lists the choices.
    """
    if name not in BACKBONES:
        raise UsageError(f"unknown backbone {name!r}{suggest(name, BACKBONES)} (choices: {', '.join(BACKBONES)})")
    return BACKBONES[name]
