"""Out-of-fold predictions of made-up labels."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ukb_infer.evaluation import CrossValidation, read_cross_validation
from ukb_infer.evaluation.cross_validation import write_cross_validation
from ukb_infer.records import ScanKey
from ukb_infer.regression import Mixture

KEYS = tuple(ScanKey.from_name(f"{k:07d}_20201_{2 + k % 2}_0") for k in range(1, 41))


def make_cross_validation(folder: Path, targets: tuple[str, ...] = ("weight", "sex"), *, members: int = 1) -> Path:
    """Honest Gaussian predictions of made-up labels."""
    rng = np.random.default_rng(1)
    label = np.column_stack([rng.normal(75, 12, 40), rng.integers(0, 2, 40)])[:, : len(targets)]
    sd = np.array([3.0, 0.2])[: len(targets)]
    mean = label + sd * rng.normal(size=label.shape)
    label[3, 0] = np.nan
    kinds = {"weight": ("kg", "continuous", 0.0, None), "sex": ("binary (1 = male)", "binary", 0.0, 1.0)}
    facts = {
        "targets": [
            dict(zip(("name", "field", "unit", "kind", "lower", "upper"), (n, "", *kinds[n]), strict=True))
            for n in targets
        ],
        "folds": 4,
        "members_per_fold": members,
        "config": {"backbone": "mobilenet_v3_small"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    ones = np.ones_like(mean)
    mixture = Mixture(mean, 0.75 * sd**2 * ones, 0.25 * sd**2 * ones)
    write_cross_validation(folder, CrossValidation(KEYS, np.arange(40) % 4, mixture, label, facts))
    return folder


def write_labels(tmp_path: Path) -> Path:
    """The labels of a cross-validation as a table."""
    found = read_cross_validation(make_cross_validation(tmp_path / "for-labels"))
    rows = [[k.scan, *("" if np.isnan(v) else v for v in row)] for k, row in zip(found.keys, found.labels, strict=True)]
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([["scan", "weight", "sex"], *rows])
    return path
