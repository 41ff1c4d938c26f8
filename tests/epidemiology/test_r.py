"""`examples/associate.R` gives the numbers of `associate`."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.made_run import make_run
from ukb_infer.epidemiology.associate import AssociateConfig, run_associate
from ukb_infer.epidemiology.cohort import Sources

SCRIPT = Path(__file__).parents[2] / "examples" / "associate.R"
PEOPLE, LABELLED = 400, 80


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R (Debian: r-base-core)")
def test_base_r_repeats_an_association(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    eids = [f"{k:07d}" for k in range(1, PEOPLE + 1)]
    frame = pd.DataFrame({"eid": eids, "age": rng.normal(60, 8, PEOPLE), "sex": rng.integers(0, 2, PEOPLE),
                          "bmi": rng.normal(27, 4, PEOPLE)})  # fmt: skip
    frame.loc[3, "bmi"] = np.nan
    fat = 2 + 0.02 * frame["age"] + 0.5 * frame["sex"] + 0.1 * rng.normal(27, 4, PEOPLE) + rng.normal(0, 1, PEOPLE)
    estimate = (0.8 * fat + rng.normal(0, 0.3, PEOPLE)).to_numpy()
    make_run(tmp_path / "run", [f"{e}_20201_2_0" for e in eids], {"liverFat": estimate})
    frame.to_csv(tmp_path / "phenotypes.csv", index=False)
    pd.DataFrame({"eid": eids, "liverFat": fat}).head(LABELLED).to_csv(tmp_path / "labels.csv", index=False)
    done = subprocess.run(
        ["Rscript", str(SCRIPT), str(tmp_path / "run"), str(tmp_path / "labels.csv"), str(tmp_path / "phenotypes.csv"),
         "liverFat", "age,sex,bmi"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    by_r = pd.read_csv(io.StringIO(done.stdout)).set_index(["term", "estimator"])
    sources = Sources(run=tmp_path / "run", labels=tmp_path / "labels.csv", phenotypes=tmp_path / "phenotypes.csv",
                      trained_on="none")  # fmt: skip
    config = AssociateConfig(sources=sources, model="liverFat ~ age + sex + bmi", out=tmp_path, figures=False)
    run_associate(config, lambda _: None)
    ours = pd.read_csv(tmp_path / "associations.csv").set_index(["term", "estimator"])
    assert set(by_r.index) <= set(ours.index)
    assert len(by_r) == 8
    for column in ("estimate", "se", "lower", "upper", "p"):
        assert np.allclose(by_r[column], ours.loc[by_r.index, column], rtol=1e-5, atol=1e-8), column
