"""Fixtures that many rooms share: small phantoms and a tiny untrained module."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from tests.support.tiny_module import make_tiny_module


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
