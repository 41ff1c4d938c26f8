"""A result belongs to the file that was read, whatever happened to it before and after."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ukb_infer.inference import PredictConfig, ProjectConfig, run_predict, run_project
from ukb_infer.inference.retry import run_retry
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions
from ukb_infer.runs import read_run

SCAN = "0000001_20201_2_0"


@pytest.fixture
def scan(small_cohort: Path, tmp_path: Path) -> Path:
    """One scan in a folder of its own; `0000002` and `0000003` of the cohort are there to replace it."""
    (tmp_path / "in").mkdir()
    return Path(shutil.copy(small_cohort / f"{SCAN}.zip", tmp_path / "in"))


def _replace(scan: Path, other: Path, time_ns: int) -> None:
    """Put another scan's content in place, as a download that ends does."""
    partial = scan.with_suffix(".part")
    shutil.copy(other, partial)
    os.utime(partial, ns=(time_ns, time_ns))
    partial.replace(scan)


def _around(monkeypatch: pytest.MonkeyPatch, *, before: Callable[[], Any] | None = None,
            after: Callable[[], Any] | None = None) -> None:  # fmt: skip
    """Do something before or after a scan is read."""
    from ukb_infer.imaging import reading

    original = reading.project_path

    def project_path(path: Path, options: ReadingOptions, *more: Any, **named: Any) -> Any:
        if before is not None:
            before()
        try:
            return original(path, options, *more, **named)
        finally:
            if after is not None:
                after()

    monkeypatch.setattr(reading, "project_path", project_path)


def _image(config: ProjectConfig) -> bytes:
    return np.load(config.out / f"{SCAN}.npy").tobytes()


@pytest.fixture
def config(scan: Path, tmp_path: Path) -> ProjectConfig:
    return ProjectConfig((str(scan.parent),), tmp_path / "out", workers=0, reading=ReadingOptions(0))


def test_a_file_replaced_before_it_is_read_is_done(
    scan: Path, config: ProjectConfig, small_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is what lies there: nothing is left to do."""
    from ukb_infer.inference import scan_files

    original = scan_files.outcomes

    def outcomes(*arguments: Any) -> Any:
        _replace(scan, small_cohort / "0000002_20201_2_0.zip", 10**18)  # listed, and not yet read
        return original(*arguments)

    monkeypatch.setattr(scan_files, "outcomes", outcomes)
    assert run_project(config).computed == 1
    monkeypatch.undo()
    first = _image(config)
    assert run_project(config).computed == 0
    run_project(replace(config, out=config.out.with_name("alone")))
    assert first == _image(replace(config, out=config.out.with_name("alone")))


def test_a_file_replaced_after_it_was_read_is_worked_on_again(
    scan: Path, config: ProjectConfig, small_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of the old content must not count as that of the new one, which is there at the commit."""
    from ukb_infer.inference import session

    original = session.journal_row

    def journal_row(*arguments: Any) -> Any:
        _replace(scan, small_cohort / "0000002_20201_2_0.zip", 10**18)
        return original(*arguments)

    monkeypatch.setattr("ukb_infer.inference.scan_files.journal_row", journal_row)
    assert run_project(config).computed == 1
    monkeypatch.undo()
    first = _image(config)
    assert run_project(config).computed == 1
    assert _image(config) != first
    assert run_project(config).computed == 0


def test_a_file_replaced_while_it_is_read_is_read_again(
    scan: Path, config: ProjectConfig, small_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = iter([small_cohort / "0000002_20201_2_0.zip"])
    _around(monkeypatch, after=lambda: [_replace(scan, other, 10**18) for other in others])
    assert run_project(config).counts["failed"] == 0
    monkeypatch.undo()
    assert run_project(config).computed == 0
    alone = replace(config, out=config.out.with_name("alone"))
    run_project(alone)
    assert _image(alone) == _image(config)


def test_a_file_that_goes_on_changing_fails_and_is_tried_by_the_next_call(
    scan: Path, config: ProjectConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(10**18, 2 * 10**18))
    _around(monkeypatch, after=lambda: os.utime(scan, ns=(1, next(times))))
    assert run_project(config).exit_code == 3
    (row,) = read_run(config.out).scans
    assert row.result.reasons == (Reason.INPUT_CHANGED,)
    assert not (config.out / f"{SCAN}.npy").exists()
    monkeypatch.undo()
    assert run_project(config).counts["failed"] == 0


def test_a_slice_changed_in_a_subfolder_is_noticed(tmp_path: Path) -> None:
    from ukb_infer.inference.fingerprints import content_digest, fingerprint

    (tmp_path / "scan/series").mkdir(parents=True)
    file = tmp_path / "scan/series/1.dcm"
    file.write_bytes(b"one")
    before = fingerprint(tmp_path / "scan"), content_digest(tmp_path / "scan")
    file.write_bytes(b"two!")
    assert fingerprint(tmp_path / "scan") != before[0]
    assert content_digest(tmp_path / "scan") != before[1]


def test_retry_finds_relative_paths_where_the_command_was_given(
    scan: Path, tmp_path: Path, small_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs, lists, their entries, the root and exclusions, from elsewhere, and without going there."""
    shutil.copy(small_cohort / "0000002_20201_2_0.zip", scan.parent)
    (scan.parent / "0000003_20201_2_0.zip").write_bytes(b"not a zip")
    (tmp_path / "list.txt").write_text("in/0000003_20201_2_0.zip\n0000002 20201_2_0\n")
    (tmp_path / "w.csv").write_text("0000002\n")
    monkeypatch.chdir(tmp_path)
    given = ProjectConfig(
        ("list.txt", f"in/{SCAN}.zip"), Path("out"), root=Path("in"), exclude=(Path("w.csv"),), workers=0,
        reading=ReadingOptions(0),
    )  # fmt: skip
    first = run_project(given)
    before = (tmp_path / "out/scans.csv").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    places = []
    for _ in range(2):  # the second repeats what the first repeated
        count, summary = run_retry(tmp_path / "out", progress=lambda *_: places.append(Path.cwd()))
        assert (count, summary.computed, summary.notes) == (1, 1, first.notes)
        assert (tmp_path / "out/scans.csv").read_bytes() == before
    assert set(places) == {tmp_path / "elsewhere"}
    monkeypatch.chdir(tmp_path)
    assert run_project(given).computed == 0  # the same run still


def test_a_scan_that_fails_now_leaves_no_projection(scan: Path, config: ProjectConfig) -> None:
    run_project(config)
    scan.write_bytes(b"no zip any more")
    assert run_project(config).counts["failed"] == 1
    assert not (config.out / f"{SCAN}.npy").exists()


def test_overwriting_removes_the_projections_of_scans_that_are_no_input_any_more(
    scan: Path, config: ProjectConfig, small_cohort: Path
) -> None:
    other = Path(shutil.copy(small_cohort / "0000002_20201_2_0.zip", scan.parent))
    run_project(replace(config, png=True))
    (config.out / "mine.npy").write_bytes(b"not of this run")
    other.unlink()
    run_project(replace(config, overwrite=True))
    names = {p.name for p in config.out.glob("*.[np][pn][yg]")}
    assert names == {f"{SCAN}.npy", "mine.npy"}


def test_flags_told_later_are_taken_over(scan: Path, config: ProjectConfig, tiny_module: Path, tmp_path: Path) -> None:
    """The table beside a projection may come, or say otherwise, after the projection was used."""
    run_project(config)
    table = config.out / "scans.csv"
    told = table.read_text()
    predicting = PredictConfig((str(config.out),), tmp_path / "run", workers=0, modules=(str(tiny_module),))

    def flags(text: str | None, **options: Any) -> tuple[int, list[tuple[Reason, ...]]]:
        table.unlink(missing_ok=True)
        if text is not None:
            table.write_text(text)
        summary = run_predict(replace(predicting, **options))
        return summary.computed, [s.result.reasons for s in read_run(summary.out).scans]

    assert flags(None) == (1, [(Reason.QUALITY_UNKNOWN,)])
    assert flags(told) == (1, [()])
    assert flags(told) == (0, [()])
    moved = told.replace(",ok,,", ",flagged,station_extra,")
    assert flags(moved, verify=True) == (1, [(Reason.STATION_EXTRA,)])
    assert flags(moved, verify=True) == (0, [(Reason.STATION_EXTRA,)])
    strict = {"reading": ReadingOptions(strict=True), "out": tmp_path / "strict"}
    assert flags(moved, **strict) == (1, [(Reason.STATION_EXTRA,)])
    assert flags(moved, **strict) == (0, [(Reason.STATION_EXTRA,)])
    assert flags(told, **strict) == (1, [()])


def test_what_the_storage_says_is_told(scan: Path, config: ProjectConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy gives a write that was cut short no error number."""

    def save(*_: Any) -> None:
        raise OSError("65536 requested and 8192 written")

    monkeypatch.setattr(np, "save", save)
    summary = run_project(replace(config, retry_waits_s=()))
    assert (summary.exit_code, summary.again) == (75, 1)
    assert summary.trouble == "the storage failed (65536 requested and 8192 written)"
