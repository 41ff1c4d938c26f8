"""The registry of backbones, each an encoder to pooled features and one linear head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ukb_infer.errors import UsageError
from ukb_infer.text import suggest

if TYPE_CHECKING:  # names are also read by the shell's completion, which does not wait for torch
    from torch import Tensor, nn


def _encode(model: Any, images: Tensor) -> Tensor:
    """Features of networks built as convolutions, pool and classifier: (N, 3, rows, cols) -> (N, F)."""
    encoded: Tensor = model.avgpool(model.features(images)).flatten(1)
    return encoded


def _encode_resnet(model: Any, images: Tensor) -> Tensor:
    stem = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    encoded: Tensor = model.avgpool(model.layer4(model.layer3(model.layer2(model.layer1(stem))))).flatten(1)
    return encoded


def _encode_conv(model: Any, images: Tensor) -> Tensor:
    encoded: Tensor = model.encode(images)
    return encoded


def _encode_convnext(model: Any, images: Tensor) -> Tensor:
    norm, flatten, _ = model.classifier
    encoded: Tensor = flatten(norm(model.avgpool(model.features(images))))
    return encoded


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone of torchvision, or of our own (``conv_...``, the encoders of pretraining).

    Attributes:
        name: key of the registry, and torchvision's name of the model or our function that builds it.
        imagenet: name of torchvision's ImageNet weights, for ``init="imagenet"``; "" for none, and a network of ours.
        head: attribute that holds the classifier; the new linear layer takes its place (``fc``) or that of its
            last entry (a sequence whose earlier entries, norms and flattening, stay).
        keep: entries of a classifier sequence kept in front of the linear layer; the encoder ends with them.
        encode: (model, images) to the features that the linear layer sees, (N, 3, rows, cols) -> (N, F).
        one_by_one: evaluate scans one at a time on a CPU. Activations computed with exp or erf (SiLU, GELU) use
            vector instructions and, at the end of each thread's share of a batch, scalar ones that round differently:
            a result would depend on the scan's place in the batch.
    """

    name: str
    imagenet: str
    head: str
    keep: int = 0
    encode: Callable[[Any, Tensor], Tensor] = _encode
    one_by_one: bool = False

    @property
    def factory(self) -> Callable[..., nn.Module]:
        """Function that builds the model."""
        builder: Callable[..., nn.Module]
        if not self.imagenet:
            from ukb_infer.networks import encoder

            builder = getattr(encoder, self.name)
            return builder
        import torchvision.models as tv

        builder = tv.get_model_builder(self.name)
        return builder

    @property
    def weights(self) -> Any:
        """Description of the ImageNet weights by torchvision; ``url`` names the file."""
        import torchvision.models as tv

        return tv.get_model_weights(self.name)[self.imagenet]


BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec("resnet18", "IMAGENET1K_V1", "fc", encode=_encode_resnet),
        BackboneSpec("resnet34", "IMAGENET1K_V1", "fc", encode=_encode_resnet),
        BackboneSpec("resnet50", "IMAGENET1K_V2", "fc", encode=_encode_resnet),
        BackboneSpec("mobilenet_v3_small", "IMAGENET1K_V1", "classifier"),
        BackboneSpec("mobilenet_v3_large", "IMAGENET1K_V2", "classifier"),
        BackboneSpec("efficientnet_b0", "IMAGENET1K_V1", "classifier", one_by_one=True),
        BackboneSpec("efficientnet_v2_s", "IMAGENET1K_V1", "classifier", one_by_one=True),
        BackboneSpec("convnext_tiny", "IMAGENET1K_V1", "classifier", 2, _encode_convnext, one_by_one=True),
        BackboneSpec("conv_small", "", "fc", encode=_encode_conv),
        BackboneSpec("conv_base", "", "fc", encode=_encode_conv),
        BackboneSpec("conv_small_apart", "", "fc", encode=_encode_conv),
        BackboneSpec("conv_base_apart", "", "fc", encode=_encode_conv),
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
