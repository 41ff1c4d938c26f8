"""``cross-validate``: labels and projections to out-of-fold predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ukb_infer._version import __version__
from ukb_infer.errors import UsageError
from ukb_infer.evaluation.cross_validation import CrossValidation, write_cross_validation
from ukb_infer.execution import RunLock
from ukb_infer.modules import InferenceModule
from ukb_infer.networks import MeanVarianceNetwork
from ukb_infer.networks.device import choose_device
from ukb_infer.regression import Mixture
from ukb_infer.storage import atomic_write_text
from ukb_infer.training.ensemble import predict_in_batches
from ukb_infer.training.history import HISTORY_NAME, read_histories, warn_of_overfitting
from ukb_infer.training.preparing import Prepared, Say, count_only, prepare, read_request_labels
from ukb_infer.training.request import TrainRequest


def run_cross_validate(request: TrainRequest, say: Say = print) -> CrossValidation | None:
    """Predict every scan with networks that never saw its participant; a repeated call resumes.

    Args:
        request: what to train; each fold is predicted by as many networks as the ensemble has.
        say: receives messages.

    Returns:
        The out-of-fold predictions, also written to ``request.out``; None for a dry run.

    Raises:
        UsageError: contradictory options or unusable labels.
        RunError: as for :func:`ukb_infer.training.train.run_train`.
    """
    ensemble = request.config.ensemble
    if ensemble.folds < 2:
        raise UsageError(field="folds", got=ensemble.folds, expected="at least 2")
    request = replace(request, config=request.config.changed(members=ensemble.folds * ensemble.members))
    request.check_out("cross_validation.json")
    labels = read_request_labels(request, say)
    if request.dry_run:
        count_only(request, labels, say)
        return None
    request.work_folder.mkdir(parents=True, exist_ok=True)
    with RunLock(request.work_folder):
        prepared = prepare(request, labels, choose_device(request.device).type, say)
        networks = prepared.train()
        curves = read_histories(request.work_folder, request.config.ensemble.members)
        warn_of_overfitting(curves, request.config.objective, say)
        result = _out_of_fold(prepared, networks, ensemble.members)
        request.out.mkdir(parents=True, exist_ok=True)
        files = write_cross_validation(request.out, result)
        atomic_write_text(request.out / HISTORY_NAME, curves)
    say(f"{len(result.keys)} scans predicted by networks that never saw their participants: {files[0]}")
    return result


def _out_of_fold(prepared: Prepared, networks: Sequence[MeanVarianceNetwork], members_per_fold: int) -> CrossValidation:
    """Predict each fold with the networks that left it out."""
    data, fold, folds = prepared.packed.data, prepared.fold, prepared.request.config.ensemble.folds
    assert fold is not None
    images = np.load(prepared.packed.images_path, mmap_mode="r")
    manifest, device = prepared.manifest(), torch.device(prepared.device)
    parts = {name: np.full(data.labels.shape, np.nan) for name in ("mean", "aleatoric", "epistemic")}
    for number in range(folds):
        rows = np.flatnonzero(fold == number)
        module = InferenceModule(manifest, networks[number::folds], device)
        predicted = predict_in_batches(module, images, rows=rows)
        for name, values in parts.items():
            values[rows] = getattr(predicted, name)
    told = ("name", "unit", "field", "kind", "lower", "upper")
    facts = {
        "targets": [{name: getattr(target, name) for name in told} for target in manifest.targets],
        "folds": folds, "members_per_fold": members_per_fold,
        "config": json.loads(json.dumps(prepared.request.config.flat())),
        "recipe": prepared.recipe(members_per_fold), "version": __version__, "warning": prepared.request.warning,
    }  # fmt: skip
    return CrossValidation(prepared.packed.keys, fold, Mixture(**parts), data.labels, facts)
