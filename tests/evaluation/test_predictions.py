"""Reading predictions of every kind, judging them, and the tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.cross_validation import KEYS, make_cross_validation, write_labels
from ukb_infer.errors import RunError, UsageError
from ukb_infer.evaluation import compare, read_cross_validation, read_predictions
from ukb_infer.evaluation.compare import metrics_csv, metrics_markdown
from ukb_infer.evaluation.cross_validation import write_cross_validation
from ukb_infer.evaluation.metrics import BINARY_METRICS
from ukb_infer.labels import read_labels


def test_out_of_fold_predictions_come_back_to_the_last_bit(tmp_path: Path) -> None:
    folder = make_cross_validation(tmp_path / "cv")
    first = read_cross_validation(folder)
    again = tmp_path / "again"
    again.mkdir()
    write_cross_validation(again, first)
    assert (again / "predictions.csv").read_bytes() == (folder / "predictions.csv").read_bytes()
    assert first.keys == KEYS
    assert np.isnan(first.labels[3, 0])
    assert first.predictions.total_variance[0, 0] == pytest.approx(9.0)


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    folder = make_cross_validation(tmp_path / "cv")
    for damage in ("{", "[]", '{"schema_version": 9, "targets": []}', '{"schema_version": 1}'):
        (folder / "cross_validation.json").write_text(damage)
        with pytest.raises(RunError, match="cv"):
            read_cross_validation(folder)
    with pytest.raises(RunError, match=r"cross_validation\.json"):
        read_cross_validation(tmp_path)


def test_published_predictions_are_read_and_converted(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(
        "name,Weight_mean_in_g,Weight_variance_in_g,Sex_mean_in_class,Sex_variance_in_class,Foo_mean_in_m,Foo_variance_in_m\n"
        "/data/0000001_20201_2_0.npy,70000,4000000,0.9,0.04,1,1\n0000002_20201_2_0.zip,80000,1000000,0.1,0.01,1,1\n"
    )
    assert np.isnan(read_predictions(path).targets["weight"].sd).all()  # nobody said how grams came about
    found = read_predictions(path, {"weight": 1.0})
    assert [k.scan for k in found.keys] == ["0000001_20201_2_0", "0000002_20201_2_0"]
    assert found.targets["weight"].mean.tolist() == [70.0, 80.0]
    assert found.targets["weight"].sd.tolist() == [2.0, 1.0]
    assert found.targets["weight"].lower[0] == pytest.approx(70 - 1.959964 * 2, abs=1e-5)
    assert found.targets["sex"].upper[0] == 1.0
    assert any("Foo" in n for n in found.notes)
    assert any("converted to kg" in n for n in found.notes)


@pytest.mark.parametrize("content", ["", "name,a\nx,1\n", "Weight_mean_in_kg,Weight_variance_in_kg\n1,2\n"])
def test_a_table_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(content)
    with pytest.raises(RunError, match=r"predictions\.csv"):
        read_predictions(path)
    with pytest.raises(RunError, match="no predictions"):
        read_predictions(tmp_path / "nothing")


def test_comparison_and_tables(tmp_path: Path) -> None:
    labels = read_labels(write_labels(tmp_path))
    result = compare(read_predictions(make_cross_validation(tmp_path / "cv")), labels, replicates=50)
    sex, weight = result.results  # in the order of the registry
    assert (weight.count, sex.count) == (39, 40)
    assert weight.metrics["mae"].low < weight.metrics["mae"].value < weight.metrics["mae"].high
    rows = list(csv.DictReader(metrics_csv(result).splitlines()))
    mae = next(r for r in rows if (r["target"], r["metric"]) == ("weight", "mae"))
    assert float(mae["published_mimir"]) == 0.878  # the published table, also in the registry
    assert {r["metric"] for r in rows if r["target"] == "sex"} == set(BINARY_METRICS)
    text = metrics_markdown(result)
    assert "| weight | kg | 39 |" in text
    assert "0.997" in text  # published ICC of weight


def test_labels_of_other_scans_or_targets_are_an_error(tmp_path: Path) -> None:
    predictions = read_predictions(make_cross_validation(tmp_path / "cv"))
    other = tmp_path / "other.csv"
    other.write_text("scan,weight\n0000099_20201_2_0,70\n")
    with pytest.raises(UsageError, match="no scan of"):
        compare(predictions, read_labels(other))
    other.write_text("scan,height\n0000001_20201_2_0,170\n")
    with pytest.raises(UsageError, match="none of the labelled targets"):
        compare(predictions, read_labels(other))


def test_own_targets_keep_unit_and_kind(tmp_path: Path) -> None:
    folder = make_cross_validation(tmp_path / "cv", ("weight",))
    facts = json.loads((folder / "cross_validation.json").read_text())
    facts["targets"][0] |= {"name": "liverIron", "unit": "mg/g"}
    (folder / "cross_validation.json").write_text(json.dumps(facts))
    table = (folder / "predictions.csv").read_text().replace("weight_", "liverIron_")
    (folder / "predictions.csv").write_text(table)
    assert read_predictions(folder).targets["liverIron"].spec.unit == "mg/g"
