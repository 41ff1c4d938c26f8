"""``predict`` end to end on small phantoms and a tiny module: tables, resuming, determinism."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.support.tiny_module import make_tiny_module
from ukb_infer import read_estimates
from ukb_infer.errors import RunError, UsageError
from ukb_infer.inference import PredictConfig, run_predict
from ukb_infer.inference.session import Session
from ukb_infer.modules import load_module
from ukb_infer.records import ReadingOptions
from ukb_infer.regression import gaussian_quantile

TABLES = ("estimates.csv", "scans.csv", "dictionary.csv")


def _config(inputs: Path | list[Path], out: Path, module: Path, **changes: Any) -> PredictConfig:
    given = inputs if isinstance(inputs, list) else [inputs]
    base = PredictConfig(
        tuple(str(p) for p in given), out, modules=(str(module),), workers=0, batch_size=4, device="cpu"
    )
    return replace(base, **changes)


def _tables(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in TABLES]


def test_zips_become_tables(small_cohort: Path, tiny_module: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = run_predict(_config(small_cohort, out, tiny_module, workers=2))
    assert summary.exit_code == 0
    assert summary.counts["ok"] + summary.counts["flagged"] == 3
    assert summary.warnings == ("tiny: Random weights for tests.",)
    with (out / "estimates.csv").open() as handle:
        header = next(csv.reader(handle))
    assert header[:4] == ["eid", "instance", "array", "scan"]
    assert [c for c in header if c.startswith("weight_")] == [
        "weight_mean",
        "weight_sd",
        "weight_ci95_lower",
        "weight_ci95_upper",
    ]
    assert [c for c in header if c.startswith("sex_")][-2:] == ["sex_probability", "sex_class"]
    dictionary = pd.read_csv(out / "dictionary.csv", keep_default_na=False)
    with (out / "quality.csv").open() as handle:
        quality = next(csv.reader(handle))
    assert list(dictionary["column"]) == [*header, *quality[4:]]
    assert (dictionary["meaning"] != "").all()
    assert dictionary.set_index("column").loc["weight_mean", "unit"] == "kg"
    scans = pd.read_csv(out / "scans.csv", dtype=str, keep_default_na=False)
    assert list(scans.columns) == [
        "scan",
        "eid",
        "instance",
        "array",
        "status",
        "reasons",
        "message",
        "stations",
        "path",
    ]
    assert set(scans["stations"]) == {"6"}
    facts = json.loads((out / "run.json").read_text())
    assert facts["schema_version"] == 1
    assert facts["modules"][0]["sha256"] == load_module(tiny_module).hash
    assert facts["counts"]["failed"] == 0


def test_numbers_are_the_modules_to_float32(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    run_predict(_config(projections, tmp_path, tiny_module, uncertainty="full", level=0.999))
    frame = pd.read_csv(tmp_path / "estimates.csv", dtype={"eid": str})
    module = load_module(tiny_module)
    images = np.stack([np.load(projections / f"{s}.npy") for s in frame["scan"][:4]])
    expected = module.to_estimates(module.predict_standardized(torch.from_numpy(images)))
    k = module.manifest.target_names.index("weight")
    sd = np.sqrt(expected.total_variance[:, k])
    assert np.array_equal(frame["weight_mean"][:4].astype(np.float32), expected.mean[:, k].astype(np.float32))
    assert np.array_equal(frame["weight_sd"][:4].astype(np.float32), sd.astype(np.float32))
    upper = expected.mean[:, k] + gaussian_quantile(0.999) * sd
    assert np.array_equal(frame["weight_ci99.9_upper"][:4].astype(np.float32), upper.astype(np.float32))
    parts = np.hypot(frame["weight_sd_aleatoric"], frame["weight_sd_epistemic"])
    assert parts.to_numpy() == pytest.approx(frame["weight_sd"].to_numpy(), rel=1e-6)
    assert (frame["weight_sd_epistemic"] > 0).all()
    assert frame["AtlasLiverFat_ci99.9_lower"].min() >= 0
    assert frame["sex_class"].isin([0, 1]).all()


def test_bytes_do_not_depend_on_workers_order_or_companions(
    projections: Path, tiny_module: Path, tmp_path: Path
) -> None:
    files = sorted(projections.glob("*.npy"))
    run_predict(_config(files, tmp_path / "a", tiny_module))
    assert pd.read_csv(tmp_path / "a" / "estimates.csv")["weight_mean"].nunique() == 12
    run_predict(_config(files[::-1], tmp_path / "b", tiny_module, workers=3))
    assert _tables(tmp_path / "a") == _tables(tmp_path / "b")
    run_predict(_config(files[4:5], tmp_path / "c", tiny_module))
    alone = (tmp_path / "c" / "estimates.csv").read_text().splitlines()[1]
    assert alone in (tmp_path / "a" / "estimates.csv").read_text().splitlines()


def test_batch_sizes_agree(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    """To 1e-4 standardized units, i.e. 1.5e-3 kg for the tiny module's weight (sd 15 kg)."""
    frames = []
    for size in (1, 4, 7):
        run_predict(_config(projections, tmp_path / str(size), tiny_module, batch_size=size))
        frames.append(pd.read_csv(tmp_path / str(size) / "estimates.csv")["weight_mean"].to_numpy())
    assert np.abs(frames[0] - frames[1]).max() < 1.5e-3
    assert np.abs(frames[0] - frames[2]).max() < 1.5e-3


def test_an_interrupted_run_continues_to_the_same_bytes(
    projections: Path, tiny_module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_predict(_config(projections, tmp_path / "whole", tiny_module))
    original, calls = Session.commit, []

    def fail_later(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*args, **kwargs)

    monkeypatch.setattr(Session, "commit", fail_later)
    with pytest.raises(KeyboardInterrupt):
        run_predict(_config(projections, tmp_path / "cut", tiny_module))
    monkeypatch.undo()
    assert len((tmp_path / "cut" / "estimates.csv").read_text().splitlines()) == 5
    summary = run_predict(_config(projections, tmp_path / "cut", tiny_module))
    assert summary.computed == 8
    assert _tables(tmp_path / "cut") == _tables(tmp_path / "whole")
    again = run_predict(_config(projections, tmp_path / "cut", tiny_module))
    assert again.computed == 0
    assert _tables(tmp_path / "cut") == _tables(tmp_path / "whole")


def test_other_settings_are_refused_with_the_difference(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_predict(_config(projections, out, tiny_module))
    other = make_tiny_module(tmp_path / "other", seed=5)
    with pytest.raises(UsageError, match=r"`modules`: tiny .* before, other .* now"):
        run_predict(_config(projections, out, other))
    with pytest.raises(UsageError, match="`batch_size`: 4 before, 5 now"):
        run_predict(_config(projections, out, tiny_module, batch_size=5))
    before = _tables(out)
    wider = run_predict(_config(projections, out, tiny_module, level=0.5, targets=("weight",)))
    assert wider.computed == 0
    assert "weight_ci50_lower" in (out / "estimates.csv").read_text().splitlines()[0]
    assert "sex" not in (out / "estimates.csv").read_text().splitlines()[0]
    run_predict(_config(projections, out, other, overwrite=True))
    assert _tables(out) != before


def test_a_changed_input_is_computed_again(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    copy = tmp_path / "in"
    copy.mkdir()
    for path in sorted(projections.glob("*.npy"))[:3]:
        shutil.copy(path, copy)
    run_predict(_config(copy, tmp_path / "run", tiny_module))
    target = sorted(copy.glob("*.npy"))[1]
    np.save(target, 255 - np.load(target))
    import os

    os.utime(target, ns=(1, 1))
    summary = run_predict(_config(copy, tmp_path / "run", tiny_module))
    assert summary.computed == 1


def test_broken_scans_cost_no_good_ones(small_cohort: Path, tiny_module: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    shutil.copy(small_cohort / "0000001_20201_2_0.zip", inputs)
    (inputs / "0000002_20201_2_0.zip").write_bytes(b"not a zip")
    np.save(inputs / "0000005_20201_2_0.npy", np.zeros((2, 2)))
    summary = run_predict(_config(inputs, tmp_path / "run", tiny_module, workers=1))
    assert summary.exit_code == 3
    scans = pd.read_csv(tmp_path / "run" / "scans.csv", dtype=str, keep_default_na=False).set_index("scan")
    assert scans["status"].to_dict()["0000002_20201_2_0"] == "failed"
    assert scans.loc["0000002_20201_2_0", "reasons"] == "unreadable_zip"
    assert scans.loc["0000005_20201_2_0", "reasons"] == "bad_projection"
    assert len(pd.read_csv(tmp_path / "run" / "estimates.csv")) == 1


def test_bare_projections_are_flagged_and_strict_refuses_them(
    projections: Path, tiny_module: Path, tmp_path: Path
) -> None:
    files = sorted(projections.glob("*.npy"))[:2]
    summary = run_predict(_config(files, tmp_path / "a", tiny_module))
    assert summary.reasons["quality_unknown"] == 2
    assert summary.counts["flagged"] == 2
    strict = run_predict(_config(files, tmp_path / "b", tiny_module, reading=ReadingOptions(strict=True)))
    assert strict.counts["failed"] == 2
    assert strict.exit_code == 3


def test_excluded_scans_are_listed_and_never_estimated(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    (tmp_path / "w1.csv").write_text("0000001\n")
    summary = run_predict(_config(projections, tmp_path / "run", tiny_module, exclude=(tmp_path / "w1.csv",)))
    assert summary.counts["excluded"] == 1
    scans = pd.read_csv(tmp_path / "run" / "scans.csv", dtype=str, keep_default_na=False)
    assert scans[scans["status"] == "excluded"]["eid"].tolist() == ["0000001"]
    assert "0000001" not in set(pd.read_csv(tmp_path / "run" / "estimates.csv", dtype={"eid": str})["eid"])
    late = run_predict(_config(projections, tmp_path / "run2", tiny_module))
    assert late.counts["excluded"] == 0


def test_the_projection_cache_is_written_and_used(small_cohort: Path, tiny_module: Path, tmp_path: Path) -> None:
    run_predict(_config(small_cohort, tmp_path / "a", tiny_module, projections=tmp_path / "cache"))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3
    run_predict(_config(tmp_path / "cache", tmp_path / "b", tiny_module))
    one, two = (pd.read_csv(tmp_path / k / "estimates.csv", dtype={"eid": str}) for k in "ab")
    pd.testing.assert_frame_equal(one, two)


def test_two_modules_with_one_target_are_one_mixture(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    other = make_tiny_module(tmp_path / "other", seed=9, members=3, targets=("weight",))
    run_predict(
        _config(projections, tmp_path / "run", tiny_module, modules=(str(tiny_module), str(other)), uncertainty="full")
    )
    frame = pd.read_csv(tmp_path / "run" / "estimates.csv")
    image = torch.from_numpy(np.stack([np.load(projections / f"{s}.npy") for s in frame["scan"][:4]]))
    members = []
    for folder in (tiny_module, other):
        module = load_module(folder)
        k = module.manifest.target_names.index("weight")
        raw = module.predict_standardized(image)[:, 0, k].astype(np.float64)
        z = (raw[:, 1] + 2.0) / 10.0
        logs = -2.0 + 10.0 * z / np.sqrt(1.0 + z**2)  # the bounded log-variance
        members += list(zip(raw[:, 0] * 15.0 + 75.0, np.exp(logs) * 225.0, strict=True))
    means, variances = np.array(members).T
    assert frame["weight_mean"][0] == pytest.approx(means.mean(), rel=1e-6)
    assert frame["weight_sd"][0] == pytest.approx(np.sqrt(variances.mean() + means.var()), rel=1e-5)


def test_a_dry_run_writes_nothing(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    summary = run_predict(_config(projections, tmp_path / "run", tiny_module, dry_run=True))
    assert summary.dry_run
    assert "12 scans (12 projection)" in summary.notes[0]
    assert not (tmp_path / "run").exists()


def test_foreign_folders_and_contradictions_are_refused(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match=r"thesis\.txt"):
        run_predict(_config(projections, tmp_path, tiny_module))
    with pytest.raises(RunError, match=r"thesis\.txt"):
        run_predict(_config(projections, tmp_path, tiny_module, overwrite=True))
    for changes, words in (
        ({"level": 1.0}, "`level`"), ({"batch_size": -1}, "`batch_size`"), ({"device": "tpu"}, "`device`"),
        ({"precision": "fp16"}, "`precision`"), ({"workers": -1}, "`workers`"),
        ({"uncertainty": "some"}, "`uncertainty`"),
        ({"targets": ("wieght",)}, "weight"), ({"reading": ReadingOptions(0, True)}, "`allow_missing_stations`"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            run_predict(_config(projections, tmp_path / "x", tiny_module, **changes))


def test_means_outside_the_limits_are_kept_and_flagged(projections: Path, tmp_path: Path) -> None:
    module = make_tiny_module(tmp_path / "low", targets=("AtlasLiverFat",))
    plain = json.loads((module / "module.json").read_text())
    plain["outputs"]["targets"][0]["mean"] = -3.0
    (module / "module.json").write_text(json.dumps(plain))
    summary = run_predict(_config(sorted(projections.glob("*.npy"))[:2], tmp_path / "run", module))
    assert summary.reasons["mean_outside_limits"] == 2
    frame = pd.read_csv(tmp_path / "run" / "estimates.csv")
    assert (frame["AtlasLiverFat_mean"] < 0).all()
    assert (frame["AtlasLiverFat_ci95_lower"] == 0).all()


def test_estimates_read_as_wide_long_and_by_field(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    run_predict(_config(projections, tmp_path, tiny_module))
    wide = read_estimates(tmp_path)
    assert wide.index.names == ["eid", "instance"]
    assert ("0000001", 2) in wide.index
    long = read_estimates(tmp_path, long=True)
    assert list(long.columns) == [
        "eid",
        "instance",
        "array",
        "scan",
        "target",
        "unit",
        "mean",
        "sd",
        "lower",
        "upper",
        "level",
        "probability",
    ]
    has_sd, has_probability = long["sd"].notna(), long["probability"].notna()
    assert (has_sd ^ has_probability).all()
    assert set(long.loc[has_probability, "target"]) == {"sex", "type2Diabetes"}
    assert len(long) == 12 * 4
    assert set(long["level"]) == {0.95}
    fields = read_estimates(tmp_path, columns="field")
    assert {"est_p21002_i2", "est_p21002_i3", "est_type2Diabetes_i2", "est_p31_i2"} <= set(fields.columns)
    assert fields.loc["0000001", "est_p21002_i2"] == pytest.approx(wide.loc[("0000001", 2), "weight_mean"])
    with pytest.raises(UsageError, match="exclude each other"):
        read_estimates(tmp_path, long=True, columns="field")
    with pytest.raises(RunError, match="ukb-infer predict"):
        read_estimates(tmp_path / "none")


def test_parquet_holds_the_same_table(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    run_predict(_config(projections, tmp_path, tiny_module, parquet=True))
    parquet = pd.read_parquet(tmp_path / "estimates.parquet")
    text = pd.read_csv(tmp_path / "estimates.csv", dtype={"eid": str})
    assert parquet["eid"].tolist() == text["eid"].tolist()
    assert parquet["weight_mean"].to_numpy() == pytest.approx(text["weight_mean"].to_numpy(), rel=1e-6)
    assert len(pd.read_parquet(tmp_path / "scans.parquet")) == 12


def test_the_python_api_predicts_and_names_failures(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    import ukb_infer

    bad = tmp_path / "0000099_20201_2_0.npy"
    bad.write_bytes(b"x")
    frame = ukb_infer.predict([projections, bad], modules=[tiny_module], targets=["weight"], device="cpu")
    assert len(frame) == 12
    assert list(frame.attrs["failed"]) == ["0000099_20201_2_0"]
    projection = ukb_infer.project(sorted(projections.glob("*.npy"))[0])
    assert projection.image.shape == (3, 256, 256)
    assert [f.value for f in projection.flags] == ["quality_unknown"]


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    """To 1e-3 standardized units in fp32 (the tiny module's weight has sd 15 kg)."""
    run_predict(_config(projections, tmp_path / "cpu", tiny_module))
    run_predict(_config(projections, tmp_path / "cuda", tiny_module, device="cuda", precision="fp32"))
    one, two = (pd.read_csv(tmp_path / k / "estimates.csv")["weight_mean"].to_numpy() for k in ("cpu", "cuda"))
    assert np.abs(one - two).max() < 1.5e-2


def test_batches_in_flight_give_what_single_ones_give(
    projections: Path, tiny_module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of a GPU run, made on the CPU: launch a batch, then commit the one before."""
    from ukb_infer.inference.engine import BatchBuffers, Engine

    run_predict(_config(projections, tmp_path / "plain", tiny_module))
    original = Engine.__init__

    def with_two_buffers(self: Engine, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.buffers = BatchBuffers(self.recipe, self.batch_size, self.device, 2)

    monkeypatch.setattr(Engine, "__init__", with_two_buffers)
    order: list[str] = []
    for name in ("launch", "collect"):
        method = getattr(Engine, name)
        monkeypatch.setattr(
            Engine, name, lambda self, *a, _m=method, _n=name: (order.append(_n), _m(self, *a))[1]
        )  # fmt: skip
    run_predict(_config(projections, tmp_path / "overlapped", tiny_module))
    assert order == ["launch", "launch", "collect", "launch", "collect", "collect"]
    assert _tables(tmp_path / "overlapped") == _tables(tmp_path / "plain")
