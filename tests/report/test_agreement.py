"""`evaluate`: tables, figures, notes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.support.cross_validation import make_cross_validation, write_labels
from ukb_infer.errors import UsageError
from ukb_infer.evaluation import Comparison, TargetPredictions, TargetResult, evaluate_target
from ukb_infer.report import figures
from ukb_infer.report.evaluate import EvaluateConfig, run_evaluate
from ukb_infer.targets import TARGETS


def test_evaluate_writes_tables_and_figures(tmp_path: Path) -> None:
    from PIL import Image

    folder = make_cross_validation(tmp_path / "cv")
    (folder / "history.csv").write_text(
        "member,iteration,learning_rate,train_loss,valid_nll,valid_mse\n1,10,0.1,1,2,3\n1,20,0.1,0.5,1,2\n"
    )
    lines: list[str] = []
    result = run_evaluate(EvaluateConfig(folder, write_labels(tmp_path), tmp_path / "out", replicates=20), lines.append)
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
        make_cross_validation(tmp_path / "cv"), write_labels(tmp_path), tmp_path / "out", replicates=0, figures=False
    )
    files = [p.name for p in run_evaluate(config, lambda _: None).files]
    assert files == ["metrics.csv", "metrics.md", "MODULE.md", "report.html"]
    with pytest.raises(UsageError, match="`replicates`"):
        EvaluateConfig(tmp_path, tmp_path, tmp_path, replicates=-1)


def _results(label: list[float], mean: list[float], sd: list[float], *, binary: bool = False) -> TargetResult:
    y, m, s = (np.array(v, float) for v in (label, mean, sd))
    people = np.array([f"{k:07d}" for k in range(y.size)])
    data = TargetPredictions(y, m, s, m - 2 * s, m + 2 * s, 0.95, people, binary)
    return TargetResult(TARGETS["sex" if binary else "weight"], data, evaluate_target(data, replicates=20))


def _pixels(monkeypatch: pytest.MonkeyPatch, *results: TargetResult) -> dict[str, bytes]:
    """Figures by name, drawn small and not written."""
    drawn = {}

    def save(figure: Figure, stem: Path) -> list[Path]:
        figure.set_dpi(30)
        figure.canvas.draw()
        drawn[stem.name] = bytes(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
        figures.plt.close(figure)
        return []

    monkeypatch.setattr(figures, "_save", save)
    figures.draw_all(Comparison("made up", results, 0, (), ""), Path())
    return drawn


@pytest.mark.parametrize("binary", [False, True])
def test_the_order_of_rows_changes_no_figure(monkeypatch: pytest.MonkeyPatch, *, binary: bool) -> None:
    monkeypatch.setattr(figures, "MAX_POINTS", 30)  # a sample of the scans is drawn
    rng = np.random.default_rng(2)
    mean = rng.random(60).round(2) if binary else rng.normal(70, 12, 60)
    sd = rng.choice([1.0, 2.0, 3.0], 60)
    label = (rng.random(60) < mean).astype(float) if binary else mean + sd * rng.normal(size=60)
    first = _results(label.tolist(), mean.tolist(), sd.tolist(), binary=binary)
    order = rng.permutation(60)
    names = ("label", "mean", "sd", "lower", "upper", "participants")
    shuffled = replace(first, data=replace(first.data, **{n: getattr(first.data, n)[order] for n in names}))
    drawn = _pixels(monkeypatch, first)
    assert len(drawn) == 2
    assert drawn == _pixels(monkeypatch, shuffled)


@pytest.mark.parametrize("count", [0, 2, 3])
@pytest.mark.parametrize(
    ("label", "mean", "sd", "binary"),
    [(70.1, 70.1, 0.0, False), (70.1, 71.0, np.nan, False), (1.0, 0.0, np.nan, True)],
    ids=["exact", "no sd", "one class"],
)
def test_figures_of_few_or_equal_scans_are_drawn_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, label: float, mean: float, sd: float, count: int, *, binary: bool
) -> None:
    result = _results([label] * count, [mean] * count, [sd] * count, binary=binary)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bool(_pixels(monkeypatch, result)) == (count >= 3)


def test_learning_curves_do_not_depend_on_the_order_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({
        "member": [1, 1, 1, 2, 2, 2], "iteration": [10, 20, 30] * 2, "learning_rate": 0.1,
        "train_loss": [3.0, 2.0, 1.5, 2.5, 2.2, 1.0], "valid_nll": [1.0, 0.5, 0.7, 1.2, 0.8, 0.6], "valid_mse": 1.0,
    })  # fmt: skip
    lines: list[list[list[float]]] = []

    def save(figure: Figure, stem: Path) -> list[Path]:
        lines.append([line.get_xydata().tolist() for axis in figure.axes for line in axis.lines])  # type: ignore[union-attr]
        figures.plt.close(figure)
        return [stem]

    monkeypatch.setattr(figures, "_save", save)
    for rows in (table, table.iloc[[4, 0, 5, 2, 3, 1]]):
        rows.to_csv(tmp_path / "history.csv", index=False)
        figures.draw_learning_curves(tmp_path / "history.csv", tmp_path)
    assert lines[0] == lines[1]


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_scans_have_tables_and_no_figures(tmp_path: Path, count: int) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("scan,weight\n" + "".join(f"{k:07d}_20201_{2 + k % 2}_0,{70 + k}\n" for k in range(1, count + 1)))
    lines: list[str] = []
    config = EvaluateConfig(make_cross_validation(tmp_path / "cv"), labels, tmp_path / "out", replicates=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run_evaluate(config, lines.append)
    assert [p.name for p in result.files] == ["metrics.csv", "metrics.md", "MODULE.md", "report.html"]
    assert any("no figures of weight: fewer than 3 scans" in line for line in lines)
    found = result.comparison.results[0].metrics
    assert np.isfinite(found["mae"].value)
    assert np.isnan(found["mae"].low) == (count == 1)
    assert "nan" not in result.table


def test_shuffled_tables_give_the_same_bytes(tmp_path: Path) -> None:
    folder, labels = make_cross_validation(tmp_path / "cv"), write_labels(tmp_path)
    written = []
    for k in range(2):
        config = EvaluateConfig(folder, labels, tmp_path / str(k), replicates=100, figures=False)
        written.append([p.read_bytes() for p in run_evaluate(config, lambda _: None).files])
        for seed, path in enumerate((folder / "predictions.csv", labels)):
            head, *rows = path.read_text().splitlines()
            order = np.random.default_rng(seed).permutation(len(rows))
            path.write_text("\n".join([head, *(rows[i] for i in order)]) + "\n")
    assert written[0] == written[1]
