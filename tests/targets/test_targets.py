"""The registry of targets."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ukb_infer.errors import ScanError, UsageError
from ukb_infer.reasons import Reason
from ukb_infer.records import ScanKey
from ukb_infer.targets import TARGETS, find_target, get_target

SHARED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "targets.csv"


def test_there_are_71_regressions_and_diabetes() -> None:
    assert len(TARGETS) == 72
    assert [t.name for t in TARGETS.values() if t.published.cv_auc is not None] == ["type2Diabetes"]
    assert sum(t.published.cv_r2 is not None for t in TARGETS.values()) == 71
    assert {t.name for t in TARGETS.values() if t.is_binary} == {"sex", "type2Diabetes"}


def test_published_values_are_those_of_the_source() -> None:
    liver = TARGETS["liverVolume"]
    assert (liver.unit, liver.field, liver.published.cv_n, liver.published.cv_icc) == ("L", "", 36332, 0.986)
    vat = TARGETS["AtlasVatVolume"]
    assert (vat.field, vat.published.test_n, vat.published.test_mae) == ("22407", 14772, 0.149)


def test_limits_follow_from_the_unit() -> None:
    for target in TARGETS.values():
        assert target.lower == 0.0
        assert target.upper == {"%": 100.0, "L/L": 1.0}.get(target.unit, 1.0 if target.is_binary else None)
        assert target.plausible_min is not None
        assert target.plausible_max is not None
        assert target.lower <= target.plausible_min < target.plausible_max <= (target.upper or 1e9)


def test_equals_the_reference_table_where_it_is_at_hand() -> None:
    source = SHARED if SHARED.exists() else Path(__file__).parents[2] / "ukb_infer" / "targets" / "targets.csv"
    rows = list(csv.DictReader(source.open(encoding="utf-8")))
    assert [r["name"] for r in rows] == list(TARGETS)
    for row in rows:
        spec = TARGETS[row["name"]]
        assert (spec.field, spec.unit, spec.group) == (row["ukb_field"], row["unit"], row["group"])
        for name in ("cv_icc", "cv_r2", "cv_mae", "test_mape_percent"):
            assert getattr(spec.published, name) == (float(row[name]) if row[name] else None)


@pytest.mark.parametrize(
    ("name", "field", "expected"),
    [
        ("anything", "22407-2.0", "AtlasVatVolume"),
        ("anything", "p21002", "weight"),
        ("Liver Volume", "", "liverVolume"),
        ("type_2 diabetes", "", "type2Diabetes"),
    ],
)
def test_find_target_by_field_else_by_name(name: str, field: str, expected: str) -> None:
    found = find_target(name, field)
    assert found is not None
    assert found.name == expected


def test_an_unknown_target_names_the_nearest() -> None:
    assert find_target("spleen volume") is None
    with pytest.raises(UsageError, match="liverVolume"):
        get_target("liverVolum")


def test_every_reason_has_meaning_and_advice() -> None:
    for info in Reason:
        assert info.meaning
        assert info.advice


def test_a_scan_error_travels_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(ScanError(Reason.MULTIFRAME, "12 frames")))  # noqa: S301 - our own bytes
    assert (error.reason, error.message) == (Reason.MULTIFRAME, "12 frames")


def test_scan_key_parses_the_biobank_name_and_keeps_others() -> None:
    assert ScanKey.from_name("0000001_20201_2_0") == ScanKey("0000001", 2, 0, "0000001_20201_2_0")
    assert ScanKey.from_name("eg_20201_abdo") == ScanKey("", None, None, "eg_20201_abdo")
    assert not ScanKey.from_name("..").is_safe
    assert not ScanKey.from_name("=1+1").is_safe
    assert ScanKey.from_name("eg_20201_abdo").is_safe
