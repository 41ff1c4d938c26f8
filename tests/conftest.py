"""Fixtures that many rooms share: small phantoms and a tiny untrained module."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

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
    mean, sd = (np.array([known[t][k] for t in targets]) for k in (0, 1))
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


@pytest.fixture(scope="session")
def tiny_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny module of two members."""
    return make_tiny_module(tmp_path_factory.mktemp("modules") / "tiny")


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with three small phantom zips and truth.csv."""
    from ukb_infer.phantom import write_cohort

    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, 3, 11, size="small")
    return folder


@pytest.fixture(scope="session")
def projections(tmp_path_factory: pytest.TempPathFactory, small_cohort: Path) -> Path:
    """Projections of the cohort and nine variations of them; read only."""
    from ukb_infer.inference import ProjectConfig, run_project

    folder = tmp_path_factory.mktemp("projections")
    summary = run_project(ProjectConfig((str(small_cohort),), folder, workers=0))
    assert summary.exit_code == 0
    (folder / "scans.csv").unlink()
    (folder / "journal.sqlite").unlink()
    base = [np.load(p) for p in sorted(folder.glob("*.npy"))]
    for k in range(4, 13):
        np.save(folder / f"{k:07d}_20201_{2 + k % 2}_0.npy", np.roll(base[k % 3], k, axis=2))
    return folder
