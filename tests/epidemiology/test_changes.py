"""`changes`: intervals of the difference of two visits, the correlation of their errors, what is implausible."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import ukb_infer
from tests.support.made_run import make_run
from ukb_infer.cli.app import app
from ukb_infer.epidemiology.changes import ChangesConfig, run_changes
from ukb_infer.errors import UsageError
from ukb_infer.modules import find_module, load_module, read_manifest, update_manifest
from ukb_infer.modules.visits import VISITS_NAME, read_visits

PAIRS, SD, CORRELATION = 2000, 2.0, 0.6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_module: Path) -> Path:
    """A module, and a run of it with two visits of most and one of some; true values as labels."""
    where, rng = tmp_path_factory.mktemp("changes"), np.random.default_rng(8)
    true = rng.normal(75, 12, PAIRS) + rng.normal(0, 4, (2, PAIRS))
    shared = rng.normal(size=PAIRS)
    errors = SD * (np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * rng.normal(size=(2, PAIRS)))
    height = np.tile(rng.normal(170, 9, PAIRS), (2, 1))
    height[1, 3] += 4.5
    eids = [f"{k:07d}" for k in range(1, PAIRS + 1)]
    scans = [f"{eid}_20201_{visit}_0" for visit in (2, 3) for eid in eids]
    shutil.copytree(tiny_module, where / "tiny")
    made = read_manifest(where / "tiny").made_by
    alone = ["0999999_20201_2_0", "phantom"]
    make_run(
        where / "run", scans + alone,
        {"weight": np.append(true + errors, [70.0, 80.0]), "height": np.append(height, [160.0, 170.0])},
        sd=SD, made_by=(made.name, made.sha256),
    )  # fmt: skip
    pd.DataFrame({"scan": scans, "weight": true.ravel()}).to_csv(where / "labels.csv", index=False)
    return where


def changes(folder: Path, out: Path, **others: object) -> tuple[pd.DataFrame, list[str]]:
    said: list[str] = []
    path = run_changes(replace(ChangesConfig(run=folder / "run", out=out), **others), said.append)  # type: ignore[arg-type]
    return pd.read_csv(path, dtype={"eid": str, "scan": str}, keep_default_na=False), said


def covered(folder: Path, table: pd.DataFrame) -> float:
    labels = pd.read_csv(folder / "labels.csv").set_index("scan")["weight"]
    true = labels.loc[table["scan"]].to_numpy() - labels.loc[table["scan_before"]].to_numpy()
    return float(((table["weight_change_lower"] <= true) & (true <= table["weight_change_upper"])).mean())


def test_repeat_labels_give_the_correlation_and_intervals_that_cover(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "visits.json"
    table, said = changes(folder, tmp_path / "c.csv", labels=folder / "labels.csv", save_correlations=saved)
    assert len(table) == PAIRS
    known = json.loads(saved.read_text())["targets"]["weight"]
    assert known["correlation"] == pytest.approx(CORRELATION, abs=0.04)  # 2 standard errors of 2,000 pairs
    assert known["factor"] == pytest.approx(1.0, abs=0.04)
    assert dict(map(tuple, known["half_widths"]))[0.95] == pytest.approx(1.96, abs=0.12)  # 2 standard errors
    assert 0.94 < covered(folder, table) < 0.96
    assert not any("0000001" in line for line in said)
    again, _ = changes(folder, tmp_path / "again.csv", correlations=str(saved))
    pd.testing.assert_series_equal(again["weight_change_lower"], table["weight_change_lower"])


def test_errors_of_unknown_correlation_give_intervals_that_are_too_wide(folder: Path, tmp_path: Path) -> None:
    table, said = changes(folder, tmp_path / "c.csv")
    assert any(line.startswith("WARNING the correlation") for line in said)
    assert covered(folder, table) > 0.98
    narrow, _ = changes(folder, tmp_path / "n.csv", correlations="0.6")
    assert (narrow["weight_change_sd"] / table["weight_change_sd"]).median() == pytest.approx(np.sqrt(0.4), abs=1e-4)


def test_a_module_whose_sd_is_too_small_is_seen(folder: Path, tmp_path: Path) -> None:
    """The factor repairs what sds and correlation do not explain."""
    labels = pd.read_csv(folder / "labels.csv")
    labels["weight"] += np.random.default_rng(1).normal(0, 3.0, len(labels))  # errors that the sd does not know
    labels.to_csv(tmp_path / "labels.csv", index=False)
    saved = tmp_path / "visits.json"
    changes(folder, tmp_path / "c.csv", labels=tmp_path / "labels.csv", save_correlations=saved)
    known = json.loads(saved.read_text())["targets"]["weight"]
    expected = np.sqrt((2 * SD**2 * (1 - CORRELATION) + 2 * 9.0) / (2 * SD**2 * (1 - known["correlation"])))
    assert known["factor"] == pytest.approx(expected, rel=0.05)


def test_the_index_says_what_changed_and_jumps_are_flagged(folder: Path, tmp_path: Path) -> None:
    table, said = changes(folder, tmp_path / "c.csv", correlations="0.9")
    index = table["weight_change"] / table["weight_change_sd"]
    assert np.allclose(table["weight_rci"], index, rtol=1e-4)
    assert set(table["weight_reliable"][index > 1.97]) == {"increase"}
    assert set(table["weight_reliable"][index < -1.97]) == {"decrease"}
    assert set(table["weight_reliable"][index.abs() < 1.95]) == {""}
    assert table["implausible"].tolist().count("height") == 1
    assert table["implausible"].iloc[3] == "height"
    assert any(line.startswith("1 of them changed implausibly") for line in said)


def test_read_estimates_joins_them_to_the_later_visit(folder: Path) -> None:
    run_changes(ChangesConfig(run=folder / "run", correlations="0.6"), lambda _: None)
    frame = ukb_infer.read_estimates(folder / "run", changes=True)
    later = frame.index.get_level_values("instance") == 3
    assert frame["weight_change"][later].notna().all()
    assert frame["weight_change"][~later].isna().all()
    before = ukb_infer.read_estimates(folder / "run").xs(2, level="instance")["weight_mean"]
    expected = frame[later].droplevel("instance")["weight_mean"] - before
    assert np.allclose(frame[later].droplevel("instance")["weight_change"], expected.dropna(), rtol=1e-3, atol=1e-3)


def test_what_cannot_be_done_is_said(folder: Path, tmp_path: Path) -> None:
    few = pd.read_csv(folder / "labels.csv").head(PAIRS + 10)
    few.to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(UsageError, match="no target has labels at instances 2 and 3 of at least 20"):
        changes(folder, tmp_path / "c.csv", labels=tmp_path / "few.csv")
    make_run(tmp_path / "one", ["0000001_20201_2_0", "0000002_20201_3_0"], {"weight": np.array([70.0, 80.0])})
    with pytest.raises(UsageError, match="1 participants at instance 2 and 1 at 3, none at both"):
        run_changes(ChangesConfig(run=tmp_path / "one"), lambda _: None)
    arguments = ["changes", str(folder / "run"), "--out", str(tmp_path / "c.csv"), "--correlations", "1.5"]
    assert "a number between -1 and 1" in str(CliRunner().invoke(app, arguments).exception)


def test_a_module_keeps_how_its_errors_go_together(folder: Path, tmp_path: Path) -> None:
    """Fitted by the command, used without asking, shown, verified, and not believed after a calibration."""
    shutil.copytree(folder / "tiny", tmp_path / "tiny")
    module, run = str(tmp_path / "tiny"), str(folder / "run")

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        return result.output + str(result.exception or "")

    assert "visits        not available" in call("modules", "show", module)
    fitted = call("modules", "fit-visits", module, "--run", run, "--labels", str(folder / "labels.csv"))
    assert "weight: correlation of errors 0.59 from 2000 pairs" in fitted
    assert "visits        2000 pairs of visits with labels" in call("modules", "show", module)
    assert "complete" in call("modules", "verify", module)
    assert load_module(module).manifest.hash == read_manifest(folder / "tiny").hash
    table, said = changes(folder, tmp_path / "c.csv", module=module)
    assert "correlations of errors: of module tiny, from 2000 pairs of visits with labels (1 targets)" in said
    assert not any("WARNING" in line for line in said)
    assert 0.94 < covered(folder, table) < 0.96
    given, _ = changes(folder, tmp_path / "g.csv", correlations=f"{module}/{VISITS_NAME}")
    pd.testing.assert_frame_equal(given, table)

    assert "is useless with --labels or --correlations" in call(
        "changes", run, "--module", module, "--correlations", "0.5"
    )

    manifest = read_manifest(tmp_path / "tiny")
    scaled = tuple(replace(t, calibration=replace(t.calibration, factor=2.0)) for t in manifest.targets)
    update_manifest(tmp_path / "tiny", manifest.with_targets(scaled))
    assert "before it was calibrated" in call("modules", "show", module)
    assert "is not in the state that made this run" in call("changes", run, "--module", module, "--out", "o.csv")
    assert "not by tiny alone as it is now" in call(
        "modules", "fit-visits", module, "--run", run, "--labels", str(folder / "labels.csv")
    )
    (tmp_path / "tiny" / VISITS_NAME).write_text('{"modules": [], "targets": {"weight": {"correlation": 2}}}')
    assert "targets.weight.correlation is 2, expected a number between -1 and 1" in call("modules", "verify", module)


def test_a_module_is_found_by_its_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder / "tiny", tmp_path / "modules" / "tiny")
    monkeypatch.setenv("UKB_INFER_MODULES", str(tmp_path / "modules"))
    _, said = changes(folder, tmp_path / "c.csv")
    assert "module tiny has no visits.json" in said
    monkeypatch.delenv("UKB_INFER_MODULES")
    _, said = changes(folder, tmp_path / "c.csv")
    assert any("its correlations of errors are unknown" in line for line in said)


def test_the_demonstration_has_visits_of_its_present_state() -> None:
    folder = find_module("phantom-demo")
    visits = read_visits(folder / VISITS_NAME)
    assert visits.modules == (read_manifest(folder).made_by,)
    assert "synthetic phantoms" in visits.fitted_on
    continuous = {t.name for t in read_manifest(folder).targets if t.kind == "continuous"}
    assert set(visits.targets) == continuous
    assert all(errors.pairs >= 1000 for errors in visits.targets.values())
