"""The forest plot: every estimator of every term (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ukb_infer.epidemiology.analysis import Association, Associations
from ukb_infer.storage import atomic_path

#: Terms of one figure; more would not be read.
MOST_TERMS = 12


def draw_forest(found: Associations, stem: Path) -> list[Path]:
    """Draw estimates and intervals, one panel per term, as PDF and PNG.

    Args:
        found: results.
        stem: of the files' names.
    """
    terms = [t for t in dict.fromkeys(row.term for row in found.rows) if t != "Intercept"] or ["Intercept"]
    terms = terms[:MOST_TERMS]
    names = list(dict.fromkeys(row.estimator for row in found.rows))
    columns = min(3, len(terms))
    lines = -(-len(terms) // columns)
    figure = Figure(figsize=(2.0 + 2.6 * columns, 0.6 + (0.7 + 0.22 * len(names)) * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axis, term in zip(axes, terms, strict=False):
        _panel(axis, [row for row in found.rows if row.term == term], names, found.family.scale)
    for axis in axes[len(terms) :]:
        axis.axis("off")
    figure.suptitle(f"{found.model} ({100 * found.level:g} % intervals)", fontsize=8)
    files = []
    for suffix in (".pdf", ".png"):
        path = stem.with_suffix(suffix)
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=150, metadata={"CreationDate": None} if suffix == ".pdf" else None)
        files.append(path)
    return files


def _panel(axis: Any, rows: list[Association], names: list[str], scale: str) -> None:
    for row in rows:
        height = -names.index(row.estimator)
        color = "0.0" if row.recommended or row.estimator == "labels_only" else "0.5"
        axis.plot([row.lower, row.upper], [height, height], color=color, linewidth=2.0 if row.recommended else 1.0)
        if np.isfinite(row.estimate):
            axis.plot([row.estimate], [height], "s", color=color, markersize=5 if row.recommended else 3)
    axis.axvline(0.0, color="0.7", linewidth=0.6, zorder=0)
    axis.set_yticks([-k for k in range(len(names))], [n.replace("_", " ") for n in names], fontsize=6)
    axis.set_ylim(0.5 - len(names), 0.5)
    axis.tick_params(axis="x", labelsize=6)
    axis.set_title(rows[0].term, fontsize=7)
    axis.set_xlabel(scale, fontsize=6)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
