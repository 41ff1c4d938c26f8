"""From what the user names to the scans of a run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ukb_infer.errors import RunError, UsageError
from ukb_infer.inference.config import ProjectConfig
from ukb_infer.inference.inputs import is_excluded, read_exclusions, resolve_inputs
from ukb_infer.inference.plan import make_plan
from ukb_infer.inference.project import run_project
from ukb_infer.reasons import Reason
from ukb_infer.records import ScanKey
from ukb_infer.runs.summary import RunSummary


def _npy(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", np.random.default_rng(0).integers(0, 255, (3, 256, 256), dtype=np.uint8))
    return folder / f"{name}.npy"


def _zip(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.zip").write_bytes(b"PK")
    return folder / f"{name}.zip"


def _names(found: list) -> list[str]:  # type: ignore[type-arg]
    return [item.key.scan for item in found]


def test_a_folder_is_searched_and_sorted_by_key(tmp_path: Path) -> None:
    _zip(tmp_path / "b", "0000002_20201_2_0")
    _zip(tmp_path / "a", "0000010_20201_3_0")
    _zip(tmp_path / "a", "0000010_20201_2_0")
    (tmp_path / "a" / "notes.md").write_text("x")
    found = resolve_inputs([str(tmp_path)])
    assert _names(found) == ["0000002_20201_2_0", "0000010_20201_2_0", "0000010_20201_3_0"]
    assert found[0].kind == "zip"
    assert found[0].given == f"{tmp_path}/b/0000002_20201_2_0.zip"


def test_symlink_loops_end(tmp_path: Path) -> None:
    _zip(tmp_path / "a", "0000002_20201_2_0")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert _names(resolve_inputs([str(tmp_path)])) == ["0000002_20201_2_0"]


def test_the_same_file_twice_is_fine_two_files_of_a_key_are_not(tmp_path: Path) -> None:
    one = _zip(tmp_path / "a", "0000002_20201_2_0")
    assert len(resolve_inputs([str(one), str(tmp_path), str(one)])) == 1
    _zip(tmp_path / "b", "0000002_20201_2_0")
    with pytest.raises(UsageError, match=r"/[ab]/0000002_20201_2_0.zip and .*/[ab]/0000002_20201_2_0.zip"):
        resolve_inputs([str(tmp_path)])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["subjects.bulk", "list.txt", "list.csv"])
def test_bulk_lists_are_looked_up_below_root(tmp_path: Path, name: str, ending: str) -> None:
    _zip(tmp_path / "data" / "10", "0000002_20201_2_0")
    lines = (
        ["0000002 20201_2_0", "0000003 20201_2_0"] if name != "list.csv" else ["0000002,20201_2_0", "0000003,20201_2_0"]
    )
    (tmp_path / name).write_text(ending.join(lines))
    found = resolve_inputs([str(tmp_path / name)], tmp_path / "data")
    assert _names(found) == ["0000002_20201_2_0", "0000003_20201_2_0"]
    assert [item.problem for item in found] == [None, Reason.INPUT_MISSING]
    with pytest.raises(UsageError, match="`root`"):
        resolve_inputs([str(tmp_path / name)])


def test_a_pattern_of_paths_lists_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("0000001_20201_2_0", "0000001_20201_3_0", "0000002_20201_2_0"):
        _zip(tmp_path / "bulk" / "00", name)
    (tmp_path / "keys.txt").write_text("0000002_20201_2_0\n0000003_20201_2_0\n")
    (tmp_path / "people.txt").write_text("0000001\n")

    def listed(path: object = ".") -> None:
        raise AssertionError(f"{path} was listed")

    monkeypatch.setattr(os, "scandir", listed)
    monkeypatch.setattr(os, "listdir", listed)
    pattern = tmp_path / "bulk" / "{eid:.2}" / "{scan}.zip"
    found = resolve_inputs([str(tmp_path / "keys.txt"), str(tmp_path / "people.txt")], pattern)
    assert {item.key.scan: item.problem for item in found} == {
        "0000001_20201_2_0": None, "0000001_20201_3_0": None, "0000002_20201_2_0": None,
        "0000003_20201_2_0": Reason.INPUT_MISSING,
    }  # fmt: skip
    assert all(item.kind == "zip" for item in found if item.problem is None)
    with pytest.raises(UsageError, match="'person' cannot be filled in; expected a folder, or a pattern with"):
        resolve_inputs([str(tmp_path / "keys.txt")], tmp_path / "{person}.zip")


def test_lists_of_paths_may_be_relative_and_have_a_header(tmp_path: Path) -> None:
    one = _zip(tmp_path / "data", "0000002_20201_2_0")
    _zip(tmp_path / "data", "0000004_20201_2_0")
    (tmp_path / "l.csv").write_text(f"path,note\n{one},x\ndata/0000004_20201_2_0.zip,y\ngone.zip,z\n")
    found = resolve_inputs([str(tmp_path / "l.csv")])
    assert _names(found) == ["gone", "0000002_20201_2_0", "0000004_20201_2_0"]
    assert found[0].problem is Reason.INPUT_MISSING


def test_projection_folders_bring_their_flags(tmp_path: Path) -> None:
    _npy(tmp_path, "0000002_20201_2_0")
    _npy(tmp_path, "0000003_20201_2_0")
    found = resolve_inputs([str(tmp_path)])
    assert [item.known for item in found] == [None, None]
    (tmp_path / "scans.csv").write_text(
        "scan,status,reasons,stations\n0000002_20201_2_0,flagged,size_mismatch;evil,6\n0000003_20201_2_0,ok,,6\n"
    )
    (tmp_path / "0000002_20201_2_0_water.nii.gz").write_bytes(b"x")
    (tmp_path / "0000002_20201_2_0_fat.nii.gz").write_bytes(b"x")
    for given in (tmp_path, tmp_path.parent / tmp_path.name / "."):
        found = resolve_inputs([str(given)])
        known = [item.known for item in found if item.known is not None]
        assert [(k.reasons, k.stations) for k in known] == [((Reason.SIZE_MISMATCH,), 6), ((), 6)]
    single = resolve_inputs([str(tmp_path / "0000002_20201_2_0.npy")])
    assert single[0].known == known[0]


@pytest.mark.parametrize("name", ["=1+1", "a b", "scan;x", "é"])
def test_names_that_could_do_harm_are_refused_by_code(tmp_path: Path, name: str) -> None:
    _zip(tmp_path, name)
    _zip(tmp_path, "eg_20201_abdo")
    found = {item.key.scan: item.problem for item in resolve_inputs([str(tmp_path)])}
    assert found == {name: Reason.INVALID_SCAN_NAME, "eg_20201_abdo": None}


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no scan in"):
        resolve_inputs([str(tmp_path)])
    with pytest.raises(UsageError, match="does not exist"):
        resolve_inputs([str(tmp_path / "nowhere")])
    (tmp_path / "x.md").write_text("x")
    with pytest.raises(UsageError, match="neither a zip"):
        resolve_inputs([str(tmp_path / "x.md")])


def test_exclusion_lists_name_eids_or_scans(tmp_path: Path) -> None:
    (tmp_path / "w0_20260101.csv").write_text("0000002\n0000009\n")
    (tmp_path / "artefacts.csv").write_text("eid,instance\n0000003_20201_2_0,2\n0000004 20201_3_0\n")
    names = read_exclusions([tmp_path / "w0_20260101.csv", tmp_path / "artefacts.csv"])
    excluded = {
        name: is_excluded(ScanKey.from_name(name), names)
        for name in (
            "0000002_20201_2_0",
            "0000002_20201_3_0",
            "0000003_20201_2_0",
            "0000003_20201_3_0",
            "0000004_20201_3_0",
        )
    }
    assert list(excluded.values()) == [True, True, True, False, True]
    assert not is_excluded(ScanKey.from_name("eg_20201_abdo"), names)
    with pytest.raises(UsageError, match="`exclude`"):
        read_exclusions([tmp_path / "none.csv"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0000002.0 20201_2_0\n", ["0000002_20201_2_0"]),
        (",eid\n0,2.0\n", ["0000002_20201_2_0", "0000002_20201_3_0"]),
        ('"","eid","instance"\n"1","0000002","2"\n', ["0000002_20201_2_0", "0000002_20201_3_0"]),
        ("eid;scan\n2;2_20201_3_0\n", ["0000002_20201_3_0"]),
        ("path with blanks/0000002_20201_2_0.zip\n", ["0000002_20201_2_0"]),
        ("9\n", ["9"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_of_inputs_are_read_like_all_lists_of_ids(
    tmp_path: Path, text: str, expected: list[str], encoding: str
) -> None:
    for name in ("0000002_20201_2_0", "0000002_20201_3_0", "0000004_20201_2_0"):
        _zip(tmp_path / "data" / "path with blanks", name)
    (tmp_path / "l.csv").write_bytes(text.encode(encoding))
    found = resolve_inputs([str(tmp_path / "l.csv")], tmp_path / "data")
    assert _names(found) == expected
    assert (found[0].problem is Reason.INPUT_MISSING) == (expected == ["9"])


def test_a_list_of_eids_needs_a_root_and_rounded_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("0000002\n")
    with pytest.raises(UsageError, match="`root`"):
        resolve_inputs([str(tmp_path / "l.csv")])
    (tmp_path / "l.csv").write_text("9.1E+06\n")
    with pytest.raises(UsageError, match="rounded"):
        resolve_inputs([str(tmp_path / "l.csv")], tmp_path)


def _dry_run(folder: Path, text: str) -> RunSummary:
    for name in ("0000002_20201_2_0", "0000002_20201_3_0", "0000004_20201_2_0"):
        _zip(folder / "data", name)
    (folder / "w.csv").write_text(text)
    config = ProjectConfig(
        inputs=(str(folder / "data"),), out=folder / "out", exclude=(folder / "w.csv",), workers=0, dry_run=True
    )
    return run_project(config)


@pytest.mark.parametrize(
    ("text", "excluded", "words"),
    [
        ("0000002\n", 2, "1 of 1 ids match 2 scans"),
        ("2\n8\n9\n", 2, "1 of 3 ids match 2 scans, 2 match no scan"),
        ("x\n4\n", 1, "first line was read as a header"),
    ],
)
def test_what_an_exclusion_list_matches_is_said(tmp_path: Path, text: str, excluded: int, words: str) -> None:
    summary = _dry_run(tmp_path, text)
    assert summary.counts["excluded"] == excluded
    assert words in summary.notes[0]
    assert not summary.warnings


@pytest.mark.parametrize(
    ("text", "words"), [("7\n8\n", "none of its 2 ids matches any of the 3 scans"), ("", "has no ids")]
)
def test_an_exclusion_list_of_which_nothing_matches_is_warned_of(tmp_path: Path, text: str, words: str) -> None:
    summary = _dry_run(tmp_path, text)
    assert summary.counts["excluded"] == 0
    assert words in summary.warnings[0]


def test_projections_that_were_excluded_later_are_not_used(tmp_path: Path) -> None:
    _npy(tmp_path / "p", "0000002_20201_2_0")
    _npy(tmp_path / "p", "0000003_20201_2_0")
    (tmp_path / "p" / "scans.csv").write_text(
        "scan,status,reasons,stations\n0000002_20201_2_0,excluded,excluded,\n0000003_20201_2_0,ok,,6\n"
    )
    plan = make_plan(ProjectConfig(inputs=(str(tmp_path / "p"),), out=tmp_path / "out"))
    assert [s.key.scan for s in plan.included] == ["0000003_20201_2_0"]
    assert "1 projections are left out" in plan.notes[0]
