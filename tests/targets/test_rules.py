"""Relations between targets, and their limits from ordinary scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ukb_infer.modules.outliers import MIN_FOR_RULES, fit_outliers, fit_rules
from ukb_infer.phantom.population import sample_subject
from ukb_infer.phantom.true_values import truths
from ukb_infer.targets import TARGETS
from ukb_infer.targets.rules import RULES, rules_of

ARMS = ("DxaArmsFatMass", "DxaArmFatMassLeft", "DxaArmFatMassRight")
SUM, SIDES = "DxaArmsFatMass = DxaArmFatMassLeft + DxaArmFatMassRight", "DxaArmFatMassLeft = DxaArmFatMassRight"


def test_every_rule_is_about_known_continuous_targets() -> None:
    assert len(RULES) == 30
    for rule in RULES.values():
        assert all(TARGETS[name].kind == "continuous" for name in rule.targets)


def test_rules_are_chosen_by_their_targets_and_say_what_they_compare() -> None:
    assert {rule.words for rule in rules_of(ARMS)} == {SUM, SIDES}
    assert rules_of(ARMS[:2]) == []
    residual = RULES[SUM].residual(ARMS, np.array([[4.0, 1.0, 1.1], [2.0, 1.0, 1.0]]))
    assert residual == pytest.approx([1.9, 0.0])


def _arms(count: int, seed: int) -> np.ndarray:
    """Left, right about the same; the total 0.1 kg more than their sum, as another instrument might say."""
    rng = np.random.default_rng(seed)
    left = rng.uniform(0.8, 2.0, count)
    right = left + rng.normal(scale=0.05, size=count)
    return np.stack([left + right + 0.1 + rng.normal(scale=0.02, size=count), left, right], axis=1)


def _reference(rules: dict):  # type: ignore[no-untyped-def]
    return replace(fit_outliers(np.random.default_rng(0).uniform(size=(1, 50, 8))), rules=rules)


def test_only_what_ordinary_scans_do_not_show_is_a_contradiction() -> None:
    reference = _reference(fit_rules(ARMS, _arms(1000, 1)))
    flagged = [reference.contradictions(ARMS, row) for row in _arms(2000, 2)]
    assert sum(map(bool, flagged)) <= 10  # 0.5 %: the limit is twice the 99.5th percentile
    found = reference.contradictions(ARMS, np.array([3.6, 1.5, 1.5]))
    assert [text.split(" is off by")[0] for text in found] == [SUM]
    assert "is off by +0." in found[0]
    assert reference.contradictions(ARMS, np.array([3.1, 1.0, 2.0]))[0].startswith(SIDES)


def test_a_part_may_be_smaller_than_the_total_but_not_larger() -> None:
    names = ("DxaTotalLeanMass", "DxaTotalFatFreeMass")
    rng = np.random.default_rng(1)
    lean = rng.uniform(35, 60, 500)
    reference = _reference(fit_rules(names, np.stack([lean, lean + rng.normal(2.5, 0.2, 500)], axis=1)))
    assert reference.contradictions(names, np.array([40.0, 60.0])) == []
    assert len(reference.contradictions(names, np.array([60.0, 40.0]))) == 1


def test_too_few_scans_give_no_limits() -> None:
    assert fit_rules(ARMS, _arms(MIN_FOR_RULES - 1, 1)) == {}
    assert set(fit_rules(ARMS, _arms(MIN_FOR_RULES, 1))) == {SUM, SIDES}


def test_the_true_values_of_phantoms_keep_sums_exactly() -> None:
    values = [truths(sample_subject(1, k)) for k in range(1, 4)]
    names = tuple(TARGETS)
    means = np.array([[v[n] for n in names] for v in values])
    for words in (SUM, "DxaTotalTissueMass = DxaTotalFatMass + DxaTotalLeanMass"):
        assert np.abs(RULES[words].residual(names, means)).max() < 0.02
