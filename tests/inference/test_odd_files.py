"""Names, links, rights and devices that are not what a scan should be: one row each, and the run goes on."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ukb_infer.errors import RunError, UsageError
from ukb_infer.inference import ProjectConfig, resolve_inputs, run_project
from ukb_infer.reasons import Reason
from ukb_infer.text import shown


@pytest.fixture
def scans(tmp_path: Path, small_cohort: Path) -> Path:
    """A folder with one good scan."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(small_cohort / "0000001_20201_2_0.zip", folder)
    return folder


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Rights count, also where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def _rows(folder: Path, out: Path, **changes: object) -> dict[str, str]:
    """Scan to status or reason, from the table; a wait for the storage would run into the tests' time limit."""
    config = ProjectConfig((str(folder),), out, workers=0, retry_waits_s=(3600.0,), **changes)  # type: ignore[arg-type]
    summary = run_project(config)
    assert summary.exit_code in (0, 3)
    with (out / "scans.csv").open(encoding="utf-8", newline="") as table:
        return {r["scan"]: r["reasons"] or r["status"] for r in csv.DictReader(table)}


def test_a_name_that_is_no_utf8_is_one_row(scans: Path, tmp_path: Path) -> None:
    (scans / os.fsdecode(b"0000002_K\xf6rper.zip")).write_bytes(b"x")
    (scans / "0000003_new\nline.zip").write_bytes(b"x")
    folder = scans / os.fsdecode(b"K\xf6rper")
    folder.mkdir()
    shutil.copy(scans / "0000001_20201_2_0.zip", folder / "0000004_20201_2_0.zip")
    assert _rows(scans, tmp_path / "out") == {
        "0000001_20201_2_0": "ok",
        r"0000002_K\xf6rper": "invalid_scan_name",
        r"0000003_new\nline": "invalid_scan_name",
        "0000004_20201_2_0": "ok",
    }


def test_a_utf8_name_is_shown_as_it_is_in_any_locale() -> None:
    assert shown("Körper") == "Körper"
    assert shown(b"K\xc3\xb6rper".decode("ascii", "surrogateescape")) == "Körper"
    assert shown(os.fsdecode(b"K\xf6rper")) == r"K\xf6rper"
    assert shown("a\x1b[2J\r\n") == r"a\x1b[2J\r\n"
    assert shown("\ud800") == r"\ud800"


def test_links_to_nowhere_and_to_themselves(scans: Path, tmp_path: Path) -> None:
    (scans / "0000002_20201_2_0.zip").symlink_to("0000002_20201_2_0.zip")
    (scans / "0000003_20201_2_0.zip").symlink_to("nothing.zip")
    (scans / "self").symlink_to("self")
    (scans / "up").symlink_to("..")
    found = _rows(scans, tmp_path / "out")
    assert found == {
        "0000001_20201_2_0": "ok",
        "0000002_20201_2_0": "input_unreadable",
        "0000003_20201_2_0": "input_unreadable",
    }


def test_devices_pipes_and_sockets_are_not_read(scans: Path, tmp_path: Path) -> None:
    os.mkfifo(scans / "0000002_20201_2_0.zip")
    (scans / "0000003_20201_2_0.zip").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(scans)  # the path of a socket is short
        try:
            server.bind("0000004_20201_2_0.zip")
        finally:
            os.chdir(before)
        found = _rows(scans, tmp_path / "out")
    assert found.pop("0000001_20201_2_0") == "ok"
    assert set(found.values()) == {"no_dicom"}
    assert len(found) == 3


@pytest.mark.usefixtures("ordinary_user")
def test_what_may_not_be_opened_is_one_row_each(small_cohort: Path) -> None:
    home = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    try:
        folder = home / "in"
        folder.mkdir()
        os.seteuid(0) if os.getuid() == 0 else None
        good = (small_cohort / "0000001_20201_2_0.zip").read_bytes()
        os.seteuid(65534) if os.getuid() == 0 else None
        (folder / "0000001_20201_2_0.zip").write_bytes(good)
        (folder / "0000002_20201_2_0.zip").write_bytes(good)
        (folder / "0000002_20201_2_0.zip").chmod(0)
        (folder / "0000003_20201_2_0").mkdir()
        (folder / "0000003_20201_2_0").chmod(0)
        (folder / "0000004_20201_2_0").mkdir()
        (folder / "0000004_20201_2_0/1.dcm").write_bytes(b"x")
        (folder / "0000004_20201_2_0").chmod(0o400)  # may be listed, not entered
        found = _rows(folder, home / "out")
        assert found == {
            "0000001_20201_2_0": "ok",
            "0000002_20201_2_0": "input_unreadable",
            "0000003_20201_2_0": "input_unreadable",
            "0000004_20201_2_0": "input_unreadable",
        }
        (folder / "0000002_20201_2_0.zip").chmod(0o600)  # the same command tries again
        assert _rows(folder, home / "out")["0000002_20201_2_0"] == "ok"
    finally:
        for name in ("0000003_20201_2_0", "0000004_20201_2_0"):
            (home / "in" / name).chmod(0o700)
        shutil.rmtree(home)


def test_a_name_too_long_for_the_output(scans: Path, tmp_path: Path) -> None:
    (scans / f"{'b' * 245}.zip").symlink_to("0000001_20201_2_0.zip")
    found = _rows(scans, tmp_path / "out", png=True)
    assert found == {"0000001_20201_2_0": "ok", "b" * 245: "invalid_scan_name"}


def test_the_output_below_the_input_is_not_searched(scans: Path, tmp_path: Path) -> None:
    out = scans / "results" / "run"
    out.parent.mkdir()
    for _ in range(2):
        assert _rows(scans, out) == {"0000001_20201_2_0": "ok"}
    assert [s.key.scan for s in resolve_inputs([str(scans)], outputs=[out])] == ["0000001_20201_2_0"]
    link = tmp_path / "link"
    link.symlink_to(scans)
    assert len(resolve_inputs([str(link)], outputs=[out])) == 1
    named = resolve_inputs([str(out)], outputs=[tmp_path / "elsewhere"])  # its projections, where they are asked for
    assert [s.kind for s in named] == ["projection"]


def test_a_folder_that_holds_the_output_or_another_run_is_not_searched_and_that_is_said(
    scans: Path, tmp_path: Path
) -> None:
    shutil.copy(scans / "0000001_20201_2_0.zip", scans / "0000002_20201_2_0.zip")
    first = scans / "old" / "run1"
    assert set(_rows(scans, first)) == {"0000001_20201_2_0", "0000002_20201_2_0"}
    (scans / "0000002_20201_2_0.zip").unlink()  # withdrawn; its projection in the first run does not bring it back
    for _ in range(2):
        summary = run_project(ProjectConfig((str(scans),), scans / "run2", workers=0))
        assert summary.counts == {"ok": 1, "flagged": 0, "failed": 0, "excluded": 0}
        assert f"1 folders below the inputs hold results of a run and are not searched ({first})" in summary.notes[-1]
    with pytest.raises(RunError, match="pass it as an input"):
        resolve_inputs([str(first.parent)])
    assert [s.kind for s in resolve_inputs([str(first)])] == ["projection"] * 2
    (tmp_path / "l.txt").write_text("0000002_20201_2_0\n0000001_20201_2_0\n")
    listed = resolve_inputs([str(tmp_path / "l.txt")], scans, outputs=[scans / "run2"])
    assert [s.path for s in listed][1] == first / "0000002_20201_2_0.npy"  # named by its key: looked for everywhere
    assert listed[0].problem is None


def test_a_file_that_cannot_be_used_does_not_stand_in_the_way_of_its_namesake(scans: Path, tmp_path: Path) -> None:
    for folder in ("a", "z"):  # before and after the good one
        (scans / folder).mkdir()
        (scans / folder / "0000001_20201_2_0.zip").symlink_to("0000001_20201_2_0.zip")
        (scans / folder / "b c.zip").write_bytes(b"x")
    found = _rows(scans, tmp_path / "out")
    assert found.pop("0000001_20201_2_0") == "ok"
    assert sorted(found.values()) == ["input_unreadable"] * 2 + ["invalid_scan_name"] * 2
    shutil.copy(scans / "0000001_20201_2_0.zip", scans / "a" / "0000007_20201_2_0.zip")
    shutil.copy(scans / "0000001_20201_2_0.zip", scans / "z" / "0000007_20201_2_0.zip")
    with pytest.raises(UsageError, match="two different files are the same scan"):
        resolve_inputs([str(scans)])


def test_a_line_of_a_list_that_leads_to_no_scan_is_one_row(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("x")
    os.mkfifo(tmp_path / "0000003_20201_2_0.zip")
    (tmp_path / "self").symlink_to("self")
    odd = os.fsdecode(b"K\xf6rper")
    (tmp_path / odd).mkdir()
    shutil.copy(scans / "0000001_20201_2_0.zip", tmp_path / odd / "0000005_20201_2_0.zip")
    lines = [str(scans / "0000001_20201_2_0.zip"), "empty", "notes.md", "0000003_20201_2_0.zip", "self"]
    lines += [odd, "c" * 300 + ".zip", os.fsdecode(b"gone\xff.zip"), "0000009_20201_2_0.zip"]
    (tmp_path / "list.txt").write_bytes(b"\n".join(os.fsencode(line) for line in lines))
    assert _rows(tmp_path / "list.txt", tmp_path / "out") == {
        "0000001_20201_2_0": "ok",
        "0000003_20201_2_0": "no_dicom",
        "0000005_20201_2_0": "ok",
        "0000009_20201_2_0": "input_missing",
        "c" * 300: "input_missing",
        "empty": "no_dicom",
        r"gone\xff": "invalid_scan_name",
        "notes.md": "no_dicom",
        "self": "input_missing",
    }


def test_content_hashes_wait_for_no_pipe(scans: Path, tmp_path: Path) -> None:
    os.mkfifo(scans / "0000002_20201_2_0.zip")
    (scans / "0000003_20201_2_0.zip").symlink_to("/dev/zero")
    for _ in range(2):
        found = _rows(scans, tmp_path / "out", verify=True)
        assert set(found.values()) == {"ok", "no_dicom"}


def test_storage_that_fails_while_searching_ends_the_run(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind it is not known: going on would leave scans out and move others to another shard."""
    (scans / "sub").mkdir()
    original = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("sub"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return original(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(RunError, match=r"cannot be read \(Stale file handle\)"):
        resolve_inputs([str(scans)])


def test_a_part_of_a_scan_that_may_not_be_read_fails_the_scan(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left out silently it would look like a missing station, which no download brings back."""
    parts = scans / "0000002_20201_2_0"
    (parts / "secret").mkdir(parents=True)
    (parts / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    original = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", scandir)
    assert _rows(scans, tmp_path / "out")["0000002_20201_2_0"] == Reason.INPUT_UNREADABLE


def test_tables_are_the_same_in_a_c_locale(scans: Path, tmp_path: Path) -> None:
    for name in (b"K\xf6rper.zip", "K\u00f6rper.zip".encode(), b"0000005_20201_2_0.zip"):
        (scans / os.fsdecode(name)).write_bytes(b"x")
    sub = scans / os.fsdecode("\u00e9\u00e8".encode())
    sub.mkdir()
    shutil.copy(scans / "0000001_20201_2_0.zip", sub / "0000004_20201_2_0.zip")
    (tmp_path / "list.txt").write_text(f"{sub}/0000004_20201_2_0.zip\n{scans}/K\u00f6rper.zip\n", encoding="utf-8")
    tables = []
    for number, locale in enumerate(({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})):
        for given in (scans, tmp_path / "list.txt"):
            out = tmp_path / f"out{number}{given.name}"
            done = subprocess.run(
                [sys.executable, "-m", "ukb_infer", "project", given, "--out", out, "--workers", "1"],
                env=os.environ | locale, capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == 3, done.stderr
            assert b"Traceback" not in done.stderr
            tables.append((out / "scans.csv").read_bytes())
    assert tables[:2] == tables[2:]
    assert "K\u00f6rper,,,,failed,invalid_scan_name".encode() in tables[0]
    assert rb"K\xf6rper,,,,failed,invalid_scan_name" in tables[0]


def test_a_projection_that_cannot_be_read_is_one_row(scans: Path, tmp_path: Path) -> None:
    run_project(ProjectConfig((str(scans),), tmp_path / "p", workers=0))
    (tmp_path / "p/0000002_20201_2_0.npy").symlink_to("0000002_20201_2_0.npy")
    os.mkfifo(tmp_path / "p/0000003_20201_2_0.npy")
    assert _rows(tmp_path / "p", tmp_path / "out") == {
        "0000001_20201_2_0": "ok",
        "0000002_20201_2_0": "input_unreadable",
        "0000003_20201_2_0": "no_dicom",
    }
