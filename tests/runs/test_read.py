"""What a run writes is read back as it was, typed; folders of version 1 too."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ukb_infer.errors import RunError
from ukb_infer.execution import Journal, JournalInput, JournalRow
from ukb_infer.reasons import Reason
from ukb_infer.records import ScanKey, ScanResult
from ukb_infer.runs import RunScan, read_run, read_scans
from ukb_infer.runs.columns import OutputSpec, WrittenTarget
from ukb_infer.runs.tables import write_facts, write_tables

VERSION1 = Path(__file__).parents[1] / "data/version1"
FLAGGED = ScanResult(
    status="flagged", reasons=(Reason.SIZE_MISMATCH, Reason.STATION_EXTRA), message='look; at "it", please', stations=7,
    measures={"snr": 12.345678901234567, "motion": 0.1}, fingerprint="1:2:1", digest="ab",
)  # fmt: skip
FAILED = ScanResult.failure(Reason.SLICE_MISSING, "=1+1 slices")
RESULTS = {"0000001_20201_2_0": FLAGGED, "=odd": FAILED, "0000003_20201_3_1": ScanResult(status="ok", stations=6)}
HEIGHT = WrittenTarget(
    name="height", unit="cm", field="12144", kind="continuous", lower=0.0, upper=None, half_width=1.96
)
SEX = WrittenTarget(name="sex", unit="", field="31", kind="binary", lower=0.0, upper=1.0, half_width=None)
SPEC = OutputSpec(
    stored=("height", "sex"), targets=(HEIGHT, SEX), level=0.95, level_name="ci95", uncertainty="total", parquet=False
)
VALUES = np.array([170.0, 4.0, 5.0, 0.9, 0.01, 0.0])


def _write(folder: Path) -> None:
    keys = sorted((ScanKey.from_name(name) for name in (*RESULTS, "0000009_20201_2_0")), key=lambda k: k.sort_key)
    with Journal(folder) as journal:
        journal.put("output", SPEC.to_plain())
        journal.set_inputs(JournalInput(key=k, given=f"in/{k.scan}.zip", excluded=k.scan not in RESULTS) for k in keys)
        journal.record(
            JournalRow(scan=name, result=result, payload=b"" if result is FAILED else VALUES.tobytes())
            for name, result in RESULTS.items()
        )
        write_tables(folder, journal)
    targets = [{"name": t.name, "unit": t.unit, "field": t.field, "kind": t.kind} for t in SPEC.targets]
    write_facts(folder, {"level": 0.95, "level_name": "ci95", "targets": targets, "modules": [{"warning": "w"}]})


def test_scans_come_back_typed(tmp_path: Path) -> None:
    _write(tmp_path)
    scans = {scan.key.scan: scan for scan in read_run(tmp_path).scans}
    read = {name: scan.result for name, scan in scans.items()}
    excluded = read.pop("0000009_20201_2_0")
    assert (excluded.status, excluded.reasons) == ("excluded", (Reason.EXCLUDED,))
    for name, result in RESULTS.items():  # fingerprints stay in the journal
        assert read[name] == ScanResult(
            status=result.status, reasons=result.reasons, message=result.message, stations=result.stations,
            measures=result.measures,
        )  # fmt: skip
    assert scans["=odd"].key == ScanKey("", None, None, "=odd")
    assert scans["0000003_20201_3_1"] == RunScan(
        key=ScanKey("0000003", 3, 1, "0000003_20201_3_1"), given="in/0000003_20201_3_1.zip",
        result=ScanResult(status="ok", stations=6),
    )  # fmt: skip


def test_estimates_come_back_by_target(tmp_path: Path) -> None:
    _write(tmp_path)
    run = read_run(tmp_path)
    assert [key.scan for key in run.keys] == ["0000001_20201_2_0", "0000003_20201_3_1"]
    height, sex = run.estimates("height"), run.estimates("sex")
    assert height.mean.tolist() == [170.0, 170.0]
    assert height.sd.tolist() == [3.0, 3.0]
    assert height.upper[0] == pytest.approx(170 + 1.96 * 3, rel=1e-6)
    assert np.isnan(height.probability).all()
    assert sex.probability[0] == pytest.approx(0.9, rel=1e-6)
    assert np.isnan(sex.sd).all()
    assert run.facts is not None
    assert run.facts.warning == "w"
    units = {column.name: column.unit for column in run.dictionary}
    assert units["height_mean"] == "cm"
    with pytest.raises(RunError, match="no estimates of 'weight', only of height, sex"):
        run.estimates("weight")


def test_tables_without_measures_have_the_columns_of_version_1(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.set_inputs([JournalInput(key=ScanKey.from_name("a"), given="a.zip")])
        journal.record([JournalRow(scan="a", result=ScanResult(status="ok"))])
        (path,) = write_tables(tmp_path, journal)
    assert path.read_text().splitlines()[0] == "scan,eid,instance,array,status,reasons,message,stations,path"


@pytest.mark.parametrize("name", ["predicted", "projected"])
def test_runs_of_version_1_are_read(name: str) -> None:
    run = read_run(VERSION1 / name)
    assert run.scans[-1].key == ScanKey("0000014", 2, 0, "0000014_20201_2_0")
    flagged = next(s.result for s in run.scans if s.result.status == "flagged")
    assert flagged.reasons == (Reason.SLICE_INTERPOLATED,)
    assert flagged.stations == 6
    if name == "predicted":
        assert len(run.keys) == len(run.estimates("height").mean) == len(run.scans)
    else:
        with pytest.raises(RunError, match="no estimates"):
            _ = run.keys


def test_a_journal_of_version_1_is_read_as_it_is_and_goes_on(tmp_path: Path) -> None:
    folder = shutil.copytree(VERSION1 / "predicted", tmp_path / "run")
    before = (folder / "journal.sqlite").read_bytes()
    with Journal(folder, read_only=True) as journal:
        old = journal.finished()
        assert journal.measure_names() == []
    assert (folder / "journal.sqlite").read_bytes() == before
    with Journal(folder) as journal:
        assert journal.finished() == old
        journal.record([JournalRow(scan="0000003_20201_2_0", result=FLAGGED)])
    with Journal(folder, read_only=True) as journal:
        assert journal.finished() == old | {"0000003_20201_2_0": replace(FLAGGED, measures={})}
        assert journal.measure_names() == ["motion", "snr"]


def test_a_record_of_a_later_version_is_named(tmp_path: Path) -> None:
    import sqlite3

    with Journal(tmp_path) as journal:
        journal.record([JournalRow(scan="a", result=ScanResult(status="ok"))])
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute("UPDATE scans SET reasons = 'not_thought_of_yet'")
    with Journal(tmp_path, read_only=True) as journal, pytest.raises(RunError, match=r"not_thought_of_yet.*update"):
        journal.finished()


def test_damaged_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no tables"):
        read_run(tmp_path)
    with pytest.raises(RunError, match="is not a folder"):
        read_run(tmp_path / "nothere")
    _write(tmp_path)
    facts = json.loads((tmp_path / "run.json").read_text())
    for change, words in (
        ({"level": "high"}, "level"), ({"targets": [{"unit": "cm"}]}, r"targets\.0\.name"),
        ({"schema_version": 9}, "version 9, expected 1"),
    ):  # fmt: skip
        (tmp_path / "run.json").write_text(json.dumps(facts | change))
        with pytest.raises(RunError, match=rf"run\.json.*{words}"):
            read_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(facts))
    table = (tmp_path / "estimates.csv").read_text()
    (tmp_path / "estimates.csv").write_text(table.replace("height_sd", "height_s"))
    with pytest.raises(RunError, match=r"estimates\.csv.*height_sd"):
        read_run(tmp_path).estimates("height")
    (tmp_path / "scans.csv").write_text("scan,status\na,great\n")
    with pytest.raises(RunError, match=r"scans\.csv.*great"):
        read_scans(tmp_path)
