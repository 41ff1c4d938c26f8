"""Relations between targets."""

from __future__ import annotations

import numpy as np
import pytest

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


def test_independent_errors_of_its_targets_add_up() -> None:
    sd = RULES[SUM].standard_deviation(ARMS, np.array([[0.16, 0.09, 0.0], [0.0, 0.0, 0.25]]))
    assert sd == pytest.approx([0.5, 0.5])
    dxa = RULES["DxaTotalFatMass = 0.9 AtlasTotalAdiposeTissueVolume"]
    assert dxa.standard_deviation(sorted(dxa.targets), np.ones((1, 2))) == pytest.approx([np.sqrt(1.81)])


def test_the_true_values_of_phantoms_keep_sums_exactly() -> None:
    values = [truths(sample_subject(1, k)) for k in range(1, 4)]
    names = tuple(TARGETS)
    means = np.array([[v[n] for n in names] for v in values])
    for words in (SUM, "DxaTotalTissueMass = DxaTotalFatMass + DxaTotalLeanMass"):
        assert np.abs(RULES[words].residual(names, means)).max() < 0.02
