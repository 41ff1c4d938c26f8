"""Encoders from torchvision with one linear head for mean and log-variance, and what makes them fast.

Names are imported on first use: what a manifest needs of this room is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.networks.backbones import BACKBONES, BackboneSpec, get_backbone
    from ukb_infer.networks.build import MeanVarianceNetwork, Transfer, build_network, transfer_weights
    from ukb_infer.networks.compiled import (
        WORTH_COMPILING,
        CompiledMembers,
        CompiledNetwork,
        choose_backend,
        openvino_is_installed,
    )
    from ukb_infer.networks.head import RowLinear
    from ukb_infer.networks.scaling import InputScaling

_HOMES = {
    "BACKBONES": "backbones",
    "WORTH_COMPILING": "compiled",
    "BackboneSpec": "backbones",
    "CompiledMembers": "compiled",
    "CompiledNetwork": "compiled",
    "InputScaling": "scaling",
    "MeanVarianceNetwork": "build",
    "RowLinear": "head",
    "Transfer": "build",
    "build_network": "build",
    "choose_backend": "compiled",
    "get_backbone": "backbones",
    "openvino_is_installed": "compiled",
    "transfer_weights": "build",
}
__all__ = [
    "BACKBONES",
    "WORTH_COMPILING",
    "BackboneSpec",
    "CompiledMembers",
    "CompiledNetwork",
    "InputScaling",
    "MeanVarianceNetwork",
    "RowLinear",
    "Transfer",
    "build_network",
    "choose_backend",
    "get_backbone",
    "openvino_is_installed",
    "transfer_weights",
]

__getattr__ = on_first_use(__name__, _HOMES)
