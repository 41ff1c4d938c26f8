"""Label tables as UK Biobank's tools, Stata, R, pandas and spreadsheets write them: read, or refused with a way out."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ukb_infer.errors import RunError, UsageError
from ukb_infer.evaluation import read_predictions
from ukb_infer.labels import Labels, read_labels
from ukb_infer.records import ScanKey

AGE = "Age when attended assessment centre | Instance 2"
PULSE = "Pulse rate, automated reading | Instance 2 | Array 0"

#: Tables that all say: participant 0000001 weighs 80.5 kg at visit 2, 0000002 has no value, 0000003 weighs 71 kg.
SAME = {
    "commas": "eid,p21002_i2\n0000001,80.5\n0000002,\n0000003,71\n",
    "platform": "participant.eid,participant.p21002_i2\n0000001,80.5\n0000002,\n0000003,71\n",
    "titles": "Participant ID,Weight | Instance 2\n0000001,80.5\n0000002,\n0000003,71\n",
    "titles with commas": f'Participant ID,"{PULSE}",Weight | Instance 2\n1,60,80.5\n2,61,\n3,62,71\n',
    "ukbtools": "eid,weight_f21002_2_0\n0000001,80.5\n0000002,NA\n0000003,71\n",
    "Stata's names": "n_eid,n_21002_2_0\n1,80.5\n2,.\n3,71\n",
    "Stata, export delimited": "n_eid_12345,n_21002_2_0\n1,80.5\n2,.a\n3,71\n",
    "ukbconv, R": "f.eid\tf.21002.2.0\n0000001\t80.5\n0000002\tNA\n0000003\t71\n",
    "ukbconv, csv": '"eid","21002-2.0"\n"0000001","80.5"\n"0000002",""\n"0000003","71"\n',
    "semicolons": "eid;p21002_i2\n0000001;80.5\n0000002;\n0000003;71\n",
    "semicolons and decimal commas": "eid;p21002_i2\n0000001;80,5\n0000002;\n0000003;71\n",
    "stated separator": "sep=;\neid;p21002_i2\n0000001;80,5\n0000002;#N/A\n0000003;71,0\n",
    "quoted decimal commas": 'eid,p21002_i2\n0000001,"80,5"\n0000002,\n0000003,"71,0"\n',
    "tabs and decimal commas": "eid\tp21002_i2\n0000001\t80,5\n0000002\t\n0000003\t71\n",
    "pipes": "eid|p21002_i2\n0000001|80.5\n0000002|NULL\n0000003|71\n",
    "blanks": "eid p21002_i2\n0000001 80.5\n0000002 NA\n0000003   71\n",
    "R write.table": '"eid" "p21002_i2"\n"1" "0000001" 80.5\n"2" "0000002" NA\n"3" "0000003" 71\n',
    "R write.csv": '"","eid","p21002_i2"\n"1","0000001",80.5\n"2","0000002",NA\n"3","0000003",71\n',
    "R, numbers": '"X","eid","X21002.2.0"\n"1",1,80.5\n"2",2,NA\n"3",3,71\n',
    "R write.table, blank line": '"eid" "p21002_i2"\n"1" "0000001" 80.5\n"2" "0000002" NA\n"3" "0000003" 71\n\n',
    "pandas": ",eid,p21002_i2\n0,1.0,80.5\n1,2.0,\n2,3.0,71.0\n",
    "pandas, read back": "Unnamed: 0,eid,p21002_i2\n0,1,80.5\n1,2,\n2,3,71.0\n",
    "comments above": "# exported in May\n\neid,p21002_i2\n0000001,80.5\n0000002,\n0000003,71\n",
    "PLINK": "#FID\tIID\tweight\n0000001\t0000001\t80.5\n0000002\t0000002\tNA\n0000003\t0000003\t71\n",
    "empty rows and columns": "eid,p21002_i2,,\n0000001,80.5,,\n,,,\n0000002,,,\n\n0000003,71,,\n,,,\n",
    "separators behind rows": "eid,p21002_i2\n0000001,80.5,\n0000002,,\n0000003,71,\n",
    "missing in words": "eid,p21002_i2\n0000001,80.5\n0000002,Prefer not to answer\n0000003,71\n",
    "failed calculation": "eid,p21002_i2\n0000001,80.5\n0000002,#DIV/0!\n0000003,71\n",
    "Windows lines": "eid,p21002_i2\r\n0000001,80.5\r\n0000002,\\N\r\n0000003,71\r\n",
    "other fields beside": "eid,p21001_i2,53-2.0,Fed up | Instance 2,p21002_i2\n1,25,x,1,80.5\n2,2,y,2,\n3,2,z,3,71\n",
}


def _weights(labels: Labels) -> list[float]:
    place = labels.targets.index("weight")
    return [labels.of(ScanKey.from_name(f"{k:07d}_20201_2_0"))[place] for k in (1, 2, 3)]


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_every_tool_say_the_same(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    np.testing.assert_array_equal(_weights(read_labels(path)), [80.5, np.nan, 71.0])


def test_a_stata_file_is_read_with_its_value_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.dta"
    frame = pd.DataFrame(
        {
            "n_eid": [1, 2, 3],
            "n_21002_2_0": [80.5, np.nan, 71.0],
            "n_31_0_0": pd.Categorical(["Male", "Female", "Male"]),
        }
    )
    frame.to_stata(path, write_index=False)
    labels = read_labels(path)
    np.testing.assert_array_equal(_weights(labels), [80.5, np.nan, 71.0])
    assert labels.of(ScanKey.from_name("0000002_20201_3_0"))[labels.targets.index("sex")] == 0.0


def test_a_parquet_file_with_the_eid_as_index_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    pd.DataFrame({"eid": [1.0, 2.0, 3.0], "p21002_i2": [80.5, None, 71.0]}).set_index("eid").to_parquet(path)
    np.testing.assert_array_equal(_weights(read_labels(path)), [80.5, np.nan, 71.0])


def test_words_of_the_platform_are_values_codes_or_missing(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"Participant ID,{AGE},Sex\n1,61,Female\n2,Do not know,Male\n3,#N/A,\n4,63,F\n5,#NUM!,M\n")
    labels = read_labels(path)
    age, sex = labels.summaries[1], labels.summaries[0]
    assert (age.target, age.present, age.special_codes, age.not_finite) == ("age", 2, 1, 1)
    assert (sex.target, sex.present) == ("sex", 4)


@pytest.mark.parametrize("word", ["#N/A", "NULL", ".", "NA", "N/A", "<NA>", "NaN", "None", "-", ".z", "\\N", "?", '""'])
def test_words_for_missing_values(tmp_path: Path, word: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"eid,weight\n1,80.5\n2,{word}\n3,71\n")
    np.testing.assert_array_equal(_weights(read_labels(path)), [80.5, np.nan, 71.0])


#: Tables that are refused, and what the message says.
REFUSED = {
    "decimal commas without quotes": ("eid,weight\n0000001,80,5\n0000002,71,2\n", ["more cells", "decimal commas"]),
    "some decimal commas without quotes": ("eid,weight\n0000001,80\n0000002,71,2\n", ["line 3", "decimal point"]),
    "thousands or decimals": ('eid,DxaTotalLeanMass\n1,"45,123"\n2,"51,002"\n', ["row 2", "45,123", "point"]),
    "thousands": ('eid,weight\n1,70\n2,"1,234.5"\n', ["row 3", "not a number"]),
    "thousands and decimal comma": ("eid;weight\n1;70,5\n2;1.234,5\n", ["row 3", "not a number"]),
    "both styles": ("eid;weight\n1;70,5\n2;71.5\n", ["row 3", "decimal comma"]),
    "units in cells": ("# a comment\neid,weight\n1,70\n\n2,80 kg\n", ["row 5", "'80 kg' is not a number"]),
    "too narrow a column": ("eid,weight\n1,70\n2,####\n", ["row 3", "not a number"]),
    "no header": ("0000001,80.5\n0000002,71\n", ["no column scan or eid", "separate cells"]),
    "nothing": ("\n\n", ["no header line"]),
    "two participants": ("eid_11111,eid_22222,weight\n1,2,70\n", ["eid_11111, eid_22222", "keep one"]),
    "twice": ('Participant ID,"a, b | Instance 2","a, b | Instance 2"\n1,2,3\n', ["'a, b | Instance 2' occurs twice"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_clear_is_refused_with_place_and_way_out(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_labels(path)
    assert "`labels`" in str(caught.value)
    assert "labels.csv" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("eid,poids en été\n1,70\n".encode("latin-1"), "iconv"),
        (b"PK\x03\x04\x14\x00\x06\x00", "CSV UTF-8"),
        (gzip.compress(b"eid,weight\n1,70\n", mtime=0), "gunzip"),
        (b"RDX3\nX\n\x00\x00", "write.csv"),
        (b"$FL2@(#) SPSS", "SPSS"),
        (b"\x00" * 12 + b"\xc2\xea\x81\x60", "proc export"),
        (b"<stata_dta><header>", "Stata"),
    ],
)
def test_other_files_are_refused_with_the_way_to_convert_them(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_labels(path)


def test_a_damaged_stata_or_parquet_file_is_refused(tmp_path: Path) -> None:
    for name in ("labels.dta", "labels.parquet"):
        (tmp_path / name).write_bytes(b"<stata_dta><header><release>118</release>" + b"\x01" * 50)
        with pytest.raises(UsageError, match=name):
            read_labels(tmp_path / name)


def test_predictions_of_the_published_system_may_have_gone_through_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_bytes(
        "name;Weight_mean_in_kg;Weight_variance_in_kg\n0000001_20201_2_0;70,5;4,0\n0000002_20201_2_0;#N/A;\n".encode(
            "utf-16"
        )
    )
    found = read_predictions(path)
    np.testing.assert_array_equal(found.targets["weight"].mean, [70.5, np.nan])
    path.write_text("name,Weight_mean_in_kg,Weight_variance_in_kg\n0000001_20201_2_0,seventy,4\n")
    with pytest.raises(RunError, match=r"predictions\.csv.*row 2.*Weight_mean_in_kg.*'seventy' is not a number"):
        read_predictions(path)
