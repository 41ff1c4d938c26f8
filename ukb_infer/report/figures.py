"""Figures of agreement: readable in black and white, as vector PDF and PNG (needs matplotlib)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt

from ukb_infer.evaluation.compare import Comparison, TargetResult
from ukb_infer.evaluation.metrics import (
    CURVE_LEVELS,
    SPARSIFICATION_SHARES,
    calibration_curve,
    error_by_sd,
    reliability_bins,
    sparsification_curves,
)
from ukb_infer.storage import atomic_path

#: Fewest scans of a target for a figure.
FEWEST_SCANS = 3
#: Most points of a scatter plot; beyond that a seeded sample is drawn.
MAX_POINTS = 5000
_STYLE: dict[str, Any] = {f"axes.spines.{side}": False for side in ("top", "right")}
_STYLE |= {"font.size": 8, "legend.frameon": False, "pdf.fonttype": 42}
_DOTS = {"s": 6, "c": "0.25", "alpha": 0.5, "linewidths": 0, "rasterized": True}


def draw_all(comparison: Comparison, folder: Path) -> list[Path]:
    """One sheet per target and an overview, each as PDF and PNG.

    Args:
        comparison: results with their data.
        folder: of the figures; created if missing.

    Returns:
        The files of the overview and the folder's sheets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = [replace(r, data=r.data.ordered()) for r in comparison.results if r.count >= FEWEST_SCANS]
    files = []
    with mpl.rc_context(_STYLE):
        if results:
            files += _save(_overview(results, comparison), folder / "overview")
        for result in results:
            sheet = _binary_sheet(result) if result.data.binary else _continuous_sheet(result)
            files += _save(sheet, folder / result.spec.name)
    return files


def draw_learning_curves(history: Path, folder: Path) -> list[Path]:
    """Training loss and validation NLL of every member.

    Args:
        history: ``history.csv`` of a training.
        folder: of the figures.
    """
    table = pd.read_csv(history).sort_values(["member", "iteration"], kind="stable")
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(6.5, 2.8), layout="constrained", sharex=True)
        for member, rows in table.groupby("member"):
            line = ["-", "--", ":", "-."][(int(str(member)) - 1) % 4]
            style = {"color": "0.2", "linestyle": line, "linewidth": 0.9, "marker": ".", "markersize": 3}
            axes[0].plot(rows["iteration"], rows["train_loss"], label=f"member {member}", **style)
            axes[1].plot(rows["iteration"], rows["valid_nll"], **style)
        axes[0].set(xlabel="iteration", ylabel="training loss", title="Training")
        axes[1].set(xlabel="iteration", ylabel="NLL (standardized)", title="Validation")
        if table["member"].nunique() <= 10:
            axes[0].legend(fontsize=6)
        return _save(figure, folder / "learning_curves")


def _save(figure: Any, stem: Path) -> list[Path]:
    files = []
    for suffix in (".pdf", ".png"):
        path = stem.with_suffix(suffix)
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=150, metadata={"CreationDate": None} if suffix == ".pdf" else None)
        files.append(path)
    plt.close(figure)
    return files


def _sample(count: int) -> Any:
    if count <= MAX_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MAX_POINTS, replace=False))


def _number(value: float, digits: str) -> str:
    return "-" if np.isnan(value) else f"{value:{digits}}"


def _unit(result: TargetResult) -> str:
    return f" ({result.spec.unit})" if result.spec.unit else ""


def _scatter(axis: Any, result: TargetResult, *, labels: bool = True) -> None:
    """Estimate over label with the identity line."""
    d, chosen = result.data, _sample(result.count)
    low, high = min(d.label.min(), d.mean.min()), max(d.label.max(), d.mean.max())
    pad = 0.03 * (high - low) or 1.0
    axis.plot([low - pad, high + pad], [low - pad, high + pad], color="0.0", linewidth=0.8)
    axis.scatter(d.label[chosen], d.mean[chosen], **_DOTS)
    axis.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
    if labels:
        axis.set(xlabel=f"label{_unit(result)}", ylabel=f"estimate{_unit(result)}", title="Agreement")


def _overview(results: list[TargetResult], comparison: Comparison) -> Any:
    """Small panels: scatter of continuous targets, reliability of binary ones."""
    columns = min(6, len(results))
    rows = -(-len(results) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.9 * columns, 2.15 * rows + 0.5), layout="constrained", squeeze=False
    )
    for axis in axes.ravel()[len(results) :]:
        axis.axis("off")
    for axis, result in zip(axes.ravel(), results, strict=False):
        name, m = result.spec.name, result.metrics
        if result.data.binary:
            _reliability(axis, result, labels=False)
            axis.set_title(f"{name}\nAUROC {_number(m['auroc'].value, '.3f')}, n {result.count}", fontsize=5.5)
        else:
            _scatter(axis, result, labels=False)
            axis.set_title(
                f"{name}{_unit(result)}\nICC {_number(m['icc'].value, '.3f')}, n {result.count}", fontsize=5.5
            )
        axis.tick_params(labelsize=5)
    figure.supxlabel("label (binary: predicted probability)", fontsize=8)
    figure.supylabel("estimate (binary: observed frequency)", fontsize=8)
    if comparison.warning:
        figure.suptitle(comparison.warning, fontsize=6)
    return figure


def _continuous_sheet(result: TargetResult) -> Any:
    figure, axes = plt.subplots(2, 3, figsize=(9.0, 6.0), layout="constrained")
    _scatter(axes[0, 0], result)
    _bland_altman(axes[0, 1], result)
    if result.data.has_sd:
        _calibration(axes[0, 2], result)
        _sparsification(axes[1, 0], result)
        _error_by_sd(axes[1, 1], result)
    else:
        for axis in (axes[0, 2], axes[1, 0], axes[1, 1]):
            axis.axis("off")
        axes[0, 2].set_title("No predicted sd")
    _words(axes[1, 2], result)
    figure.suptitle(f"{result.spec.name}{_unit(result)}, {result.count} scans")
    return figure


def _bland_altman(axis: Any, result: TargetResult) -> None:
    d, chosen = result.data, _sample(result.count)
    difference, middle = d.mean - d.label, 0.5 * (d.mean + d.label)
    bias, spread = float(difference.mean()), float(difference.std(ddof=1)) if result.count > 1 else float("nan")
    axis.scatter(middle[chosen], difference[chosen], **_DOTS)
    for value, style, text in (
        (bias, "-", f"bias {bias:.3g}"),
        (bias - 1.96 * spread, "--", f"limits ±{1.96 * spread:.3g}"),
        (bias + 1.96 * spread, "--", None),
    ):
        axis.axhline(value, color="0.0", linestyle=style, linewidth=0.8, label=text)
    unit = _unit(result)
    axis.set(xlabel=f"mean of estimate and label{unit}", ylabel=f"estimate - label{unit}", title="Bland-Altman")
    axis.legend(loc="upper right", fontsize=6)


def _calibration(axis: Any, result: TargetResult) -> None:
    d = result.data
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    axis.plot(CURVE_LEVELS, calibration_curve(d.label, d.mean, d.sd), color="0.0", label="Gaussian from mean and sd")
    inside = float(d.inside.mean())
    axis.plot(  # not drawn if there are no intervals
        [d.level], [inside], "ks", markersize=5, markerfacecolor="1.0", label=f"intervals of the run ({d.level:g})"
    )
    axis.set(xlabel="nominal coverage", ylabel="observed coverage", title="Calibration")
    axis.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axis.legend(loc="upper left", fontsize=6)


def _sparsification(axis: Any, result: TargetResult) -> None:
    d = result.data
    by_sd, oracle = sparsification_curves(np.abs(d.mean - d.label), d.sd)
    axis.plot(SPARSIFICATION_SHARES, by_sd, "k-", label="by predicted sd")
    axis.plot(SPARSIFICATION_SHARES, oracle, "k--", label="by true error (oracle)")
    axis.axhline(by_sd[0], color="0.6", linewidth=0.8, label="at random")
    axis.set(xlabel="share of scans removed", ylabel=f"MAE of the rest{_unit(result)}", title="Sparsification")
    axis.set(ylim=(0, None if by_sd.max() > 0 else 1))
    axis.legend(loc="lower left", fontsize=6)


def _error_by_sd(axis: Any, result: TargetResult) -> None:
    """RMSE in ten groups of equal size over the predicted sd: on the line if the sd is right."""
    sd, rmse = error_by_sd(result.data.mean - result.data.label, result.data.sd)
    top = 1.1 * max(float(sd.max()), float(rmse.max())) or 1.0
    axis.plot([0, top], [0, top], color="0.6", linewidth=0.8, label="right on average")
    axis.plot(sd, rmse, "ko-", markersize=4, label="groups of scans by sd")
    axis.set(xlabel=f"predicted sd{_unit(result)}", ylabel=f"RMSE{_unit(result)}", title="Error by predicted sd")
    axis.legend(loc="upper left", fontsize=6)


def _words(axis: Any, result: TargetResult) -> None:
    """The metrics in words."""
    axis.axis("off")
    lines = []
    for name, m in result.metrics.items():
        interval = "" if np.isnan(m.low) else f"  [{m.low:.3g}, {m.high:.3g}]"
        lines.append(f"{name.replace('_', ' '):<22}{_number(m.value, '.3g'):>9}{interval}")
    axis.text(0.0, 1.0, "\n".join(lines), family="monospace", fontsize=6.5, va="top", transform=axis.transAxes)
    axis.set_title("Metrics [95 % bootstrap interval]")


def _reliability(axis: Any, result: TargetResult, *, labels: bool = True) -> None:
    d = result.data
    predicted, observed, count = reliability_bins(d.label, d.probabilities)
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    axis.plot(predicted, observed, "ko-", markersize=4)
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    if labels:
        for x, y, n in zip(predicted, observed, count, strict=True):
            if n:
                axis.annotate(f"{n}", (x, y), fontsize=5, xytext=(3, -6), textcoords="offset points")
        axis.set(xlabel="predicted probability", ylabel="observed frequency", title="Reliability (scans per bin)")


def _binary_sheet(result: TargetResult) -> Any:
    figure, axes = plt.subplots(1, 3, figsize=(9.0, 3.2), layout="constrained")
    d = result.data
    _reliability(axes[0], result)
    bins = np.linspace(0.0, 1.0, 21)
    probability = d.probabilities
    axes[1].hist(probability[d.label == 0], bins=bins, histtype="step", color="0.0", label="label 0")
    axes[1].hist(probability[d.label == 1], bins=bins, histtype="stepfilled", color="0.7", label="label 1")
    axes[1].set(xlabel="predicted probability", ylabel="scans", title="Predictions", yscale="symlog")
    axes[1].legend(fontsize=6)
    _words(axes[2], result)
    figure.suptitle(f"{result.spec.name}, {result.count} scans, {int(d.label.sum())} with label 1")
    return figure
