"""`export --stata` and `--bids`: names that Stata allows, tables that BIDS describes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.support.made_run import make_run
from ukb_infer.cli.app import app
from ukb_infer.runs.other_forms import stata_stems
from ukb_infer.targets import TARGETS

SCANS = ["0000001_20201_2_0", "0000001_20201_2_1", "0000001_20201_3_0", "0000002_20201_2_0", "phantom"]
LONG = "AtlasPosteriorThighLeanMuscleRight"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("forms")
    make_run(where / "run", SCANS, {LONG: np.arange(5.0), "weight": 70 + np.arange(5.0)})
    result = CliRunner().invoke(app, ["export", str(where / "run"), "--out", str(where / "out"), "--stata", "--bids"])
    assert result.exit_code == 0, result.output
    assert "estimates.dta" in result.output
    return where / "out"


def test_stata_reads_the_estimates_under_short_names(exported: Path) -> None:
    plain = pd.read_csv(exported / "estimates.csv", dtype={"eid": str}, keep_default_na=False, na_values=[""])
    with pd.read_stata(exported / "estimates.dta", iterator=True) as reader:
        labels, table = reader.variable_labels(), reader.read()
    assert all(len(name) <= 32 for name in table)
    assert labels["AtlPosThiLeaMusRig_ci95_lower"].startswith(f"{LONG}_ci95_lower")
    assert np.allclose(table["AtlPosThiLeaMusRig_mean"], plain[f"{LONG}_mean"])
    assert table["eid"].tolist() == plain["eid"].fillna("").tolist()


def test_every_target_has_its_own_short_name() -> None:
    stems = stata_stems(TARGETS)
    assert len(set(stems.values())) == len(TARGETS)
    assert all(f"{stem}_sd_epistemic".isidentifier() and len(stem) <= 19 for stem in stems.values())


def test_the_phenotype_table_is_described(exported: Path) -> None:
    table = pd.read_csv(exported / "phenotype" / "ukb_infer.tsv", sep="\t", na_values=["n/a"])
    about = json.loads((exported / "phenotype" / "ukb_infer.json").read_text())
    assert list(table.columns[:2]) == ["participant_id", "session_id"]
    assert set(table.columns[2:]) <= set(about)
    assert about["weight_mean"]["Units"] == "kg"
    rows = table.set_index(["participant_id", "session_id"])["weight_mean"]
    assert rows.index.is_unique
    assert rows["sub-0000001", "ses-2"] == 71.0  # the highest array
    assert "not measurements" in about["MeasurementToolMetadata"]["Description"]
