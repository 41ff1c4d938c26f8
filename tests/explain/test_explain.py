"""``explain`` as a run: files, resuming, wrong use."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.support.head_files import make_module
from tests.support.tiny_module import make_tiny_module
from ukb_infer.cli.app import app
from ukb_infer.errors import ModuleError, RunError, UsageError
from ukb_infer.explain.explain import ExplainConfig, run_explain
from ukb_infer.imaging.recipes import get_recipe
from ukb_infer.inference.retry import run_retry
from ukb_infer.phantom import render, sample_subject

pytest.importorskip("captum")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    recipe = get_recipe("mimir-1")
    for k in (1, 2, 3):
        image = recipe.project(render(sample_subject(77, k), "small").stations)
        np.save(folder / f"{k:07d}_20201_2_0.npy", image)
    return folder


@pytest.fixture
def config(scans: Path, tmp_path: Path) -> ExplainConfig:
    module = make_tiny_module(tmp_path / "tiny")
    return ExplainConfig(
        inputs=(str(scans),), out=tmp_path / "maps", modules=(str(module),), targets=("weight",), workers=0,
        baseline=scans / "0000003_20201_2_0.npy", device="cpu",
    )  # fmt: skip


def test_a_map_and_a_picture_for_every_scan(config: ExplainConfig) -> None:
    summary = run_explain(replace(config, inputs=(config.inputs[0] + "/0000001_20201_2_0.npy",)))
    found = np.load(config.out / "0000001_20201_2_0_weight.npy")
    assert (found.shape, found.dtype) == ((256, 256), np.float32)
    assert np.isfinite(found).all()
    assert 0.0 <= found.min() < found.max()
    with Image.open(config.out / "0000001_20201_2_0_weight.png") as picture:
        assert picture.size == (1024, 512)
    assert summary.exit_code == 0


def test_the_scan_that_is_the_baseline_fails_and_the_run_goes_on(config: ExplainConfig) -> None:
    summary = run_explain(config)
    assert (summary.exit_code, summary.reasons["empty_image"]) == (3, 1)
    assert (config.out / "0000002_20201_2_0_weight.npy").is_file()


def test_a_second_call_computes_nothing_and_makes_lost_maps_again(config: ExplainConfig) -> None:
    run_explain(config)
    path = config.out / "0000001_20201_2_0_weight.npy"
    before = path.read_bytes()
    assert run_explain(config).computed == 0
    path.unlink()
    assert run_explain(config).computed == 1
    assert path.read_bytes() == before


def test_other_settings_are_refused(config: ExplainConfig) -> None:
    run_explain(config)
    with pytest.raises(UsageError, match="method"):
        run_explain(replace(config, method="occlusion"))


def test_workers_give_the_same_maps(config: ExplainConfig, tmp_path: Path) -> None:
    run_explain(config)
    run_explain(replace(config, out=tmp_path / "again", workers=2))
    names = sorted(p.name for p in config.out.glob("*_weight.npy"))
    assert len(names) == 2
    assert all((config.out / n).read_bytes() == (tmp_path / "again" / n).read_bytes() for n in names)


def test_an_unknown_target_gets_the_nearest_names_or_a_few(config: ExplainConfig) -> None:
    with pytest.raises(UsageError, match=r"no module predicts 'wieght'; did you mean weight\?$"):
        run_explain(replace(config, targets=("wieght",)))
    with pytest.raises(UsageError, match=r"they have AtlasLiverFat, sex, type2Diabetes, weight$"):
        run_explain(replace(config, targets=("zzzz",)))


@pytest.mark.parametrize(
    "spelled", [["--targets", "weight,sex"], ["--target", "weight", "--target", "sex"], ["--target", "weight,sex"]]
)
@pytest.mark.parametrize("command", ["explain", "predict"])
def test_targets_are_named_alike_by_explain_and_predict(
    config: ExplainConfig, monkeypatch: pytest.MonkeyPatch, command: str, spelled: list[str]
) -> None:
    seen = []
    place = {"explain": "explain.explain.run_explain", "predict": "inference.predict.run_predict"}[command]

    def note(given: Any, *_: Any) -> None:
        seen.append(given.targets)
        raise RunError("enough")

    monkeypatch.setattr(f"ukb_infer.{place}", note)
    given = [command, config.inputs[0], "--out", str(config.out), "--modules", config.modules[0], *spelled]
    assert isinstance(CliRunner().invoke(app, given).exception, RunError)
    assert seen == [("weight", "sex")]


def test_a_module_for_volumes_cannot_be_explained(config: ExplainConfig, tmp_path: Path) -> None:
    heads = make_module(tmp_path / "heads", "segmentation", members=1)
    with pytest.raises(ModuleError, match="reads volumes of heads; only modules for projections can be explained"):
        run_explain(replace(config, modules=(str(heads),)))


def test_a_full_disk_is_said(config: ExplainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ukb_infer.explain.explain.save_array", full)
    with pytest.raises(OSError, match="No space left on device"):
        run_explain(config)
    assert not (config.out / "baseline.npy").exists()


def test_a_module_without_a_mean_picture_says_what_to_do(config: ExplainConfig) -> None:
    with pytest.raises(UsageError, match="fit-outliers"):
        run_explain(replace(config, baseline=None))


def test_a_missing_module_is_an_error(config: ExplainConfig) -> None:
    with pytest.raises(ModuleError):
        run_explain(replace(config, modules=("no-such-module",)))


@pytest.mark.parametrize("bad", [{"targets": ()}, {"of": "median"}, {"method": "magic"}, {"phenotypes": Path("x.csv")}])
def test_contradictions_are_refused(config: ExplainConfig, bad: dict) -> None:
    with pytest.raises(UsageError):
        replace(config, **bad)


def test_an_empty_folder_is_no_baseline(config: ExplainConfig, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="holds no projections"):
        run_explain(replace(config, baseline=tmp_path / "nothing"))


def test_retry_says_that_the_command_retries(config: ExplainConfig) -> None:
    run_explain(config)
    with pytest.raises(RunError, match="repeat that command"):
        run_retry(config.out)


def test_a_dry_run_writes_nothing(config: ExplainConfig) -> None:
    summary = run_explain(replace(config, dry_run=True))
    assert not config.out.exists()
    assert any("3 scans" in note or "3 of 3" in note for note in summary.notes)


def test_the_cohort_is_averaged_by_sex(config: ExplainConfig, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("eid,sex\n0000001,female\n0000002,1\n0000003,0\n")
    run_explain(replace(config, cohort=True, phenotypes=table))
    whole, women, men = (np.load(config.out / f"cohort_weight{end}.npy") for end in ("", "_women", "_men"))
    assert all(m.sum() == pytest.approx(1.0, rel=1e-4) for m in (whole, women, men))
    assert whole == pytest.approx((women + men) / 2, abs=1e-6)
    assert (config.out / "cohort_weight_women.png").is_file()


def test_phenotypes_without_sex_are_refused(config: ExplainConfig, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("eid,height\n0000001,160\n")
    fresh = replace(config, out=tmp_path / "maps", cohort=True, phenotypes=table)
    with pytest.raises(UsageError, match="no column for sex"):
        run_explain(fresh)
    assert not fresh.out.exists(), "refused before any scan is explained"
