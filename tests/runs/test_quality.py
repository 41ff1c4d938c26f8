"""``quality.csv``: written from the journal, judged over the whole run, read back, the same whoever did the work."""

from __future__ import annotations

import csv
import pickle
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution import Journal, JournalInput, JournalRow
from ukb_infer.quality.limits import read_spec
from ukb_infer.reasons import Reason
from ukb_infer.records import Measures, ScanKey, ScanResult
from ukb_infer.runs import read_run
from ukb_infer.runs.columns import OutputSpec, WrittenTarget
from ukb_infer.runs.export import run_export
from ukb_infer.runs.merge import run_merge
from ukb_infer.runs.quality import SPEC_KEY, JudgedScan
from ukb_infer.runs.read import PackedMeasures, read_estimates, read_scans
from ukb_infer.runs.status import run_status
from ukb_infer.runs.tables import write_facts, write_tables

TABLES = ("scans.csv", "quality.csv", "estimates.csv", "dictionary.csv")
COUNT = 40
NAMES = [f"{k:07d}_20201_2_0" for k in range(1, COUNT + 1)]
MISSING_KNEE, EMPTY, LOUD = NAMES[3], NAMES[7], NAMES[11]


def _target(name: str) -> WrittenTarget:
    return WrittenTarget(name=name, unit="kg", field="", kind="continuous", lower=None, upper=None, half_width=1.96)


TARGET_NAMES = ("weight", "DxaLegsTotalMass")
OUTPUT = OutputSpec(
    stored=TARGET_NAMES, targets=tuple(_target(n) for n in TARGET_NAMES), level=0.95, level_name="ci95",
    uncertainty="total", parquet=True,
)  # fmt: skip
FACTS = {
    "level": 0.95, "level_name": "ci95", "targets": [{"name": n, "unit": "kg"} for n in TARGET_NAMES], "modules": [],
}  # fmt: skip


def _measures(name: str) -> dict[str, float | str]:
    rng = np.random.default_rng(int(name[:7]))
    return {
        "body_volume": 60.0 + float(rng.random()), "coverage_knee": 0.0 if name == MISSING_KNEE else 90.0,
        "snr_1": 12.0 if name == LOUD else 40.0 + float(rng.random()), "snr": 1.0,
        "empty_1": 0.0, "empty_2": 0.1 if name == EMPTY else 0.0, "scanner": "=odd, 1", "software": "1.10",
        "swap_1": "left", "swap_1_confidence": 0.5,
    }  # fmt: skip


def write_run(
    folder: Path, names: Sequence[str] = NAMES, *, mine: Sequence[str] = NAMES, shard: str | None = None,
    required: Path | None = None, output: bool = True, strict: bool = False,
) -> Path:  # fmt: skip
    """A run whose scans were finished in the order of ``names``."""
    folder.mkdir()
    with Journal(folder) as journal:
        journal.put("identity", {"shard": shard})
        journal.put(SPEC_KEY, read_spec(None, required, strict=strict).to_plain())
        if output:
            journal.put("output", OUTPUT.to_plain())
            journal.put("facts", FACTS)
        keys = (ScanKey.from_name(name) for name in NAMES)
        journal.set_inputs(JournalInput(key=k, given=k.scan, mine=k.scan in mine) for k in keys)
        values = np.array([80.0, 1.0, 1.0, 20.0, 1.0, 1.0]).tobytes()
        for name in names:
            result = ScanResult(status="ok", stations=6, measures=_measures(name))
            journal.record([JournalRow(scan=name, result=result, payload=values)])
        write_tables(folder, journal)
    if output:
        write_facts(folder, FACTS)
    return folder


def rows(folder: Path, table: str) -> dict[str, dict[str, str]]:
    with (folder / table).open(newline="") as handle:
        return {row["scan"]: row for row in csv.DictReader(handle)}


@pytest.mark.parametrize(("action", "level"), [("none", ""), ("corrected", ""), ("flagged", "unusable")])
def test_a_swap_that_was_left_makes_a_scan_unusable(action: str, level: str) -> None:
    measures = {"swap_3": "whole", "swap_3_confidence": 0.999, "swap_3_action": action}
    result = ScanResult(status="ok", stations=6, measures=measures)
    item = JournalInput(key=ScanKey.from_name(LOUD), given=LOUD, mine=True)
    assert JudgedScan(item=item, result=result).level == level


def test_flags_stand_in_scans_and_quality(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    scans, quality = rows(folder, "scans.csv"), rows(folder, "quality.csv")
    assert list(next(iter(scans.values()))) == [
        "scan", "eid", "instance", "array", "status", "reasons", "message", "stations", "path",
    ]  # fmt: skip
    assert [n for n, row in scans.items() if row["status"] == "flagged"] == [MISSING_KNEE, EMPTY, LOUD]
    assert scans[MISSING_KNEE]["message"] == "coverage_knee is 0 mm, expected at least 10"
    assert "snr_1 is 12, expected at least 3" in scans[LOUD]["message"]
    assert "is usual in 40 scans at this body size" in scans[LOUD]["message"]
    found = {n: (row["level"], row["flags"], row["affected"]) for n, row in quality.items() if row["level"]}
    assert found == {
        MISSING_KNEE: ("targets", "knee_missing", "DxaLegsTotalMass"), EMPTY: ("unusable", "empty_slices", ""),
        LOUD: ("note", "low_signal_to_noise", ""),
    }  # fmt: skip
    header = list(quality[EMPTY])
    assert header[:8] == ["eid", "instance", "array", "scan", "level", "flags", "affected", "snr"]
    assert header[8] == "snr_1"
    assert header[-2:] == ["swap_1", "swap_1_confidence"]  # what the registry does not know comes last
    assert quality[EMPTY]["scanner"] == "'=odd, 1"


def test_a_run_is_read_back_with_its_measures(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    scans = {scan.key.scan: scan for scan in run.scans}
    assert scans[EMPTY].result.measures == _measures(EMPTY)
    assert pickle.loads(pickle.dumps(scans[EMPTY])) == scans[EMPTY]  # noqa: S301 - it travels to workers
    assert (scans[EMPTY].level, scans[MISSING_KNEE].affected) == ("unusable", ("DxaLegsTotalMass",))
    assert scans[LOUD].result.reasons == (Reason.LOW_SIGNAL_TO_NOISE,)
    meanings = {column.name: column for column in run.dictionary}
    assert meanings["coverage_knee"].unit == "mm"
    assert meanings["snr_1"].meaning == "signal-to-noise ratio of station 1"
    assert "smallest of its stations" in meanings["snr"].meaning


def test_the_measures_of_a_biobank_fit_into_memory(tmp_path: Path) -> None:
    names = [f"snr_{k}" for k in range(1, 151)]
    scans = [f"{k:07d}_20201_2_0" for k in range(400)]
    (tmp_path / "scans.csv").write_text("scan,status\n" + "".join(f"{scan},ok\n" for scan in scans))
    cells = ",".join(str(10.5 + k) for k in range(150))
    lines = [f"{scan},{cells}\n" for scan in scans]
    (tmp_path / "quality.csv").write_text(f"scan,{','.join(names)}\n" + "".join(lines))
    tracemalloc.start()
    read = read_scans(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read[-1].result.measures["snr_150"] == 159.5
    assert "snr_151" not in read[-1].result.measures
    assert peak / len(scans) < 5000  # bytes; as dicts of numbers and of text it were 20,000


def test_packed_measures_are_those_of_their_scan() -> None:
    places: dict[str, int] = {}
    given: list[Measures] = [{"snr": 1.0}, {"scanner": "A", "void": 0.0}, {}, {"snr": 2.0, "scanner": "B"}]
    packed = [PackedMeasures(measures, places) for measures in given]
    assert packed == given
    assert [len(p) for p in packed] == [1, 2, 0, 2]
    assert packed[0].get("scanner") is packed[0].get("void") is packed[3].get("new") is None


def test_estimates_for_use_leave_out_what_flags_rule_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    whole, use = read_estimates(folder), read_estimates(folder, quality="use")
    assert len(whole) == COUNT
    assert whole.notna().all(axis=None)
    assert len(use) == COUNT - 1
    assert (EMPTY[:7], 2) not in use.index
    knee = use.loc[(MISSING_KNEE[:7], 2)]
    assert knee.isna().sum() == 4
    assert knee.filter(like="weight").notna().all()
    assert use.drop(index=(MISSING_KNEE[:7], 2)).notna().all(axis=None)
    long = read_estimates(folder, quality="use", long=True)
    assert long.loc[(long["scan"] == MISSING_KNEE) & (long["target"] == "DxaLegsTotalMass"), "mean"].isna().all()
    with pytest.raises(UsageError, match='expected "all" or "use"'):
        read_estimates(folder, quality="good")  # type: ignore[arg-type]


def test_estimates_for_use_need_measures(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "quality.csv").unlink()
    assert len(read_estimates(folder)) == COUNT
    with pytest.raises(RunError, match=r"no quality\.csv.*predict the scans again"):
        read_estimates(folder, quality="use")


def test_required_flags_are_failures_and_cost_the_estimates(tmp_path: Path) -> None:
    required = tmp_path / "required.toml"
    required.write_text('reasons = ["knee_missing"]\nlevels = ["unusable"]\n')
    folder = write_run(tmp_path / "run", required=required)
    scans = rows(folder, "scans.csv")
    assert {n: r["status"] for n, r in scans.items() if r["status"] != "ok"} == {
        MISSING_KNEE: "failed", EMPTY: "failed", LOUD: "flagged",
    }  # fmt: skip
    assert scans[EMPTY]["message"].endswith("(a failure because of --require-quality)")
    assert set(rows(folder, "estimates.csv")) == set(NAMES) - {MISSING_KNEE, EMPTY}
    status = run_status(folder)
    assert status.counts["failed"] == 2
    assert status.levels == {"unusable": 1, "targets": 1, "note": 1}
    assert (status.reasons["knee_missing"], status.unfinished) == (1, 0)


def test_strict_makes_failures_of_all_flags(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", strict=True)
    failed = {n: r["message"] for n, r in rows(folder, "scans.csv").items() if r["status"] == "failed"}
    assert set(failed) == {MISSING_KNEE, EMPTY, LOUD}
    assert all(message.endswith("(a failure because of --strict)") for message in failed.values())
    assert len(rows(folder, "estimates.csv")) == COUNT - 3


def test_tables_do_not_depend_on_who_finished_when(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one")
    other = write_run(tmp_path / "other", NAMES[::-1])
    halves = [write_run(tmp_path / f"shard{k}", NAMES[k::2], mine=NAMES[k::2], shard=f"{k + 1}/2") for k in range(2)]
    assert rows(halves[1], "scans.csv")[LOUD]["message"].count("20 scans") == 1  # of its own half
    merged = tmp_path / "merged"
    result = run_merge(halves, merged)
    assert result.levels == {"unusable": 1, "targets": 1, "note": 1}
    exported = tmp_path / "exported"
    run_export(one, exported)
    for name in TABLES:
        expected = (one / name).read_bytes()
        assert (other / name).read_bytes() == expected, name
        assert (merged / name).read_bytes() == expected, name
        assert (exported / name).read_bytes() == expected, name


def test_shards_with_other_limits_do_not_merge(tmp_path: Path) -> None:
    required = tmp_path / "required.toml"
    required.write_text('levels = ["unusable"]\n')
    shards = [
        write_run(tmp_path / "a", NAMES[::2], mine=NAMES[::2], shard="1/2"),
        write_run(tmp_path / "b", NAMES[1::2], mine=NAMES[1::2], shard="2/2", required=required),
    ]
    with pytest.raises(UsageError, match="judge quality by different limits"):
        run_merge(shards, tmp_path / "merged")


def test_parquet_keeps_numbers_and_words(tmp_path: Path) -> None:
    frame = pd.read_parquet(write_run(tmp_path / "run") / "quality.parquet").set_index("scan")
    assert frame["snr_1"].dtype == np.float32
    assert frame["coverage_knee"].loc[MISSING_KNEE] == 0
    words: dict[str, Any] = {"scanner": "'=odd, 1", "software": "1.10", "swap_1": "left", "level": "unusable"}
    assert {name: frame[name].loc[EMPTY] for name in words} == words


def test_parquet_keeps_sets_of_classes_as_text(tmp_path: Path) -> None:
    sex = WrittenTarget(
        name="sex", unit="", field="31", kind="binary", lower=0.0, upper=1.0, half_width=None, sets=(0.3, 0.3)
    )
    output = replace(OUTPUT, stored=("sex",), targets=(sex,))
    with Journal(tmp_path) as journal:
        journal.put("output", output.to_plain())
        journal.set_inputs(JournalInput(key=ScanKey.from_name(name), given=name) for name in NAMES[:2])
        for name, mean in zip(NAMES, (0.5, 1.0), strict=False):
            values = np.array([mean, 0.1, 0.1]).tobytes()
            journal.record([JournalRow(scan=name, result=ScanResult(status="ok"), payload=values)])
        write_tables(tmp_path, journal)
    table = pd.read_csv(tmp_path / "estimates.csv", dtype=str)
    assert list(pd.read_parquet(tmp_path / "estimates.parquet")["sex_set"]) == list(table["sex_set"])
    assert ";" in table["sex_set"][0]


def test_no_outdated_table_is_left(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with Journal(folder) as journal:
        journal.put("output", replace(OUTPUT, parquet=False).to_plain())
        write_tables(folder, journal)
        assert not list(folder.glob("*.parquet"))
        journal.set_inputs([replace(item, excluded=True) for item in journal.inputs()])
        write_tables(folder, journal)
    assert not (folder / "quality.csv").exists()


def test_a_run_of_projections_names_all_targets_that_are_affected(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", output=False)
    assert sorted(p.name for p in folder.glob("*.csv")) == ["dictionary.csv", "quality.csv", "scans.csv"]
    affected = rows(folder, "quality.csv")[MISSING_KNEE]["affected"].split(";")
    assert "AtlasTotalThighMuscleVolume" in affected
    assert "liverFat" not in affected


def test_status_and_merge_say_how_grave_the_flags_are(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ukb_infer.cli.app import app

    folder = write_run(tmp_path / "run", shard="1/1")
    for arguments in (["status", str(folder)], ["merge", str(folder), "--out", str(tmp_path / "merged")]):
        said = CliRunner().invoke(app, arguments).output
        assert "quality: 1 unusable, 1 with affected targets, 1 with notes" in said
        assert "knee_missing" in said


def test_a_file_of_limits_that_makes_no_sense_is_named_by_its_flag(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ukb_infer.cli.app import app

    (tmp_path / "limits.toml").write_text("[nee_missing]\nbelow = 1.0\n")
    (tmp_path / "scans").mkdir()
    command = ["project", str(tmp_path / "scans"), "--out", str(tmp_path / "out"), "--quality"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "limits.toml")])
    assert str(result.exception).startswith("--quality: ")
    assert "no limit raises 'nee_missing'" in str(result.exception)
    assert not (tmp_path / "out").exists()
