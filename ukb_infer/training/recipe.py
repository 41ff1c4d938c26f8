"""The training recipe: settings that affect how well a network predicts, and their comparison.

Intervals are valid only for networks made like those they were fitted on. ``train`` writes its recipe into the module,
``cross-validate`` next to its predictions, and ``calibrate`` compares them by name.
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

#: Incremented when the training loop changes in a way that affects how well networks predict.
TRAINING_VERSION = 2
#: Settings that may differ: they do not affect accuracy.
_FREE = ("seed", "members", "folds", "deterministic")
#: Name in the comparison if a module or a cross-validation has no recipe.
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
    """Training recipe of an ensemble, as plain values.

    Args:
        config: of the training.
        networks: number whose mixture predicts a scan.
        targets: T names in the order of the head.
        keys: N labelled scans with a projection, including those left out by a fold.
        labels: (N, T) in natural units, NaN where missing.
        projection_recipe: of the projections.
        init: initial weights.
        stratify: target by which folds were stratified, or "".

    Returns:
        Name to text, number, boolean, None, or a list of those.
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
    """Differences between two recipes.

    Args:
        calibrated: of the networks that made the out-of-fold predictions.
        deployed: of the module.

    Returns:
        Name to description; empty if there are none. If a recipe is missing, the only name is ``recipe``.
    """
    if not calibrated or not deployed:
        missing = [what for what, one in (("the predictions", calibrated), ("the module", deployed)) if not one]
        return {UNKNOWN: f"not recorded for {' and '.join(missing)}, so the networks cannot be compared"}
    return {
        name: f"{_shown(calibrated.get(name))} cross-validated, {_shown(deployed.get(name))} in the module"
        for name in sorted(set(calibrated) | set(deployed))
        if calibrated.get(name) != deployed.get(name)
    }


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
