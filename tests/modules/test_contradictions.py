"""Estimates that contradict each other: limits in calibrated standard deviations, from ordinary scans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.tiny_module import make_tiny_module
from ukb_infer.inference import PredictConfig, run_predict
from ukb_infer.modules import load_module, read_manifest, update_manifest
from ukb_infer.modules.module import add_outliers
from ukb_infer.modules.outliers import fit_outliers, read_outliers
from ukb_infer.modules.plausibility import MIN_FOR_RULES, RATE, contradictions, fit_rules
from ukb_infer.regression import Mixture

ARMS = ("DxaArmsFatMass", "DxaArmFatMassLeft", "DxaArmFatMassRight")
SUM, SIDES = "DxaArmsFatMass = DxaArmFatMassLeft + DxaArmFatMassRight", "DxaArmFatMassLeft = DxaArmFatMassRight"


def _mixture(means: np.ndarray, sds: np.ndarray) -> Mixture:
    """Half of the variance of either kind."""
    return Mixture(means, 0.5 * sds**2, 0.5 * sds**2)


def _arms(count: int, seed: int, scale: float = 1.0) -> Mixture:
    """Sides alike; the total 0.1 kg more than their sum, as another instrument says; some scans thrice as uncertain."""
    rng = np.random.default_rng(seed)
    sd = scale * rng.choice([0.02, 0.06], (count, 1)) * np.array([1.0, 1.0, 1.0])
    both = rng.uniform(0.8, 2.0, (count, 1))
    truth = np.concatenate([2 * both + 0.1, both, both], axis=1)
    return _mixture(truth + sd * rng.normal(size=sd.shape), sd)


def _one(means: tuple[float, float, float], sd: float) -> Mixture:
    return _mixture(np.array([means]), np.full((1, 3), sd))


def _row(estimates: Mixture, k: int) -> Mixture:
    return estimates.select(slice(k, k + 1))


@pytest.mark.parametrize("count", [MIN_FOR_RULES, 2000])
def test_ordinary_scans_are_flagged_at_the_stated_rate(count: int) -> None:
    flagged = []
    for seed in range(5):
        limits, fresh = fit_rules(ARMS, _arms(count, seed)), _arms(1000, 100 + seed)
        flagged += [bool(contradictions(limits, ARMS, _row(fresh, k))) for k in range(1000)]
    expected = max(RATE, 1 / (count + 1))
    assert 0.2 * expected <= np.mean(flagged) <= 3.0 * expected  # 5 references, each off by its own tail


def test_a_limit_is_in_standard_deviations_of_the_scan_itself() -> None:
    limits = fit_rules(ARMS, _arms(1000, 1))
    (found,) = contradictions(limits, ARMS, _one((3.5, 1.6, 1.6), 0.02))
    assert found.startswith(f"{SUM} is off by +0.1")
    value = float(found.split(", ")[1].split(" of its")[0])
    assert value == pytest.approx((0.2 / (np.sqrt(3) * 0.02)), rel=0.1)  # independent errors: the factor is about 1
    assert found.endswith(f"of its standard deviations (limit {limits[SUM][3]:.3g})")
    assert contradictions(limits, ARMS, _one((3.5, 1.6, 1.6), 0.06)) == []
    # Networks that are less sure than ever on ordinary scans excuse no more than these do.
    assert len(contradictions(limits, ARMS, _one((4.5, 1.6, 1.6), 10.0))) == 1
    assert contradictions(limits, ARMS, _one((3.3, 1.4, 1.8), 0.02))[0].startswith(SIDES)


def test_other_units_of_uncertainty_change_nothing_that_reference_scans_share() -> None:
    limits, fresh = fit_rules(ARMS, _arms(1000, 1)), _arms(300, 2)
    wide = {words: fit_rules(ARMS, _wider(_arms(1000, 1)))[words] for words in limits}
    for k in range(300):
        one = contradictions(limits, ARMS, _row(fresh, k))
        assert [text.split(",")[0] for text in one] == [
            text.split(",")[0] for text in contradictions(wide, ARMS, _row(_wider(fresh), k))
        ]
    assert wide[SUM][1] == pytest.approx(0.5 * limits[SUM][1], rel=1e-5)


def _wider(estimates: Mixture) -> Mixture:
    return Mixture(estimates.mean, 4.0 * estimates.aleatoric, 4.0 * estimates.epistemic)


def test_a_part_may_be_smaller_than_the_total_but_not_larger() -> None:
    names = ("DxaTotalLeanMass", "DxaTotalFatFreeMass")
    rng = np.random.default_rng(1)
    lean = rng.uniform(35, 60, 500)
    sds = np.full((500, 2), 0.2)
    limits = fit_rules(names, _mixture(np.stack([lean, lean + rng.normal(2.5, 0.2, 500)], axis=1), sds))
    assert contradictions(limits, names, _mixture(np.array([[40.0, 60.0]]), sds[:1])) == []
    assert len(contradictions(limits, names, _mixture(np.array([[60.0, 40.0]]), sds[:1]))) == 1


def test_too_few_scans_give_no_limits() -> None:
    assert fit_rules(ARMS, _arms(MIN_FOR_RULES - 1, 1)) == {}
    assert set(fit_rules(ARMS, _arms(MIN_FOR_RULES, 1))) == {SUM, SIDES}


def test_limits_of_earlier_modules_are_in_natural_units(tmp_path: Path) -> None:
    plain = fit_outliers(np.random.default_rng(0).uniform(size=(1, 50, 8)))
    for rules in ({SUM: np.array([0.1, 0.3], np.float32)}, fit_rules(ARMS, _arms(300, 1))):
        path = tmp_path / "outliers.safetensors"
        path.write_bytes(replace(plain, rules=rules).to_bytes())
        read = read_outliers(path, 8, 3).rules
        assert {words: limits.tolist() for words, limits in read.items()} == {w: v.tolist() for w, v in rules.items()}
    earlier = {SUM: np.array([0.1, 0.3], np.float32)}
    for sd in (0.01, 10.0):
        assert contradictions(earlier, ARMS, _one((3.3, 1.5, 1.5), sd)) == []
        assert contradictions(earlier, ARMS, _one((3.6, 1.5, 1.5), sd)) == [f"{SUM} is off by +0.5 (limit 0.3)"]


def test_limits_follow_when_the_module_is_calibrated_again(tmp_path: Path) -> None:
    module = make_tiny_module(tmp_path / "arms", targets=ARMS)
    width = sum(member.width for member in load_module(module).members)
    plain = fit_outliers(np.random.default_rng(0).uniform(size=(1, 50, width)))
    limits = fit_rules(ARMS, _arms(1000, 1))
    add_outliers(module, replace(plain, rules=limits, calibration=np.ones(3, np.float32)), "made up")
    manifest = read_manifest(module)
    wider = [replace(t, calibration=replace(t.calibration, factor=4.0)) for t in manifest.targets]
    update_manifest(module, manifest.with_targets(wider))
    read = load_module(module).outliers
    assert read is not None
    assert read.rules[SUM] == pytest.approx(limits[SUM] * [1.0, 0.5, 2.0, 1.0])
    for k in range(0, 300, 7):
        before, after = (_row(estimates, k) for estimates in (_arms(300, 2), _wider(_arms(300, 2))))
        assert len(contradictions(limits, ARMS, before)) == len(contradictions(read.rules, ARMS, after))
    one = [replace(t, calibration=replace(t.calibration, factor=1.0 + 3.0 * (k == 0))) for k, t in enumerate(wider)]
    update_manifest(module, manifest.with_targets(one))
    again = load_module(module).outliers
    assert again is not None
    assert again.rules[SUM][1] == pytest.approx(limits[SUM][1] / np.sqrt(2.0))  # variances 1, 1, 1 become 4, 1, 1
    assert again.rules[SIDES] == pytest.approx(limits[SIDES])


def test_predict_flags_them_and_names_rule_value_and_limit(projections: Path, tmp_path: Path) -> None:
    module = make_tiny_module(tmp_path / "arms", targets=ARMS)
    plain = fit_outliers(
        np.random.default_rng(0).uniform(size=(1, 50, sum(m.width for m in load_module(module).members)))
    )
    add_outliers(module, replace(plain, rules={SUM: np.array([0.5, 2.0, 1e3, 1e-6], np.float32)}), "made up")
    config = PredictConfig(
        (str(projections),), tmp_path / "run", modules=(str(module),), workers=0, ood_threshold=100.0
    )
    run_predict(config)
    scans = pd.read_csv(tmp_path / "run/scans.csv", dtype=str, keep_default_na=False).set_index("scan")
    table = pd.read_csv(tmp_path / "run/estimates.csv").set_index("scan")
    assert scans["reasons"].str.contains("implausible_estimates").all()
    mean, sd = (table[[f"{name}_{what}" for name in ARMS]].to_numpy() for what in ("mean", "sd"))
    off = mean[:, 0] - mean[:, 1] - mean[:, 2] - 0.5
    for scan, value, expected in zip(table.index, off, np.abs(off) / (2.0 * np.sqrt((sd**2).sum(axis=1))), strict=True):
        words = f"{SUM} is off by {value:+.3g}, {expected:.3g} of its standard deviations (limit 1e-06)"
        assert words in scans.loc[scan, "message"]
