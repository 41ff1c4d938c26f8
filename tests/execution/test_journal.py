"""The journal and the lock of a run folder."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ukb_infer.errors import RunError
from ukb_infer.execution import Journal, JournalInput, JournalRow, RunLock
from ukb_infer.reasons import Reason
from ukb_infer.records import ScanKey, ScanResult

RESULT = ScanResult(
    status="flagged", reasons=(Reason.SIZE_MISMATCH, Reason.STATION_EXTRA), message="text", stations=6,
    measures={"snr": 12.5, "motion": 0.1}, fingerprint="10:20",
)  # fmt: skip
ROW = JournalRow(scan="0000001_20201_2_0", result=RESULT, payload=b"\x00\x01")


def test_what_is_recorded_is_there_again(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.put("identity", {"a": 1})
        journal.record([ROW])
    with Journal(tmp_path) as journal:
        assert journal.get("identity") == {"a": 1}
        assert journal.get("other") is None
        found = journal.row(ROW.scan)
        assert found is not None
        assert replace(found, finished=0.0) == ROW
        assert found.finished > 0
        assert journal.row("x") is None
        assert journal.finished() == {ROW.scan: replace(RESULT, measures={})}


def test_only_scans_of_the_tables_name_measures(tmp_path: Path) -> None:
    key = ScanKey.from_name(ROW.scan)
    with Journal(tmp_path) as journal:
        journal.record([ROW])
        for excluded, names in ((False, ["motion", "snr"]), (True, [])):
            journal.set_inputs([JournalInput(key=key, given="a.zip", excluded=excluded)])
            assert journal.measure_names() == names


def test_a_scan_recorded_again_replaces_its_row(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.record([ROW, replace(ROW, result=replace(RESULT, status="ok"))])
        found = journal.row(ROW.scan)
        assert found is not None
        assert found.result.status == "ok"


def test_a_kill_between_transactions_loses_only_what_was_not_committed(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom ukb_infer.execution import Journal, JournalRow\n"
        "from ukb_infer.records import ScanResult\n"
        "j = Journal(Path(sys.argv[1]))\n"
        "j.record([JournalRow(scan='a', result=ScanResult(status='ok'))])\n"
        "j._db.execute('BEGIN IMMEDIATE')\n"
        "j._db.execute(\"INSERT INTO scans VALUES ('b','','ok','','',6,'','',0,'{}')\")\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    with Journal(tmp_path) as journal:
        assert set(journal.finished()) == {"a"}


def test_a_file_that_is_no_journal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"this is not a database at all" * 100)
    with pytest.raises(RunError, match="cannot be used"):
        Journal(tmp_path)


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, os\nfrom pathlib import Path\nfrom ukb_infer.execution import RunLock\n"
        "lock = RunLock(Path(sys.argv[1])).__enter__()\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=f"in use by process {holder.pid} on"), RunLock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_a_commit_waits_for_a_slow_reader_instead_of_failing(tmp_path: Path) -> None:
    import threading
    import time

    with Journal(tmp_path) as journal:
        journal.set_inputs([JournalInput(key=ScanKey.from_name(f"{k}"), given=f"{k}") for k in range(2000)])
        reading, finished = threading.Event(), []

        def read_slowly() -> None:
            with Journal(tmp_path, read_only=True) as reader:
                rows = reader.results()
                next(rows)
                reading.set()
                time.sleep(0.5)
                list(rows)
                finished.append(time.monotonic())

        thread = threading.Thread(target=read_slowly)
        thread.start()
        assert reading.wait(10)
        journal.record([ROW])
        committed = time.monotonic()
        thread.join()
    assert finished
    assert committed >= finished[0] - 0.05
