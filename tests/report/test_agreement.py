"""`evaluate`: tables, figures, notes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.test_predictions import _labels, make_cross_validation
from ukb_infer.errors import UsageError
from ukb_infer.report.agreement import EvaluateConfig, run_evaluate


def test_evaluate_writes_tables_and_figures(tmp_path: Path) -> None:
    from PIL import Image

    folder = make_cross_validation(tmp_path / "cv")
    (folder / "history.csv").write_text(
        "member,iteration,learning_rate,train_loss,valid_nll,valid_mse\n1,10,0.1,1,2,3\n1,20,0.1,0.5,1,2\n"
    )
    lines: list[str] = []
    result = run_evaluate(EvaluateConfig(folder, _labels(tmp_path), tmp_path / "out", replicates=20), lines.append)
    names = {p.name for p in result.files}
    for stem in ("overview", "weight", "sex", "learning_curves"):
        assert {f"{stem}.pdf", f"{stem}.png"} <= names
        assert (tmp_path / "out/figures" / f"{stem}.pdf").read_bytes()[:5] == b"%PDF-"
        with Image.open(tmp_path / "out/figures" / f"{stem}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 5  # something was drawn
    assert "| weight |" in (tmp_path / "out/metrics.md").read_text()
    assert any("weight: 39 values" in line for line in lines)


def test_without_figures_only_tables_are_written(tmp_path: Path) -> None:
    config = EvaluateConfig(
        make_cross_validation(tmp_path / "cv"), _labels(tmp_path), tmp_path / "out", replicates=0, figures=False
    )
    assert [p.name for p in run_evaluate(config, lambda _: None).files] == ["metrics.csv", "metrics.md"]
    with pytest.raises(UsageError, match="--replicates"):
        EvaluateConfig(tmp_path, tmp_path, tmp_path, replicates=-1)
