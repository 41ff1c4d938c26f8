"""Backbones from torchvision with one linear head for mean and log-variance (floor 2)."""

from ukb_infer.networks.backbones import BACKBONES, BackboneSpec, get_backbone
from ukb_infer.networks.build import MeanVarianceNetwork, build_network
from ukb_infer.networks.scaling import InputScaling

__all__ = ["BACKBONES", "BackboneSpec", "InputScaling", "MeanVarianceNetwork", "build_network", "get_backbone"]
