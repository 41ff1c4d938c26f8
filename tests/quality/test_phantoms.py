"""From files with anomalies to flags in the tables of a run, through ``project`` and ``predict``."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import ukb_infer
from tests.support.quality_anomalies import FINDABLE, PHYSICAL
from ukb_infer.inference import PredictConfig, ProjectConfig, run_predict, run_project
from ukb_infer.phantom import write_cohort
from ukb_infer.reasons import Kind, Reason
from ukb_infer.runs import read_run

TABLES = ("scans.csv", "quality.csv", "dictionary.csv")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small zips: one with each anomaly that a limit finds, then two flawless ones."""
    folder = tmp_path_factory.mktemp("scans")
    write_cohort(folder, len(FINDABLE) + 2, 77, size="small", anomalies=FINDABLE)
    return folder


@pytest.fixture(scope="module")
def limits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Physical limits in place of the relative ones, which so few scans have not."""
    path = tmp_path_factory.mktemp("limits") / "limits.toml"
    path.write_text(PHYSICAL)
    return path


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory, scans: Path, limits: Path) -> Path:
    folder = tmp_path_factory.mktemp("projected")
    summary = run_project(ProjectConfig((str(scans),), folder, workers=0, quality=limits))
    assert summary.counts["failed"] == 0
    assert sum(summary.levels.values()) >= len(FINDABLE)
    return folder


def test_every_anomaly_raises_its_flag(projected: Path) -> None:
    found = {scan.key.scan: scan for scan in read_run(projected).scans}
    for k, reason in enumerate(FINDABLE, start=1):
        assert reason in found[f"{k:07d}_20201_2_0"].result.reasons, reason
    for k in (1, 2):
        flawless = found[f"{len(FINDABLE) + k:07d}_20201_2_0"]
        assert flawless.result.status == "ok", flawless.result.message


def test_the_python_api_measures_too(scans: Path, projected: Path) -> None:
    path = sorted(scans.glob("*.zip"))[-1]
    of_the_run = next(s.result.measures for s in read_run(projected).scans if s.key.scan == path.stem)
    assert ukb_infer.project(path).measures == of_the_run


def test_every_reason_of_quality_that_phantoms_can_show_is_tested() -> None:
    assert set(FINDABLE) == {r for r in Reason if r.kind is Kind.QUALITY} - {
        Reason.SURFACE_NOT_FAT,
        Reason.ASYMMETRIC,  # what they find are swaps
    }


def test_projections_carry_their_measures_and_are_judged_anew(
    projected: Path, limits: Path, tiny_module: Path, tmp_path: Path
) -> None:
    config = PredictConfig((str(projected),), tmp_path / "a", modules=(str(tiny_module),), workers=0, device="cpu")
    run_predict(config)
    measures = [scan.result.measures for scan in read_run(projected).scans]
    assert [scan.result.measures for scan in read_run(tmp_path / "a").scans] == measures
    again = PredictConfig(**{**config.__dict__, "out": tmp_path / "b", "quality": limits})
    run_predict(again)
    one, other = (_rows(folder / "scans.csv") for folder in (tmp_path / "b", projected))
    assert [(r["status"], r["reasons"], r["message"]) for r in one] == [
        (r["status"], r["reasons"], r["message"]) for r in other
    ]
    assert (tmp_path / "a/scans.csv").read_bytes() != (tmp_path / "b/scans.csv").read_bytes()


def test_limits_can_change_between_calls_and_nothing_is_computed_anew(
    scans: Path, limits: Path, tmp_path: Path
) -> None:
    inputs = tuple(str(p) for p in sorted(scans.glob("*.zip"))[:3])
    run_project(ProjectConfig(inputs, tmp_path / "run", workers=0, quality=limits))
    before = [(tmp_path / "run" / name).read_bytes() for name in TABLES]
    required = tmp_path / "required.toml"
    required.write_text('levels = ["unusable", "targets", "note"]\n')
    config = ProjectConfig(inputs, tmp_path / "run", workers=0, quality=limits, require_quality=required)
    strict = run_project(config)
    assert (strict.computed, strict.exit_code) == (0, 3)
    assert strict.counts["failed"] == 3
    assert run_project(ProjectConfig(inputs, tmp_path / "run", workers=0, quality=limits)).computed == 0
    assert [(tmp_path / "run" / name).read_bytes() for name in TABLES] == before


def test_workers_and_interruptions_change_no_byte(scans: Path, limits: Path, tmp_path: Path) -> None:
    inputs = tuple(str(p) for p in sorted(scans.glob("*.zip"))[:4])
    run_project(ProjectConfig(inputs, tmp_path / "one", workers=0, quality=limits))
    run_project(ProjectConfig(inputs[:2], tmp_path / "two", workers=2, quality=limits))
    run_project(ProjectConfig(inputs, tmp_path / "two", workers=2, quality=limits))
    for name in TABLES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))
