"""``associations.md``: what was done, what to report and why, and what must hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ukb_infer._version import __version__
from ukb_infer.epidemiology.analysis import MEANING, Association, Associations
from ukb_infer.epidemiology.sensitivity import LARGEST_CORRELATION

_HOLDS = (
    "**Labelled at random.** Who was measured must not depend on the measurement's difference from the estimate, given "
    "the model's covariates. The table of labelled and unlabelled can contradict this, but not prove it.",
    "**Unseen.** The module must not have been trained on the labelled scans, or their estimates must be out-of-fold.",
    "**One population.** Labelled and unlabelled were scanned and estimated alike (one module, one protocol).",
    "**The model itself.** None of this corrects confounding, selection into the study, or a wrong formula.",
)
_RANGE = (
    "Estimated outcome: errors as large as the run's own sd says, whose partial correlation with each covariate is at "
    f"most {LARGEST_CORRELATION:g}. Estimated exposure: from the naive coefficient to that divided by the reliability. "
    "Errors may be worse. Measure some participants, chosen at random."
)
_IMPUTED = (
    "**Imputation model.** The measurement is linear in estimate, covariates and outcome, with products; compare with "
    "chen_chen, which does not need this."
)


def associations_markdown(found: Associations) -> str:
    """The page.

    Args:
        found: results.
    """
    return "\n".join([*_head(found), *_main_table(found), *_assumptions(found), *_all_rows(found), *_notes(found), ""])


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4g}"


def _interval(row: Association | None) -> str:
    if row is None:
        return "-"
    bounds = f"[{_number(row.lower)}, {_number(row.upper)}]"
    return bounds if np.isnan(row.estimate) else f"{_number(row.estimate)} {bounds}"


def _p(value: float) -> str:
    return "-" if np.isnan(value) else "<1e-300" if value == 0 else f"{value:.2g}"


def _head(found: Associations) -> Iterator[str]:
    row, estimated = found.rows[0], " and ".join(found.estimated)
    kind = f"{found.family.name} regression" + (
        f" (quantile {found.family.quantile:g})" if found.family.name == "quantile" else ""
    )
    yield f"# {found.model}"
    yield ""
    yield (
        f"{kind.capitalize()}; a coefficient is a {found.family.scale}. {estimated} was estimated from "
        f"{row.n_estimated} scans" + (f" and measured for {row.n_labelled} of them." if row.n_labelled else ".")
        + " Standard errors are robust, and clustered by participant."
    )  # fmt: skip
    yield ""
    for caution in found.cautions:
        yield f"> **Caution.** {caution}."
        yield ">"
    if found.recommended:
        yield f"**Report `{found.recommended}`**: {found.why}."
    else:
        yield f"**Report nothing from this table**: {found.why}."
    yield ""


def _main_table(found: Associations) -> Iterator[str]:
    names = list(dict.fromkeys(n for n in (found.recommended, "labels_only", "naive", "sensitivity_range") if n))
    by_place = {(row.term, row.estimator): row for row in found.rows}
    names = [n for n in names if any(row.estimator == n for row in found.rows)]
    percent = f"{100 * found.level:g} %"
    yield f"| term | {' | '.join(f'{n} [{percent}]' for n in names)} | p ({names[0]}) | effective n |"
    yield "|---" * (len(names) + 3) + "|"
    for term in dict.fromkeys(row.term for row in found.rows):
        first = by_place[term, names[0]]
        cells = [_interval(by_place.get((term, n))) for n in names]
        effective = "-" if np.isnan(first.n_effective) else f"{first.n_effective:.0f}"
        yield f"| `{term}` | {' | '.join(cells)} | {_p(first.p)} | {effective} |"
    yield ""
    yield "Effective n: how many measured scans alone would give the same precision."
    yield ""


def _assumptions(found: Associations) -> Iterator[str]:
    if not found.recommended:
        yield from ("## The range", "", _RANGE, "")
        return
    yield "## What must hold"
    yield ""
    holds = (*_HOLDS, _IMPUTED) if found.recommended == "multiple_imputation" else _HOLDS
    yield from (f"- {text}" for text in holds)
    yield ""
    if found.balance is not None:
        yield "| | labelled | unlabelled | difference, sd |"
        yield "|---|---|---|---|"
        for d in found.balance.differences:
            yield f"| `{d.column}` | {_number(d.labelled)} | {_number(d.unlabelled)} | {d.in_sds:+.3f} |"
        yield ""
        yield f"Joint test that labelling depends on none of these: p = {_p(found.balance.p)}."
        yield ""


def _all_rows(found: Associations) -> Iterator[str]:
    yield "## All estimators"
    yield ""
    yield "| term | estimator | estimate [interval] | standard error | p |"
    yield "|---|---|---|---|---|"
    for row in found.rows:
        mark = "**" if row.recommended else ""
        yield f"| `{row.term}` | {mark}{row.estimator}{mark} | {_interval(row)} | {_number(row.se)} | {_p(row.p)} |"
    yield ""
    for name in dict.fromkeys(row.estimator for row in found.rows):
        yield f"- {name}: {MEANING[name]}."
    yield ""


def _notes(found: Associations) -> Iterator[str]:
    yield "## What was read"
    yield ""
    yield from (f"- {note}" for note in found.notes)
    yield f"- ukb-infer {__version__}"
