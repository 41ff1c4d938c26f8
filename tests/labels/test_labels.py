"""Label tables: every form of key and column, special codes, units, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ukb_infer.errors import UsageError
from ukb_infer.labels import Labels, parse_column, read_definitions, read_labels
from ukb_infer.phantom import write_cohort
from ukb_infer.records import ScanKey
from ukb_infer.targets import TARGETS


def _write(tmp_path: Path, text: str, name: str = "labels.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def _key(eid: str, instance: int = 2) -> ScanKey:
    return ScanKey.from_name(f"{eid}_20201_{instance}_0")


def _one(labels: Labels, eid: str, instance: int = 2) -> list[float]:
    return labels.of(_key(eid, instance)).tolist()


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("weight", ("weight", None, 0)),
        ("p21002_i2", ("weight", 2, 0)),
        ("21002-2.0", ("weight", 2, 0)),
        ("participant.p21002_i3", ("weight", 3, 0)),
        ("f.21002.2.0", ("weight", 2, 0)),
        ("p31", ("sex", None, 0)),
        ("p102_i2_a0", ("pulseRate", 2, 0)),
        ("p102_i2_a1", ("pulseRate", 2, 1)),
        ("p99999_i2", None),
        ("wieght", None),
        ("p21002_i2_extra", None),
    ],
)
def test_columns_are_understood(column: str, expected: tuple[str, int | None, int] | None) -> None:
    found = parse_column(column, TARGETS)
    assert (None if found is None else (found.target, found.instance, found.array)) == expected


def test_wide_table_of_the_biobank_goes_to_the_right_visits(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "participant.eid,participant.p31,participant.p21002_i2,participant.p21002_i3,p102_i2_a0,p102_i2_a1\n"
        "0000001,Male,80.5,82,61,99\n0000002,Female,60,,70,98\n",
    )
    labels = read_labels(path, ("weight", "sex", "pulseRate"))
    assert _one(labels, "0000001", 2) == [80.5, 1.0, 61.0]
    assert _one(labels, "0000001", 3)[:2] == [82.0, 1.0]
    assert np.isnan(_one(labels, "0000001", 3)[2])
    assert np.isnan(_one(labels, "0000002", 3)[0])
    assert np.isnan(labels.of(_key("0000003"))).all()


def test_rows_by_eid_and_instance_or_by_scan(tmp_path: Path) -> None:
    by_visit = read_labels(_write(tmp_path, "eid,instance,height\n0000001,2,170\n0000001,3,169\n"))
    assert (_one(by_visit, "0000001", 2), _one(by_visit, "0000001", 3)) == ([170.0], [169.0])
    by_scan = read_labels(_write(tmp_path, "scan\theight\n0000001_20201_2_0\t171\n", "labels.tsv"))
    assert _one(by_scan, "0000001", 2) == [171.0]
    assert np.isnan(_one(by_scan, "0000001", 3)[0])
    by_person = read_labels(_write(tmp_path, "eid,height\n0000001,172\n"))
    assert _one(by_person, "0000001", 2) == _one(by_person, "0000001", 3) == [172.0]


def test_parquet_with_numeric_ids_and_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    pd.DataFrame({"eid": [9100002, 9100003], "p12144_i2": [171.5, None]}).to_parquet(path)
    labels = read_labels(path)
    assert _one(labels, "9100002") == [171.5]
    assert labels.summaries[0].present == 1


@pytest.mark.parametrize(
    "text",
    [
        "eid,height\n0000001.0,170\n",
        "eid,height\n1,170\n",
        "n_eid_12345,instance,height\n1.0,2.0,170\n",
        '"eid","height"\n"=""0000001""",170\n',
        "eid,instance,height\n'0000001,Instance 2,170\n",
        "Participant ID,height\n0000001,170\n",
        "scan,height\n/data/0000001_20201_2_0.zip,170\n",
        "scan,height\n0000001 20201_2_0,170\n",
        "eid,height\n0000001_20201_2_0,170\n",
    ],
)
def test_rows_are_keyed_by_ids_as_spreadsheets_and_r_write_them(tmp_path: Path, text: str) -> None:
    labels = read_labels(_write(tmp_path, text))
    assert _one(labels, "0000001") == [170.0]
    assert labels.count_matches([_key("0000001"), _key("0000002")]) == (1, 1)
    assert labels.count_matches([_key("0000002")]) == (1, 0)


@pytest.mark.parametrize(("eid", "words"), [("9.1E+06", "rounded"), ("9,100,001", "thousands"), ("12.5", "fractional")])
def test_ids_of_labels_that_were_rounded_are_refused(tmp_path: Path, eid: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"row 3.*{words}"):
        read_labels(_write(tmp_path, f'eid,height\n0000001,170\n"{eid}",171\n'))


def test_the_phantoms_truth_works_as_it_is(tmp_path: Path) -> None:
    truth = write_cohort(tmp_path / "scans", 2, 3, size="small")
    labels = read_labels(truth)
    assert labels.targets == tuple(TARGETS)
    table = pd.read_csv(truth)
    keys = [ScanKey.from_name(s) for s in table["scan"]]
    assert np.array_equal(labels.matrix(keys), table[list(TARGETS)].to_numpy(float))


def test_special_codes_and_non_finite_values_become_missing_and_are_counted(tmp_path: Path) -> None:
    rows = ["60", "-1", "-3", "inf", "nan", "", "NA", "75"]
    text = "eid,weight\n" + "".join(f"{k:07d},{v}\n" for k, v in enumerate(rows, 1))
    (summary,) = read_labels(_write(tmp_path, text)).summaries
    assert (summary.present, summary.special_codes, summary.not_finite) == (2, 2, 2)
    assert "2 special codes" in str(summary)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("eid,weight\n0000001,60\n0000001,61\n", {}, ["row 3", "repeats"]),
        ("eid,weight,weight\n0000001,60,61\n", {}, ["weight", "twice"]),
        ("eid,weight,p21002_i2\n0000001,60,61\n", {"targets": ("height",)}, ["no column for height"]),
        ("eid,wieght\n0000001,60\n", {"targets": ("weight",)}, ["no column for weight", "did you mean wieght"]),
        ("eid,weight,hieght\n0000001,60,170\n", {}, ["'hieght'", "did you mean", "height", "`targets`"]),
        ("eid,weight\n0000001,60\n", {"targets": ("wieght",)}, ["unknown target", "did you mean weight"]),
        ("eid,weight,21002-2.0,p21002_i2\n0000001,60,60,60\n", {"targets": ("weight",)}, ["21002-2.0", "p21002_i2"]),
        ("weight\n60\n", {}, ["no column scan or eid"]),
        ("eid,weight\n", {}, ["no rows"]),
        ("eid,weight\n,60\n", {}, ["row 2", "neither scan nor eid"]),
        ("eid,instance,weight\n0000001,second,60\n", {}, ["row 2", "instance is 'second'"]),
        ("eid,weight\n0000001,heavy\n", {}, ["row 2", "'heavy' is not a number"]),
        ("eid,sex\n0000001,2\n", {}, ["sex must be 0 or 1"]),
        ("eid,height\n0000001,-1.5\n", {}, ["below height's physical limit"]),
        ("eid,weight\n0000001,60\n", {"units": {"wight": "g"}}, ["`units` wight=g", "did you mean weight"]),
        ("eid,weight\n0000001,60\n", {"units": {"weight": "cm"}}, ["cannot be converted", "'kg'"]),
        ("eid,weight\n0000001,60\n", {"units": {"weight": "gg"}}, ["unknown unit 'gg'"]),
    ],
)
def test_what_is_refused_names_file_place_and_remedy(
    tmp_path: Path, text: str, options: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        read_labels(_write(tmp_path, text), **options)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("target", "values", "unit"),
    [
        ("DxaTotalLeanMass", "45000", "g"),  # stored in grams by UK Biobank, kg in the registry
        ("height", "1.71", "m"),
        ("height", "1710", "mm"),
        ("liverVolume", "1500", "mL"),
        ("DxaAndroidTissueFatPercentage", "0.35", "fraction"),
    ],
)
def test_labels_in_another_unit_are_refused_and_accepted_once_declared(
    tmp_path: Path, target: str, values: str, unit: str
) -> None:
    path = _write(tmp_path, f"eid,{target}\n0000001,{values}\n0000002,{values}\n")
    with pytest.raises(UsageError, match="the values seem to be in") as caught:
        read_labels(path)
    assert f"`units` {target}={unit}" in str(caught.value)
    labels = read_labels(path, units={target: unit})
    low, high = TARGETS[target].plausible_min, TARGETS[target].plausible_max
    assert low is not None
    assert high is not None
    assert low < _one(labels, "0000001")[0] < high


def test_implausible_labels_without_a_likely_unit_are_refused_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="check that this is the right column"):
        read_labels(_write(tmp_path, "eid,height\n0000001,0\n"))


def test_every_registry_unit_that_has_powers_of_ten_is_known() -> None:
    from ukb_infer.labels.units import UNITS

    unknown = {s.unit for s in TARGETS.values() if s.unit not in UNITS and s.kind == "continuous"}
    assert unknown == set()


def test_own_targets(tmp_path: Path) -> None:
    path = _write(tmp_path, '[targets.liverIron]\nunit = "mg/g"\nlower = 0\nupper = 20.0\n', "own.toml")
    own = read_definitions(path)
    assert (own["liverIron"].unit, own["liverIron"].lower, own["liverIron"].upper) == ("mg/g", 0.0, 20.0)
    table = _write(tmp_path, "eid,liverIron,weight\n0000001,1.5,70\n")
    labels = read_labels(table, ("liverIron", "weight"), definitions=own)
    assert _one(labels, "0000001") == [1.5, 70.0]
    assert labels.specs["liverIron"].unit == "mg/g"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[targets.height]\nunit = 'cm'\n", "belongs to a target of the registry"),
        ("[targets.a]\nunti = 'cm'\n", "did you mean unit"),
        ("[targets.a]\nlower = 2\nupper = 1\n", "lower is 2"),
        ("[targets.a]\nkind = 'ordinal'\n", "expected continuous or binary"),
        ("[targets.'1a']\nunit = 'cm'\n", "expected a letter"),
        ("[targets.a]\nlower = 'x'\n", "expected a number"),
        ("unit = 'cm'\n", "expected tables"),
        ("[targets", "cannot be read as TOML"),
    ],
)
def test_misspelled_definitions_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_definitions(_write(tmp_path, text, "own.toml"))
