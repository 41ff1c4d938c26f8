"""From training to association: a module knows the scans it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ukb_infer.epidemiology.associate import AssociateConfig, run_associate
from ukb_infer.epidemiology.cohort import Sources
from ukb_infer.errors import UsageError
from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.predict import run_predict
from ukb_infer.networks import InputScaling
from ukb_infer.training.config import make_config
from ukb_infer.training.cross_validate import run_cross_validate
from ukb_infer.training.request import TrainRequest
from ukb_infer.training.train import run_train

PEOPLE = 16


@pytest.mark.slow
def test_a_trained_module_is_refused_its_own_labels_and_accepts_its_cross_validation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scans = tmp_path / "projections"
    scans.mkdir()
    rows = []
    for person in range(1, PEOPLE + 5):
        size = int(rng.integers(50, 120))
        image = np.zeros((3, 256, 256), np.uint8)
        image[:, 40 : 40 + size, 60 : 60 + size] = 200
        np.save(scans / f"{person:07d}_20201_2_0.npy", image)
        rows.append({"eid": f"{person:07d}", "weight": size, "waist": size + 10 if person % 3 else ""})
    labels = tmp_path / "labels.csv"
    pd.DataFrame(rows[:PEOPLE]).to_csv(labels, index=False)
    config = make_config("fast", iterations=2, batch_size=6, validate_every=1, warmup_mse=1, members=1, folds=2,
                         scaling=InputScaling(1.0 / 64.0, -1.0, (32, 32)))  # fmt: skip
    options = {"projections": scans, "labels": labels, "config": config, "device": "cpu", "processes": 1, "threads": 1}
    run_train(TrainRequest(out=tmp_path / "module", **options), lambda _: None)  # type: ignore[arg-type]
    run_cross_validate(TrainRequest(out=tmp_path / "cv", **options), lambda _: None)  # type: ignore[arg-type]
    run_predict(
        PredictConfig(inputs=(str(scans),), out=tmp_path / "run", modules=(str(tmp_path / "module"),), workers=0)
    )

    def associate(**known: object) -> set[str]:
        sources = Sources(run=tmp_path / "run", labels=labels, quality="all", **known)  # type: ignore[arg-type]
        made = AssociateConfig(sources=sources, model="waist ~ 1", out=tmp_path / "out", figures=False)
        return {row.estimator for row in run_associate(made, lambda _: None).associations.rows}

    for said in ("", "none"):  # the list is of scans with any label, although fewer have a waist
        with pytest.raises(UsageError, match="trained on exactly the labelled scans"):
            associate(trained_on=said)
    assert "cross_ppi++" in associate(out_of_fold=tmp_path / "cv")
