"""The record of a task; the registry is :mod:`ukb_infer.tasks.registry`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ukb_infer.imaging.datasets.names import MODALITIES as MODALITIES

#: What a task's module returns for a case.
Output = Literal["class", "segmentation", "regression", "embedding"]


@dataclass(frozen=True, kw_only=True)
class TaskTarget:
    """One quantity that a task estimates.

    Attributes:
        name: column name.
        unit: natural unit; "" for probabilities.
        lower: physical lower limit or None; ``upper`` likewise.
    """

    name: str
    unit: str = ""
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A few-shot task.

    Attributes:
        name: in options and modules, e.g. ``fomo25-infarct``.
        title: one line for people.
        dimension: 3 for volumes, 2 for projections.
        inputs: one entry per channel: the modalities of which the first that a case has is read, e.g.
            ``(("flair",), ("t2s", "swi"))``; ``(("projection",),)`` in two dimensions.
        output: what is returned for a case.
        targets: of a class (its probability) or regression; one volume in ml per label of a segmentation.
        metrics: names in the registry of metrics, the first selects and reports.
        groups: columns of ``participants.tsv`` over which fairness is judged.
        suite: ``fomo25``, ``fomo26``, ``body`` or "" for a user's own.
        number: of the task in its suite, from 1; 0 for none.
        weight: share of the suite's overall score.
        flags: option of the suite's container per modality, e.g. ``{"dwi": "--dwi_b1000"}``, as pairs.
    """

    name: str
    title: str
    dimension: Literal[2, 3]
    inputs: tuple[tuple[str, ...], ...]
    output: Output
    targets: tuple[TaskTarget, ...]
    metrics: tuple[str, ...]
    groups: tuple[str, ...] = ()
    suite: str = ""
    number: int = 0
    weight: float = 1.0
    flags: tuple[tuple[str, str], ...] = ()
