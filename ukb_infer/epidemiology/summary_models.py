"""Associations and reference curves of a summary: coefficients that show no one person.

A coefficient shows a group if it rests on few people, and a person if two summaries that differ by one person differ by
what that person contributes. So a model is refused where any combination of its columns isolates a small group (also of
cases, or of those without an event), a coefficient is left out if one person makes up half of its variance, and every
one is rounded to steps of twice the largest contribution of a participant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t

from ukb_infer.epidemiology import disclosure
from ukb_infer.epidemiology.analysis import Case
from ukb_infer.epidemiology.cohort import Cohort, Say, Sources, read_cohort
from ukb_infer.epidemiology.estimators import Estimated
from ukb_infer.epidemiology.families import FAMILIES, Family
from ukb_infer.epidemiology.formulas import names_in
from ukb_infer.epidemiology.imputation import IMPUTATIONS
from ukb_infer.epidemiology.phenotypes import phenotype_names, read_phenotypes
from ukb_infer.epidemiology.zscores import COVARIATES, Reference, fit_reference
from ukb_infer.errors import UsageError
from ukb_infer.runs.read import Run

Float64 = NDArray[np.float64]

#: A model's family in front of its formula.
_FAMILY = re.compile(r"^\s*(?P<family>linear|logistic|poisson|quantile)\s*:(?P<formula>.*~.*)$", re.DOTALL)
#: A level in the name of a term.
_LEVEL = re.compile(r"\[(?:T\.)?([^\]]*)\]")
#: Fewest people that a combination of a model's columns may rest on, in smallest counts.
_GROUP = 2


@dataclass(frozen=True)
class SharedModel:
    """A model of a summary: its formula and family."""

    formula: str
    family: Family

    @classmethod
    def of(cls, text: str) -> SharedModel:
        """From ``FORMULA`` or ``FAMILY: FORMULA``.

        >>> SharedModel.of("logistic: {liverFat > 5.5} ~ age").family.name
        'logistic'

        Raises:
            UsageError: quantile regression, whose lines pass through single people.
        """
        found = _FAMILY.match(text)
        family, formula = (found["family"], found["formula"].strip()) if found else ("linear", text.strip())
        if family == "quantile":
            raise UsageError(field="model", got=text, expected="another family: quantile lines pass through people")
        names_in(formula)
        return cls(formula, FAMILIES[family])


def shared_associations(
    models: Sequence[SharedModel], sources: Sources, smallest: int, say: Say
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Rows for all models, and what is recommended for each and why.

    Args:
        models: formulas.
        sources: run, labels and phenotypes; the first visit of everyone is used.
        smallest: count.
        say: receives notes.

    Raises:
        UsageError: no labels, or a model that shows a small group.
        RunError: a model without unique solution.
    """
    if models and sources.labels is None:
        raise UsageError("`model` needs `labels`: without measurements no association may be reported")
    rows: list[dict[str, object]] = []
    facts = []
    for model in models:
        cohort = read_cohort(sources, names_in(model.formula), say)
        first = np.zeros(len(cohort), bool)
        first[np.unique(cohort.people, return_index=True)[1]] = True
        made, recommended, why = association_rows(model, cohort.at(first), smallest)
        rows += made
        facts.append({"model": model.formula, "family": model.family.name, "report": recommended, "why": why})
    return pd.DataFrame(rows), facts


def association_rows(
    model: SharedModel, cohort: Cohort, smallest: int = disclosure.SMALLEST_COUNT
) -> tuple[list[dict[str, object]], str, str]:
    """Rows of one model, the recommended estimator, and why.

    Args:
        model: formula and family.
        cohort: one row per participant.
        smallest: count.

    Raises:
        UsageError: the model shows a small group.
        RunError: it has no unique solution.
    """
    case = Case.of(model.formula, cohort.complete(), model.family)
    disclosure.refuse_revealing(_LEVEL.findall(" ".join(case.formula.terms)), f"`model` {model.formula}")
    _refuse_small_groups(case, smallest)
    results = dict(case.all(np.random.default_rng(0), IMPUTATIONS))
    # What one person contributes to imputations is that to the correction, which rests on the same measurements.
    corrected = results["chen_chen"].largest if "chen_chen" in results else None
    recommended, why = case.recommend(results)
    rows = []
    for place, term in enumerate(case.formula.terms):
        for name, found in results.items():
            largest = found.largest if found.largest is not None else corrected
            if largest is None or name == "simex":
                continue
            head = {"model": model.formula, "family": model.family.name, "term": term, "estimator": name,
                    "recommended": name == recommended}  # fmt: skip
            counts = {
                "n_labelled": disclosure.rounded_count(int(case.cohort.labelled.sum()), smallest),
                "n_estimated": disclosure.rounded_count(len(case.outcome), smallest),
            }
            rows.append(head | _shown(found, largest, place) | counts)
    return rows, recommended, why


def _shown(found: Estimated, largest: Float64, place: int) -> dict[str, float]:
    """A coefficient as it may be shown; everything but its rounded values follows from these.

    Args:
        found: coefficients.
        largest: (p,) contribution of one participant.
        place: of the coefficient.
    """
    beta, se, df, part = (float(v[place]) for v in (found.beta, found.se, found.df, largest))
    names = ("estimate", "estimate_step", "se", "lower", "upper", "p")
    if not 0.0 < part <= np.sqrt(0.5) * se:
        return dict.fromkeys(names, np.nan)
    step, fine = disclosure.one_digit_up(2.0 * part), disclosure.one_digit_up(part**2 / se)
    beta = disclosure.to_step(beta, step)
    se = float(f"{np.ceil(np.hypot(se, step / np.sqrt(12.0)) / fine) * fine:.10g}")  # rounding errors are errors, too
    df = float(np.floor(df / (unit := 10.0 ** np.floor(np.log10(df)))) * unit)
    half = float(t.ppf(0.975, df)) * se
    values = (beta, step, se, beta - half, beta + half, 2.0 * float(t.sf(abs(beta / se), df)))
    exact = {"estimate", "lower", "upper"}  # as they follow from rounded numbers; of four digits a step may be lost
    return {n: float(f"{v:.10g}" if n in exact else f"{v:.4g}") for n, v in zip(names, values, strict=True)}


def _refuse_small_groups(case: Case, smallest: int) -> None:
    """Refuse a model of which a combination of coefficients rests on few people.

    Raises:
        UsageError: says how many people that are.
    """
    data = case.data
    assert data is not None
    for what, design, outcome in (("people", case.design, case.outcome),
                                  ("labelled people", data.true_design, data.true_outcome)):  # fmt: skip
        groups = {what: smallest_group(design)}
        if case.family.name != "linear":
            flags = design[:, [len(np.unique(column)) <= 2 for column in design.T]]
            for side, rows in (("with the outcome", outcome >= 0.5), ("without the outcome", outcome < 0.5)):
                groups[f"{what} {side}"] = smallest_group(flags[rows])
        for who, count in groups.items():
            if count < _GROUP * smallest:
                raise UsageError(
                    f"`model` {case.formula.model}: a combination of its terms rests on about {count:.0f} {who}, "
                    f"expected at least {_GROUP * smallest}: join rare categories, leave a covariate out, or measure "
                    "more"
                )


def smallest_group(design: Float64) -> float:
    """Fewest people that any combination of columns rests on: one over the largest leverage.

    >>> smallest_group(np.column_stack([np.ones(10), np.arange(10) < 3]))
    3.0

    Args:
        design: (N, p); (0, p) has no group.
    """
    if not len(design):
        return 0.0
    scale = np.sqrt(np.einsum("ij,ij->j", design, design))
    left, values, _ = np.linalg.svd(design / np.where(scale > 0, scale, 1.0), full_matrices=False)
    left = left[:, values > 1e-8 * max(values.max(), 1e-300)]
    return float(round(1.0 / np.einsum("ij,ij->i", left, left).max(), 6)) if left.size else float(len(design))


def shared_reference(run: Run, sources: Sources, smallest: int, say: Say) -> Reference | None:
    """Reference curves given age, sex and height; None, with a reason said, where they cannot be fitted.

    Args:
        run: one scan per visit.
        sources: with phenotypes.
        smallest: count.
        say: receives notes.
    """
    assert sources.phenotypes is not None
    names = ("sex", *COVARIATES)
    if missing := set(names) - phenotype_names(sources.phenotypes):
        say(f"no reference curves: the phenotypes have no {' and no '.join(sorted(missing))}")
        return None
    try:
        found = fit_reference(run, read_phenotypes(sources.phenotypes, names, run.keys, None, say), COVARIATES)
    except UsageError as error:
        say(f"no reference curves: {error}")
        return None
    people = {sex: disclosure.rounded_count(count, max(10, smallest)) for sex, count in found.people.items()}
    return replace(found, people=people)
