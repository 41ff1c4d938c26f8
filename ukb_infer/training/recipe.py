"""The training recipe: what decides how well a network predicts, by name, and how two of them differ.

Intervals fitted on one kind of network hold for that kind only. ``train`` writes its recipe into the module,
``cross-validate`` beside its predictions, and ``calibrate`` compares them name by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.networks.build import Init
from ukb_infer.records import ScanKey
from ukb_infer.storage import sha256_file
from ukb_infer.training.config import TrainConfig

#: Raised whenever the training loop changes in a way that changes how well networks predict.
TRAINING_VERSION = 2
#: Settings that may differ: they choose among networks of one kind, or only how fast the same bits come.
_FREE = ("seed", "members", "folds", "deterministic")
#: The only name in the comparison where a module or a cross-validation carries no recipe.
UNKNOWN = "recipe"


def training_recipe(
    config: TrainConfig,
    *,
    networks: int,
    targets: Sequence[str],
    keys: Sequence[ScanKey],
    labels: NDArray[np.float64],
    projection_recipe: str,
    init: Init = "random",
    stratify: str = "",
) -> dict[str, Any]:
    """Recipe of an ensemble, as plain values.

    Args:
        config: of the training.
        networks: whose mixture predicts a scan.
        targets: T names in the order of the head.
        keys: N scans of the label table that have a projection, whether a network saw them or left them out.
        labels: (N, T) in natural units, NaN where missing.
        projection_recipe: of the projections.
        init: initial weights.
        stratify: target by which folds were stratified, or "".

    Returns:
        Name to text, number, true or false, None, or a list of those.
    """
    settings = json.loads(json.dumps(config.flat()))
    scaling = settings.pop("scaling")
    return (
        {"training_version": TRAINING_VERSION, "projection_recipe": projection_recipe, "networks": networks}
        | {name: value for name, value in settings.items() if name not in _FREE}
        | {f"input_{name}": value for name, value in scaling.items()}
        | {
            "init": f"file {sha256_file(init)[:16]}" if isinstance(init, Path) else str(init),
            "stratify": stratify,
            "targets": list(targets),
            "scans": len(keys),
            "scan_list": hashlib.sha256("\n".join(k.scan for k in keys).encode()).hexdigest()[:16],
            "labels": hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()[:16],
        }
    )


def recipe_differences(calibrated: Mapping[str, Any], deployed: Mapping[str, Any]) -> dict[str, str]:
    """What differs between two recipes.

    Args:
        calibrated: of the networks that made the out-of-fold predictions.
        deployed: of the module.

    Returns:
        Name to words; empty where the networks are of one kind. Where a recipe is missing the one name is ``recipe``.
    """
    if not calibrated or not deployed:
        missing = [what for what, one in (("the predictions", calibrated), ("the module", deployed)) if not one]
        return {UNKNOWN: f"not recorded for {' and '.join(missing)}, so nobody can say whether the networks are alike"}
    return {
        name: f"{_shown(calibrated.get(name))} cross-validated, {_shown(deployed.get(name))} in the module"
        for name in sorted(set(calibrated) | set(deployed))
        if calibrated.get(name) != deployed.get(name)
    }


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
