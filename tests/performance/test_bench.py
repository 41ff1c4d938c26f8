"""Benchmarks measure what they say, and complain where an aim is missed."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ukb_infer.performance.bench import BenchConfig, _rows, run_benchmarks, table
from ukb_infer.performance.measures import contrast_members, inflate, projecting
from ukb_infer.performance.timing import Sample, alternate, in_process
from ukb_infer.phantom import write_cohort


@pytest.fixture(scope="module")
def small_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zips")
    write_cohort(folder, 1, 5, size="small")
    return next(folder.glob("*.zip"))


def test_alternate_takes_turns_and_leaves_out_the_warm_up() -> None:
    calls: list[tuple[str, int]] = []
    samples = alternate([lambda k: calls.append(("a", k)), lambda k: calls.append(("b", k))], repeats=3, warm_up=1)
    assert calls == [(name, k) for k in range(4) for name in "ab"]
    assert [s.count for s in samples] == [3, 3]


def test_sample_summarizes() -> None:
    assert Sample.of([3.0, 1.0, 2.0]) == Sample(2.0, 1.5, 2.5, 3)


def test_the_floor_inflates_exactly_the_water_and_fat_members(small_zip: Path) -> None:
    members = contrast_members(small_zip)
    with zipfile.ZipFile(small_zip) as archive:
        everything = [n for n in archive.namelist() if n.endswith(".dcm")]
        expected = sum(len(archive.read(n)) for n in members)
    assert len(members) * 2 == len(everything)  # two of four contrasts
    assert inflate(small_zip, frozenset(members)) == expected


def test_a_measure_in_a_fresh_process_answers_and_reports_its_failure(small_zip: Path) -> None:
    found = in_process("ukb_infer.performance.measures", "projecting", zips=[str(small_zip)], repeats=2)
    assert found["ratio"] == pytest.approx(found["project"]["median_s"] / found["floor"]["median_s"])
    with pytest.raises(RuntimeError, match="projecting failed"):
        in_process("ukb_infer.performance.measures", projecting.__name__, zips=["missing.zip"], repeats=2)


def _results(**changes: Any) -> dict[str, Any]:
    sample = {"median_s": 0.1, "low_s": 0.09, "high_s": 0.11, "count": 12}
    return {
        "projecting": {"project": sample, "floor": sample, "ratio": 1.5},
        "measuring": {"project": sample, "measure": sample | {"median_s": 0.01}, "ratio": 0.1},
        "projecting_memory": {"peak_mb": 300.0},
        "worker_scaling": {"scaling": {"project": 1.9, "inflate": 1.95}, "ratio": 0.97},
        "cpu_inference": {"backend": "openvino", "largest_difference": 1e-5, "ratio": 2.0},
        "cuda_inference": {"measured": False, "why": "no CUDA device on this machine"},
        "cuda_end_to_end": {"measured": False, "why": "no CUDA device on this machine"},
        "end_to_end": {"scans": 10, "cores": 2, "wall_s": 1.05},
        "projecting_alone": {"cpu_s": 1.5, "scans": 10},
        "inference_alone": {"cpu_s": 0.5},
        "start_up": {"first_s": 5.0, "second_s": 4.0},
        "memory_scans": [50, 500],
        "memory_50": {"peak_mb": 500.0},
        "memory_500": {"peak_mb": 510.0},
    } | changes


def test_every_aim_is_judged_and_what_was_not_measured_is_said() -> None:
    rows = _rows(_results())
    assert [r.met for r in rows] == [True, True, True, True, True, None, None, True, True, True]
    text = "\n".join(table(rows))
    assert text.count("not measured") == 2
    assert "no CUDA device" in text


@pytest.mark.parametrize(
    ("name", "value", "row"),
    [
        ("projecting", {"project": {"median_s": 2, "count": 12}, "floor": {"median_s": 1}, "ratio": 2.0}, 0),
        ("measuring", {"project": {"median_s": 1}, "measure": {"median_s": 0.2, "count": 9}, "ratio": 0.2}, 1),
        ("projecting_memory", {"peak_mb": 351.0}, 2),
        ("worker_scaling", {"scaling": {"project": 1.7, "inflate": 1.95}, "ratio": 0.87}, 3),
        ("cpu_inference", {"backend": "openvino", "largest_difference": 2e-3, "ratio": 2.0}, 4),
        ("cpu_inference", {"backend": "torch", "largest_difference": 0.0, "ratio": 1.0}, 4),
        ("cuda_inference", {"measured": True, "device": "x", "member_evaluations_per_s": 4000.0,
                            "share_of_matrix_ceiling": 0.1}, 5),
        ("cuda_end_to_end", {"measured": True, "device": "x", "whole_s": 2.0, "project_s": 1.0, "infer_s": 0.5,
                             "ratio": 2.0}, 6),
        ("end_to_end", {"scans": 10, "cores": 2, "wall_s": 1.2}, 7),
        ("start_up", {"first_s": 9.0, "second_s": 6.5}, 8),
        ("memory_500", {"peak_mb": 530.0}, 9),
    ],
)  # fmt: skip
def test_a_missed_aim_is_marked(name: str, value: dict[str, Any], row: int) -> None:
    rows = _rows(_results(**{name: value}))
    assert rows[row].met is False
    assert sum(r.met is False for r in rows) == 1
    assert "**no**" in table(rows)[2 + row]


@pytest.mark.slow
def test_a_tiny_run_writes_every_file(tmp_path: Path) -> None:
    steps: list[str] = []
    config = BenchConfig.tiny(tmp_path / "bench")
    rows = run_benchmarks(config, steps.append)
    facts = json.loads((config.out / "bench.json").read_text())
    assert {"torch", "numpy", "cpu", "cores"} <= set(facts["machine"])
    assert len(rows) == 10
    assert all(math.isfinite(r.value) and r.value > 0 for r in rows if r.met is not None)
    assert facts["results"]["end_to_end"]["failed"] == 0
    for row in rows:
        assert row.name in (config.out / "bench.md").read_text()
    growth = (config.out / "scaling.csv").read_text().splitlines()
    assert growth[0] == "what,value,seconds,per_scan_s"
    assert {line.split(",")[0] for line in growth[1:]} == {"scans", "workers", "members", "batch size"}
    assert (config.out / "scaling.png").stat().st_size > 5000
