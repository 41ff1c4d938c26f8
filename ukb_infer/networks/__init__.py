"""Backbones from torchvision with one linear head for mean and log-variance (floor 2)."""

from ukb_infer.networks.backbones import BACKBONES, BackboneSpec, get_backbone
from ukb_infer.networks.build import MeanVarianceNetwork, Transfer, build_network, transfer_weights
from ukb_infer.networks.compiled import CompiledNetwork, choose_backend, openvino_is_installed, threads_for
from ukb_infer.networks.head import RowLinear
from ukb_infer.networks.scaling import InputScaling

__all__ = [
    "BACKBONES",
    "BackboneSpec",
    "CompiledNetwork",
    "InputScaling",
    "MeanVarianceNetwork",
    "RowLinear",
    "Transfer",
    "build_network",
    "choose_backend",
    "get_backbone",
    "openvino_is_installed",
    "threads_for",
    "transfer_weights",
]
