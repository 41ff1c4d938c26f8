"""Every objective of the registry answers what the trainer asks of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.training import make_data
from ukb_infer.training.config import TrainConfig, make_config
from ukb_infer.training.ensemble import Standardization
from ukb_infer.training.objectives import OBJECTIVES
from ukb_infer.training.trainer import Trainer


@pytest.mark.parametrize("name", [n for n, kind in OBJECTIVES.items() if not kind.on_masks])
def test_an_objective_can_be_trained_and_judged(name: str, tmp_path: Path) -> None:
    config: TrainConfig = make_config("fast", objective=name, iterations=2, batch_size=4, validate_every=1, members=1)
    objective = config.objective
    assert objective.name == name
    data = make_data(12)
    standardized = Standardization.fit(data.labels, data.targets).apply(data.labels)
    trainer = Trainer(config, 0, data, standardized, np.arange(8), np.arange(8, 12), tmp_path)
    weights = trainer.run()
    assert weights.keys() == trainer.network.state_dict().keys()
    first = objective.measures[0]
    assert list(trainer.history[0])[3:] == [f"train_{first}", *(f"valid_{m}" for m in objective.measures)]
    assert math.isfinite(trainer.history[-1][f"valid_{first}"])
    outputs = trainer.predict(np.arange(4))
    nothing = torch.full((4, len(data.targets)), math.nan)
    assert all(math.isnan(v) for v in objective.judge(outputs, nothing).values())
    loss = objective.loss(outputs, torch.from_numpy(standardized[:4]), 10**6)
    assert loss.shape == ()
    assert math.isfinite(float(loss))
