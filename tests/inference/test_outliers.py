"""Outliers from projections to tables: fit-outliers, the column, the flag, and modules that cannot tell."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ukb_infer.cli.app import app
from ukb_infer.errors import ModuleError, UsageError
from ukb_infer.inference import PredictConfig, run_predict
from ukb_infer.inference.engine import resolve_modules
from ukb_infer.modules import load_module, read_manifest
from ukb_infer.modules.module import add_outliers
from ukb_infer.modules.outliers import fit_outliers
from ukb_infer.records import ReadingOptions
from ukb_infer.runs.read import read_run
from ukb_infer.training.fit_outliers import run_fit_outliers


def _blobs(folder: Path, first: int, count: int, seed: int, *, odd: bool = False) -> Path:
    """Projections of bodies that differ in width: bright columns on a dark ground, and noise; odd ones the reverse."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    x = np.abs(np.arange(256) - 128.0)
    for number in range(first, first + count):
        column = 200.0 / (1.0 + np.exp((x - rng.uniform(40, 90)) / 8.0))
        image = np.broadcast_to(column, (3, 256, 256)) * rng.uniform(0.8, 1.2, (3, 1, 1))
        image = image + rng.normal(scale=4.0, size=image.shape)
        image = 220.0 - image if odd else image
        np.save(folder / f"{number:07d}_20201_2_0.npy", np.clip(image, 0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _blobs(tmp_path_factory.mktemp("ordinary"), 1, 80, 1)


@pytest.fixture(scope="module")
def knowing(tiny_module: Path, ordinary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny module with a reference of ordinary scans, made by the command."""
    folder = tmp_path_factory.mktemp("knowing") / "tiny"
    shutil.copytree(tiny_module, folder)
    done = CliRunner().invoke(app, ["modules", "fit-outliers", str(folder), "--projections", str(ordinary)])
    assert done.exit_code == 0, done.output
    assert "knows ordinary scans by 80 projections" in done.output
    assert "80 scans given to fit-outliers" in CliRunner().invoke(app, ["modules", "show", str(folder)]).output
    return folder


def _config(inputs: Path, out: Path, *modules: Path) -> PredictConfig:
    return PredictConfig(
        (str(inputs),), out, modules=tuple(map(str, modules)), workers=0, batch_size=8, device="cpu",
        reading=ReadingOptions(0),
    )  # fmt: skip


def test_odd_scans_are_flagged_and_ordinary_ones_are_not(knowing: Path, tmp_path: Path) -> None:
    inputs = _blobs(tmp_path / "in", 101, 20, 2)
    _blobs(inputs, 201, 5, 3, odd=True)
    run_predict(_config(inputs, tmp_path / "run", knowing))
    table = pd.read_csv(tmp_path / "run" / "estimates.csv", dtype={"eid": str})
    assert list(table.columns[:5]) == ["eid", "instance", "array", "scan", "ood_percentile"]
    assert table["ood_percentile"].between(0, 100).all()
    scans = pd.read_csv(tmp_path / "run" / "scans.csv", dtype=str, keep_default_na=False)
    flagged = scans["reasons"].str.contains("out_of_distribution")
    assert flagged[20:].all()
    assert flagged[:20].sum() <= 1
    assert "% of ordinary scans (limit 99.8 %)" in scans["message"].iloc[-1]
    run = read_run(tmp_path / "run")
    assert np.array_equal(run.ood_percentile, table["ood_percentile"])
    words = next(column for column in run.dictionary if column.name == "ood_percentile")
    assert "80 scans given to fit-outliers" in words.meaning


def test_the_threshold_decides_the_flag_and_is_part_of_the_run(knowing: Path, tmp_path: Path) -> None:
    inputs = _blobs(tmp_path / "in", 201, 2, 3, odd=True)
    none = replace(_config(inputs, tmp_path / "run", knowing), ood_threshold=100.0)
    assert "out_of_distribution" not in run_predict(none).reasons
    with pytest.raises(UsageError, match="ood_threshold"):
        run_predict(_config(inputs, tmp_path / "run", knowing))
    with pytest.raises(UsageError, match="expected a percentile from 50 to 100"):
        replace(none, ood_threshold=0.5)


def test_a_reference_changes_no_estimate(knowing: Path, tiny_module: Path, tmp_path: Path) -> None:
    inputs = _blobs(tmp_path / "in", 101, 5, 2)
    tables = []
    for name, module in (("with", knowing), ("without", tiny_module)):
        run_predict(_config(inputs, tmp_path / name, module))
        tables.append(pd.read_csv(tmp_path / name / "estimates.csv", dtype=str, keep_default_na=False))
    assert tables[0].drop(columns="ood_percentile").equals(tables[1].drop(columns="ood_percentile"))
    assert (tables[1]["ood_percentile"] == "").all()
    dictionary = pd.read_csv(tmp_path / "without" / "dictionary.csv", index_col="column", keep_default_na=False)
    assert "not available" in dictionary.loc["ood_percentile", "meaning"]
    assert np.isnan(read_run(tmp_path / "without").ood_percentile).all()


def test_of_one_module_with_and_without_a_reference_the_one_with_it_is_taken(knowing: Path, tiny_module: Path) -> None:
    assert resolve_modules([str(tiny_module), str(knowing)]) == [knowing.resolve()]
    assert resolve_modules([str(knowing), str(tiny_module)]) == [knowing.resolve()]
    assert read_manifest(knowing).hash == read_manifest(tiny_module).hash


def test_a_broken_projection_is_left_out_many_are_drawn_from_and_too_few_refused(
    tiny_module: Path, ordinary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Path(shutil.copytree(tiny_module, tmp_path / "tiny"))
    given = Path(shutil.copytree(ordinary, tmp_path / "given"))
    (given / "0000003_20201_2_0.npy").write_bytes(b"not an array")
    lines = run_fit_outliers(str(module), given, "cpu")
    assert "0000003_20201_2_0.npy" in lines[0]
    assert lines[0].endswith("left out")
    assert "by 79 projections" in lines[1]
    assert load_module(module).outliers is not None
    monkeypatch.setattr("ukb_infer.modules.outliers.MAX_SCANS", 50)
    assert "by 50 projections" in run_fit_outliers(str(module), ordinary, "cpu")[-1]
    few = _blobs(tmp_path / "few", 1, 5, 1)
    with pytest.raises(UsageError, match="5 projections, expected at least 40"):
        run_fit_outliers(str(module), few, "cpu")
    with pytest.raises(UsageError, match="is not a folder"):
        run_fit_outliers(str(module), tmp_path / "nowhere", "cpu")


def test_a_reference_of_other_features_can_be_made_again(tiny_module: Path, ordinary: Path, tmp_path: Path) -> None:
    module = Path(shutil.copytree(tiny_module, tmp_path / "tiny"))
    add_outliers(module, fit_outliers(np.random.default_rng(0).normal(size=(1, 40, 8))), "test")
    with pytest.raises(ModuleError, match="make it again with `ukb-infer modules fit-outliers`"):
        load_module(module)
    run_fit_outliers(str(module), ordinary, "cpu")
    assert load_module(module).outliers is not None


def test_flagged_projections_are_not_predicted_again(knowing: Path, tmp_path: Path) -> None:
    inputs = _blobs(tmp_path / "in", 201, 3, 3, odd=True)
    rows = "".join(f"{path.stem},ok\n" for path in sorted(inputs.glob("*.npy")))
    (inputs / "scans.csv").write_text("scan,status\n" + rows)
    for name, strict in (("run", False), ("strict", True)):
        config = replace(_config(inputs, tmp_path / name, knowing), reading=ReadingOptions(0, strict=strict))
        first = run_predict(config)
        assert (first.reasons["out_of_distribution"], first.computed) == (3, 3)
        assert run_predict(config).computed == 0


def test_a_module_of_heads_learns_ordinary_ones_without_labels(tmp_path: Path) -> None:
    from tests.support.head_files import make_module, write_session

    module = make_module(tmp_path / "module", "class", members=1)
    for k in range(41):
        write_session(tmp_path / f"heads/sub_{k:02d}/ses_1", lump=False, seed=k)
    (tmp_path / "heads/sub_40/ses_1/swi.nii.gz").write_bytes(b"broken")
    write_session(tmp_path / "few/sub_01/ses_1")
    with pytest.raises(UsageError, match=r"holds 1 sessions with flair, t2s\|swi, expected at least 40"):
        run_fit_outliers(str(module), tmp_path / "few", "cpu")
    given = ["modules", "fit-outliers", str(module), "--data", str(tmp_path / "heads"), "--device", "cpu"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "sub_40/ses_1: " in result.output
    assert "knows ordinary scans by 40 heads" in result.output
    write_session(tmp_path / "new/sub_50/ses_1", lump=False, seed=50)
    write_session(tmp_path / "new/sub_51/ses_1", lump=False, seed=51)
    for odd in (tmp_path / "new/sub_51/ses_1").glob("*.nii.gz"):
        image = nibabel.load(odd)
        noise = np.random.default_rng(0).random(image.shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(noise, image.affine), odd)
    run_predict(_config(tmp_path / "new", tmp_path / "run", module))
    ordinary, strange = read_run(tmp_path / "run").ood_percentile
    assert ordinary < 90
    assert strange > 99
