"""Calibrating a module again on local labels, for bodies and for heads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.support.head_files import make_module, write_session
from tests.support.tiny_module import make_tiny_module
from ukb_infer.cli.app import app
from ukb_infer.errors import RunError, UsageError
from ukb_infer.imaging.volumes.read import read_volume
from ukb_infer.inference import PredictConfig, run_predict
from ukb_infer.modules import read_manifest, update_manifest, verify_module
from ukb_infer.modules.card import CARD_NAME, Card, card_markdown, known_of_module
from ukb_infer.runs import read_run
from ukb_infer.training.recalibrate import RecalibrateConfig, run_recalibrate

COUNT = 40


@pytest.fixture(scope="module")
def bodies(projections: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Projections of 40 participants, shifted versions of a few."""
    folder = tmp_path_factory.mktemp("bodies")
    base = [np.load(path) for path in sorted(projections.glob("*.npy"))[:3]]
    for k in range(COUNT):
        np.save(folder / f"{k + 1:07d}_20201_2_0.npy", np.roll(base[k % 3], 3 * k, axis=2))
    return folder


def _predict(module: Path, inputs: Path, out: Path) -> pd.DataFrame:
    run_predict(PredictConfig(inputs=(str(inputs),), out=out, modules=(str(module),), workers=0))
    return pd.read_csv(out / "estimates.csv", dtype={"eid": str, "scan": str})


def _module(folder: Path, **given: Any) -> Path:
    """A tiny module that is sure of itself: weights within 2 kg."""
    made = read_manifest(make_tiny_module(folder, **given))
    update_manifest(folder, made.with_targets([replace(t, sd=2.0) if t.name == "weight" else t for t in made.targets]))
    return folder


def _scattered(table: pd.DataFrame, times: float, seed: int) -> np.ndarray:
    """Labels further from the means than the sd says."""
    noise = np.random.default_rng(seed).normal(size=len(table))
    return (table["weight_mean"] + times * table["weight_sd"] * noise).to_numpy()


def _covered(table: pd.DataFrame, label: np.ndarray, name: str = "weight") -> float:
    return float(((label >= table[f"{name}_ci95_lower"]) & (label <= table[f"{name}_ci95_upper"])).mean())


def test_intervals_too_narrow_at_a_site_are_right_after_a_fit_on_its_labels(bodies: Path, tmp_path: Path) -> None:
    module = _module(tmp_path / "mod")
    table = _predict(module, bodies, tmp_path / "run")
    label = _scattered(table, 4.0, 0)
    here = np.arange(COUNT) < 30  # the others are fresh people
    pd.DataFrame({"eid": table["eid"], "weight": label})[here].to_csv(tmp_path / "labels.csv", index=False)
    before = (module / "module.json").read_bytes()
    made = read_manifest(module)
    (module / CARD_NAME).write_text(card_markdown(Card(name=made.name, known=known_of_module(made), tables={})))
    given = ["calibrate", str(tmp_path / "run"), "--module", str(module), "--labels", str(tmp_path / "labels.csv")]
    result = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "here"), "--dry-run"])
    assert "nothing was written" in result.output
    assert not (tmp_path / "here").exists()
    result = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "here")])
    assert result.exit_code == 0, result.output
    assert "of 30 labels within the 95 % interval before; intervals become" in result.output
    assert "without labels, so their calibration stays: sex, AtlasLiverFat, type2Diabetes" in result.output
    assert (module / "module.json").read_bytes() == before
    assert verify_module(tmp_path / "here") == []
    assert "weight on 30 local labels" in (tmp_path / "here/README.md").read_text()
    manifest = read_manifest(tmp_path / "here")
    assert manifest.name == "here"
    card = (tmp_path / "here" / CARD_NAME).read_text()
    assert "here" in card.splitlines()[0]
    assert "30" in next(line for line in card.splitlines() if line.startswith("| weight"))
    assert [t.calibration.method for t in manifest.targets] == ["none", "conformal", "none", "none"]
    again = _predict(tmp_path / "here", bodies, tmp_path / "again")
    assert again["weight_mean"].equals(table["weight_mean"])
    assert _covered(table, label) < 0.6
    assert _covered(again[here], label[here]) >= 0.95
    assert _covered(again[~here], label[~here]) >= 0.8
    words = pd.read_csv(tmp_path / "again/dictionary.csv").set_index("column")["meaning"]
    assert "conformal (30 local labels)" in words["weight_ci95_lower"]


def test_a_second_fit_starts_from_the_first(bodies: Path, tmp_path: Path) -> None:
    """In place; variances already calibrated are not calibrated twice."""
    module = _module(tmp_path / "mod", targets=("weight",))
    table = _predict(module, bodies, tmp_path / "run")
    label = _scattered(table, 3.0, 1)
    pd.DataFrame({"scan": table["scan"], "weight": label}).to_csv(tmp_path / "labels.csv", index=False)
    for name in ("run", "again"):
        if name == "again":
            _predict(module, bodies, tmp_path / name)
        run_recalibrate(RecalibrateConfig(run=tmp_path / name, module=module, labels=tmp_path / "labels.csv"), str)
        calibration = read_manifest(module).targets[0].calibration
        if name == "run":
            first = calibration
    assert calibration.factor == pytest.approx(first.factor, rel=1e-3)
    assert calibration.half_widths[-1] == pytest.approx(first.half_widths[-1], rel=1e-3)
    assert first.factor == pytest.approx(9.0, rel=0.5)


def test_what_cannot_be_fitted_on_is_refused(bodies: Path, tmp_path: Path) -> None:
    module = _module(tmp_path / "mod", targets=("weight",))
    table = _predict(module, bodies, tmp_path / "run")
    labels = tmp_path / "labels.csv"
    pd.DataFrame({"scan": table["scan"][:9], "weight": table["weight_mean"][:9]}).to_csv(labels, index=False)
    config = RecalibrateConfig(run=tmp_path / "run", module=module, labels=labels)
    with pytest.raises(UsageError, match=r"no target can be calibrated on .* \(weight: .*10.* 9"):
        run_recalibrate(config, str)
    pd.DataFrame({"scan": table["scan"][:18], "weight": table["weight_mean"][:18] + 5}).to_csv(labels, index=False)
    with pytest.raises(UsageError, match=r"weight: 18 labels support .* 95 % needs 19"):  # it would lose its interval
        run_recalibrate(config, str)
    other = _module(tmp_path / "other", seed=3, targets=("weight",))
    with pytest.raises(UsageError, match=r"was not made by other as it is, or not by it alone: its modules are mod"):
        run_recalibrate(RecalibrateConfig(run=tmp_path / "run", module=other, labels=labels), str)
    with pytest.raises(UsageError, match="expected a table, as the module takes bodies"):
        run_recalibrate(RecalibrateConfig(run=tmp_path / "run", module=module, labels=tmp_path), str)
    pd.DataFrame({"scan": table["scan"], "weight": table["weight_mean"] + 5}).to_csv(labels, index=False)
    with pytest.raises(UsageError, match="exists and is not empty"):
        run_recalibrate(RecalibrateConfig(run=tmp_path / "run", module=module, labels=labels, out=other), str)
    run_recalibrate(config, str)
    with pytest.raises(UsageError, match=r"mod as it is, in another state \(calibrated since\?\)"):
        run_recalibrate(config, str)
    result = CliRunner().invoke(app, ["calibrate", str(tmp_path / "run"), "--module", str(module)])
    assert "it is a run, which is calibrated on with --labels" in str(result.exception)
    for option in (["--out", "x"], ["--overwrite"]):
        result = CliRunner().invoke(app, ["calibrate", "cv", "--module", str(module), *option])
        assert f"{option[0]} is for calibrating on the labels of a run; add --labels" in str(result.exception)


def test_a_participant_counts_once(bodies: Path, tmp_path: Path) -> None:
    module = _module(tmp_path / "mod", targets=("weight",))
    visits = tmp_path / "visits"
    visits.mkdir()
    for path in sorted(bodies.glob("*.npy"))[:20]:
        for visit in (2, 3):
            (visits / path.name.replace("_2_0", f"_{visit}_0")).write_bytes(path.read_bytes())
    table = _predict(module, visits, tmp_path / "run")
    pd.DataFrame({"scan": table["scan"], "weight": table["weight_mean"] + np.arange(40)}).to_csv(tmp_path / "l.csv")
    said: list[str] = []
    (fitted,) = run_recalibrate(
        RecalibrateConfig(run=tmp_path / "run", module=module, labels=tmp_path / "l.csv"), said.append
    )
    assert fitted.labels == 20
    assert "20 further scans of the same participants are left out" in said


# -- heads -------------------------------------------------------------------------------------------------------------


def _write_heads(root: Path, count: int, mean_of: pd.Series | None = None) -> Path:
    """Cases in the finetuning layout; the label is whether there is a lump, outlined too, and a number in a table."""
    rows = ["participant_id\tlump\tsite"]
    for k in range(count):
        session = root / f"preprocessed/sub_{k:02d}/ses_1"
        if not session.exists():
            write_session(session, lump=k % 2 == 0, seed=k)
            label = root / f"labels/sub_{k:02d}/ses_1"
            label.mkdir(parents=True)
            (session / "seg.nii.gz").rename(label / "seg.nii.gz")
            (label / "label.txt").write_text(f"{int(k % 2 == 0)}\n")
        rows.append(f"sub_{k:02d}\t{0 if mean_of is None else mean_of[f'sub_{k:02d}_ses_1']}\there")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("head", ["mean-variance", "class", "segmentation"])
def test_modules_of_heads_are_calibrated_again(head: str, tmp_path: Path) -> None:
    module = make_module(tmp_path / "mod", head, members=1)  # type: ignore[arg-type]
    cases = _write_heads(tmp_path / "cases", 24)
    table = _predict(module, cases / "preprocessed", tmp_path / "run").set_index("scan")
    labels = cases
    if head == "mean-variance":  # a table that names participants
        _write_heads(cases, 24, (table["lump_mean"] + 20 * table["lump_sd"] * np.linspace(-1, 1, 24)).abs())
        labels = cases / "participants.tsv"
    (fitted,) = run_recalibrate(RecalibrateConfig(run=tmp_path / "run", module=module, labels=labels), str)
    assert fitted.labels == 24
    again = _predict(module, cases / "preprocessed", tmp_path / "again").set_index("scan")
    assert again["lump_mean"].equals(table["lump_mean"])
    if head == "class":
        assert again["lump_probability"].mean() == pytest.approx(0.5, abs=0.05)
        assert read_run(tmp_path / "again").estimated[1].targets[0].kind == "binary"
        return
    if head == "segmentation":
        paths = [cases / f"labels/{scan.replace('_ses', '/ses')}/seg.nii.gz" for scan in again.index]
        label = np.array([read_volume(path, labels=True).label_volumes_ml(1)[0] for path in paths])
        assert label.max() > 0
        image = nib.load(paths[0])
        nib.save(nib.Nifti1Image(np.full(image.shape, 255, np.uint8), image.affine), paths[0])
        with pytest.raises(RunError, match="numbers up to 255, expected 1 to 1"):
            run_recalibrate(RecalibrateConfig(run=tmp_path / "again", module=module, labels=labels), str)
    else:
        label = pd.read_csv(labels, sep="\t")["lump"].to_numpy()
        assert _covered(table, label, "lump") < 0.5
    assert _covered(again, label, "lump") >= 0.95
