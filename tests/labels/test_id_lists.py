"""Lists of ids as spreadsheets, R, pandas and people write them: they exclude, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ukb_infer.errors import UsageError
from ukb_infer.inference.inputs import is_excluded, read_exclusions
from ukb_infer.labels import read_id_list
from ukb_infer.labels.ids import NamedId, parse_id, participant_of
from ukb_infer.records import ScanKey

ONE, OTHER = ScanKey.from_name("9100001_20201_2_0"), ScanKey.from_name("9100002_20201_2_0")

#: Texts that exclude participant 9100001 and nobody else of the two.
EXCLUDING = {
    "plain": "9100001\n",
    "no line end": "9100001",
    "carriage returns": "9100001\r9100003\r",
    "blanks": "  9100001 \n\n",
    "leading zeros": "009100001\n",
    "float": "9100001.0\n",
    "float with more zeros": "9100001.00\n",
    "float with comma": "9100001,0\n",
    "exponent": "9.100001e+06\n",
    "exponent, spreadsheet": "9.100001E+06\n",
    "exponent, short": "9.100001e6\n",
    "exponent, decimal comma": '"9,100001E+06"\n',
    "exponent of other forms": "910000.1e1\n",
    "prefix": "UKB9100001\nUKB9100003\n",
    "word before": "eid_9100001\neid_9100003\n",
    "colon": "eid: 9100001\n",
    "visit behind": "9100001_2\n",
    "index and tabs without header": "1\t9100001\n2\t9100003\n",
    "date of eight digits behind": "9100001,20260101\n",
    "scan and participant": "9100001_20201_2_0,9100001\n",
    "quoted": '"9100001"\n',
    "single quotes": "'9100001'\n",
    "apostrophe of a spreadsheet": "'9100001\n",
    "formula of a spreadsheet": '="9100001"\n',
    "quote not closed": '"9100001\n9100003\n',
    "header": "eid\n9100001\n",
    "title of the platform": "Participant ID\n9100001\n",
    "header of Stata": "n_eid_12345\n9100001\n",
    "header of R": "f.eid\n9100001\n",
    "header of the platform": "participant.eid\n9100001\n",
    "unknown header": "withdrawn\n9100001\n",
    "column without name in R": '"","x"\n"1","9100001"\n',
    "pandas index": ",eid\n0,9100001\n",
    "pandas index without header": "0,9100001\n",
    "pandas index, several": ",0\n0,9100003\n1,9100001\n2,9100004\n",
    "R row names": '"","eid"\n"1","9100001"\n',
    "R row names of a subset": '"","eid"\n"17","9100001"\n"205","9100003"\n',
    "R write.table": '"eid"\n"1" "9100001"\n"2" "9100003"\n',
    "R write.table with commas": '"eid","why"\n"1",9100001,"x"\n',
    "tabs": "9100001\t2026-01-01\n",
    "semicolons": "eid;date\n9100001;2026-01-01\n",
    "stated separator": "sep=;\neid;n\n9100001;1,5\n",
    "eid in a later column": "date,reason,eid\n2026-01-01,letter,9100001\n",
    "other columns": "9100001,2026-01-01,by letter\n",
    "comma in some lines only": "9100003\n9100001,by letter\n",
    "comments": "# withdrawals of 2026\n9100001 # by letter\n",
    "remark behind blanks": "9100001 by letter\n",
    "fam file": "9100001 9100001 0 0 1 -9\n",
    "empty cells of a spreadsheet": "eid,,\n9100001,,\n,,\n",
    "path": "/data/9100001_20201_2_0.zip\n",
    "path with blanks": "/mnt/project/Bulk/Whole Body MRI/Dixon/91/9100001_20201_2_0.zip\n",
    "Windows path": "C:\\My data\\9100001_20201_2_0.zip\n",
    "file of the scan": "/data/9100001_20201_2_0/Dixon_W.nii.gz\n",
    "folder": "/data/9100001_20201_2_0/\n",
    "file called like the eid": "9100001.zip\n",
    "key of a .bulk file": "9100001 20201_2_0\n",
    "key with comma": "9100001,20201_2_0\n",
    "key with number as float": "9100001.0 20201_2_0\n",
    "scan": "9100001_20201_2_0\n",
    "scans.csv of a run": "scan,eid,status\n9100001_20201_2_0,9100001,failed\n",
    "index before scans": ",scan\n0,9100001_20201_2_0\n",
}


@pytest.mark.parametrize("text", EXCLUDING.values(), ids=EXCLUDING)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_ids_exclude_however_they_are_written(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "w.csv"
    path.write_bytes(text.encode(encoding))
    lists = read_exclusions([path])
    assert is_excluded(ONE, lists)
    assert not is_excluded(OTHER, lists)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("9100003\n9.1E+06\n", ["line 2", "rounded"]),
        ("eid\n9.10E+06\n9.10E+06\n", ["lines 2, 3", "rounded", "scipen"]),
        ("9,100,001;x\n", ["line 1", "thousands"]),
        ("9 100 001;x\n", ["line 1", "thousands"]),
        ("9100001.5\n", ["fractional"]),
        ("-9100001\n", ["negative"]),
        ("eid,n\n9100003,1\n,2\nNA,3\n", ["lines 3, 4", "names neither"]),
        ("9100003,9100001\n", ["2 columns hold different ids", "one per line"]),
        ("9100003 9100001\n", ["2 columns hold different ids"]),
        ("20260101,9100001\n", ["unclear which column"]),
        ("9 100 001\n", ["thousands"]),
        ("9\u202f100\u202f001\n", ["thousands"]),
        ("9_100_001\n", ["thousands"]),
        ('{"eid": [9100001]}\n', ["not an id"]),
        ("5,9100001\n", ["unclear which column", "header"]),
        ("0,x\n1,y\n", ["unclear which column"]),
        ("eid_11111,eid_22222\n9100001,9100002\n", ["eid_11111, eid_22222", "keep one"]),
        ("9100003\nsee the letter of May\n", ["line 2", "not an id"]),
    ],
)
def test_what_may_hide_an_id_is_refused_with_the_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "w.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_exclusions([path])
    assert f"`exclude` {path}" in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert "9100001" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04\x14\x00", "spreadsheet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel workbook"),
        (b"\x1f\x8b\x08\x00", "gunzip"),
        (b"\x01\x00\x02\x00\x00\x03", "NUL byte"),
        (b"PAR1", "Parquet"),
    ],
)
def test_a_list_that_is_no_text_is_refused_with_the_way_to_convert_it(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "w.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_exclusions([path])


def test_a_first_line_of_words_above_ids_is_a_header_and_a_name_with_digits_is_not(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_text("scan_7\n9100001\n")
    lists = read_exclusions([path])
    assert is_excluded(ScanKey.from_name("scan_7"), lists)
    assert is_excluded(ONE, lists)


@pytest.mark.parametrize("name", ["9100001", "9100001_dixon", "sub-9100001", "9100001_20201_3_0"])
def test_a_participant_is_excluded_under_names_of_other_forms_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.csv"
    path.write_text("9100001\n")
    assert is_excluded(ScanKey.from_name(name), read_exclusions([path]))
    assert not is_excluded(ScanKey.from_name(name.replace("1", "2", 1)), read_exclusions([path]))


def test_a_scan_excludes_itself_only_and_bytes_of_other_encodings_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_bytes("scan;année\n9100001_20201_3_0;été\n".encode("latin-1"))
    lists = read_exclusions([path])
    assert is_excluded(ScanKey.from_name("9100001_20201_3_0"), lists)
    assert not is_excluded(ONE, lists)


def test_of_ratings_only_the_excluded_scans_count(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    head = "scan,eid,instance,array,rating,note\n"
    path.write_text(head + '0000001_20201_2_0,0000001,2,0,exclude,"metal, left"\n0000002_20201_2_0,0000002,2,0,use,\n'
                    "0000003_20201_2_0,0000003,2,0,,later\n")  # fmt: skip
    listed = read_id_list(path, "exclude")
    assert listed.scans == {"1_20201_2_0"}
    assert not listed.holds(ScanKey.from_name("0000001_20201_3_0"))  # a rating is of one scan
    path.write_text("scan,rating\n0000001_20201_2_0,5\n0000002_20201_2_0,4\n")  # of another kind: a plain list
    assert len(read_id_list(path, "exclude").entries) == 2
    path.write_text(head + "0000003_20201_2_0,0000003,2,0,,later\n")
    with pytest.raises(UsageError, match="rating is empty"):
        read_id_list(path, "exclude")


def test_matches_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_text("9100001\n9100001.0\n9100009\n9100002_20201_2_0\n9100002_20201_3_0\n")
    keys = [ONE, OTHER, ScanKey.from_name("9100001_20201_3_0")]
    assert read_id_list(path, "`exclude`").count_matches(keys) == (4, 2, 3)


def test_one_parser_for_all_forms() -> None:
    assert parse_id(" '0000001' ") == NamedId("1", "0000001")
    assert parse_id("0.0") == NamedId("0", "0")
    assert parse_id("#N/A") is None
    assert parse_id("eg_20201_abdo") == NamedId("", "eg_20201_abdo")
    assert parse_id("/x/0000001_20201_2_0.ZIP") == NamedId("", "0000001_20201_2_0")


@pytest.mark.parametrize(
    ("scan", "participant"),
    [
        ("sub_01_ses_1", "sub_01"), ("sub_01_ses-baseline", "sub_01"), ("p7_session2", "p7"), ("p7_ses01", "p7"),
        ("brain_sesame", ""), ("a_sessile_x", ""), ("0000001_20201_2_0", ""),
    ],
)  # fmt: skip
def test_the_participant_of_a_session(scan: str, participant: str) -> None:
    assert participant_of(scan) == participant
