"""How well single networks did on the folds that they left out, in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ukb_infer.evaluation.metrics import TargetPredictions, evaluate_target
from ukb_infer.modules import ModuleManifest
from ukb_infer.regression import Mixture

Float64 = NDArray[np.float64]


def out_of_fold_words(
    manifest: ModuleManifest, estimates: Mixture, labels: Float64, participants: NDArray[np.str_], dice: Float64 | None
) -> list[str]:
    """One line per target.

    Args:
        manifest: of the module.
        estimates: (N, T) of the networks that left the cases out.
        labels: (N, T) NaN where missing.
        participants: (N,).
        dice: (N, T) of a segmentation, or None.
    """
    lines = []
    for k, target in enumerate(manifest.targets):
        rows = np.flatnonzero(np.isfinite(labels[:, k]))
        count, none = f"{target.name}, {rows.size} cases", np.full(rows.size, np.nan)
        label, mean = labels[rows, k], estimates.mean[rows, k]
        sd, binary = np.sqrt(estimates.total_variance[rows, k]), target.kind == "binary"
        data = TargetPredictions(label, mean, sd, none, none, 0.95, participants[rows], binary=binary)
        found = evaluate_target(data, replicates=0)
        if binary:
            lines.append(f"{count}: AUROC {found['auroc'].value:.3f}")
            continue
        error = f"mean absolute error {found['mae'].value:.3g} {target.unit}, r {found['pearson_r'].value:.3f}"
        if dice is not None:
            some = dice[label > 0, k]
            mean_dice = f"{some.mean():.3f}" if some.size else "unknown"
            count += f", Dice {mean_dice} over {some.size} with the label"
        lines.append(f"{count}: {error}")
    return lines
