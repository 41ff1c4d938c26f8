"""Predictions against labels: one result per target, as tables."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np

from ukb_infer.errors import UsageError
from ukb_infer.evaluation.metrics import MetricValue, TargetPredictions, evaluate_target
from ukb_infer.evaluation.predictions import Predictions
from ukb_infer.labels import Labels
from ukb_infer.targets import PublishedAccuracy, TargetSpec


@dataclass(frozen=True)
class TargetResult:
    """Metrics of one target and the data behind them, for figures."""

    spec: TargetSpec
    data: TargetPredictions
    metrics: dict[str, MetricValue]

    @property
    def count(self) -> int:
        """Scans with label and estimate."""
        return len(self.data.label)


@dataclass(frozen=True)
class Comparison:
    """Results of a run.

    Attributes:
        source: what was evaluated.
        results: one per target, in the order of the labels.
        unlabelled: scans of the run without any label.
        without_estimate: targets with labels that the run did not predict.
        warning: of the modules.
        notes: what was converted, corrected or ignored when reading the predictions.
    """

    source: str
    results: tuple[TargetResult, ...]
    unlabelled: int
    without_estimate: tuple[str, ...]
    warning: str
    notes: tuple[str, ...] = ()


def compare(predictions: Predictions, labels: Labels, *, replicates: int = 1000, seed: int = 0) -> Comparison:
    """Evaluate every target that has both labels and estimates.

    Args:
        predictions: of a run.
        labels: of its scans, NaN where missing.
        replicates: of the bootstrap; 0 for no intervals.
        seed: of its draws.

    Raises:
        UsageError: no such target, or no scan has a label.
    """
    values = labels.matrix(predictions.keys)
    participants = np.array([k.eid or k.scan for k in predictions.keys])
    results = []
    for place, name in enumerate(labels.targets):
        if name not in predictions.targets:
            continue
        p = predictions.targets[name]
        use = np.isfinite(values[:, place]) & np.isfinite(p.mean)
        sd = np.where(p.sd >= 0, p.sd, np.nan)
        if not p.spec.is_binary and np.isfinite(sd[use]).any():
            use &= np.isfinite(sd)
        data = TargetPredictions(
            values[use, place], p.mean[use], sd[use], p.lower[use], p.upper[use], p.level, participants[use],
            p.spec.is_binary, None if p.probability is None else p.probability[use],
        )  # fmt: skip
        data = data.ordered()
        results.append(TargetResult(p.spec, data, evaluate_target(data, replicates=replicates, seed=seed)))
    missing = tuple(n for n in labels.targets if n not in predictions.targets)
    if not results:
        raise UsageError(
            f"{predictions.source} predicts none of the labelled targets ({', '.join(labels.targets[:8])})"
        )
    if not any(r.count for r in results):
        raise UsageError(
            f"no scan of {predictions.source} has a label; check the columns scan, eid and instance of the labels"
        )
    unlabelled = int((~np.isfinite(values)).all(axis=1).sum())
    return Comparison(predictions.source, tuple(results), unlabelled, missing, predictions.warning, predictions.notes)


def metrics_csv(comparison: Comparison) -> str:
    """Long table: target, unit, n, metric, value, low, high, published."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["target", "unit", "n", "metric", "value", "ci95_lower", "ci95_upper", "published_mimir"])
    for r in comparison.results:
        for name, m in r.metrics.items():
            cells = ["" if np.isnan(v) else f"{v:.6g}" for v in (m.value, m.low, m.high)]
            published = published_value(r.spec.published, name)
            writer.writerow(
                [r.spec.name, r.spec.unit, r.count, name, *cells, "" if published is None else f"{published:g}"]
            )
    return buffer.getvalue()


def published_value(published: PublishedAccuracy, metric: str) -> float | None:
    """Accuracy published for MIMIR on people (10-fold cross-validation), or None.

    Args:
        published: of the target.
        metric: name, e.g. ``mae``.
    """
    names = {"icc": "cv_icc", "r2": "cv_r2", "mae": "cv_mae", "mape_percent": "cv_mape_percent", "auroc": "cv_auc"}
    return getattr(published, names[metric]) if metric in names else None


def _cell(m: MetricValue, digits: str = ".3g") -> str:
    if np.isnan(m.value):
        return "-"
    return f"{m.value:{digits}}" if np.isnan(m.low) else f"{m.value:{digits}} [{m.low:{digits}}, {m.high:{digits}}]"


def _published(spec: TargetSpec, metric: str) -> str:
    value = published_value(spec.published, metric)
    return "-" if value is None else f"{value:g}"


def metrics_markdown(comparison: Comparison) -> str:
    """Markdown tables, with the published accuracy."""
    lines = []
    if comparison.warning:
        lines += [f"**{comparison.warning}**", ""]
    continuous = [r for r in comparison.results if not r.data.binary]
    binary = [r for r in comparison.results if r.data.binary]
    if continuous:
        lines += [
            "| target | unit | n | ICC(2,1) | MIMIR | R² | MIMIR | MAE | MIMIR | MAPE % | bias | coverage (nominal) "
            "| AUCE | sparsification error |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for r in continuous:
            m, spec = r.metrics, r.spec
            lines.append(
                f"| {spec.name} | {spec.unit} | {r.count} | {_cell(m['icc'], '.3f')} | {_published(spec, 'icc')} "
                f"| {_cell(m['r2'], '.3f')} | {_published(spec, 'r2')} | {_cell(m['mae'])} | {_published(spec, 'mae')} "
                f"| {_cell(m['mape_percent'])} | {_cell(m['bias'])} "
                f"| {_cell(m['coverage'], '.3f')} ({r.data.level:g}) | {_cell(m['auce'], '.3f')} "
                f"| {_cell(m['sparsification_error'], '.3f')} |"
            )
        lines.append("")
    if binary:
        lines += [
            "| target | n | AUROC | MIMIR | AUPRC | Brier | log loss | calibration error | calibration slope |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for r in binary:
            m = r.metrics
            lines.append(
                f"| {r.spec.name} | {r.count} | {_cell(m['auroc'], '.3f')} | {_published(r.spec, 'auroc')} "
                f"| {_cell(m['auprc'], '.3f')} | {_cell(m['brier'])} "
                f"| {_cell(m['log_loss'])} | {_cell(m['calibration_error'], '.2g')} "
                f"| {_cell(m['calibration_slope'], '.2f')} |"
            )
        lines.append("")
    if comparison.notes:
        lines += [*(f"- {note}" for note in comparison.notes), ""]
    lines.append(
        "In brackets: 95 % bootstrap interval over participants. MIMIR: published 10-fold cross-validation on UK "
        "Biobank participants with the published networks, for orientation only."
    )
    return "\n".join(lines) + "\n"
