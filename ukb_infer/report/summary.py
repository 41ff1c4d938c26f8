"""``report --summary``: the page without individual data, of the tables that ``summary`` wrote and of nothing else."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ukb_infer._version import __version__
from ukb_infer.epidemiology.cohort import Sources
from ukb_infer.epidemiology.disclosure import SMALLEST_COUNT
from ukb_infer.epidemiology.summary import (
    ALL,
    COUNTS,
    FACTS,
    QUANTILES,
    REASONS,
    REFERENCE,
    STATISTICS,
    SummaryConfig,
    run_summary,
)
from ukb_infer.errors import RunError, UsageError
from ukb_infer.reasons import Reason
from ukb_infer.report.html import write_page
from ukb_infer.storage import sha256_file

#: Rows of a table that the page shows; the rest is in the table.
MOST_ROWS = 2000
#: Rows of a table that is open; a larger one is folded, like those that the page shows otherwise.
OPEN_ROWS = 200
#: Quantiles that are drawn over age.
_DRAWN = ("p05", "p50", "p95")
#: Order of the kinds of `reasons.csv` on the page.
_KINDS = ("status", "quality", "reason")
_TITLES = {
    COUNTS: "Participants by sex and age", STATISTICS: "Means and standard deviations",
    QUANTILES: "Quantiles by sex and age", REASONS: "Status, reasons and quality",
    REFERENCE: "Reference curves",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the summary: its file's name, its columns, and its cells as they are written there."""

    name: str
    columns: list[str]
    rows: list[list[str]]

    def where(self, **values: str) -> list[dict[str, str]]:
        """The rows with these cells; columns that the table has not are not asked for."""
        records = (dict(zip(self.columns, row, strict=True)) for row in self.rows)
        return [record for record in records if all(record.get(k, v) == v for k, v in values.items())]


def write_summary_page(
    source: Path, out: Path, phenotypes: Path | None, min_count: int | None, say: Callable[[str], None] = print
) -> Path:
    """Write the page of a summary.

    Args:
        source: folder that ``summary`` wrote; or a run, whose summary is made first and not kept.
        out: the page.
        phenotypes: of a run: table with age and sex.
        min_count: of a run: fewest people behind any number; None for the smallest allowed.
        say: receives notes, which name no participant.

    Raises:
        UsageError: a run without phenotypes, or options of a run for a summary.
        RunError: tables that ``summary`` did not write, or a page that cannot be written.
    """
    if holds_summary(source):
        for name, value in (("phenotypes", phenotypes), ("min_count", min_count)):
            if value is not None:
                raise UsageError(f"{source} is a summary already; leave it out", field=name)
        return _write(source, out)
    if phenotypes is None:
        raise UsageError(
            f"needed to summarize {source}: a table with age and sex; or give a folder that `ukb-infer summary` wrote",
            field="phenotypes",
        )
    smallest = SMALLEST_COUNT if min_count is None else min_count
    with tempfile.TemporaryDirectory() as folder:
        sources = Sources(run=source, phenotypes=phenotypes)
        run_summary(SummaryConfig(sources=sources, out=Path(folder), min_count=smallest), say)
        return _write(Path(folder), out)


def holds_summary(folder: Path) -> bool:
    """Whether a folder was written by ``summary``."""
    return (folder / FACTS).is_file()


def _write(folder: Path, out: Path) -> Path:
    facts, tables = read_summary(folder)
    return write_page(out, "Summary", _head(facts, tables))


def read_summary(folder: Path) -> tuple[dict[str, Any], dict[str, Table]]:
    """What a summary says of itself, and its tables by file name.

    Args:
        folder: written by ``summary``. Files that ``summary.json`` does not name are not read.

    Raises:
        RunError: it is no summary, or a table is not as it was written.
    """
    again = "make it again with `ukb-infer summary`"
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        hashes = dict(facts["tables"])
        changed = [name for name, known in hashes.items() if sha256_file(folder / Path(name).name) != known]
        texts = {name: (folder / Path(name).name).read_text(encoding="utf-8") for name in hashes}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder} is no whole summary ({type(error).__name__}: {error}); {again}") from error
    if changed:
        raise RunError(f"{folder}: {', '.join(changed)} changed after the summary was made; {again}")
    return facts, {name: _table(name, text) for name, text in texts.items()}


def _table(name: str, text: str) -> Table:
    if name.endswith(".json"):
        return Table(name=name, columns=["place", "value"], rows=[[*row] for row in _flat(json.loads(text))])
    columns, *rows = csv.reader(io.StringIO(text))
    return Table(name=name, columns=columns, rows=rows)


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every value of nested objects with its place; lists of values stay together.

    >>> list(_flat({"weight": {"knots": [1, 2], "curves": [{"a": 3}]}}))
    [('weight.knots', '1, 2'), ('weight.curves.0.a', '3')]

    Args:
        value: as read from JSON.
        place: of the value.
    """
    if isinstance(value, list) and not any(isinstance(part, dict | list) for part in value):
        yield place, ", ".join(map(str, value))
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(part, f"{place}.{key}" if place else str(key))
    else:
        yield place, str(value)


def _head(facts: Mapping[str, Any], tables: Mapping[str, Table]) -> dict[str, Any]:
    """What the page says: rearranged cells of the tables, and the rules they were made by."""
    by, modules = str(facts.get("by", "")), facts.get("modules", [])
    return {
        "title": "Summary", "key": "", "version": __version__, "rows": 0, "columns": [], "targets": [], "visits": [],
        "limits": {},
        "warning": " ".join(dict.fromkeys(m["warning"] for m in modules if m.get("warning"))),
        "modules": [{k: str(m.get(k, "")) for k in ("name", "version")} for m in modules],
        "summary": {
            "rules": _rules(facts),
            "people": _people(tables[COUNTS], by) if COUNTS in tables else [],
            "targets": _targets(tables[STATISTICS], by) if STATISTICS in tables else [],
            "curves": _curves(tables[QUANTILES]) if QUANTILES in tables else {},
            "reasons": _reasons(tables[REASONS]) if REASONS in tables else [],
            "associations": facts.get("associations", []),
            "tables": [_whole(table) for table in tables.values()],
        },
    }  # fmt: skip


def _rules(facts: Mapping[str, Any]) -> list[str]:
    """How the numbers were made, one sentence each."""
    visit = f"visit {facts['instance']}" if facts.get("instance") else "the first visit of everyone"
    used = "without estimates that quality flags rule out" if facts.get("quality") == "use" else "of all estimates"
    return [
        f"One scan per participant: {visit}, {used}.",
        f"People in groups of fewer than {facts['min_count']} are in no number; counts are rounded to multiples of it.",
        f"Values further than {facts['clipped_at_robust_sds']:g} robust sds from the median are moved there; means, "
        "sds and quantiles are rounded to steps larger than one person's part in them.",
        "No minimum, maximum, residual, id, scan, path, message, date or picture is in this page.",
    ]


def _people(counts: Table, by: str) -> list[dict[str, str]]:
    """Counts of each age, and of each value of ``by``, by sex."""
    places = [(ALL, row["age"]) for row in counts.where(sex=ALL, **({by: ALL} if by else {}))]
    values = dict.fromkeys(row[by] for row in counts.where(sex=ALL, age=ALL)) if by else {}
    places += [(value, ALL) for value in values if value != ALL]
    found = []
    for value, age in places:
        own = {row["sex"]: row["participants"] for row in counts.where(age=age, **({by: value} if by else {}))}
        group = "everyone" if (value, age) == (ALL, ALL) else age if value == ALL else f"{by} {value}"
        found.append({"group": group} | own)
    return found


def _targets(statistics: Table, by: str) -> list[dict[str, Any]]:
    """Numbers of each target over all ages, by sex."""
    found: dict[str, dict[str, Any]] = {}
    for row in statistics.where(age=ALL, **({by: ALL} if by else {})):
        target = found.setdefault(row["target"], {"name": row["target"], "unit": row["unit"], "by": {}})
        target["by"][row["sex"]] = {name: row[name] for name in ("n", "mean", "sd")}
    return list(found.values())


def _curves(quantiles: Table) -> dict[str, dict[str, Any]]:
    """Quantiles over age of each target and sex, as numbers to draw."""
    found: dict[str, dict[str, Any]] = {}
    ages = sorted({row["age"] for row in quantiles.where()}, key=_middle)
    for row in quantiles.where():
        curve = found.setdefault(row["target"], {"age": [_middle(age) for age in ages]})
        lines = curve.setdefault(row["sex"], {level: [None] * len(ages) for level in _DRAWN})
        for level in _DRAWN:
            lines[level][ages.index(row["age"])] = float(row[level]) if row[level] else None
    return found


def _middle(band: str) -> float:
    """Age that stands for a band of five years.

    >>> [_middle(band) for band in ("under 45", "45-49", "85 and over")]
    [42.5, 47.5, 87.5]
    """
    words = band.replace("-", " ").split()
    return float(words[1]) - 2.5 if words[0] == "under" else float(words[0]) + 2.5


def _reasons(reasons: Table) -> list[dict[str, str]]:
    """Rows of the table; reasons with what they mean."""
    known = {reason.value: reason for reason in Reason}
    rows = reasons.where()
    for row in rows:
        reason = known.get(row["code"]) if row["kind"] == "reason" else None
        row |= {"meaning": reason.meaning if reason else "", "advice": reason.advice if reason else ""}
    return sorted(rows, key=lambda row: (_KINDS.index(row["kind"]) if row["kind"] in _KINDS else 9, row["code"]))


def _whole(table: Table) -> dict[str, Any]:
    stem = Path(table.name).stem
    title = _TITLES.get(table.name, stem.replace("_", " ").replace("-", " ").capitalize())
    numbers = [all(_is_number(cell) for cell in cells) for cells in zip(*table.rows, strict=True)]
    return {
        "name": table.name, "title": title, "columns": table.columns,
        "folded": table.name in _TITLES or len(table.rows) > OPEN_ROWS,
        "numbers": numbers or [False] * len(table.columns), "rows": table.rows[:MOST_ROWS], "count": len(table.rows),
    }  # fmt: skip


def _is_number(cell: str) -> bool:
    try:
        float(cell or 0)
    except ValueError:
        return False
    return True
