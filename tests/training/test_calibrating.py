"""Calibrating a module, and modules together, from folders of out-of-fold predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.support.tiny_module import make_tiny_module
from ukb_infer.cli.app import app
from ukb_infer.errors import ModuleError, UsageError
from ukb_infer.evaluation.cross_validation import CrossValidation, write_cross_validation
from ukb_infer.inference import PredictConfig, run_predict
from ukb_infer.modules import half_width_of, read_manifest, update_manifest
from ukb_infer.modules.calibration import labels_needed
from ukb_infer.modules.card import (
    CALIBRATION,
    CARD_NAME,
    Card,
    calibration_markdown,
    card_markdown,
    known_of_module,
    limits_of_module,
    updated_card,
)
from ukb_infer.modules.combination import combination_key, read_combinations
from ukb_infer.modules.outliers import MIN_SCANS
from ukb_infer.records import ScanKey
from ukb_infer.regression import Mixture, calibrate, combine_modules
from ukb_infer.training.calibrate import run_calibrate, run_combine
from ukb_infer.training.ensemble import UNCALIBRATED
from ukb_infer.training.fit_outliers import run_fit_outliers

UNITS = {"weight": "kg", "sex": "binary (1 = male)", "AtlasLiverFat": "%", "type2Diabetes": "binary"}


def _write(folder: Path, module: Path, n: int, values: dict[str, tuple[Any, Any, Any]]) -> Path:
    """A folder of cross-validate for a module: target -> (labels, means, sds)."""
    manifest = read_manifest(module)
    facts = {
        "targets": [{"name": t.name, "unit": t.unit, "kind": t.kind, "field": t.field} for t in manifest.targets],
        "folds": 5,
        "members_per_fold": len(manifest.members),
        "recipe": manifest.training,
    }
    keys = tuple(ScanKey.from_name(f"{k:07d}_20201_2_0") for k in range(1, n + 1))
    label, mean, sd = (
        np.column_stack([np.broadcast_to(values[t.name][k], n) for t in manifest.targets]).astype(float)
        for k in range(3)
    )
    folder.mkdir()
    mixture = Mixture(mean, np.square(sd), np.zeros_like(sd))
    write_cross_validation(folder, CrossValidation(keys, np.arange(n) % 5, mixture, label, facts))
    return folder


def _honest(n: int, rng: np.random.Generator) -> dict[str, tuple[Any, Any, Any]]:
    weight = rng.normal(75, 12, n)
    fat, sex = rng.normal(5, 1, n), rng.integers(0, 2, n).astype(float)
    diabetes = (rng.random(n) < 0.3).astype(float)
    return {
        "weight": (weight, weight + 3 * rng.normal(size=n), 3.0),
        "AtlasLiverFat": (fat, fat + 0.5 * rng.normal(size=n), 0.5),
        "sex": (sex, sex + 0.2 * rng.normal(size=n), 0.2),
        "type2Diabetes": (diabetes, 0.3 + 0.2 * (diabetes - 0.3) + 0.1 * rng.normal(size=n), 0.3),
    }


def _some(values: np.ndarray, count: int) -> np.ndarray:
    kept = np.full(values.shape, np.nan)
    kept[:count] = values[:count]
    return kept


def test_a_target_with_few_labels_blocks_no_other(projections: Path, tmp_path: Path) -> None:
    module = make_tiny_module(tmp_path / "mod")
    values = _honest(60, np.random.default_rng(0))
    label, mean, sd = values["AtlasLiverFat"]
    values["AtlasLiverFat"] = (_some(label, 15), mean, sd)
    label, mean, sd = values["type2Diabetes"]
    values["type2Diabetes"] = (np.where(np.arange(60) < 3, 1.0, 0.0), mean, sd)
    said: list[str] = []
    cv = _write(tmp_path / "cv", module, 60, values)
    fitted = {f.name: f for f in run_calibrate(cv, module, accept=("recipe",), say=said.append)}
    assert fitted["weight"].problem == ""
    assert fitted["AtlasLiverFat"].problem == "15 labels support intervals up to 92.5 %; 95 % needs 19"
    assert "got 3 of the rarer" in fitted["type2Diabetes"].problem
    assert [line.split(" gets ")[0] for line in said if "WARNING" in line] == [
        f"WARNING: {t.name}" for t in read_manifest(module).targets if t.name in ("AtlasLiverFat", "type2Diabetes")
    ]
    summary = run_predict(PredictConfig(inputs=(str(projections),), out=tmp_path / "run", modules=(str(module),)))
    assert any("no 95 % interval for AtlasLiverFat" in w for w in summary.warnings)
    table = pd.read_csv(tmp_path / "run/estimates.csv")
    assert table["AtlasLiverFat_ci95_lower"].isna().all()
    assert table["AtlasLiverFat_mean"].notna().all()
    assert table["weight_ci95_lower"].notna().all()
    words = pd.read_csv(tmp_path / "run/dictionary.csv").set_index("column")["meaning"]
    assert "none at 95 %" in words["AtlasLiverFat_ci95_lower"]
    assert "92.5 %" in words["AtlasLiverFat_ci95_lower"]
    other = PredictConfig(inputs=(str(projections),), out=tmp_path / "run", modules=(str(module),), level=0.9)
    run_predict(other)
    assert pd.read_csv(tmp_path / "run/estimates.csv")["AtlasLiverFat_ci90_lower"].notna().all()


def test_a_target_without_any_labels_has_no_interval_at_any_level(projections: Path, tmp_path: Path) -> None:
    module = make_tiny_module(tmp_path / "mod")
    values = _honest(60, np.random.default_rng(0))
    values["AtlasLiverFat"] = (_some(values["AtlasLiverFat"][0], 4), *values["AtlasLiverFat"][1:])
    run_calibrate(_write(tmp_path / "cv", module, 60, values), module, accept=("recipe",), say=lambda _: None)
    run_predict(PredictConfig(inputs=(str(projections),), out=tmp_path / "run", modules=(str(module),), level=0.5))
    assert pd.read_csv(tmp_path / "run/estimates.csv")["AtlasLiverFat_ci50_lower"].isna().all()
    nothing = {name: (np.full(60, np.nan), m, s) for name, (_, m, s) in values.items()}
    with pytest.raises(UsageError, match="no target can be calibrated"):
        run_calibrate(_write(tmp_path / "none", module, 60, nothing), module, accept=("recipe",), say=lambda _: None)


def test_the_labels_a_level_needs() -> None:
    assert [labels_needed(level) for level in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]


def test_a_binary_target_has_a_probability_and_no_interval(projections: Path, tmp_path: Path) -> None:
    module = make_tiny_module(tmp_path / "mod")
    cv = _write(tmp_path / "cv", module, 400, _honest(400, np.random.default_rng(2)))
    run_calibrate(cv, module, accept=("recipe",), say=lambda _: None)
    config = PredictConfig(
        inputs=(str(projections),), out=tmp_path / "run", modules=(str(module),), prediction_sets=True
    )
    run_predict(config)
    table = pd.read_csv(tmp_path / "run/estimates.csv", dtype={"sex_set": str, "type2Diabetes_set": str})
    columns = [c for c in table.columns if c.startswith("type2Diabetes")]
    assert columns == [f"type2Diabetes_{s}" for s in ("mean", "probability", "class", "set")]
    assert table["type2Diabetes_probability"].between(0, 1).all()
    assert (table["type2Diabetes_class"] == (table["type2Diabetes_probability"] >= 0.5)).all()
    assert set(table["type2Diabetes_set"].fillna("")) <= {"", "0", "1", "0;1"}
    words = pd.read_csv(tmp_path / "run/dictionary.csv").set_index("column")["meaning"]
    assert "calibrated (platt on 400 out-of-fold predictions" in words["type2Diabetes_probability"]


# -- several modules together ------------------------------------------------------------------------------------------


def _pair(tmp_path: Path, n: int, rng: np.random.Generator) -> tuple[list[Path], list[Path]]:
    """Two modules of one target whose errors are nearly independent, and their out-of-fold predictions."""
    modules = [make_tiny_module(tmp_path / name, seed=k, targets=("weight",)) for k, name in enumerate(("one", "two"))]
    weight = rng.normal(75, 12, n)
    folders = []
    for k, module in enumerate(modules):
        values = {"weight": (weight, weight + 3 * rng.normal(size=n), 3.0)}
        folders.append(_write(tmp_path / f"cv{k}", module, n, values))
    return modules, folders


def test_together_they_have_one_calibration_at_the_stated_level(projections: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    modules, folders = _pair(tmp_path, 600, rng)
    for folder, module in zip(folders, modules, strict=True):
        run_calibrate(folder, module, accept=("recipe",), say=lambda _: None)
    run_predict(PredictConfig(inputs=(str(projections),), out=tmp_path / "apart", modules=tuple(map(str, modules))))
    words = pd.read_csv(tmp_path / "apart/dictionary.csv").set_index("column")["meaning"]
    assert "mixture of 2 modules, not calibrated together" in words["weight_ci95_lower"]
    arguments = ["calibrate", *map(str, folders), "--combine", "--accept", "recipe"]
    for module in modules:
        arguments += ["--module", str(module)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    manifests = [read_manifest(m) for m in modules]
    key = combination_key(m.hash for m in manifests)
    calibration = read_combinations(modules)[key, "weight"]
    # fresh scans, combined as predict does: the coverage is the level
    truth = rng.normal(75, 12, 20_000)
    parts = []
    for manifest in manifests:
        mean = truth + 3 * rng.normal(size=truth.size)
        one = Mixture(mean, np.full(truth.size, 9.0), np.zeros(truth.size))
        parts.append(calibrate(one, np.asarray(manifest.targets[0].calibration.factor)))
    whole = calibrate(combine_modules(parts, [2, 2]), np.asarray(calibration.factor))
    for level in (0.5, 0.8, 0.9, 0.95):
        half = half_width_of(calibration, level)
        assert half is not None
        inside = np.abs(truth - whole.mean) <= half * np.sqrt(whole.total_variance)
        assert inside.mean() == pytest.approx(level, abs=0.04)
    reverse = tuple(map(str, reversed(modules)))
    for name, given in (("run", tuple(map(str, modules))), ("reverse", reverse)):
        run_predict(PredictConfig(inputs=(str(projections),), out=tmp_path / name, modules=given))
    assert (tmp_path / "run/estimates.csv").read_bytes() == (tmp_path / "reverse/estimates.csv").read_bytes()
    words = pd.read_csv(tmp_path / "run/dictionary.csv").set_index("column")["meaning"]
    assert "conformal of the modules together (600 out-of-fold predictions" in words["weight_ci95_lower"]
    table = pd.read_csv(tmp_path / "run/estimates.csv")
    half = half_width_of(calibration, 0.95)
    assert half is not None
    width = (table["weight_ci95_upper"] - table["weight_mean"]).to_numpy()
    assert width == pytest.approx(half * table["weight_sd"].to_numpy(), rel=1e-4)


def test_a_mixture_reaches_no_further_than_each_module_does(projections: Path, tmp_path: Path) -> None:
    """15 labels support 92.5 %: the tail of a mixture is not made up beyond that."""
    modules, folders = _pair(tmp_path, 15, np.random.default_rng(8))
    for folder, module in zip(folders, modules, strict=True):
        run_calibrate(folder, module, accept=("recipe",), say=lambda _: None)
    named = tuple(map(str, modules))
    for level, given in ((0.95, False), (0.9, True)):
        out = tmp_path / f"run{level}"
        summary = run_predict(PredictConfig(inputs=(str(projections),), out=out, modules=named, level=level))
        column = pd.read_csv(out / "estimates.csv")[f"weight_ci{100 * level:g}_lower"]
        assert column.notna().all() == given
        assert column.isna().all() != given
        assert any("no 95 % interval for weight" in w for w in summary.warnings) != given


def test_sets_that_cannot_be_given_are_said(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    given = {"inputs": (str(projections),), "modules": (str(tiny_module),)}
    asked = run_predict(PredictConfig(**given, out=tmp_path / "a", prediction_sets=True))  # type: ignore[arg-type]
    silent = run_predict(PredictConfig(**given, out=tmp_path / "b"))  # type: ignore[arg-type]
    assert any("no 95 % prediction sets for" in w and "type2Diabetes" in w for w in asked.warnings)
    assert not any("prediction sets" in w for w in silent.warnings)


def test_a_module_calibrated_anew_is_another_module(tmp_path: Path) -> None:
    modules, folders = _pair(tmp_path, 100, np.random.default_rng(6))
    run_combine(folders, modules, accept=("recipe",), say=lambda _: None)
    before = combination_key(read_manifest(m).hash for m in modules)
    assert (before, "weight") in read_combinations(modules)
    run_calibrate(folders[0], modules[0], accept=("recipe",), say=lambda _: None)
    after = combination_key(read_manifest(m).hash for m in modules)
    assert (after, "weight") not in read_combinations(modules)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    modules, folders = _pair(tmp_path, 50, np.random.default_rng(7))
    with pytest.raises(UsageError, match="got 1 folders of cross-validate and 2 modules"):
        run_combine(folders[:1], modules, accept=("recipe",))
    with pytest.raises(UsageError, match="same module is given twice"):
        run_combine(folders, [modules[0], modules[0]], accept=("recipe",), say=lambda _: None)
    values = {"weight": (np.linspace(50, 90, 50), 70.0, 3.0)}
    wrong = _write(tmp_path / "wrong", modules[1], 50, values)
    with pytest.raises(UsageError, match=r"labels of weight differ between .* for 50 of 50 scans"):
        run_combine([folders[0], wrong], modules, accept=("recipe",), say=lambda _: None)
    other = make_tiny_module(tmp_path / "other", targets=("AtlasLiverFat",))
    apart = _write(tmp_path / "apart", other, 50, {"AtlasLiverFat": (5.0, 5.0, 1.0)})
    with pytest.raises(UsageError, match="no target is predicted by two"):
        run_combine([folders[0], apart], [modules[0], other], accept=("recipe",), say=lambda _: None)


def test_the_card_follows_the_calibration_and_keeps_what_authors_wrote(tmp_path: Path) -> None:
    module = make_tiny_module(tmp_path / "mod")
    manifest = read_manifest(module)
    uncalibrated = f"{manifest.warning} {UNCALIBRATED}"
    update_manifest(module, replace(manifest, warning=uncalibrated))
    assert not (module / CARD_NAME).exists()  # a module without a card gets none
    card = Card(name="mod", warning=uncalibrated, known=known_of_module(replace(manifest, warning=uncalibrated)),
                limits=limits_of_module(manifest), tables={CALIBRATION: calibration_markdown(manifest)})  # fmt: skip
    asked = "| 17 | Ethics | approval and consent | "
    before = card_markdown(card).replace(f"{asked}**missing**: approval and consent |", f"{asked}Committee 12 |")
    (module / CARD_NAME).write_text(before.replace("## Limits\n\n", "## Limits\n\n- Only for adults.\n"))
    missing = before.count("**missing**")
    folder = _write(tmp_path / "cv", module, 60, _honest(60, np.random.default_rng(0)))
    run_calibrate(folder, module, accept=("recipe",), say=lambda _: None)
    text = (module / CARD_NAME).read_text()
    assert UNCALIBRATED not in text
    assert "**Random weights for tests.**\n" in text
    assert "Intervals are not calibrated" not in text
    assert f"{asked}Committee 12 |" in text
    assert "- Only for adults." in text
    assert f"{missing} of 52 are missing" in text
    fitted = {t.name: t.calibration for t in read_manifest(module).targets}
    assert text.count(f"## {CALIBRATION}") == 1
    row = next(line for line in text.splitlines() if line.startswith("| weight | conformal |"))
    assert row.split(" | ")[2] == f"{fitted['weight'].factor:.4g}"
    assert "60 out-of-fold predictions, 5 folds by participant" in row
    assert "| sex | probability |" in text
    assert "| 12f | " in text
    assert "None yet: `ukb-infer calibrate` adds it." not in text
    run_calibrate(folder, module, accept=("recipe",), say=lambda _: None)
    assert (module / CARD_NAME).read_text() == text
    manifest = read_manifest(module)
    for name in ("other", f"{manifest.name}-here"):
        assert updated_card(text, manifest, replace(manifest, name=name)).startswith(f"# {name}\n")


def test_a_manifest_that_could_not_be_written_is_followed_by_the_card_at_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_tiny_module(tmp_path / "mod")
    manifest = read_manifest(module)
    card = Card(name="mod", known=known_of_module(manifest), limits=limits_of_module(manifest), tables={})
    (module / CARD_NAME).write_text(card_markdown(card))
    folder = _write(tmp_path / "cv", module, 60, _honest(60, np.random.default_rng(0)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ukb_infer.modules.module._write_manifest", full)
        with pytest.raises(ModuleError, match="No space left"):
            run_calibrate(folder, module, accept=("recipe",), say=lambda _: None)
    run_calibrate(folder, module, accept=("recipe",), say=lambda _: None)
    text = (module / CARD_NAME).read_text()
    assert "| weight | conformal |" in text
    assert "Intervals are not calibrated" not in text
    limits = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(limits) == len(set(limits))
    (module / CARD_NAME).write_bytes(b"\xff card")
    with pytest.raises(ModuleError, match=r"MODULE\.md: is no UTF-8 text"):
        run_calibrate(folder, module, accept=("recipe",), say=lambda _: None)


def test_the_card_says_by_which_scans_outliers_are_known(tmp_path: Path) -> None:
    module = make_tiny_module(tmp_path / "mod", members=1)
    card = Card(name="mod", known={}, limits=limits_of_module(read_manifest(module)), tables={})
    (module / CARD_NAME).write_text(card_markdown(card))
    assert "Unusual scans are not noticed" in (module / CARD_NAME).read_text()
    folder = tmp_path / "projections"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(1, MIN_SCANS + 1):
        np.save(folder / f"{k:07d}_20201_2_0.npy", rng.integers(0, 255, (3, 256, 256), np.uint8))
    run_fit_outliers(str(module), folder, "cpu")
    text = (module / CARD_NAME).read_text()
    assert "Unusual scans are not noticed" not in text
    assert f"- Outlier scores compare a scan with {MIN_SCANS} scans given to fit-outliers." in text
