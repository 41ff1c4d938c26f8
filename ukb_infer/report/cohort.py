"""Numbers of a whole run, for the first section of a report; everything is aggregated here, the page only draws."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.evaluation import Comparison, TargetResult
from ukb_infer.evaluation.metrics import calibration_curve, reliability_bins
from ukb_infer.quality.judge import LEVELS
from ukb_infer.quality.limits import QualitySpec, read_spec
from ukb_infer.quality.registry import MEASURES
from ukb_infer.reasons import Reason
from ukb_infer.report.contents import SEXES, Rows
from ukb_infer.runs import Run
from ukb_infer.targets import TARGETS, PublishedAccuracy

Float64 = NDArray[np.float64]

#: From the standard deviation of a Gaussian to its mean absolute error.
SD_TO_MAE = math.sqrt(2 / math.pi)
#: Width of an age band, years; bands of fewer scans are left out.
BAND_YEARS, FEWEST_IN_BAND = 5, 5
#: The worst errors: this share of the labelled scans, at least so many; so many are listed.
WORST_SHARE, FEWEST_WORST, LISTED = 0.01, 5, 10
#: Most points of a scatter plot, and of all of them on a page; levels of a calibration curve that are drawn.
POINTS, ALL_POINTS, CURVE_EVERY = 1500, 30_000, 7
FIRST_VISIT, REPEAT_VISIT = 2, 3


def count_scans(run: Run) -> dict[str, Any]:
    """Scans by status and by level of quality; every reason with what to do, the most frequent first."""
    statuses = Counter({"ok": 0, "flagged": 0, "failed": 0, "excluded": 0})
    statuses.update(scan.result.status for scan in run.scans)
    levels = Counter(scan.level for scan in run.scans if scan.level)
    reasons = Counter(reason for scan in run.scans for reason in scan.result.reasons)
    return {
        "status": dict(statuses),
        "levels": {level: levels[level] for level in LEVELS},
        "reasons": [
            {"code": r.value, "count": n, "kind": r.kind.value, "meaning": r.meaning, "advice": r.advice}
            for r, n in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0].value))
        ],
    }


def limits_of(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Limits by measure, with the number of scans that break each."""
    plain = None if run.facts is None else run.facts.quality
    spec = read_spec() if plain is None else QualitySpec.from_journal(dict(plain))
    raised = Counter(reason.value for scan in run.scans for reason in scan.result.reasons)
    limits: dict[str, list[dict[str, Any]]] = {}
    for code, limit in spec.limits.items():
        said = {"code": code, "words": limit.words.replace("`", ""), "level": limit.level, "count": raised[code],
                "below": limit.below, "above": limit.above, "advice": Reason(code).advice}  # fmt: skip
        for name in limit.measures if limit.level != "off" else ():
            limits.setdefault(name, []).append(said)
    return {name: limits[name] for name in MEASURES if name in limits}


# -- targets -----------------------------------------------------------------------------------------------------------


def describe_targets(rows: Rows) -> list[dict[str, Any]]:
    """Each target: its distribution by sex and age, its intervals, and what was published of it.

    Args:
        rows: of the page.
    """
    if rows.run.table is None:
        return []
    return [_describe_target(rows, target.name) for target in rows.run.estimated[1].targets]


def _describe_target(rows: Rows, name: str) -> dict[str, Any]:
    found = rows.run.estimates(name)
    target, binary = found.target, found.target.kind == "binary"
    published = TARGETS[name].published if name in TARGETS else PublishedAccuracy()
    values = rows.spread(found.probability if binary else found.mean)
    half = np.fmax(found.upper - found.mean, found.mean - found.lower)
    groups = {"all": np.ones(rows.count, bool), **{sex: rows.sex == k for k, sex in enumerate(SEXES)}}
    said: dict[str, Any] = {
        "name": name, "unit": target.unit, "field": target.field, "kind": target.kind,
        "spread": {group: _spread(values[mask]) for group, mask in groups.items()},
        "published": {
            "icc": published.cv_icc, "mae": published.cv_mae, "auc": published.cv_auc, "n": published.cv_n,
        },
        "expected_mae": _finite(SD_TO_MAE * float(np.nanmean(found.sd))) if np.isfinite(found.sd).any() else None,
        "width": _spread(half),
    }  # fmt: skip
    if binary and np.isfinite(values).any():
        said["positive"] = float((values[np.isfinite(values)] >= 0.5).mean())
    if np.isfinite(rows.age).any():
        said["age"] = _by_age(rows, values)
    return said


def _spread(values: Float64) -> dict[str, Any]:
    """Count, median and the range that 90 % lie in."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return {"n": 0}
    low, middle, high = (float(v) for v in np.quantile(known, (0.05, 0.5, 0.95)))
    return {"n": int(known.size), "p5": low, "median": middle, "p95": high, "mean": float(known.mean())}


def _by_age(rows: Rows, values: Float64) -> dict[str, Any]:
    """Medians by age band and sex; all together where no sex is known."""
    ages = rows.age[np.isfinite(rows.age)]
    edges = np.arange(math.floor(ages.min() / BAND_YEARS), math.floor(ages.max() / BAND_YEARS) + 1) * BAND_YEARS
    groups = dict(zip(SEXES, (rows.sex == 0, rows.sex == 1), strict=True)) if rows.sex_from else {"all": rows.sex < 9}
    medians: dict[str, Any] = {"age": (edges + BAND_YEARS / 2).tolist()}
    for group, mask in groups.items():
        used = [values[mask & (rows.age >= e) & (rows.age < e + BAND_YEARS) & np.isfinite(values)] for e in edges]
        medians[group] = [float(np.median(v)) if v.size >= FEWEST_IN_BAND else None for v in used]
    return medians


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- visits ------------------------------------------------------------------------------------------------------------


def compare_visits(run: Run) -> list[dict[str, Any]]:
    """Change from the first to the repeat visit, against what the intervals alone would explain.

    Empty unless someone was scanned twice. ``beyond`` is the share of changes that exceed the interval of a difference.
    """
    if run.table is None:
        return []
    visits: dict[tuple[str, int | None], int] = {(k.eid, k.instance): row for row, k in enumerate(run.keys) if k.eid}
    people = [eid for eid, visit in visits if visit == FIRST_VISIT and (eid, REPEAT_VISIT) in visits]
    first = np.array([visits[eid, FIRST_VISIT] for eid in people], np.intp)
    again = np.array([visits[eid, REPEAT_VISIT] for eid in people], np.intp)
    changes = []
    for target in run.estimated[1].targets if people else ():
        found = run.estimates(target.name)
        change = (found.mean[again] - found.mean[first])[np.isfinite(found.mean[again] - found.mean[first])]
        if target.kind == "binary" or change.size == 0:
            continue
        half = np.hypot(_half(found, first), _half(found, again))
        known = np.isfinite(half) & np.isfinite(found.mean[again] - found.mean[first])
        beyond = np.abs(found.mean[again] - found.mean[first])[known] > half[known]
        changes.append({
            "name": target.name, "unit": target.unit, "n": int(change.size), "mean": float(change.mean()),
            "sd": float(change.std()), "half": _finite(float(np.median(half[known]))) if known.any() else None,
            "beyond": float(beyond.mean()) if known.any() else None,
        })  # fmt: skip
    return changes


def _half(found: Any, at: NDArray[np.intp]) -> Float64:
    return np.asarray(np.fmax(found.upper[at] - found.mean[at], found.mean[at] - found.lower[at]))


# -- labels ------------------------------------------------------------------------------------------------------------


def describe_agreement(comparison: Comparison, rows: Rows | None = None) -> dict[str, Any]:
    """Metrics, calibration and worst errors of every labelled target.

    Args:
        comparison: estimates against labels.
        rows: of the page; None for a page without scans, which has no worst errors.
    """
    results = [result for result in comparison.results if result.count]
    points = min(POINTS, ALL_POINTS // max(1, len(results)))
    return {"targets": [_agreement_of(result, points, rows) for result in results],
            "missing": list(comparison.without_estimate), "unlabelled": comparison.unlabelled}  # fmt: skip


def _agreement_of(result: TargetResult, points: int, rows: Rows | None) -> dict[str, Any]:
    data = result.data
    said: dict[str, Any] = {
        "name": result.spec.name, "unit": result.spec.unit, "n": result.count, "kind": result.spec.kind,
        "level": data.level,
        "metrics": {name: _finite(metric.value) for name, metric in result.metrics.items()},
    }  # fmt: skip
    if data.binary:
        predicted, observed, counts = reliability_bins(data.label, data.probabilities)
        kept = counts > 0
        said["curve"] = {"nominal": predicted[kept].tolist(), "observed": observed[kept].tolist()}
        return said
    if data.has_sd:
        observed = calibration_curve(data.label, data.mean, data.sd)
        nominal = np.linspace(0.01, 0.99, observed.size)
        said["curve"] = {"nominal": nominal[::CURVE_EVERY].tolist(), "observed": observed[::CURVE_EVERY].tolist()}
    chosen = np.random.default_rng(0).permutation(result.count)[:points]
    chosen = chosen[np.argsort(data.label[chosen])]
    said["points"] = {"label": _short(data.label[chosen]), "estimate": _short(data.mean[chosen])}
    return said if rows is None else said | {"worst": _worst(result.spec.name, rows)}


def _short(values: Float64) -> list[float]:
    """Numbers as long as a drawn point needs."""
    return [float(f"{value:.4g}") for value in values]


def _worst(name: str, rows: Rows) -> dict[str, Any]:
    """Whether the scans with the largest errors carry flags, against all labelled scans."""
    error = np.abs(rows.spread(rows.run.estimates(name).mean) - rows.labels[name])
    known = np.flatnonzero(np.isfinite(error))
    worst = known[np.argsort(-error[known], kind="stable")][: max(FEWEST_WORST, round(WORST_SHARE * known.size))]
    flagged = np.array([bool(rows.run.scans[k].result.reasons) for k in rows.order])
    reasons = Counter(r.value for row in worst for r in rows.run.scans[rows.order[row]].result.reasons)
    return {
        "n": int(worst.size), "flagged": int(flagged[worst].sum()), "usual": float(flagged[known].mean()),
        "reasons": reasons.most_common(3), "rows": worst[:LISTED].tolist(),
        "errors": [float(v) for v in error[worst[:LISTED]]],
        "labels": [float(v) for v in rows.labels[name][worst[:LISTED]]],
    }  # fmt: skip
