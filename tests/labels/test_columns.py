"""UK Biobank's own columns of every target that has a field, in every form that its tools write."""

from __future__ import annotations

from pathlib import Path

import pytest

from ukb_infer.errors import UsageError
from ukb_infer.labels import parse_column, read_labels
from ukb_infer.labels.titles import TITLES
from ukb_infer.records import ScanKey
from ukb_infer.targets import TARGETS, fields_of, find_target

FIELDS = [(spec.name, field) for spec in TARGETS.values() for field in fields_of(spec)]
#: Form of a column to the visit that its values belong to; FIELD and TITLE are replaced.
FORMS = {
    "pFIELD_i2": 2, "participant.pFIELD_i2": 2, "participant - pFIELD_i2": 2, "pFIELD_i2_a0": 2, "pFIELD": None,
    "FIELD-2.0": 2, "fFIELD_2_0": 2, "f.FIELD.2.0": 2, "XFIELD.2.0": 2, "xFIELD_2_0": 2, "FIELD_2_0": 2,
    "n_FIELD_2_0": 2, "s_FIELD_3_0": 3, "some_words_fFIELD_2_0": 2, "some_words_fFIELD": None, "FIELD": None,
    "FIELD.0": None, "xFIELD": None, "FIELD-3": 3, "Words | Instance 2(participant - pFIELD_i2)": 2,
}  # fmt: skip


def test_all_targets_with_a_field_are_meant_and_age_is_one() -> None:
    assert len(FIELDS) == 69
    assert ("age", "21003") in FIELDS
    assert {field for _, field in FIELDS} == set(TITLES.values())
    assert len(TITLES) == 69
    age = find_target(field="21003-2.0")
    assert age is not None
    assert age.name == "age"


@pytest.mark.parametrize(("target", "field"), FIELDS)
def test_every_form_of_every_field_is_its_target(target: str, field: str) -> None:
    for form, visit in FORMS.items():
        found = parse_column(form.replace("FIELD", field), TARGETS)
        assert found is not None, form
        expected = None if field == "31" else visit  # sex has one value, whatever the instance that is written
        assert (found.target, found.instance, found.array) == (target, expected, 0), form


#: Titles as the platform's table exporter writes them; a sample of each kind.
@pytest.mark.parametrize(
    ("title", "target"),
    [
        ("Age when attended assessment centre", "age"),
        ("Hand grip strength (right)", "gripStrengthRight"),
        ("Pulse rate, automated reading", "pulseRate"),
        ("Visceral adipose tissue volume (VAT)", "AtlasVatVolume"),
        ("VAT (visceral adipose tissue) volume", "DxaVatVolume"),
        ("10P Liver PDFF (proton density fat fraction)", "AtlasLiverFat"),
        ("Proton density fat fraction (PDFF)", "liverFat"),
        ("Anterior thigh fat-free muscle volume (left)", "AtlasAnteriorThighLeanMuscleLeft"),
        ("Weight-to-muscle ratio", "AtlasWeightToMuscleRatio"),
        ("Leg tissue fat percentage (right)", "DxaLegTissueFatPercentageRight"),
        ("Arms lean mass", "DxaArmsLeanMass"),
        ("Trunk total mass", "DxaTrunkTotalMass"),
        ("Total fat-free mass", "DxaTotalFatFreeMass"),
    ],
)
def test_titles_of_the_platform_also_as_r_changes_them(title: str, target: str) -> None:
    for text in (
        f"{title} | Instance 2",
        f"{title} | Instance 2 | Array 0",
        "".join(c if c.isalnum() else "." for c in f"{title} | Instance 2"),
        "_".join("".join(c if c.isalnum() else " " for c in f"{title} Instance 2").lower().split()),
    ):
        found = parse_column(text, TARGETS)
        assert found is not None, text
        assert (found.target, found.instance, found.array) == (target, 2, 0)
    alone = parse_column(title, TARGETS)
    assert alone is not None
    assert alone.instance is None


@pytest.mark.parametrize("column", ["p99999_i2", "21002-2.0.1", "wieght", "weight_2", "p2_i2", "scan", "eid", "2"])
def test_what_is_no_target_is_none(column: str) -> None:
    assert parse_column(column, TARGETS) is None


def test_sex_holds_for_every_visit_whichever_tool_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    for column in ("31-0.0", "p31", "n_31_0_0", "sex_f31_0_0", "f.31.0.0", "Sex"):
        path.write_text(f"eid,{column}\n0000001,Female\n0000002,1\n")
        labels = read_labels(path)
        assert labels.of(ScanKey.from_name("0000002_20201_3_0")).tolist() == [1.0]


def test_a_missing_column_names_the_forms_of_the_field(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("eid,p21002_i2\n0000001,70\n")
    with pytest.raises(UsageError, match="looked for age or p21003_i2"):
        read_labels(path, ("age",))
