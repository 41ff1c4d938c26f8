"""The tables of ``docs/quality.md``, made from the registry, the limits and the reasons."""

from __future__ import annotations

from ukb_infer.quality.limits import read_spec
from ukb_infer.quality.registry import MEASURES
from ukb_infer.reasons import Reason

_PER = {"station": "station", "station_below": "station", "seam": "seam", "scan": "scan"}
#: What an analyst does with a flag of each level.
_DECISIONS = {
    "unusable": "drop the scan",
    "targets": "drop the affected targets, keep the others",
    "note": "check, then keep or drop",
    "off": "keep",
}


def measure_table() -> str:
    """All measures as Markdown."""
    lines = ["| measure | what, per | formula | unit | better | scan | source |", "|---|---|---|---|---|---|---|"]
    for name, m in MEASURES.items():
        formula = m.formula.replace("``", "`").replace("|", "\\|")
        cells = (f"`{name}`", f"{m.title}, {_PER[m.per]}", formula, m.unit, m.better, m.summary, m.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def decision_table() -> str:
    """Reasons of quality with their default limits, and what to do, as Markdown."""
    lines = ["| reason | what it means | default limit | level | decision | advice |", "|---|---|---|---|---|---|"]
    for code, limit in read_spec().limits.items():
        reason = Reason(code)
        affected = f" ({', '.join(f'`{t}`' for t in limit.targets)})" if limit.targets else ""
        cells = (
            f"`{code}`",
            reason.meaning,
            limit.words,
            limit.level + affected,
            _DECISIONS[limit.level],
            reason.advice,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


#: Tables by the name of the comment that stands before them in the page.
TABLES = {"measures": measure_table, "decisions": decision_table}


def with_tables(page: str) -> str:
    """The page with its tables made anew.

    Args:
        page: Markdown; a table stands between ``<!-- NAME -->`` and ``<!-- end -->``.
    """
    for name, make in TABLES.items():
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition("<!-- end -->")
        page = f"{before}<!-- {name} -->\n{make()}<!-- end -->{after}"
    return page
