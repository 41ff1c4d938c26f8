"""An association with a variable that is measured for some participants and estimated for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, t

from ukb_infer.epidemiology import estimators
from ukb_infer.epidemiology.balance import Balance, compare_labelled
from ukb_infer.epidemiology.cohort import Cohort
from ukb_infer.epidemiology.estimators import Data, Estimated
from ukb_infer.epidemiology.families import FAMILIES, Family
from ukb_infer.epidemiology.formulas import Formula, names_in
from ukb_infer.epidemiology.imputation import (
    IMPUTATIONS,
    Exposure,
    independent,
    multiple_imputation,
    regression_calibration,
)
from ukb_infer.epidemiology.sensitivity import sensitivity_range
from ukb_infer.epidemiology.simex import error_is_classical, simex
from ukb_infer.errors import UsageError

Float64 = NDArray[np.float64]

#: Fewest labelled participants per coefficient; below, no interval of any estimator can be trusted.
FEWEST_LABELLED_PER_TERM = 5
#: Degrees of freedom of a variance below which hardly anyone's estimate is corrected.
_FEW = 15.0
#: Nodes of the average over the run's own predictive distribution.
_NODES = norm.ppf((np.arange(15) + 0.5) / 15)
MEANING: Mapping[str, str] = {
    "labels_only": "the model fitted to the measurements only",
    "naive": "the model fitted to the estimates as if they were measurements",
    "ppi++": "prediction-powered inference, weight tuned for each coefficient",
    "cross_ppi++": "the same with out-of-fold estimates of the labelled scans",
    "chen_chen": "labels only, corrected by the naive coefficients of labelled and all (Chen and Chen)",
    "multiple_imputation": "measurements of the unlabelled imputed given estimate, covariates and outcome (Rubin)",
    "regression_calibration": "estimates replaced by the expected measurement given estimate and covariates",
    "simex": "the effect of more error extrapolated to none (the errors look classical)",
    "sensitivity_range": "where the coefficient may lie if the errors are as large as the run says",
}


@dataclass(frozen=True)
class Association:
    """One coefficient by one estimator.

    Attributes:
        term: of the model; ``estimator``: a key of :data:`MEANING`.
        estimate: coefficient, NaN of a range; ``se``: standard error.
        lower: of the interval; ``upper`` likewise; ``p``: two-sided.
        n_labelled: labelled rows; ``n_estimated``: rows with an estimate.
        n_effective: labelled rows that would be as precise alone; NaN where that means nothing.
        recommended: whether this is the result to report.
    """

    term: str
    estimator: str
    estimate: float
    se: float
    lower: float
    upper: float
    p: float
    n_labelled: int
    n_estimated: int
    n_effective: float
    recommended: bool = False


@dataclass(frozen=True)
class Associations:
    """Results of a model.

    Attributes:
        model: formula; ``outcome``: its left side; ``family``: of the regression; ``level``: of the intervals.
        estimated: variables that were estimated; ``place``: where they stand: outcome, exposure or both.
        rows: one per term and estimator.
        recommended: estimator to report; ``why``: in a sentence.
        cautions: what is wrong, or could not be checked; ``notes``: what was read.
        balance: labelled against unlabelled; None without labels.
    """

    model: str
    outcome: str
    family: Family
    level: float
    estimated: tuple[str, ...]
    place: str
    rows: tuple[Association, ...]
    recommended: str
    why: str
    cautions: tuple[str, ...]
    notes: tuple[str, ...]
    balance: Balance | None

    def table(self) -> pd.DataFrame:
        """One row per term and estimator, as in ``associations.csv``."""
        return pd.DataFrame([vars(row) for row in self.rows])


def associate(
    model: str,
    cohort: Cohort,
    *,
    family: str = "linear",
    quantile: float = 0.5,
    level: float = 0.95,
    imputations: int = IMPUTATIONS,
    seed: int = 0,
) -> Associations:
    """Estimate a model's coefficients in every way that its variables allow.

    Args:
        model: formula, e.g. ``liverFat ~ age + sex``; ``liverFat ~ 1`` is a mean (or a quantile).
        cohort: rows; those with a missing estimate or phenotype are left out.
        family: linear, logistic, poisson or quantile.
        quantile: of quantile regression.
        level: of the intervals.
        imputations: of an estimated exposure.
        seed: of the imputations.

    Raises:
        UsageError: contradictory options, an unusable formula, or too few labelled.
        RunError: a model that has no unique solution.
    """
    _check(family, quantile, level, imputations)
    chosen = replace(FAMILIES[family], quantile=quantile) if family == "quantile" else FAMILIES[family]
    total = len(cohort)
    cohort = cohort.complete()
    case = Case.of(model, cohort, chosen)
    rng = np.random.default_rng(seed)
    results = dict(case.unlabelled() if case.data is None else case.all(rng, imputations))
    recommended, why = case.recommend(results)
    rows = _rows(case, results, recommended, level)
    notes = list(cohort.notes)
    if total > len(cohort):
        notes.append(f"{total - len(cohort)} of {total} scans are left out: an estimate or phenotype is missing")
    if "multiple_imputation" in results and "simex" not in results:
        notes.append("SIMEX is not given: the errors are not classical (estimate = measurement + independent error)")
    balance = None if case.data is None else compare_labelled(case.formula.terms, case.data, cohort)
    cautions = (*case.cautions(results), *(balance.cautions if balance else ()))
    return Associations(model, case.formula.outcome, chosen, level, tuple(cohort.estimates), case.place, tuple(rows),
                        recommended, why, cautions, tuple(notes), balance)  # fmt: skip


def _check(family: str, quantile: float, level: float, imputations: int) -> None:
    if family not in FAMILIES:
        raise UsageError(field="family", got=family, expected=" or ".join(FAMILIES))
    if not 0.0 < quantile < 1.0:
        raise UsageError(field="quantile", got=quantile, expected="above 0 and below 1")
    if not 0.5 <= level < 1.0:
        raise UsageError(field="level", got=level, expected="at least 0.5 and below 1")
    if not 2 <= imputations <= 10_000:
        raise UsageError(field="imputations", got=imputations, expected="2 to 10000")


@dataclass(frozen=True)
class Case:
    """A model with its matrices, and which estimators serve it.

    Attributes:
        formula: with its coding; ``family``: of the outcome; ``cohort``: rows.
        place: of the estimated variables: outcome, exposure, or both.
        outcome: (N,) at the estimates; ``design``: (N, p) likewise.
        data: for estimators that combine labels and estimates; None without labels.
    """

    formula: Formula
    family: Family
    cohort: Cohort
    place: str
    outcome: Float64
    design: Float64
    data: Data | None

    @classmethod
    def of(cls, model: str, cohort: Cohort, family: Family) -> Case:
        """Evaluate a formula at estimates and at measurements.

        Args:
            model: formula.
            cohort: rows, none missing.
            family: of the outcome.
        """
        names_in(model)
        frame = cohort.phenotypes.assign(**cohort.estimates)
        if not len(frame):
            raise UsageError("no scan has both an estimate and all phenotypes; compare eid and instance of the tables")
        formula = Formula(model, frame)
        outcome, design = formula.matrices(frame)
        left, right = (set(names_in(f"{half} ~ {half}")) & set(cohort.estimates) for half in model.split("~"))
        place = "both" if left and right else "outcome" if left else "exposure"
        few = cohort.labelled
        _check_outcome(family, formula, outcome, estimated=bool(cohort.measured))
        if not cohort.measured:
            return cls(formula, family, cohort, place, outcome, design, None)
        people = len(np.unique(cohort.people[few]))
        if people < FEWEST_LABELLED_PER_TERM * design.shape[1]:
            raise UsageError(
                f"`labels`: {people} labelled participants have everything the model needs, expected at least "
                f"{FEWEST_LABELLED_PER_TERM * design.shape[1]} for its {design.shape[1]} terms; measure more, or "
                "simplify the model"
            )
        own = frame[few].assign(**{n: v[few] for n, v in cohort.measured.items()})
        true_outcome, true_design = formula.matrices(own)
        _check_outcome(family, formula, true_outcome, estimated=False)
        softer = _expected(formula, family, cohort, frame) if place == "outcome" else outcome
        return cls(formula, family, cohort, place, outcome, design,
                   Data(design, softer, true_design, true_outcome, few, cohort.people))  # fmt: skip

    def all(self, rng: np.random.Generator, imputations: int) -> Iterator[tuple[str, Estimated]]:
        """Results by estimator.

        Args:
            rng: of the imputations.
            imputations: number.
        """
        data = self.data
        assert data is not None
        yield "labels_only", estimators.labels_only(self.family, data)
        yield "naive", estimators.naive(self.family, replace(data, outcome=self.outcome))
        if data.labelled.all():
            return
        if self.place == "outcome":
            name = "cross_ppi++" if self.cohort.relation == "out-of-fold" else "ppi++"
            yield name, estimators.ppi(self.family, data)
        yield "chen_chen", estimators.chen_chen(self.family, data)
        if self.place == "exposure" and len(self.cohort.estimates) == 1 and self.family.is_smooth:
            exposure, is_linear = self._exposure(data)
            yield "multiple_imputation", multiple_imputation(self.family, exposure, rng, imputations)
            if is_linear:
                yield "regression_calibration", regression_calibration(self.family, exposure)
            if error_is_classical(exposure):
                yield "simex", simex(self.family, exposure, rng)

    def _exposure(self, data: Data) -> tuple[Exposure, bool]:
        """The model as a function of its estimated variable, and whether the design is linear in that."""
        ((name, estimate),) = self.cohort.estimates.items()
        frame = self.cohort.phenotypes

        def evaluate(values: Float64) -> Float64:
            return self.formula.matrices(frame.assign(**{name: values}))[1]

        moved, middle, step = evaluate(estimate), estimate.mean(), estimate.std() or 1.0
        base = evaluate(np.full_like(estimate, middle))
        slope = (evaluate(np.full_like(estimate, middle + step)) - base) / step
        is_linear = np.allclose(base + slope * (estimate - middle)[:, None], moved, atol=1e-8)
        at = (lambda v: base + slope * (v - middle)[:, None]) if is_linear else evaluate
        beside = np.column_stack([np.ones(len(base)), base, slope])  # what the model has besides the variable
        beside = beside[:, independent(beside)[1:]]
        return Exposure(estimate, self.cohort.measured[name][data.labelled], beside, self.outcome, data.labelled,
                        data.people, at), is_linear  # fmt: skip

    def unlabelled(self) -> Iterator[tuple[str, Estimated]]:
        """The naive result, for want of labels."""
        everyone = np.ones(len(self.outcome), bool)
        data = Data(self.design, self.outcome, self.design, self.outcome, everyone, self.cohort.people)
        yield "naive", estimators.naive(self.family, data)

    def recommend(self, results: Mapping[str, Estimated]) -> tuple[str, str]:
        """Estimator to report, and why."""
        if self.data is None:
            return "", "without measurements no estimator is valid"
        if self.data.labelled.all():
            return "labels_only", "every scan is measured, so the estimates add nothing"
        if self.cohort.relation == "unknown":
            return "labels_only", (
                "nothing says whether the module was trained on the labelled scans. If it was not, say so "
                "(`trained_on` none, or a list of its training scans) and a narrower estimator is recommended; if it "
                "was, give out-of-fold estimates (`out_of_fold`)"
            )
        if "multiple_imputation" in results:
            return "multiple_imputation", (
                "it uses the estimates of everyone and allows errors that depend on outcome and covariates; chen_chen "
                "rests on fewer assumptions: report it too, and look for the reason if they disagree"
            )
        return "chen_chen", (
            "it is valid whatever the errors of the estimates are, and in large samples never less precise than the "
            "measurements alone"
        )

    def cautions(self, results: Mapping[str, Estimated]) -> Iterator[str]:
        """What is wrong with the data, or could not be checked."""
        wrong = (
            "the errors of the estimates of this model's outcome are part of its coefficients wherever they depend on "
            "a covariate, and estimates vary less than measurements"
            if self.place == "outcome"
            else "errors of an estimated exposure or covariate usually pull its coefficient towards zero, and move "
            "those of other covariates in either direction"
        )
        if self.data is None:
            yield (
                "There are no measurements: only the naive result can be given, and it must not be reported as a "
                f"finding: {wrong}"
            )
        elif self.cohort.relation == "unknown":
            yield "Nothing says whether the module was trained on the labelled scans; only labels_only is surely valid"
        if self.cohort.relation == "out-of-fold" and self.place != "outcome":
            yield (
                "The labelled have out-of-fold estimates, the others those of the whole module, whose errors are a "
                "little smaller; for an exposure this biases the combination slightly"
            )
        support = results["chen_chen"].support if "chen_chen" in results else None
        if support is not None and (weak := [t for t, n in zip(self.formula.terms, support, strict=True) if n < _FEW]):
            yield (
                f"The precision of chen_chen for {', '.join(weak)} rests on few labelled participants, those whose "
                "estimate and measurement disagree: its intervals are wide for that, and may still be too narrow. "
                "Measure more, or report labels_only too"
            )


def _check_outcome(family: Family, formula: Formula, outcome: Float64, *, estimated: bool) -> None:
    """Refuse outcomes that a family does not have; estimates may be probabilities, or a little negative."""
    low, high = float(outcome.min()), float(outcome.max())
    if family.name == "logistic" and (low < -0.5 or high > 1.5):
        raise UsageError(
            f"`family`: the outcome {formula.outcome} ranges from {low:g} to {high:g}, expected 0 and 1 for logistic; "
            "use a condition, e.g. {liverFat > 5.5} ~ age, or another family"
        )
    if family.name == "poisson" and low < 0 and not estimated:
        raise UsageError(f"`family`: the outcome {formula.outcome} is negative ({low:g}), expected counts for poisson")


def _expected(formula: Formula, family: Family, cohort: Cohort, frame: pd.DataFrame) -> Float64:
    """(N,) outcome expected under the run's predictive distribution, if the outcome is a condition on an estimate.

    A probability tells more than the 0 or 1 of the estimate itself. Any function of the run's output may serve, as the
    labelled correct for its errors.
    """
    outcome = formula.matrices(frame)[0]
    known = [n for n, sd in cohort.sds.items() if np.isfinite(sd).all()]
    if family.name != "logistic" or formula.outcome in cohort.estimates or not known:
        return outcome
    drawn = [
        formula.matrices(frame.assign(**{n: cohort.estimates[n] + node * cohort.sds[n] for n in known}))[0]
        for node in _NODES
    ]
    return np.asarray(np.mean(drawn, axis=0), np.float64)


def _rows(case: Case, results: Mapping[str, Estimated], recommended: str, level: float) -> Iterator[Association]:
    """Table rows, term by term."""
    n = 0 if case.data is None else len(case.data.true_outcome)
    ranges = sensitivity_range(case, results["naive"], level) if case.data is None else None
    own = results.get("labels_only")
    for place, term in enumerate(case.formula.terms):
        for name, found in results.items():
            beta, se, df = (float(v[place]) for v in (found.beta, found.se, found.df))
            half = float(t.ppf(0.5 + level / 2, df)) * se
            effective = n * (own.se[place] / se) ** 2 if own is not None and name != "naive" and se > 0 else np.nan
            p = float(2 * t.sf(abs(beta / se), df)) if se > 0 else np.nan
            yield Association(term, name, beta, se, beta - half, beta + half, p, n, len(case.outcome), float(effective),
                              name == recommended)  # fmt: skip
        if ranges is not None:
            low, high = (float(v[place]) for v in ranges)
            yield Association(
                term, "sensitivity_range", np.nan, np.nan, low, high, np.nan, 0, len(case.outcome), np.nan
            )
