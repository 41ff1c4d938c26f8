"""``summary``: counts, means, sds, curves and associations of a run that may leave the platform."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer._version import __version__
from ukb_infer.epidemiology import disclosure
from ukb_infer.epidemiology.cohort import Sources, one_scan_per_visit
from ukb_infer.epidemiology.phenotypes import read_phenotypes
from ukb_infer.epidemiology.summary_models import SharedModel, shared_associations, shared_reference
from ukb_infer.errors import UsageError
from ukb_infer.runs.read import Run, read_run
from ukb_infer.storage import write_texts

Float64 = NDArray[np.float64]
Say = Callable[[str], None]

#: Versions, rules, and the SHA-256 of each table, by which `report --summary` knows them.
FACTS = "summary.json"
#: Files of a summary with their columns, "by" standing for the column asked for.
COUNTS, STATISTICS, QUANTILES, REASONS = "counts.csv", "statistics.csv", "quantiles.csv", "reasons.csv"
ASSOCIATIONS, REFERENCE = "associations.csv", "reference.json"
_OPTIONAL = {ASSOCIATIONS, REFERENCE}
QUANTILE_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
ALL = "all"
_SEXES = ("female", "male")
#: Ends of the bands of age: fixed, as a choice would let one person be singled out.
_AGES = (0, 50, 60, 70, 80, 200)
_FINE_AGES = (0, *range(45, 86, 5), 200)
#: Most values of a column that groups people; others are free text.
_MOST_LEVELS = 20


@dataclass(frozen=True, kw_only=True)
class SummaryConfig:
    """What to summarize.

    Attributes:
        sources: run; phenotypes with age and sex, with height for reference curves; for ``models`` also labels and what
            is known of the module's training. Its visit is the only one to use; without, the first of everyone.
        out: folder of the summary.
        by: a further column of few values that groups people, or "".
        models: associations to summarize, as ``FORMULA`` or ``FAMILY: FORMULA``.
        min_count: fewest people behind any number, at least 5.
    """

    sources: Sources
    out: Path
    by: str = ""
    models: tuple[str, ...] = ()
    min_count: int = disclosure.SMALLEST_COUNT


def run_summary(config: SummaryConfig, say: Say = print) -> list[Path]:
    """Write the summary; returns its files.

    Args:
        config: what to summarize.
        say: receives notes, which name no participant.

    Raises:
        UsageError: a smallest count below 5, unusable tables, free text to group by, or a model of a small group.
        RunError: no estimates, or a folder that cannot be written.
    """
    if config.min_count < disclosure.SMALLEST_COUNT:
        raise UsageError(field="min_count", got=config.min_count, expected=f"at least {disclosure.SMALLEST_COUNT}")
    models = [SharedModel.of(text) for text in config.models]
    if config.sources.phenotypes is None:
        raise UsageError(field="phenotypes", got="nothing", expected="a table with age and sex")
    texts = _contents(config, models, say)
    files = write_texts(config.out, texts)
    for name in _OPTIONAL - set(texts):  # of an earlier summary
        (config.out / name).unlink(missing_ok=True)
    return list(files)


def _contents(config: SummaryConfig, models: Sequence[SharedModel], say: Say) -> dict[str, str]:
    """Text of every file by name."""
    sources, smallest = config.sources, config.min_count
    assert sources.phenotypes is not None
    whole = read_run(sources.run)
    run = one_scan_per_visit(whole.usable() if sources.quality == "use" else whole, sources.instance)
    names = dict.fromkeys(["sex", "age", *filter(None, [config.by])])
    people, estimates = people_of(run, read_phenotypes(sources.phenotypes, list(names), run.keys, None, say), config.by)
    _, facts = run.estimated
    tables = summarize(people, estimates, {t.name: t.unit for t in facts.targets}, smallest, by=config.by)
    tables[REASONS] = _reasons(whole, smallest)
    shown = tables[COUNTS].iloc[0]["participants"]
    say(f"about {shown} participants summarized; groups of fewer than {smallest} are in no number")
    associations, reported = shared_associations(models, sources, smallest, say)
    if models:
        tables[ASSOCIATIONS] = associations
    texts = {name: table.to_csv(index=False, lineterminator="\n") for name, table in tables.items()}
    if (reference := shared_reference(run, sources, smallest, say)) is not None:
        texts[REFERENCE] = reference.text()
    about = {
        "ukb_infer": __version__, "min_count": smallest, "by": config.by, "instance": sources.instance,
        "quality": sources.quality, "clipped_at_robust_sds": disclosure.CLIP, "associations": reported,
        "modules": [{k: str(m.get(k, "")) for k in ("name", "version", "sha256", "warning")} for m in facts.modules],
    }  # fmt: skip
    about["tables"] = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    return texts | {FACTS: json.dumps(about, indent=2) + "\n"}


def people_of(run: Run, phenotypes: pd.DataFrame, by: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per participant, of the first visit: sex, age and the column ``by``; and every target's estimate.

    Args:
        run: N scans.
        phenotypes: (N rows) sex, age and ``by``.
        by: a column that groups people, or "".

    Raises:
        UsageError: ``by`` is free text.
    """
    table, facts = run.estimated
    people = phenotypes[["sex", "age"]]
    if by:
        people = people.assign(by=_levels(phenotypes[by], by))
    columns = {}
    for target in facts.targets:
        found = run.estimates(target.name)
        columns[target.name] = found.probability if np.isfinite(found.probability).any() else found.mean
    person = table["eid"].where(table["eid"] != "", table["scan"])
    order = np.lexsort([table["instance"].fillna(-1).astype(int), person])
    first = order[~person.iloc[order].duplicated().to_numpy()]
    estimates = pd.DataFrame(columns, index=people.index)
    return people.iloc[first].reset_index(drop=True), estimates.iloc[first].reset_index(drop=True)


def _levels(values: pd.Series, by: str) -> pd.Series:
    """Words of a column, if it is one of few values."""
    words = values.map(lambda v: None if v is None or v != v else f"{v:g}" if isinstance(v, float) else str(v))
    distinct = words.dropna().unique()
    if len(distinct) > _MOST_LEVELS:
        raise UsageError(
            f"`by`: {by} has {len(distinct)} different values, expected at most {_MOST_LEVELS}: free text and "
            "measurements cannot be shown; use a column of a few codes or bands"
        )
    disclosure.refuse_revealing(distinct, f"`by`: {by}")
    return words


def summarize(
    people: pd.DataFrame,
    estimates: pd.DataFrame,
    units: Mapping[str, str],
    smallest: int = disclosure.SMALLEST_COUNT,
    *,
    by: str = "",
) -> dict[str, pd.DataFrame]:
    """Tables that show no one person, by file name.

    Args:
        people: one row per participant: sex, age, and perhaps ``by``.
        estimates: (N rows) by target; apart from ``people``, as age and sex are targets, too.
        units: of the targets.
        smallest: count of people behind a number.
        by: title of the column ``by``; "" if there is none.
    """
    bands = pd.DataFrame({"sex": people["sex"].map({0.0: _SEXES[0], 1.0: _SEXES[1]})})
    bands["age"] = _bands(people["age"], _AGES)
    if by:
        bands["by"] = people["by"]
    levels = [list(_SEXES), _names(_AGES), *([sorted(bands["by"].dropna().unique())] if by else [])]
    placed = bands.notna().all(axis=1).to_numpy()
    cells = bands.groupby(list(bands)).ngroup().where(placed)
    counts = [
        key | {"participants": disclosure.rounded_count(int(rows.sum()), smallest) or ""}
        for key, rows in _groups(bands, levels, cells, smallest)
    ]
    statistics: list[dict[str, object]] = []
    quantiles: list[dict[str, object]] = []
    for name, unit in units.items():
        values = np.array(estimates[name], np.float64)
        known = np.isfinite(values) & placed
        scale = disclosure.robust_scale(values[known])
        if not known.any() or scale == 0.0:
            continue
        values[known] = disclosure.clipped(values[known], scale)
        head: dict[str, object] = {"target": name, "unit": unit}
        for key, rows in _groups(bands, levels, cells.where(known), smallest):
            if count := disclosure.rounded_count(int(rows.sum()), smallest):
                statistics.append(head | key | {"n": count} | disclosure.mean_and_sd(values[rows], scale, smallest))
        quantiles += [head | row for row in _curves(people, bands["sex"], values, known, scale, smallest)]
    shown = {row["by"] for row in counts if by and row["participants"]}
    tables = {COUNTS: [r for r in counts if not by or r["by"] in shown], STATISTICS: statistics, QUANTILES: quantiles}
    return {name: pd.DataFrame(rows).rename(columns={"by": by}) for name, rows in tables.items()}


def _bands(ages: pd.Series, ends: tuple[int, ...]) -> pd.Series:
    return pd.cut(ages.astype(float), ends, right=False, labels=_names(ends)).astype(object)


def _names(ends: tuple[int, ...]) -> list[str]:
    """Names of bands.

    >>> _names((0, 50, 60, 200))
    ['under 50', '50-59', '60 and over']
    """
    inner = [f"{low}-{high - 1}" for low, high in itertools.pairwise(ends[1:-1])]
    return [f"under {ends[1]}", *inner, f"{ends[-2]} and over"]


def _groups(
    bands: pd.DataFrame, levels: list[list[str]], cells: pd.Series, smallest: int
) -> Iterator[tuple[dict[str, object], NDArray[np.bool_]]]:
    """Every cell and margin with its (N,) people: only those whose cell is large enough, in the margins, too.

    Args:
        bands: (N rows) a column for each dimension.
        levels: of each dimension.
        cells: (N,) number of each person's cell, missing for people not to count.
        smallest: count.
    """
    kept = disclosure.in_large_cells(cells, smallest)
    masks = [
        {ALL: kept, **{v: kept & (bands[c] == v).to_numpy() for v in names}}
        for c, names in zip(bands.columns, levels, strict=True)
    ]
    for chosen in itertools.product(*masks):
        rows = np.logical_and.reduce([mask[v] for mask, v in zip(masks, chosen, strict=True)])
        yield dict(zip(map(str, bands.columns), chosen, strict=True)), rows


def _curves(
    people: pd.DataFrame, sex: pd.Series, values: Float64, known: NDArray[np.bool_], scale: float, smallest: int
) -> Iterator[dict[str, object]]:
    """Quantiles of the sexes in bands of five years."""
    ages = _bands(people["age"], _FINE_AGES)
    for one, age in itertools.product(_SEXES, _names(_FINE_AGES)):
        own = np.sort(values[known & (sex == one).to_numpy() & (ages == age).to_numpy()])
        found = {f"p{100 * q:02.0f}": disclosure.quantile(own, q, scale, smallest) for q in QUANTILE_LEVELS}
        if np.isfinite(list(found.values())).any():
            yield {"sex": one, "age": age, **found}


def _reasons(run: Run, smallest: int) -> pd.DataFrame:
    """Participants by status, reason and level of quality of their scans."""
    people: dict[tuple[str, str], set[str]] = defaultdict(set)
    for scan in run.scans:
        person = scan.key.eid or scan.key.scan
        found = [("status", scan.result.status), *(("reason", reason.value) for reason in scan.result.reasons)]
        for what in [*found, *([("quality", scan.level)] if scan.level else [])]:
            people[what].add(person)
    rows = [(*what, disclosure.rounded_count(len(who), smallest)) for what, who in sorted(people.items())]
    return pd.DataFrame([row for row in rows if row[2]], columns=["kind", "code", "participants"])
