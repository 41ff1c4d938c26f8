"""Metrics of few, equal or shuffled scans, and the published system's variances."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.cross_validation import make_cross_validation
from ukb_infer.errors import UsageError
from ukb_infer.evaluation import compare, read_predictions
from ukb_infer.evaluation.compare import metrics_markdown
from ukb_infer.evaluation.metrics import (
    BINARY_METRICS,
    CONTINUOUS_METRICS,
    TargetPredictions,
    calibration_curve,
    error_by_sd,
    evaluate_target,
    gaussian_crps,
    reliability_bins,
    sparsification_curves,
)
from ukb_infer.evaluation.predictions import published_divisor
from ukb_infer.labels import read_labels
from ukb_infer.targets import TARGETS


def _data(label: list[float], mean: list[float], sd: list[float] | None = None, **changes: object) -> TargetPredictions:
    n = len(label)
    y, m, s = np.array(label, float), np.array(mean, float), np.array(sd if sd is not None else [1.0] * n, float)
    people = np.array([f"{k:07d}" for k in range(n)])
    made = TargetPredictions(y, m, s, m - 1.96 * s, m + 1.96 * s, 0.95, people)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 19, 20, 21])
def test_equal_errors_stay_equal_however_many_are_removed(count: int) -> None:
    by_sd, oracle = sparsification_curves(np.ones(count), np.arange(1.0, count + 1))
    assert by_sd == pytest.approx(1.0)
    assert oracle == pytest.approx(1.0)


def test_tied_sds_count_as_their_average() -> None:
    errors = np.array([4.0, 0.0, 2.0, 2.0])
    by_sd, _ = sparsification_curves(errors, np.ones(4))
    assert by_sd == pytest.approx(errors.mean())  # the sd says nothing: as at random
    again, _ = sparsification_curves(errors[::-1], np.ones(4))
    assert np.array_equal(by_sd, again)


def test_the_curve_of_three_scans_by_hand() -> None:
    by_sd, oracle = sparsification_curves(np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    assert by_sd[0] == pytest.approx(2.0)
    assert by_sd[10] == pytest.approx((3.0 + 0.5 * 1.0) / 1.5)  # half removed: 1.5 scans kept
    assert oracle[10] == pytest.approx((1.0 + 0.5 * 2.0) / 1.5)
    assert by_sd[19] == pytest.approx(3.0)  # 0.15 scans of the first


def test_the_order_of_rows_changes_no_bit() -> None:
    rng = np.random.default_rng(3)
    n = 57
    label = rng.normal(70, 10, n).round()
    people = np.array([f"{k // 2:07d}" for k in range(n)])
    for binary in (False, True):
        y = (label > 70).astype(float) if binary else label
        mean = (y + rng.normal(0, 3 if not binary else 0.3, n)).round(1)
        sd = rng.choice([1.0, 2.0, 3.0], n)
        data = TargetPredictions(y, mean, sd, mean - 2 * sd, mean + 2 * sd, 0.95, people, binary)
        first = evaluate_target(data, replicates=100)
        for seed in range(5):
            order = np.random.default_rng(seed).permutation(n)
            names = ("label", "mean", "sd", "lower", "upper", "participants")
            shuffled = replace(data, **{name: getattr(data, name)[order] for name in names})
            again = evaluate_target(shuffled, replicates=100)
            assert str(again) == str(first)


def test_one_participant_has_no_bootstrap_interval() -> None:
    data = _data([1, 2, 3, 4], [1.5, 2.5, 2.5, 4.5], participants=np.array(["0000001"] * 4))
    for value in evaluate_target(data, replicates=200).values():
        assert np.isnan(value.low)
        assert np.isnan(value.high)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("labels", [[], [1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0, 0.0]])
def test_nothing_is_made_up_for_few_or_equal_labels(labels: list[float], *, binary: bool) -> None:
    data = _data(labels, [0.25] * len(labels), binary=binary)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate_target(data, replicates=50)
    assert set(found) == set(BINARY_METRICS if binary else CONTINUOUS_METRICS)
    if not labels:
        assert all(np.isnan(m.value) for m in found.values())
    elif binary:
        assert found["brier"].value == pytest.approx(np.mean(np.square(0.25 - np.array(labels))))
        assert np.isnan(found["auroc"].value) == (len(set(labels)) == 1)
        assert np.isnan(found["calibration_slope"].value)
    else:
        assert found["mae"].value == pytest.approx(np.mean(np.abs(0.25 - np.array(labels))))
        assert np.isnan(found["r2"].value) == (len(set(labels)) == 1)
        assert np.isnan(found["pearson_r"].value)
        assert np.isfinite(found["coverage"].value)


def test_two_scans_have_errors_and_no_correlation() -> None:
    assert np.isnan(evaluate_target(_data([46, 47], [48, 45]), replicates=0)["icc"].value)  # -2.2 by the formula
    found = evaluate_target(_data([70, 80], [71, 78]), replicates=0)
    assert found["mae"].value == pytest.approx(1.5)
    assert found["r2"].value == pytest.approx(1 - 5 / 50)
    assert np.isnan(found["pearson_r"].value)


@pytest.mark.parametrize(
    ("label", "mean"),
    [
        ([70.1] * 7, [70, 71, 69, 70, 70.5, 72, 68]),
        ([70, 71, 69, 70, 70.5, 72, 68], [70.1 + 0.2] * 7),
        ([0.1] * 7, [0.3] * 7),
    ],
)
def test_equal_values_are_seen_through_rounding(label: list[float], mean: list[float]) -> None:
    """Sums of equal values leave 1e-30 instead of 0: divided by it, R² was -1e31."""
    data = _data(label, mean)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate_target(data, replicates=200)
    assert np.isnan(found["pearson_r"].value)
    assert np.isnan(found["r2"].value) == (len(set(label)) == 1)
    assert np.isnan(found["icc"].value) == (len({*label}) == len({*mean}) == 1)
    for metric in found.values():
        assert not np.abs([metric.value, metric.low, metric.high]).max() > 1e3  # NaN passes


@pytest.mark.parametrize("count", [2, 3])
def test_an_interval_is_not_made_of_the_replicates_that_happen_to_define_it(count: int) -> None:
    """Of two scans, R² and ICC exist in replicates that hold both, and are then always the same."""
    found = evaluate_target(_data([70, 81, 75][:count], [71, 80, 77][:count]), replicates=200)
    assert np.isfinite(found["r2"].value)
    for name in ("r2", "icc", "sparsification_error"):
        assert np.isnan(found[name].low)
    assert found["mae"].low <= found["mae"].value <= found["mae"].high


def test_replicates_of_equal_labels_do_not_count() -> None:
    """Nine of ten labels are equal: replicates without the tenth have no R²."""
    label, mean = [70.1] * 9 + [80.0], [*np.linspace(68, 72, 9), 79.0]
    found = evaluate_target(_data(label, mean), replicates=300)
    assert np.isfinite(found["r2"].value)
    assert not found["r2"].low < -1e3
    assert np.isnan(found["r2"].low)  # a third of the replicates has none


def test_an_sd_of_0_has_no_density_and_covers_only_what_it_hits() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate_target(_data([70, 71, 75, 80], [70, 72, 75, 80], [0.0, 1.0, 0.0, 0.0]), replicates=50)
        curve = calibration_curve(np.array([1.0, 2.0]), np.array([1.0, 2.5]), np.zeros(2))
    assert np.isnan(found["nll"].value)
    assert found["crps"].value == pytest.approx(gaussian_crps(*(np.array([v]) for v in (71.0, 72.0, 1.0)))[0] / 4)
    assert curve == pytest.approx(0.5)
    assert gaussian_crps(np.array([3.0]), np.array([1.0]), np.zeros(1)).tolist() == [2.0]


def test_ranking_needs_both_classes() -> None:
    found = evaluate_target(_data([1, 1, 1], [0.2, 0.7, 0.9], binary=True), replicates=0)
    assert np.isnan(found["auroc"].value)
    assert np.isnan(found["auprc"].value)


def test_what_is_no_estimate_is_refused() -> None:
    for label, mean, sd in (([1, np.nan], [1, 2], [1, 1]), ([1, 2], [1, np.inf], [1, 1]), ([1, 2], [1, 2], [1, -1])):
        with pytest.raises(UsageError, match=r"missing or infinite|negative"):
            _data(label, mean, sd)


def test_errors_of_tied_sds_are_shared_among_the_groups() -> None:
    """Ten scans of one sd in two groups: each has the error of all, whichever rows come first."""
    error = np.array([0.0] * 5 + [2.0] * 5)
    for values in (error, error[::-1]):
        sd, rmse = error_by_sd(values, np.full(10, 3.0))
        assert sd.tolist() == [3.0, 3.0]
        assert rmse == pytest.approx(np.sqrt(2.0))
    sd, rmse = error_by_sd(np.array([1.0, 3.0] * 5), np.array([1.0, 2.0] * 5))
    assert (sd.tolist(), rmse.tolist()) == ([1.0, 2.0], [1.0, 3.0])


def test_curves_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(5)
    error, sd = np.abs(rng.normal(size=101)), rng.choice([0.1, 0.7, 1.3], 101)
    label, probability = rng.integers(0, 2, 101).astype(float), rng.random(101).round(2)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(101)
        for one, other in (
            (sparsification_curves(error, sd), sparsification_curves(error[order], sd[order])),
            (error_by_sd(error, sd), error_by_sd(error[order], sd[order])),
            (reliability_bins(label, probability), reliability_bins(label[order], probability[order])),
        ):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_intervals_that_do_not_exist_cover_nothing_and_miss_nothing() -> None:
    data = _data([1, 2, 3, 5], [1, 2, 3, 4], lower=np.full(4, np.nan), upper=np.full(4, np.nan))
    found = evaluate_target(data, replicates=0)
    assert np.isnan(found["coverage"].value)
    assert np.isnan(found["mean_width"].value)
    assert found["mae"].value == pytest.approx(0.25)


# -- the published system's variances ----------------------------------------------------------------------------------

TABLE = (
    "name,DxaTotalLeanMass_mean_in_kg,DxaTotalLeanMass_variance_in_kg,liverVolume_mean_in_L,liverVolume_variance_in_L,"
    "height_mean_in_cm,height_variance_in_cm\n"
)


def _table(tmp_path: Path) -> Path:
    """True sds: 2 kg, 0.1 L, 3 cm; the two masses and volumes' variances divided by 1000 once."""
    rows = [f"{k:07d}_20201_2_0.zip,{45 + k % 9},4000,{1.5 + 0.01 * k},10,{170 + k % 7},9\n" for k in range(1, 31)]
    path = tmp_path / "predictions.csv"
    path.write_text(TABLE + "".join(rows))
    return path


def test_variances_divided_once_are_corrected_where_the_unit_is_known(tmp_path: Path) -> None:
    found = read_predictions(_table(tmp_path))
    assert found.targets["DxaTotalLeanMass"].sd == pytest.approx(2.0)
    assert found.targets["height"].sd == pytest.approx(3.0)
    assert np.isnan(found.targets["liverVolume"].sd).all()
    assert any("divided by 1000 again" in n and "DxaTotalLeanMass" in n for n in found.notes)
    assert any("`divisors` liverVolume=N" in n for n in found.notes)
    assert read_predictions(_table(tmp_path), {"liverVolume": 1000.0}).targets["liverVolume"].sd == pytest.approx(0.1)


def test_without_sd_there_are_no_metrics_of_it(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("scan,liverVolume\n" + "".join(f"{k:07d}_20201_2_0,1.6\n" for k in range(1, 31)))
    (result,) = compare(read_predictions(_table(tmp_path)), read_labels(labels), replicates=30).results
    assert result.count == 30
    assert result.metrics["mae"].value > 0
    for name in ("coverage", "auce", "nll", "crps", "sparsification_error", "mean_width"):
        assert np.isnan(result.metrics[name].value)


def test_divisors_follow_from_the_units() -> None:
    assert published_divisor(TARGETS["DxaLegsFatMass"], "kg") == 1000.0
    assert published_divisor(TARGETS["DxaLegsFatMass"], "g") == 1.0
    assert published_divisor(TARGETS["DxaAndroidBoneMass"], "g") == 1.0
    assert published_divisor(TARGETS["weight"], "kg") == 1.0
    assert published_divisor(TARGETS["AtlasVatVolume"], "L") == 1.0
    assert published_divisor(TARGETS["kidneyParenchymalVolume"], "L") is None


def test_a_divisor_is_a_positive_number_of_a_target(tmp_path: Path) -> None:
    from ukb_infer.cli.evaluate import _divisors

    assert _divisors(["liverVolume=1000"]) == {"liverVolume": 1000.0}
    for text in ("liverVolume", "liverVolume=0", "liverVolume=x", "nothing=10", "liverVolume=inf"):
        with pytest.raises(UsageError):
            _divisors([text])


def test_the_correction_is_said_in_the_tables(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("scan,DxaTotalLeanMass\n" + "".join(f"{k:07d}_20201_2_0,47\n" for k in range(1, 31)))
    text = metrics_markdown(compare(read_predictions(_table(tmp_path)), read_labels(labels), replicates=0))
    assert "- variances divided by 1000 again" in text
    assert "DxaTotalLeanMass" in text
    assert "- no sd of liverVolume" in text


def test_a_divisor_belongs_to_a_target_of_a_published_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="above 0"):
        read_predictions(_table(tmp_path), {"liverVolume": -1000.0})
    with pytest.raises(UsageError, match="no such target"):
        read_predictions(_table(tmp_path), {"weight": 1.0})
    with pytest.raises(UsageError, match="not a table of the published system"):
        read_predictions(make_cross_validation(tmp_path / "cv"), {"weight": 1000.0})


@pytest.mark.parametrize(
    ("unit", "divisor", "sd"),
    [("kg", 1000.0, 2.0), ("KG", 1000.0, 2.0), ("kilograms", 1000.0, 2.0), ("Grams", 1.0, 0.002)],
)
def test_units_are_known_by_other_spellings(tmp_path: Path, unit: str, divisor: float, sd: float) -> None:
    path = tmp_path / "predictions.csv"
    head = f"name,DxaTotalLeanMass_mean_in_{unit},DxaTotalLeanMass_variance_in_{unit}\n"
    path.write_text(f"{head}0000001_20201_2_0,50,{4 * divisor}\n0000002_20201_2_0,50,-1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_predictions(path).targets["DxaTotalLeanMass"]
    assert found.sd[0] == pytest.approx(sd)
    assert np.isnan(found.sd[1])  # a negative variance is none
    assert found.mean[0] == pytest.approx(0.05 if unit == "Grams" else 50.0)


def test_an_unknown_unit_is_said_and_gives_no_sd(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("name,DxaTotalLeanMass_mean_in_stone,DxaTotalLeanMass_variance_in_stone\n0000001_20201_2_0,7,1\n")
    found = read_predictions(path)
    assert np.isnan(found.targets["DxaTotalLeanMass"].sd).all()
    assert any("unknown unit 'stone'" in n for n in found.notes)
