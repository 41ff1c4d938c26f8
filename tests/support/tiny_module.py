"""An untrained module that is quick to make and to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TINY_TARGETS = ("sex", "weight", "AtlasLiverFat", "type2Diabetes")


def _lively_network(n_targets: int):  # type: ignore[no-untyped-def]
    """A random network whose outputs differ between images: norms fitted to random input, a head that matters."""
    import torch
    from torch import nn

    from ukb_infer.networks import build_network

    network = build_network("mobilenet_v3_small", n_targets)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    nn.init.normal_(network.model.classifier.weight, std=0.01)
    with torch.no_grad():
        network.train()(torch.rand(24, 3, 64, 64) * 4.0 - 1.0)
    return network.eval()


def make_tiny_module(folder: Path, *, members: int = 2, seed: int = 0, targets: tuple[str, ...] = TINY_TARGETS) -> Path:
    """An untrained module of MobileNetV3-small on 64 x 64 pixels; its means are plausible, its skill is none."""
    import torch

    from ukb_infer.modules import save_module
    from ukb_infer.networks import InputScaling
    from ukb_infer.training.config import make_config
    from ukb_infer.training.ensemble import Standardization, make_manifest

    torch.manual_seed(seed)
    networks = [_lively_network(len(targets)) for _ in range(members)]
    config = make_config("fast", scaling=InputScaling(1.0 / 64.0, -1.0, (64, 64)))
    known = {"sex": (0.5, 0.5), "weight": (75.0, 15.0), "AtlasLiverFat": (5.0, 1.0), "type2Diabetes": (0.05, 0.2)}
    mean, sd = (np.array([known.get(t, (1.5, 0.3))[k] for t in targets]) for k in (0, 1))
    manifest = make_manifest(
        folder.name,
        "0.0.1",
        config,
        targets,
        Standardization(mean, sd),
        intended_use="tests",
        provenance="random weights",
        warning="Random weights for tests.",
    )
    save_module(folder, manifest, networks)
    return folder
