"""Predictions of groups of people: by sex, age and visit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ukb_infer.evaluation.compare import Comparison, compare
from ukb_infer.evaluation.predictions import Predictions
from ukb_infer.labels import Labels

#: Fewest labelled scans of a group.
FEWEST_SCANS = 20
#: Years at which age bands begin.
AGE_BANDS = (0, 55, 65, 75)


def compare_groups(predictions: Predictions, labels: Labels, phenotypes: Labels | None) -> dict[str, Comparison]:
    """Evaluate every group that has enough labelled scans, without bootstrap intervals.

    Args:
        predictions: of a run.
        labels: of its scans.
        phenotypes: sex, age or both; None takes them from the labels, where they are among them.
    """
    labelled = np.isfinite(labels.matrix(predictions.keys)).any(axis=1)
    return {
        name: compare(_chosen(predictions, mask), labels, replicates=0)
        for name, mask in _groups(predictions, phenotypes or labels)
        if (mask & labelled).sum() >= FEWEST_SCANS
    }


def _groups(predictions: Predictions, known: Labels) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    values = dict(zip(known.targets, known.matrix(predictions.keys).T, strict=True))
    if "sex" in values:
        yield "female", values["sex"] == 0
        yield "male", values["sex"] == 1
    if "age" in values:
        for low, high in zip(AGE_BANDS, (*AGE_BANDS[1:], np.inf), strict=True):
            name = f"under {high:g}" if low == 0 else f"{low} and older" if np.isinf(high) else f"{low} to {high - 1:g}"
            yield f"age {name}", (values["age"] >= low) & (values["age"] < high)
    visits = np.array([-1 if key.instance is None else key.instance for key in predictions.keys])
    if np.unique(visits).size > 1:
        for visit in np.unique(visits[visits >= 0]):
            yield f"visit {visit}", visits == visit


def _chosen(predictions: Predictions, mask: NDArray[np.bool_]) -> Predictions:
    """The predictions of some scans."""
    targets = {
        name: replace(
            p, mean=p.mean[mask], sd=p.sd[mask], lower=p.lower[mask], upper=p.upper[mask],
            probability=None if p.probability is None else p.probability[mask],
        )
        for name, p in predictions.targets.items()
    }  # fmt: skip
    keys = tuple(key for key, kept in zip(predictions.keys, mask, strict=True) if kept)
    return replace(predictions, keys=keys, targets=targets)
