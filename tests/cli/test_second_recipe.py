"""The second recipe through phantom, project, train and predict; nothing of one recipe is taken for the other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ukb_infer.cli.app import app
from ukb_infer.cli.common import report_error
from ukb_infer.errors import UkbInferError
from ukb_infer.execution import Journal
from ukb_infer.imaging.recipes import RECIPES
from ukb_infer.modules import read_manifest

HIRES = RECIPES["mimir-1-hires"]


def command(*arguments: object, code: int = 0) -> str:
    """What a command says, its error too; it must end with the exit code."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    error = result.exception
    found = report_error(error) if isinstance(error, UkbInferError) else result.exit_code
    assert found == code, (result.output, error)
    return f"{result.output} {error}"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small phantoms, projected by the second recipe, and a module trained on them."""
    work = tmp_path_factory.mktemp("hires")
    command("phantom", "--out", work / "scans", "--count", 4, "--seed", 5, "--size", "small")
    command("project", work / "scans", "--out", work / "projections", "--recipe", HIRES.name, "--workers", 0, "--png")
    command(
        "train", "--projections", work / "projections", "--labels", work / "scans/truth.csv", "--out", work / "hires",
        "--targets", "height,weight", "--preset", "fast", "--members", 1, "--iterations", 3, "--batch-size", 2,
        "--processes", 1, "--threads", 1, "--device", "cpu",
    )  # fmt: skip
    command("predict", work / "scans", "--out", work / "run", "--modules", work / "hires", "--workers", 0,
            "--projections", work / "cache", "--device", "cpu")  # fmt: skip
    return work


def test_the_recipe_goes_from_scans_to_estimates(work: Path) -> None:
    files = sorted((work / "projections").glob("*.npy"))
    assert len(files) == 4
    for file in files:
        assert HIRES.fits(np.load(file).dtype, np.load(file).shape)
        np.testing.assert_array_equal(np.load(file), np.load(work / "cache" / file.name))
    manifest = read_manifest(work / "hires")
    assert (manifest.input.recipe, manifest.training["projection_recipe"]) == (HIRES.name, HIRES.name)
    for run in ("projections", "run"):
        with Journal(work / run, read_only=True) as journal:
            assert (journal.get("identity") or {})["recipe"] == HIRES.name
    estimates = pd.read_csv(work / "run/estimates.csv")
    assert estimates["height_mean"].nunique() == 4
    command("predict", work / "projections", "--out", work / "again", "--modules", work / "hires", "--workers", 0)
    pd.testing.assert_frame_equal(estimates, pd.read_csv(work / "again/estimates.csv"))


def test_cached_projections_of_another_recipe_fail_row_by_row(work: Path, projections: Path) -> None:
    command("predict", projections, "--out", work / "wrong", "--modules", work / "hires", "--workers", 0, code=3)
    scans = pd.read_csv(work / "wrong/scans.csv")
    assert set(scans["reasons"]) == {"bad_projection"}
    assert "uint8 (3, 256, 256), expected uint8 (3, 512, 512) of recipe mimir-1-hires" in scans["message"][0]


def test_modules_of_two_recipes_are_not_used_together(work: Path, tiny_module: Path) -> None:
    modules = ("--modules", work / "hires", "--modules", tiny_module)
    said = command("predict", work / "scans", "--out", work / "both", *modules, code=1)
    assert "different recipes (mimir-1-hires: hires; mimir-1: tiny)" in said


def test_a_cache_of_another_recipe_is_not_written_to(work: Path, tiny_module: Path) -> None:
    said = command("predict", work / "scans", "--out", work / "mixed", "--modules", tiny_module, "--workers", 0,
                   "--projections", work / "cache", code=2)  # fmt: skip
    assert "projections of another recipe than the modules' mimir-1 (uint8 (3, 256, 256))" in said


def test_a_run_is_continued_by_its_recipe_only(work: Path) -> None:
    said = command("project", work / "scans", "--out", work / "projections", "--workers", 0, code=2)
    assert "--recipe: mimir-1-hires before, mimir-1 now" in said


def test_training_takes_one_recipe(work: Path, projections: Path, tmp_path: Path) -> None:
    other = tmp_path / "mixed"
    shutil.copytree(work / "projections", other)
    file = sorted(other.glob("*.npy"))[2]
    request = ("train", "--projections", other, "--labels", work / "scans/truth.csv", "--out", tmp_path / "module",
               "--targets", "height")  # fmt: skip
    shutil.copy(sorted(projections.glob("*.npy"))[0], file)
    said = command(*request, code=1)
    assert f"{file}: is uint8 (3, 256, 256), but" in said
    assert "mimir-1 uint8 (3, 256, 256), mimir-1-hires uint8 (3, 512, 512)" in said
    np.save(file, np.zeros((3, 128, 128), np.uint8))
    said = command(*request, code=1)
    assert (
        f"{file}: a cached projection is uint8 (3, 128, 128), expected uint8 (3, 256, 256) of recipe mimir-1 or" in said
    )


def test_a_misspelled_recipe_is_refused_with_the_nearest(work: Path, tmp_path: Path) -> None:
    said = command("project", work / "scans", "--out", tmp_path, "--recipe", "mimir-1-hirse", code=2)
    assert "--recipe: unknown 'mimir-1-hirse'; did you mean mimir-1-hires" in said
    assert "mimir-1|mimir-1-hires" in command("project", "--help")


def test_a_manifest_names_a_recipe_there_is(work: Path, tmp_path: Path) -> None:
    module = Path(shutil.copytree(work / "hires", tmp_path / "odd"))
    text = (module / "module.json").read_text()
    assert json.loads(text)
    (module / "module.json").write_text(text.replace('"recipe": "mimir-1-hires"', '"recipe": "mimir-2"'))
    assert "mimir-1 or mimir-1-hires" in command("modules", "verify", module, code=1)
