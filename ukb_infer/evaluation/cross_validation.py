"""Out-of-fold predictions on disk: ``predictions.csv`` and ``cross_validation.json``."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.errors import NotARunError, RunError
from ukb_infer.records import ScanKey
from ukb_infer.regression import Mixture
from ukb_infer.runs.files import holds_estimates
from ukb_infer.storage import atomic_path, atomic_write_text

FACTS_NAME, TABLE_NAME = "cross_validation.json", "predictions.csv"
SCHEMA_VERSION = 1
_PARTS = ("mean", "aleatoric_variance", "epistemic_variance", "label")
_KEYS = ("eid", "instance", "array", "scan", "fold")


@dataclass(frozen=True)
class CrossValidation:
    """Every scan predicted by members that never saw its participant.

    Attributes:
        keys: (N,) scans.
        fold: (N,) left out of training.
        predictions: (N, T) parts in natural units, before any calibration.
        labels: (N, T) NaN where missing.
        facts: targets, members per fold, configuration, versions.
    """

    keys: tuple[ScanKey, ...]
    fold: NDArray[np.int64]
    predictions: Mixture
    labels: NDArray[np.float64]
    facts: dict[str, Any]

    @property
    def targets(self) -> tuple[str, ...]:
        """Names in the order of the columns."""
        return tuple(t["name"] for t in self.facts["targets"])

    @property
    def members(self) -> int:
        """Networks whose mixture predicted each scan."""
        return int(self.facts["members_per_fold"])


def write_cross_validation(folder: Path, result: CrossValidation) -> list[Path]:
    """Write both files; numbers are exact.

    Args:
        folder: to write to.
        result: predictions, labels and fold of every scan.

    Raises:
        RunError: they cannot be written.
    """
    table, facts = folder / TABLE_NAME, folder / FACTS_NAME
    columns = [f"{name}_{part}" for name in result.targets for part in _PARTS]
    p = result.predictions
    stacked = np.stack([p.mean, p.aleatoric, p.epistemic, result.labels], axis=2).reshape(len(result.keys), -1)
    try:
        with atomic_path(table) as partial, partial.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow([*_KEYS, *columns])
            for key, fold, row in zip(result.keys, result.fold, stacked, strict=True):
                visit = ["" if v is None else v for v in (key.instance, key.array)]
                writer.writerow(
                    [key.eid, *visit, key.scan, fold, *("" if np.isnan(v) else repr(float(v)) for v in row)]
                )
        atomic_write_text(facts, json.dumps({"schema_version": SCHEMA_VERSION} | result.facts, indent=2) + "\n")
    except OSError as error:
        raise RunError(
            f"{folder}: the predictions cannot be written ({error.strerror}); free space and run the command again"
        ) from error
    return [table, facts]


def is_cross_validation(folder: Path) -> bool:
    """Whether a folder holds out-of-fold predictions."""
    return (folder / FACTS_NAME).is_file()


def read_cross_validation(folder: Path) -> CrossValidation:
    """Read a folder written by ``cross-validate``.

    Raises:
        NotARunError: it is no such folder.
        RunError: damaged or of another version.
    """
    if not is_cross_validation(folder) or not (folder / TABLE_NAME).is_file():
        is_run = "; it is a run, which is calibrated on with `labels`" if holds_estimates(folder) else ""
        raise NotARunError(
            f"{folder}: has no {FACTS_NAME} and {TABLE_NAME}; expected a folder written by `cross-validate`{is_run}"
        )
    try:
        facts = json.loads((folder / FACTS_NAME).read_text(encoding="utf-8"))
        version = facts.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise RunError(
                f"{folder / FACTS_NAME}: version {version}, expected {SCHEMA_VERSION}; run `cross-validate` again"
            )
        names: Sequence[str] = [t["name"] for t in facts["targets"]]
        table = pd.read_csv(folder / TABLE_NAME, dtype=str, keep_default_na=False)
        wanted = [f"{name}_{part}" for name in names for part in _PARTS]
        values = (
            table[wanted].replace("", "nan").to_numpy().astype(np.float64).reshape(len(table), len(names), len(_PARTS))
        )
        keys = tuple(ScanKey.from_name(str(scan)) for scan in table["scan"])
        fold = table["fold"].to_numpy(np.int64)
        int(facts["members_per_fold"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder}: damaged ({type(error).__name__}: {error}); run `cross-validate` again") from error
    mixture = Mixture(values[..., 0], values[..., 1], values[..., 2])
    return CrossValidation(keys, fold, mixture, values[..., 3], facts)
