"""What a report holds of each scan: its columns, packed, with the counts that the first picture shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.labels import Labels
from ukb_infer.quality.registry import MEASURES, describe, is_text
from ukb_infer.records import ScanKey
from ukb_infer.report.packing import Packed, pack_numbers, pack_text, pack_words
from ukb_infer.runs import Run

Float64 = NDArray[np.float64]

#: Numbers in all up to which a page keeps 16 bits of each, both ends of every interval and each station's measures.
FINE_CELLS = 3_000_000
#: Beyond that an estimate is off by at most a tenth of its usual standard deviation, an interval by 5 % of its width,
#: a measure by a hundredth of the range that 90 % of the scans lie in.
STEPS_PER_SD, WIDTH_STEP, STEPS_PER_RANGE = 5.0, 0.1, 48.0
#: Most labels on a page that is not fine; of more, only those of the worst errors are on it.
MOST_LABELS = 500_000
#: Bins of a histogram, between the quantiles that it shows; its first and last bin also hold what lies beyond.
BINS, SHOWN_QUANTILES = 40, (0.002, 0.998)
SEXES = ("female", "male")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the page.

    Attributes:
        name: unique; ``t:weight`` the estimate, ``w:`` its interval's half width, ``l:`` and ``u:`` its ends, ``y:``
            the label, ``m:snr`` a measure, others of the scan.
        title: for readers; ``unit``: of the numbers; ``about``: one sentence.
        packed: its content.
        histogram: first code, codes per bin and counts by group; None for words and text.
    """

    name: str
    title: str
    packed: Packed
    unit: str = ""
    about: str = ""
    histogram: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a page: every scan of the run, in the order of its tables or shuffled.

    Attributes:
        run: as read.
        order: (N,) place in ``run.scans`` of each row.
        at: (M,) row of each scan of the estimates; empty without estimates.
        sex: (N,) 0 female, 1 male, -1 unknown; ``sex_from``: in words.
        age: (N,) years, NaN where unknown.
        labels: (N,) of each labelled target, NaN where missing.
        anonymous: without names, paths and messages.
    """

    run: Run
    order: NDArray[np.intp]
    at: NDArray[np.intp]
    sex: NDArray[np.int8]
    sex_from: str = ""
    age: Float64 = field(default_factory=lambda: np.empty(0))
    labels: Mapping[str, Float64] = field(default_factory=dict)
    anonymous: bool = False

    @property
    def count(self) -> int:
        """Number of scans."""
        return self.order.size

    def spread(self, values: Float64) -> Float64:
        """(M,) numbers of the estimates to (N,) of the rows."""
        spread = np.full(self.count, np.nan)
        spread[self.at] = values
        return spread


def make_rows(run: Run, labels: Labels | None, phenotypes: Labels | None, *, anonymous: bool = False) -> Rows:
    """Bring scans, estimates and what is known of the participants together.

    Args:
        run: as read.
        labels: of targets, or None.
        phenotypes: sex, age or both, or None.
        anonymous: rows are shuffled and have no names.
    """
    count = len(run.scans)
    order = np.random.default_rng().permutation(count) if anonymous else np.arange(count)
    row_of = {run.scans[k].key.scan: row for row, k in enumerate(order)}
    has_estimates = run.table is not None
    at = np.array([row_of[key.scan] for key in run.keys] if has_estimates else [], np.intp)
    keys = [run.scans[k].key for k in order]
    known = dict.fromkeys(("sex", "age"), np.full(count, np.nan)) | _by_target(phenotypes, keys)
    sex, source = known["sex"], "phenotypes"
    if not np.isfinite(sex).any():
        source = ""
        if has_estimates and any(t.name == "sex" and t.kind == "binary" for t in run.estimated[1].targets):
            sex, source = np.full(count, np.nan), "estimates"
            sex[at] = run.estimates("sex").probability
    coded = np.where(np.isfinite(sex), sex >= 0.5, -1).astype(np.int8)
    return Rows(run=run, order=order, at=at, sex=coded, sex_from=source, age=known["age"],
                labels=_by_target(labels, keys), anonymous=anonymous)  # fmt: skip


def _by_target(labels: Labels | None, keys: Sequence[ScanKey]) -> dict[str, Float64]:
    if labels is None:
        return {}
    matrix = labels.matrix(keys)
    return {name: matrix[:, place] for place, name in enumerate(labels.targets)}


def is_fine(rows: Rows) -> bool:
    """Whether the page keeps numbers as finely as 16 bits allow."""
    targets = len(rows.run.estimated[1].targets) if rows.run.table is not None else 0
    return rows.count * (3 * targets + len(rows.run.measure_names)) <= FINE_CELLS


def has_all_labels(rows: Rows) -> bool:
    """Whether the page keeps every label, or only those of the worst errors."""
    return is_fine(rows) or sum(int(np.isfinite(v).sum()) for v in rows.labels.values()) <= MOST_LABELS


def make_columns(rows: Rows) -> Iterator[Column]:
    """All columns of the page, those of the first table first.

    Args:
        rows: of the page.
    """
    fine = is_fine(rows)
    yield from _scan_columns(rows)
    yield from _estimate_columns(rows, fine)
    yield from _measure_columns(rows, fine)


# -- scans -------------------------------------------------------------------------------------------------------------


def _scan_columns(rows: Rows) -> Iterator[Column]:
    scans = [rows.run.scans[k] for k in rows.order]
    names = [f"scan {k + 1}" for k in range(rows.count)] if rows.anonymous else [s.key.scan for s in scans]
    yield Column(name="scan", title="Scan", packed=pack_text(names))
    yield Column(name="status", title="Status", packed=pack_words([s.result.status for s in scans]))
    yield Column(name="level", title="Quality level", packed=pack_words([s.level for s in scans]))
    yield Column(name="reasons", title="Reasons", packed=pack_words([s.result.codes for s in scans]))
    yield Column(name="affected", title="Affected targets", packed=pack_words([";".join(s.affected) for s in scans]))
    visits = np.array([np.nan if s.key.instance is None else s.key.instance for s in scans])
    yield numbers(rows, "instance", "Visit", visits, step=1.0)
    yield numbers(rows, "stations", "Stations", np.array([s.result.stations or np.nan for s in scans]), step=1.0)
    if rows.sex_from:
        words = np.array(["", *SEXES])[rows.sex + 1]
        yield Column(name="sex", title="Sex", packed=pack_words(words.tolist()), about=f"from {rows.sex_from}")
    if np.isfinite(rows.age).any():
        yield numbers(rows, "age", "Age", rows.age, unit="years", step=0.1)
    if rows.run.table is not None and np.isfinite(rows.run.ood_percentile).any():
        about = "Share of ordinary scans that look less unusual to the networks than this one."
        percentile = rows.spread(rows.run.ood_percentile)
        yield numbers(rows, "ood", "Outlier percentile", percentile, unit="%", step=0.05, about=about)
    if not rows.anonymous:
        yield Column(name="message", title="Message", packed=pack_text([s.result.message for s in scans]))
        paths = [s.given.replace(s.key.scan, "{}") for s in scans]
        yield Column(name="path", title="Path", packed=pack_words(paths))


def numbers(
    rows: Rows, name: str, title: str, values: Float64, *, step: float | None = None, relative: bool = False,
    unit: str = "", about: str = "",
) -> Column:  # fmt: skip
    """A column of numbers with its histogram.

    Args:
        rows: of the page.
        name: unique.
        title: for readers.
        values: (N,), NaN where missing.
        step: of the quantization, None for as fine as 16 bits allow.
        relative: whether the step is relative.
        unit: of the values.
        about: one sentence.
    """
    packed = pack_numbers(values, step=step, relative=relative)
    return Column(
        name=name, title=title, packed=packed, unit=unit, about=about, histogram=_histogram(packed.codes, rows.sex)
    )


def _histogram(codes: Any, sex: NDArray[np.int8]) -> dict[str, Any] | None:
    """Bins of whole codes, so that the page counts the same when it filters."""
    present = codes[codes > 0]
    if present.size == 0:
        return None
    first, last = (int(v) for v in np.quantile(present, SHOWN_QUANTILES, method="nearest"))
    per = max(1, -(-(last - first + 1) // BINS))
    bins = -(-(last - first + 1) // per)
    place = np.clip((codes.astype(np.int64) - first) // per, 0, bins - 1)
    used = codes > 0
    groups = {"all": used, **{name: used & (sex == k) for k, name in enumerate(SEXES)}}
    counts = {name: np.bincount(place[mask], minlength=bins).tolist() for name, mask in groups.items()}
    return {"first": first, "per": per, "counts": counts}


# -- estimates ---------------------------------------------------------------------------------------------------------


def _estimate_columns(rows: Rows, fine: bool) -> Iterator[Column]:
    if rows.run.table is None:
        return
    labelled = rows.labels if has_all_labels(rows) else {}
    for target in rows.run.estimated[1].targets:
        found = rows.run.estimates(target.name)
        name, unit = target.name, target.unit
        if target.kind == "binary":
            step = None if fine else 1 / 200
            values = rows.spread(found.probability)
            yield numbers(rows, f"t:{name}", name, values, step=step, about="probability of 1")
        else:
            step = None if fine else usual_sd(found.sd) / STEPS_PER_SD
            yield numbers(rows, f"t:{name}", name, rows.spread(found.mean), step=step, unit=unit)
            half = np.fmax(found.upper - found.mean, found.mean - found.lower)
            title, step = f"{name}: half width of the interval", None if fine else WIDTH_STEP
            if np.isfinite(half).any():
                yield numbers(rows, f"w:{name}", title, rows.spread(half), step=step, relative=not fine, unit=unit)
                if fine:
                    yield numbers(rows, f"l:{name}", f"{name}: lower end", rows.spread(found.lower), unit=unit)
                    yield numbers(rows, f"u:{name}", f"{name}: upper end", rows.spread(found.upper), unit=unit)
        if name in labelled:
            label = labelled[name]
            yield numbers(
                rows, f"y:{name}", f"{name}: label", label, step=None if fine else _range_step(label), unit=unit
            )


def usual_sd(sd: Float64) -> float:
    """Median of standard deviations, 0 where none is known."""
    known = sd[np.isfinite(sd)]
    return float(np.median(known)) if known.size else 0.0


# -- measures ----------------------------------------------------------------------------------------------------------


def _measure_columns(rows: Rows, fine: bool) -> Iterator[Column]:
    scans = [rows.run.scans[k] for k in rows.order]
    for name in rows.run.measure_names:
        meaning, unit = describe(name)
        if name not in MEASURES and not fine:
            continue  # of a station: in quality.csv
        values: Sequence[Any] = [scan.result.measures.get(name, "") for scan in scans]
        title = MEASURES[name].title if name in MEASURES else meaning or name
        if is_text(name) or any(isinstance(v, str) and v for v in values):
            yield Column(name=f"m:{name}", title=title, about=meaning, packed=pack_words([str(v) for v in values]))
            continue
        known = np.array([np.nan if v == "" else v for v in values], np.float64)
        yield numbers(rows, f"m:{name}", title, known, step=None if fine else _range_step(known), unit=unit,
                      about=meaning)  # fmt: skip


def _range_step(values: Float64) -> float | None:
    """Step of a measure on a page of many scans; None where 90 % of the scans are alike."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return None
    low, high = np.quantile(known, (0.05, 0.95))
    return float(high - low) / STEPS_PER_RANGE or float(np.ptp(known)) / STEPS_PER_RANGE or None
