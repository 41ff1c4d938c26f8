"""Runs, journals, modules and cross-validations that the first version of the program wrote go on working.

`tests/data/version1` was written by version 1 on 14 small phantoms (the first with an unreadable zip, the second with
a slice missing): `predicted` and `projected` are run folders, `cross_validated` and `module` belong together.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ukb_infer.cli.app import app
from ukb_infer.modules import read_manifest

DATA = Path(__file__).parent / "data/version1"


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code in (0, 3), result.output
    return result.output


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "version1"))


def test_status_reads_a_run(data: Path) -> None:
    text = command("status", data / "predicted")
    assert "12 ok" in text
    assert "1 flagged" in text
    assert "1 failed" in command("status", data / "projected")


def test_export_writes_the_same_tables(data: Path) -> None:
    command("export", data / "predicted", "--out", data / "exported")
    for name in ("estimates.csv", "scans.csv"):
        assert (data / "exported" / name).read_bytes() == (DATA / "predicted" / name).read_bytes()
    words, before = (pd.read_csv(folder / "dictionary.csv") for folder in (data / "exported", DATA / "predicted"))
    assert words.drop(columns="meaning").equals(before.drop(columns="meaning"))  # what a column means may be reworded


@pytest.mark.parametrize("run", ["predicted", "projected"])
def test_a_run_merges(data: Path, run: str) -> None:
    command("merge", data / run, "--out", data / "merged")
    assert (data / "merged/scans.csv").read_bytes() == (DATA / run / "scans.csv").read_bytes()


@pytest.mark.parametrize("folder", ["predicted", "cross_validated"])
def test_evaluate_reads_a_run_and_a_cross_validation(data: Path, folder: str) -> None:
    scans = pd.read_csv(data / "cross_validated/predictions.csv", dtype=str)["scan"]
    labels = pd.DataFrame({"scan": scans, "height": [150.0 + 2 * k for k in range(len(scans))]})
    labels.to_csv(data / "labels.csv", index=False)
    command("evaluate", data / folder, "--labels", data / "labels.csv", "--out", data / "agreement")
    metrics = pd.read_csv(data / "agreement/metrics.csv")
    assert set(metrics["target"]) == {"height"}


def test_calibrate_fits_a_module_on_its_cross_validation(data: Path) -> None:
    assert "height" in command("calibrate", data / "cross_validated", "--module", data / "module", "--dry-run")


def test_manifests_are_read() -> None:
    manifest = read_manifest(DATA / "module")
    assert [t.name for t in manifest.targets] == ["height", "sex", "weight"]
    assert manifest.targets[1].kind == "binary"
    assert manifest.targets[0].calibration.method == "conformal"


def test_a_module_of_version_1_predicts(tmp_path: Path, data: Path) -> None:
    """The shipped ensemble's weights under the manifest that version 1 wrote for them."""
    home = tmp_path / "phantom-demo"
    home.mkdir()
    plain = json.loads((DATA / "phantom_demo_module.json").read_text())
    (home / "module.json").write_text(json.dumps(plain))
    for path in (Path(__file__).parents[1] / "models/phantom-demo").glob("*.safetensors"):
        shutil.copy(path, home)
    assert "complete" in command("modules", "verify", home)
