"""The card of an evaluation: ``MODULE.md`` and a page of the same make as the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ukb_infer._version import __version__
from ukb_infer.evaluation import Comparison, compare, read_cross_validation, read_predictions
from ukb_infer.evaluation.compare import metrics_markdown
from ukb_infer.evaluation.cross_validation import is_cross_validation
from ukb_infer.evaluation.groups import compare_groups
from ukb_infer.labels import Labels
from ukb_infer.labels.ids import plain_scan
from ukb_infer.modules.card import CARD_NAME, Card, card_markdown, listed
from ukb_infer.report.cohort import describe_agreement
from ukb_infer.report.html import write_page
from ukb_infer.runs.files import REPORT
from ukb_infer.storage import atomic_write_text
from ukb_infer.targets import TARGETS, TargetSpec

#: Bootstrap replicates of the card of a cross-validation.
REPLICATES = 200
_LIMITS = (
    "Estimates are not measurements; they are for research, not for decisions about single people.",
    "These figures hold for people, scanners and labels like those of this evaluation.",
    "MIMIR: published for other networks on UK Biobank participants, for orientation only.",
)


def write_card(
    folder: Path, name: str, comparison: Comparison, groups: Mapping[str, Comparison], known: Mapping[str, str]
) -> list[Path]:
    """Write the card and its page.

    Args:
        folder: to write to.
        name: of what was evaluated.
        comparison: over all scans.
        groups: comparisons by group.
        known: answers to items of TRIPOD+AI, beside those that the comparison gives.
    """
    rows = _group_rows(groups)
    tables = {"Accuracy": metrics_markdown(replace(comparison, warning=""))}  # the card begins with it
    if rows:
        tables["Groups"] = _markdown(rows)
    absent = [] if rows else ["Groups were not evaluated: neither sex nor age is known, and there is one visit."]
    card = Card(
        name=name, warning=comparison.warning, tables=tables, limits=[*_LIMITS, *absent],
        known=_known(comparison, bool(rows)) | dict(known),
    )  # fmt: skip
    atomic_write_text(folder / CARD_NAME, card_markdown(card))
    head: dict[str, Any] = {
        "title": name, "key": "", "version": __version__, "rows": 0, "columns": [], "warning": comparison.warning,
        "targets": [], "visits": [], "limits": {}, "agreement": describe_agreement(comparison),
        "card": {"groups": rows, "limits": card.limits, "items": card.items},
    }  # fmt: skip
    return [folder / CARD_NAME, write_page(folder / REPORT, name, head)]


def card_of_cross_validation(folder: Path) -> list[Path]:
    """Write the card of a cross-validation into its folder.

    Args:
        folder: written by ``cross-validate``.
    """
    found = read_cross_validation(folder)
    specs = {t["name"]: _spec(t) for t in found.facts["targets"]}
    by_scan = {plain_scan(key.scan): row for key, row in zip(found.keys, found.labels, strict=True)}
    labels = Labels(found.targets, specs, by_scan, {})
    predictions = read_predictions(folder)
    comparison = compare(predictions, labels, replicates=REPLICATES)
    groups = compare_groups(predictions, labels, None)
    return write_card(folder, f"Cross-validation {folder.resolve().name}", comparison, groups, known_of_source(folder))


def known_of_source(path: Path) -> dict[str, str]:
    """Items of TRIPOD+AI that a cross-validation answers; none for other predictions."""
    if not is_cross_validation(path):
        return {}
    found = read_cross_validation(path)
    return {
        "12a": f"{found.facts['folds']} folds by participant; both visits of a participant are in one fold.",
        "12c": f"{found.members} networks per fold, each predicting the fold that it never saw; settings in "
        "`cross_validation.json`.",
        "16": "Same source: training and evaluation differ only in participants.",
    }


def _spec(facts: Mapping[str, Any]) -> TargetSpec:
    name = facts["name"]
    own = TargetSpec(name, facts["field"], facts["unit"], "own", facts["kind"], facts["lower"], facts["upper"])
    return TARGETS.get(name, own)


def _known(comparison: Comparison, grouped: bool) -> dict[str, str]:
    names = [r.spec.name for r in comparison.results]
    most = max(r.count for r in comparison.results)
    people = max(np.unique(r.data.participants).size for r in comparison.results)
    return {
        "1": f"Evaluation of estimates of {len(names)} targets from MRI.",
        "4": "Evaluation.",
        "8a": f"Labels of: {listed(names)}.",
        "10": f"All scans with label and estimate (at most {most} of {people} participants); no calculation.",
        "14": "Accuracy and calibration in groups by sex, age and visit." if grouped else "",
        "20a": f"{comparison.unlabelled} scans have no label; numbers per target: see Accuracy.",
        "23a": "See Accuracy, with 95 % bootstrap intervals over participants" + ("; see Groups." if grouped else "."),
        "26": comparison.warning,
    }


def _group_rows(groups: Mapping[str, Comparison]) -> list[dict[str, Any]]:
    """One row a target and group, targets together."""
    rows = []
    for group, comparison in groups.items():
        for result in comparison.results:
            shown = ("auroc", "calibration_error") if result.data.binary else ("mae", "bias", "coverage")
            values = {name: result.metrics[name].value for name in shown if np.isfinite(result.metrics[name].value)}
            rows.append({"target": result.spec.name, "group": group, "n": result.count, "metrics": values})
    order = list(dict.fromkeys(row["target"] for row in rows))
    return sorted(rows, key=lambda row: order.index(row["target"]))


def _markdown(rows: list[dict[str, Any]]) -> str:
    names = ("mae", "bias", "coverage", "auroc", "calibration_error")
    lines = [
        "| target | group | n | MAE | bias | coverage | AUROC | calibration error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (f"{row['metrics'][name]:.3g}" if name in row["metrics"] else "-" for name in names)
        lines.append(f"| {row['target']} | {row['group']} | {row['n']} | {' | '.join(cells)} |")
    return "\n".join(lines)
