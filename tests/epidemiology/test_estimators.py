"""Estimators against independent programs and closed forms."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy.special import expit

from ukb_infer.epidemiology.analysis import associate
from ukb_infer.epidemiology.cohort import Cohort
from ukb_infer.epidemiology.estimators import Data, chen_chen, labels_only, naive, ppi
from ukb_infer.epidemiology.families import FAMILIES, LINEAR, LOGISTIC, POISSON, Family, fit
from ukb_infer.errors import RunError, UsageError

PEOPLE, LABELLED = 1200, 300
Float64 = NDArray[np.float64]


def make_data(family: Family = LINEAR, seed: int = 0, people: int = PEOPLE, visits: int = 1) -> Data:
    """A model with two covariates; the estimates are biased by the first."""
    rng = np.random.default_rng(seed)
    design = np.column_stack([np.ones(people), rng.normal(size=people), rng.integers(0, 2, people)])
    eta = design @ [0.5, 0.4, -0.3]
    if family is LOGISTIC:
        outcome = (rng.random(people) < expit(eta)).astype(float)
        estimate = expit(3.0 * (outcome - 0.5) + 0.3 * design[:, 1] + rng.normal(size=people))
    elif family is POISSON:
        outcome = rng.poisson(np.exp(eta)).astype(float)
        estimate = np.maximum(0.0, outcome + 0.2 * design[:, 1] + rng.normal(0, 0.5, people))
    else:
        outcome = eta + rng.normal(size=people) * np.exp(0.3 * design[:, 1])
        estimate = 0.8 * outcome + 0.3 * design[:, 1] + rng.normal(0, 0.4, people)
    labelled = np.arange(people) < LABELLED
    who = np.arange(people) // visits
    return Data(design, estimate, design[labelled], outcome[labelled], labelled, who)


@pytest.mark.parametrize("family", [LINEAR, LOGISTIC, POISSON])
def test_labels_only_is_the_model_of_statsmodels_with_robust_errors(family: Family) -> None:
    data = make_data(family)
    kinds = {"linear": sm.families.Gaussian(), "logistic": sm.families.Binomial(), "poisson": sm.families.Poisson()}
    model = sm.GLM(data.true_outcome, data.true_design, kinds[family.name])
    found = labels_only(family, data)
    np.testing.assert_allclose(found.beta, model.fit().params, atol=1e-7)
    # HC2 lies between HC0 and HC3; for the linear model it is statsmodels' own.
    np.testing.assert_allclose(found.se, model.fit(cov_type="HC0").bse, rtol=0.02)
    if family is LINEAR:
        exact = sm.OLS(data.true_outcome, data.true_design).fit(cov_type="HC2").bse
        np.testing.assert_allclose(found.se, exact, rtol=1e-9)


def test_errors_of_two_visits_are_clustered_as_by_statsmodels() -> None:
    data = make_data(people=LABELLED * 4, visits=2)
    who = data.people[data.labelled]
    exact = sm.OLS(data.true_outcome, data.true_design).fit(cov_type="cluster", cov_kwds={"groups": who}).bse
    np.testing.assert_allclose(labels_only(LINEAR, data).se, exact, rtol=0.02)  # HC2 here, a factor there
    twice = Data(*(np.repeat(v, 2, axis=0) for v in (
        data.design, data.outcome, data.true_design, data.true_outcome, data.labelled,
        np.arange(len(data.outcome)))))  # fmt: skip
    once = Data(
        data.design, data.outcome, data.true_design, data.true_outcome, data.labelled, np.arange(len(data.outcome))
    )
    for estimator in (labels_only, naive, chen_chen, ppi):  # a scan counted twice is no second participant
        np.testing.assert_allclose(estimator(LINEAR, twice).se, estimator(LINEAR, once).se, rtol=0.02)


def test_quantile_regression_is_that_of_statsmodels() -> None:
    data = make_data()
    found = labels_only(Family("quantile", "", 0.7), data)
    exact = sm.QuantReg(data.true_outcome, data.true_design).fit(q=0.7, kernel="gau", bandwidth="hsheather")
    np.testing.assert_allclose(found.beta, exact.params, atol=1e-6)
    np.testing.assert_allclose(found.se, exact.bse, rtol=0.15)  # another scale of the bandwidth


def _other_ppi(family: Family, data: Data, column: int) -> tuple[float, float]:
    """Estimate and standard error of a coefficient by ppi-python."""
    import ppi_py

    few, rest = data.labelled, ~data.labelled
    args = (data.true_design, data.true_outcome, data.outcome[few], data.design[rest], data.outcome[rest])
    point = {"linear": ppi_py.ppi_ols_pointestimate, "logistic": ppi_py.ppi_logistic_pointestimate}[family.name]
    interval = {"linear": ppi_py.ppi_ols_ci, "logistic": ppi_py.ppi_logistic_ci}[family.name]
    estimate = point(*args, coord=column)[column]
    low, high = interval(*args, alpha=0.05, coord=column)
    return float(estimate), float((high[column] - low[column]) / 2 / 1.959964)


@pytest.mark.slow  # that library loads others for seconds
@pytest.mark.parametrize("family", [LINEAR, LOGISTIC])
def test_ppi_agrees_with_ppi_python(family: Family) -> None:
    pytest.importorskip("ppi_py")
    data = make_data(family)
    found = ppi(family, data)
    for column in (1, 2):
        estimate, se = _other_ppi(family, data, column)
        # The library fits least squares to labelled and unlabelled separately; ours solves the paper's one loss for
        # every family. Its weight is tuned with slightly other variances (no leverages).
        apart = 0.5 if family is LINEAR else 0.1
        assert found.beta[column] == pytest.approx(estimate, abs=apart * found.se[column])
        assert found.se[column] == pytest.approx(se, rel=0.04)


def test_chen_chen_is_its_closed_form_for_a_mean() -> None:
    """A mean: beta = mean(y) - slope of y on f times (mean f of the labelled - mean f of all)."""
    data = make_data()
    one = np.ones((PEOPLE, 1))
    mean = Data(one, data.outcome, one[:LABELLED], data.true_outcome, data.labelled, data.people)
    f, y = data.outcome[data.labelled], data.true_outcome
    slope = np.cov(y, f)[0, 1] / f.var(ddof=1)
    expected = y.mean() - slope * (f.mean() - data.outcome.mean())
    found = chen_chen(LINEAR, mean)
    assert found.beta[0] == pytest.approx(expected, abs=0.03 * found.se[0])
    variance = y.var() * (1 - np.corrcoef(y, f)[0, 1] ** 2 * (1 - LABELLED / PEOPLE)) / LABELLED
    assert found.se[0] == pytest.approx(np.sqrt(variance), rel=0.02)


def test_estimates_of_training_scans_ruin_the_interval_and_out_of_fold_ones_do_not() -> None:
    """Ridge regression with 120 features stands for a module; its 200 training scans are the labelled."""
    rng = np.random.default_rng(0)
    people, few, features, folds = 2000, 200, 120, 5
    labelled, fold = np.arange(people) < few, np.arange(few) % folds
    covered: dict[str, list[bool]] = {"training": [], "out-of-fold": []}
    for _ in range(200):
        x, image = rng.normal(size=people), rng.normal(size=(people, features))
        image[:, 0] += 0.5 * x
        weights = 1.5 * rng.normal(size=features) / np.sqrt(features)
        quantity = 0.3 * x + image @ weights + 0.7 * rng.normal(size=people)

        def learned(rows: NDArray[np.bool_], image: Float64 = image, quantity: Float64 = quantity) -> Float64:
            own = image[:few][rows]
            return np.linalg.solve(own.T @ own + 5.0 * np.eye(features), own.T @ quantity[:few][rows])

        networks = [learned(fold != k) for k in range(folds)]
        estimates = {"training": image @ learned(np.ones(few, bool)), "out-of-fold": image @ np.mean(networks, axis=0)}
        for k, network in enumerate(networks):
            estimates["out-of-fold"][:few][fold == k] = image[:few][fold == k] @ network
        design = np.column_stack([np.ones(people), x])
        for name, estimate in estimates.items():
            found = chen_chen(LINEAR, Data(design, estimate, design[:few], quantity[:few], labelled, np.arange(people)))
            covered[name].append(abs(found.beta[1] - 0.3 - 0.5 * weights[0]) <= 1.97 * found.se[1])
    assert np.mean(covered["training"]) < 0.5
    assert np.mean(covered["out-of-fold"]) > 0.9


@pytest.mark.parametrize("name", FAMILIES)
def test_estimates_without_information_cost_nothing_and_perfect_ones_give_the_whole_cohort(name: str) -> None:
    family = FAMILIES[name]
    data = make_data(family if family in (LOGISTIC, POISSON) else LINEAR)
    rng = np.random.default_rng(3)
    noise = Data(
        data.design, rng.permutation(data.outcome), data.true_design, data.true_outcome, data.labelled, data.people
    )
    own = labels_only(family, data)
    for estimator in (chen_chen, ppi):
        np.testing.assert_allclose(estimator(family, noise).se, own.se, rtol=0.05)
    truth = data.outcome.copy()
    truth[data.labelled] = data.true_outcome
    rest = fit(family, data.design, truth)
    exact = Data(data.design, truth, data.true_design, data.true_outcome, data.labelled, data.people)
    np.testing.assert_allclose(chen_chen(family, exact).beta, rest.beta, atol=0.35 * own.se.max())


def cohort(seed: int = 0, people: int = 3000, share: float = 0.1) -> Cohort:
    """A quantity that is an exposure of a trait (slope 0.5), with errors that depend on sex."""
    rng = np.random.default_rng(seed)
    sex = rng.integers(0, 2, people).astype(float)
    quantity = 5.0 + 0.5 * sex + rng.normal(size=people)
    estimate = 5.0 + 0.8 * (quantity - 5.0) + 0.3 * sex + rng.normal(0, 0.5 + 0.2 * sex, people)
    frame = pd.DataFrame({"sex": sex, "trait": 0.5 * quantity - 0.2 * sex + rng.normal(size=people)})
    frame["disease"] = np.where(rng.random(people) < expit(0.7 * (quantity - 6.0)), "Yes", "No")
    measured = np.where(rng.permutation(people) < share * people, quantity, np.nan)
    return Cohort(
        {"liverFat": estimate}, {"liverFat": measured}, frame, np.arange(people), {"liverFat": np.full(people, 0.6)}
    )


def slopes(model: str, data: Cohort, family: str, term: str = "liverFat") -> dict[str, tuple[float, float, float]]:
    """Estimate, lower and upper of a term, by estimator."""
    table = associate(model, data, family=family).table()
    table = table[table["term"] == term]
    return {r.estimator: (r.estimate, r.lower, r.upper) for r in table.itertuples()}


@pytest.mark.parametrize(("model", "family", "truth"), [("trait ~ liverFat + sex", "linear", 0.5),
                                                        ("disease ~ liverFat + sex", "logistic", 0.7)])  # fmt: skip
def test_an_estimated_exposure_is_corrected(model: str, family: str, truth: float) -> None:
    """Mean over cohorts: the naive slope is too small, the others are right within 3 standard errors."""
    found = [slopes(model, cohort(seed), family) for seed in range(12)]
    means = {name: np.array([f[name][0] for f in found]) for name in found[0]}
    assert means["naive"].mean() < 0.9 * truth
    for name in ("chen_chen", "multiple_imputation", "regression_calibration", "labels_only"):
        error = means[name].std(ddof=1) / np.sqrt(len(found))
        assert abs(means[name].mean() - truth) < 3 * error
        width = np.mean([f[name][2] - f[name][1] for f in found])
        assert width <= np.mean([f["labels_only"][2] - f["labels_only"][1] for f in found])


def test_transformations_and_interactions_of_an_estimate_work() -> None:
    data = cohort()
    linear = slopes("trait ~ scale(liverFat) * sex", data, "linear", "scale(liverFat)")
    assert {"multiple_imputation", "regression_calibration"} <= linear.keys()
    curved = slopes("trait ~ liverFat + I(liverFat**2) + sex", data, "linear")
    assert "multiple_imputation" in curved
    assert "regression_calibration" not in curved  # its errors assume a design that is linear in the variable
    split = slopes("{liverFat > 5.5} ~ sex", data, "logistic", "sex")
    assert {"chen_chen", "ppi++"} <= split.keys()


def test_outcome_and_exposure_may_both_be_estimated() -> None:
    data = cohort()
    rng = np.random.default_rng(4)
    second = 0.6 * data.measured["liverFat"] + rng.normal(size=len(data))
    guess = 0.5 * data.estimates["liverFat"] + rng.normal(size=len(data))
    both = Cohort(
        {**data.estimates, "weight": guess}, {**data.measured, "weight": second}, data.phenotypes, data.people
    )
    found = slopes("weight ~ liverFat + sex", both, "linear")
    assert set(found) == {"labels_only", "naive", "chen_chen"}
    assert found["chen_chen"][1] < 0.6 < found["chen_chen"][2]


def test_simex_is_given_only_if_the_error_is_classical() -> None:
    data = cohort(people=6000, share=0.5)
    assert "simex" not in slopes("trait ~ liverFat + sex", data, "linear")
    rng = np.random.default_rng(1)
    quantity = rng.normal(5.0, 1.0, 6000)
    frame = pd.DataFrame({"trait": 0.5 * quantity + rng.normal(size=6000)})
    measured = np.where(np.arange(6000) < 3000, quantity, np.nan)
    classical = Cohort(
        {"liverFat": quantity + rng.normal(0, 0.5, 6000)}, {"liverFat": measured}, frame, np.arange(6000)
    )
    found = slopes("trait ~ liverFat", classical, "linear")
    assert found["naive"][2] < 0.5
    assert found["simex"][1] < 0.5 < found["simex"][2]


def test_without_labels_there_is_a_range_and_no_recommendation() -> None:
    data = cohort()
    bare = Cohort(data.estimates, {}, data.phenotypes, data.people, data.sds)
    for model, term in (("liverFat ~ sex", "sex"), ("trait ~ liverFat", "liverFat")):
        found = associate(model, bare)
        assert found.recommended == ""
        assert "must not be reported" in found.cautions[0]
        table = found.table().set_index(["term", "estimator"])
        naive_row, wide = table.loc[(term, "naive")], table.loc[(term, "sensitivity_range")]
        assert wide["lower"] <= naive_row["lower"]
        assert wide["upper"] >= naive_row["upper"]
        assert wide["upper"] - wide["lower"] > 1.1 * (naive_row["upper"] - naive_row["lower"])


def test_degrees_of_freedom_are_those_of_the_people_who_tell() -> None:
    """Estimates are right but for 8 of 400 labelled, and as many in a hundred of the others."""
    rng, people, few = np.random.default_rng(2), 100_000, 400
    quantity, wrong = rng.normal(size=people), np.arange(people) % 50 == 0
    estimate = quantity + wrong * np.where(np.arange(people) % 100, 1.0, -1.0)
    labelled, design = np.arange(people) < few, np.ones((people, 1))
    data = Data(design, estimate, design[:few], quantity[:few], labelled, np.arange(people))
    assert labels_only(LINEAR, data).df == few - 1
    assert 3 * 8 < chen_chen(LINEAR, data).df < 6 * 8  # of 8 equal parts 24; the variance of the others adds to it


def test_precision_that_rests_on_few_labelled_is_reported() -> None:
    rng = np.random.default_rng(8)
    size = rng.normal(size=5000)
    quantity = 0.3 * size + rng.logistic(size=5000)
    measured = {"liverFat": np.where(np.arange(5000) < 150, quantity, np.nan)}
    frame = pd.DataFrame({"size": size})

    def weak(error: float) -> list[str]:
        guess = {"liverFat": quantity + rng.normal(0, error, 5000)}
        found = associate("{liverFat > 1} ~ size", Cohort(guess, measured, frame, np.arange(5000)), family="logistic")
        return [c for c in found.cautions if "rests on few labelled" in c]

    assert weak(0.05)  # a handful of the labelled are on the wrong side
    assert not weak(1.0)


def test_labelled_that_were_chosen_are_reported() -> None:
    data = cohort()
    fair = associate("liverFat ~ sex", data)
    assert fair.balance is not None
    assert fair.balance.p > 0.001
    assert not [c for c in fair.cautions if "random part" in c]
    heavy = np.argsort(-data.estimates["liverFat"] + np.random.default_rng(0).normal(size=len(data)))[:300]
    chosen = np.full(len(data), np.nan)
    chosen[heavy] = data.estimates["liverFat"][heavy]
    unfair = associate("liverFat ~ sex", Cohort(data.estimates, {"liverFat": chosen}, data.phenotypes, data.people))
    assert any("not a random part" in c for c in unfair.cautions)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("liverFat", {}, "expected outcome ~ covariates"),
        ("liverFat ~ nosuch(sex)", {}, "cannot be evaluated"),
        ("log(liverFat - 5) ~ sex", {}, "is not a number for"),
        ("liverFat ~ sex", {"family": "logistic"}, "expected 0 and 1 for logistic"),
        ("liverFat ~ sex", {"family": "cox"}, "expected linear or logistic"),
        ("liverFat ~ sex", {"family": "quantile", "quantile": 1.0}, "`quantile`"),
        ("liverFat ~ sex", {"level": 1.0}, "`level`"),
    ],
)
def test_errors_teach(model: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        associate(model, cohort(people=600), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("library", "family"), [("formulaic", "linear"), ("statsmodels", "quantile")])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, library: str, family: str) -> None:
    name = {"statsmodels": "statsmodels.regression.quantile_regression"}.get(library, library)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RunError, match=rf"{library}: pip install"):
        associate("liverFat ~ sex", cohort(people=600), family=family)


def test_too_few_labels_and_separation_are_refused() -> None:
    data = cohort(people=600)
    few = {"liverFat": np.where(np.arange(600) < 9, data.estimates["liverFat"], np.nan)}
    with pytest.raises(UsageError, match="9 labelled participants"):
        associate("liverFat ~ sex", Cohort(data.estimates, few, data.phenotypes, data.people))
    none = {"liverFat": np.full(600, np.nan)}
    with pytest.raises(UsageError, match="0 labelled participants"):
        associate("liverFat ~ sex", Cohort(data.estimates, none, data.phenotypes, data.people))
    frame = data.phenotypes.assign(same=data.phenotypes["sex"])
    with pytest.raises(RunError, match="linearly dependent"):
        associate("liverFat ~ sex + same", Cohort(data.estimates, data.measured, frame, data.people))
    cut = data.phenotypes.assign(disease=(data.estimates["liverFat"] > 5.5).astype(float))
    with pytest.raises(RunError, match="no finite coefficients"):
        associate("disease ~ liverFat", Cohort(data.estimates, {}, cut, data.people), family="logistic")
