"""Labels in another unit, as a whole or in part, are refused, and real distributions are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.labels import read_labels
from ukb_infer.phantom.population import sample_subject
from ukb_infer.phantom.true_values import truths
from ukb_infer.targets import TARGETS

RNG = np.random.default_rng(5)
#: Values like those of adults.
USUAL = {
    "weight": RNG.normal(76, 15, 200).clip(45, 140),
    "height": RNG.normal(169, 9, 200),
    "waist": RNG.normal(90, 13, 200).clip(60, 140),
    "age": RNG.uniform(45, 82, 200),
    "liverVolume": RNG.normal(1.5, 0.3, 200).clip(0.8, 3),
    "kidneyParenchymalVolume": RNG.normal(0.26, 0.05, 200).clip(0.1, 0.5),
    "liverFat": np.exp(RNG.normal(1.0, 0.8, 200)).clip(0.3, 40),
    "DxaTotalLeanMass": RNG.normal(48, 9, 200).clip(28, 80),
    "DxaVatVolume": np.exp(RNG.normal(0.0, 0.8, 200)).clip(0.02, 6),
    "DxaAndroidTissueFatPercentage": RNG.normal(35, 9, 200).clip(10, 60),
    "AtlasAbdominalFatRatio": RNG.normal(0.5, 0.1, 200).clip(0.1, 0.9),
}
#: Target, unit of some rows, and what a value in the target's unit is multiplied by to be in it.
MIXED = [
    ("weight", "g", 1000), ("weight", "mg", 1e6), ("height", "m", 0.01), ("height", "mm", 10), ("waist", "mm", 10),
    ("age", "months", 12), ("liverVolume", "mL", 1000), ("kidneyParenchymalVolume", "mL", 1000),
    ("liverFat", "fraction", 0.01), ("DxaTotalLeanMass", "g", 1000), ("DxaVatVolume", "mL", 1000),
    ("DxaAndroidTissueFatPercentage", "fraction", 0.01), ("AtlasAbdominalFatRatio", "%", 100),
]  # fmt: skip


def _table(tmp_path: Path, target: str, values: NDArray[np.float64]) -> Path:
    path = tmp_path / "labels.csv"
    rows = "".join(f"{k:07d},{v:.6g}\n" for k, v in enumerate(values, 1))
    path.write_text(f"eid,{target}\n{rows}")
    return path


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.8])
@pytest.mark.parametrize(("target", "unit", "factor"), MIXED)
def test_a_mixture_of_units_is_refused_with_both_groups_counted(
    tmp_path: Path, target: str, unit: str, factor: float, share: float
) -> None:
    values = USUAL[target].copy()
    few = RNG.permutation(200) < share * 200
    values[few] *= factor
    with pytest.raises(UsageError, match="has mixed units") as caught:
        read_labels(_table(tmp_path, target, values))
    text = str(caught.value)
    counts = [int(word) for word in text.replace(":", " ").split() if word.isdigit()]
    others = few.sum()
    assert f"in {unit} " in text
    assert any(abs(n - others) <= 0.1 * others for n in counts), text
    assert any(abs(n - (200 - others)) <= 0.1 * 200 for n in counts), text


@pytest.mark.parametrize(("target", "unit", "factor"), MIXED)
def test_a_mixture_stays_one_when_either_unit_is_declared(
    tmp_path: Path, target: str, unit: str, factor: float
) -> None:
    values = USUAL[target].copy()
    values[:60] *= factor
    with pytest.raises(UsageError, match="has mixed units"):
        read_labels(_table(tmp_path, target, values), units={target: unit})


@pytest.mark.parametrize(("target", "unit", "factor"), MIXED)
def test_one_unit_is_accepted_once_it_is_declared(tmp_path: Path, target: str, unit: str, factor: float) -> None:
    path = _table(tmp_path, target, USUAL[target] * factor)
    with pytest.raises(UsageError, match=f"`units` {target}="):
        read_labels(path)
    (values,) = read_labels(path, units={target: unit}).by_visit["1", None]
    assert values == pytest.approx(USUAL[target][0], rel=1e-4)


@pytest.mark.parametrize("target", USUAL)
def test_usual_values_and_outliers_are_accepted(tmp_path: Path, target: str) -> None:
    values = USUAL[target].copy()
    spec = TARGETS[target]
    assert spec.plausible_max is not None
    values[0] = spec.plausible_max * 1.05 if spec.unit != "L/L" else 0.97
    values[1] = 0.0
    assert read_labels(_table(tmp_path, target, values)).summaries[0].present == 200


def test_true_values_of_phantoms_are_accepted(tmp_path: Path) -> None:
    rows = [truths(sample_subject(3, k)) for k in range(1, 61)]
    path = tmp_path / "truth.csv"
    lines = [",".join([f"{k:07d}", *(repr(float(row[t])) for t in TARGETS)]) for k, row in enumerate(rows, 1)]
    path.write_text("\n".join([",".join(["eid", *TARGETS]), *lines]) + "\n")
    assert len(read_labels(path).targets) == 72


def test_a_single_value_in_another_unit_is_named_by_its_row(tmp_path: Path) -> None:
    values = USUAL["weight"].copy()
    values[16] *= 1000
    with pytest.raises(UsageError, match=r"199 values of weight seem to be in kg and 1 in g .*row 18"):
        read_labels(_table(tmp_path, "weight", values))


def test_many_implausible_values_are_refused_although_the_median_is_fine(tmp_path: Path) -> None:
    values = USUAL["height"].copy()
    values[:30] = 999.0
    with pytest.raises(UsageError, match=r"30 of 200 values of height are implausible \(rows 2, 3, 4, 5, 6 \.\.\.\)"):
        read_labels(_table(tmp_path, "height", values))


def test_shares_of_which_none_passes_one_are_fractions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fraction: pass `units` liverFat=fraction"):
        read_labels(_table(tmp_path, "liverFat", USUAL["liverFat"] / 100))


def test_all_columns_in_another_unit_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("eid,p23280_i2,p23278_i2,p21002_i2\n0000001,48000,20000,70\n0000002,45000,25000,75\n")
    with pytest.raises(UsageError) as caught:
        read_labels(path)
    assert "`units` p23280_i2=g" in str(caught.value)
    assert "`units` p23278_i2=g" in str(caught.value)
    read_labels(path, units={"p23280_i2": "g", "p23278_i2": "grams"})


@pytest.mark.parametrize(
    ("target", "factor", "words"),
    [
        ("liverVolume", 1000, ["cm3 and mL are the same", "masses in g", "1.05 g/cm3"]),
        ("kidneyParenchymalVolume", 1000, ["cm3 and mL are the same", "masses in g"]),
        ("DxaVatVolume", 1000, ["cm3", "masses in g", "0.95 for adipose tissue"]),
        ("DxaTotalLeanMass", 1000, ["seem to be in g", "volumes in cm3", "multiply"]),
    ],
)
def test_volumes_and_masses_are_both_explained(tmp_path: Path, target: str, factor: float, words: list[str]) -> None:
    path = _table(tmp_path, target, USUAL[target] * factor)
    with pytest.raises(UsageError) as caught:
        read_labels(path)
    for word in words:
        assert word in str(caught.value)


def test_a_mass_declared_for_a_volume_says_how_to_convert(tmp_path: Path) -> None:
    path = _table(tmp_path, "liverVolume", USUAL["liverVolume"] * 1050)
    with pytest.raises(UsageError, match=r"'g' cannot be converted .* density .* cm3"):
        read_labels(path, units={"liverVolume": "g"})
    with pytest.raises(UsageError, match=r"cannot be converted .* multiply volumes in cm3"):
        read_labels(_table(tmp_path, "weight", USUAL["weight"]), units={"weight": "cm³"})


@pytest.mark.parametrize("unit", ["cm3", "cm³", "cm^3", "mL", "ml", "cc", "millilitres"])
def test_spellings_of_a_unit(tmp_path: Path, unit: str) -> None:
    path = _table(tmp_path, "liverVolume", USUAL["liverVolume"] * 1000)
    assert read_labels(path, units={"liverVolume": unit}).summaries[0].present == 200
