"""Fairness and resampled metrics."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import r2_score, roc_auc_score

from ukb_infer.evaluation.fairness import fairness, grouped
from ukb_infer.evaluation.metrics import bootstrap_weights, resampled

RNG = np.random.default_rng(3)
LABEL = (RNG.random(80) < 0.4).astype(float)
SCORE = np.round(LABEL * 0.5 + RNG.standard_normal(80), 1)
WEIGHTS = np.concatenate(list(bootstrap_weights(np.arange(80).astype(str), 20, 5)))


def by_auroc(member: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return resampled("auroc", LABEL[member], SCORE[member], weights)


def test_resampled_metrics_are_those_of_the_repeated_cases() -> None:
    for weights in WEIGHTS:
        rows = np.repeat(np.arange(80), weights.astype(int))
        y, p = LABEL[rows], SCORE[rows]
        expected = {
            "auroc": roc_auc_score(y, p),
            "mae": np.abs(y - p).mean(),
            "r": pearsonr(y, p).statistic,
            "r2": r2_score(y, p),
        }
        for metric, value in expected.items():
            assert resampled(metric, LABEL, SCORE, weights[None])[0] == pytest.approx(value)


def test_fairness_is_the_mean_over_attributes_of_one_minus_the_gap() -> None:
    sex = ["F" if k % 2 else "M" for k in range(80)]
    site = ["abc"[k % 3] for k in range(80)]
    found, values = fairness(by_auroc, {"sex": sex, "site": site}, WEIGHTS)

    def gap(names: list[str]) -> float:
        areas = [roc_auc_score(LABEL[m], SCORE[m]) for group in set(names) if (m := np.array(names) == group).any()]
        return max(areas) - min(areas)

    assert found[0] == pytest.approx(1 - (gap(sex) + gap(site)) / 2)
    assert {(v.attribute, v.group, v.count) for v in values} >= {("sex", "F", 40), ("site", "a", 27)}
    assert np.isfinite(found).all()


def test_groups_that_cannot_be_judged_are_left_out() -> None:
    names = ["only" if v else "other" for v in LABEL]  # one class each
    found, values = fairness(by_auroc, {"leaked": names}, WEIGHTS)
    assert np.isnan(found).all()
    assert all(np.isnan(v.value) for v in values)
    sex = ["F" if k % 2 else "M" for k in range(80)]
    both, _ = fairness(by_auroc, {"leaked": names, "sex": sex}, WEIGHTS)
    alone, _ = fairness(by_auroc, {"sex": sex}, WEIGHTS)
    assert both[0] == alone[0]


def test_many_numbers_become_quarters() -> None:
    ages = [str(20 + k) for k in range(40)] + ["n/a"]
    groups = grouped(ages)
    assert groups[-1] == ""
    assert [groups.count(name) for name in dict.fromkeys(groups[:-1])] == [10, 10, 10, 10]
    assert grouped(["1.5", "3", "1.5"]) == ["1.5", "3", "1.5"]
