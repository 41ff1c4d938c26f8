"""Run by hand (`make soak`): the demonstration ensemble on 200 fresh phantoms, through zips, tables and all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ukb_infer import read_estimates
from ukb_infer.inference import PredictConfig, run_predict
from ukb_infer.phantom import ANATOMY_DETERMINED, write_cohort
from ukb_infer.targets import TARGETS


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [404, 505])
def test_two_hundred_fresh_phantoms(tmp_path: Path, seed: int) -> None:
    truth = pd.read_csv(write_cohort(tmp_path / "scans", 200, seed, workers=2), dtype={"eid": str})
    config = PredictConfig((str(tmp_path / "scans"),), tmp_path / "run", modules=("phantom-demo",), device="cpu")
    assert run_predict(config).counts["failed"] == 0
    tidy = read_estimates(tmp_path / "run", long=True)
    known = truth.melt(id_vars=["scan"], value_vars=list(TARGETS), var_name="target", value_name="truth")
    joined = tidy.merge(known, on=["scan", "target"])
    joined["covered"] = (joined["truth"] >= joined["lower"]) & (joined["truth"] <= joined["upper"])
    coverage = joined.groupby("target")["covered"].mean()
    r2 = joined.groupby("target").apply(
        lambda g: 1 - np.square(g["truth"] - g["mean"]).sum() / np.square(g["truth"] - g["truth"].mean()).sum(),
        include_groups=False,
    )
    median = r2[list(ANATOMY_DETERMINED)].median()
    within = int(coverage.between(0.92, 0.98).sum())
    print(f"\nseed {seed}: median R2 {median:.3f}; 95 % intervals that cover 92-98 %: {within} of 72 targets")
    assert median >= 0.9
    assert within >= 65
