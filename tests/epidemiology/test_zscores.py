"""`zscores`: curves recover known z-scores, references travel without individual data, intervals are widened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, norm
from typer.testing import CliRunner

import ukb_infer
from tests.support.made_run import make_run
from ukb_infer.cli.app import app
from ukb_infer.epidemiology.curves import LocationScale
from ukb_infer.epidemiology.zscores import ZscoresConfig, run_zscores
from ukb_infer.errors import RunError, UsageError

PEOPLE = 3000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with estimates of known z-score, its phenotypes, and its z-scores."""
    where, rng = tmp_path_factory.mktemp("z"), np.random.default_rng(5)
    frame = pd.DataFrame({"eid": [f"{k:07d}" for k in range(1, PEOPLE + 1)], "sex": rng.integers(0, 2, PEOPLE)})
    frame["age"] = rng.uniform(45, 80, PEOPLE)
    frame["height"] = rng.normal(163 + 13 * frame["sex"], 6.5)
    frame["centre"] = rng.choice(["Cheadle", "Reading"], PEOPLE)
    frame["true"] = rng.normal(size=PEOPLE)
    tall, age = (frame["height"] - 170) / 10, (frame["age"] - 62) / 10
    volume = 1.5 + 0.1 * tall + 0.05 * age + 0.2 * np.exp(0.2 * tall) * frame["true"]
    fat = np.exp(1.2 + 0.3 * frame["sex"] + 0.1 * age + 0.6 * frame["true"]) * np.where(
        frame["centre"] == "Reading", 1.5, 1.0
    )
    scans = [f"{eid}_20201_2_0" for eid in frame["eid"]]
    make_run(where / "run", scans, {"liverVolume": volume.to_numpy(), "liverFat": fat.to_numpy()}, sd=0.1)
    frame.to_csv(where / "phenotypes.csv", index=False)
    return where


def config(folder: Path, **others: object) -> ZscoresConfig:
    made = ZscoresConfig(run=folder / "run", phenotypes=folder / "phenotypes.csv")
    return replace(made, **others)  # type: ignore[arg-type]


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"eid": str})


def test_known_z_scores_are_recovered(folder: Path, tmp_path: Path) -> None:
    true = pd.read_csv(folder / "phenotypes.csv")["true"]
    found = table(run_zscores(config(folder, out=tmp_path / "z.csv", covariates=("centre",)), lambda _: None))
    for name in ("liverVolume", "liverFat"):
        z = found[f"{name}_z"]
        assert np.abs(z - true).mean() < 0.12  # 11 coefficients of mean and spread each from 1,500 people: 0.09
        assert kstest(z, "norm").pvalue > 0.01
        assert np.allclose(found[f"{name}_percentile"], 100 * norm.cdf(z), atol=1e-3)


def test_the_first_visit_of_everyone_makes_the_curve(folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(folder / "phenotypes.csv", dtype={"eid": str}).head(900)
    scans = [f"{eid}_20201_{visit}_0" for eid in frame["eid"] for visit in (2, 3)]
    volume = np.repeat(1.5 + 0.2 * frame["true"].to_numpy(), 2)
    volume[1::2] += 5.0  # second visits are not like the first
    make_run(tmp_path / "run", scans, {"liverVolume": volume}, sd=0.1)
    said: list[str] = []
    found = table(run_zscores(config(folder, run=tmp_path / "run", out=tmp_path / "z.csv"), said.append))
    women, men = (round(int((frame["sex"] == sex).sum()), -1) for sex in (0, 1))
    assert any(f"reference of about {women} women, {men} men" in line for line in said)
    first = found["liverVolume_z"][found["instance"] == 2]
    assert (first.mean(), first.std()) == pytest.approx((0, 1), abs=0.05)
    assert (found["liverVolume_z"][found["instance"] == 3] > 4).all()


def test_the_interval_is_that_of_the_estimate_widened_by_the_curve(folder: Path, tmp_path: Path) -> None:
    found = table(run_zscores(config(folder, out=tmp_path / "z.csv"), lambda _: None))
    frame = pd.read_csv(folder / "phenotypes.csv")
    half = 1.96 * 0.1 / (0.2 * np.exp(0.2 * (frame["height"] - 170) / 10))  # of the estimate alone, in z
    measured = (found["liverVolume_z_upper"] - found["liverVolume_z_lower"]) / 2
    assert (measured / half).median() == pytest.approx(1.0, abs=0.05)
    assert (measured / half).quantile(0.01) > 0.8  # spreads of curves are known to a few percent
    far = (found["liverVolume_z"].abs() < 1) & found["outside_reference"]
    near = (found["liverVolume_z"].abs() < 1) & ~found["outside_reference"]
    assert (measured / half)[far].mean() > (measured / half)[near].mean()  # the curve is less certain there


def test_a_saved_reference_gives_the_same_scores_and_holds_no_individual_data(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "curves.json"
    own = table(run_zscores(config(folder, out=tmp_path / "a.csv", save_reference=saved), lambda _: None))
    other = table(run_zscores(config(folder, out=tmp_path / "b.csv", reference=saved), lambda _: None))
    pd.testing.assert_frame_equal(own, other)
    text = saved.read_text()
    estimates = pd.read_csv(folder / "run" / "estimates.csv", dtype=str)
    phenotypes = pd.read_csv(folder / "phenotypes.csv", dtype=str)
    values = {*estimates["liverVolume_mean"], *estimates["liverFat_mean"], *phenotypes["age"], *phenotypes["height"]}
    assert not any(f" {value}" in text for value in values)
    assert not any(eid in text for eid in phenotypes["eid"])
    assert json.loads(text)["people"].keys() == {"0", "1"}


def test_one_person_more_moves_no_coefficient_by_more_than_a_step(folder: Path, tmp_path: Path) -> None:
    """A reference is rounded so that two of them do not show the person by whom they differ."""
    frame = pd.read_csv(folder / "phenotypes.csv", dtype={"eid": str})
    frame.drop(index=7).to_csv(tmp_path / "without.csv", index=False)
    texts = []
    for path in (folder / "phenotypes.csv", tmp_path / "without.csv"):
        saved = tmp_path / f"{path.stem}.json"
        run_zscores(config(folder, phenotypes=path, out=tmp_path / "z.csv", save_reference=saved), lambda _: None)
        texts.append(json.loads(saved.read_text()))
    for sex in ("0", "1"):
        means = [t["targets"]["liverVolume"]["sexes"][sex]["first"]["mean"] for t in texts]
        covariance = np.array(texts[0]["targets"]["liverVolume"]["sexes"][sex]["first"]["covariance"])
        assert (np.abs(np.subtract(*means)) <= 0.35 * np.sqrt(np.diag(covariance))).all()


def test_a_constant_covariate_shows_no_variance_unrounded() -> None:
    """A covariate that is 3 for everyone: its coefficient is three times the intercept, and says nothing more."""
    rng = np.random.default_rng(3)
    columns = np.column_stack([np.ones(300), rng.normal(size=300), np.full(300, 3.0)])
    found = LocationScale.fit(columns, rng.normal(0.0, 7.0, 300))
    for coefficients in (found.mean, found.log_variance):
        assert coefficients[2] == pytest.approx(3.0 * coefficients[0], rel=1e-3, abs=1e-3)


def test_read_estimates_joins_them(folder: Path) -> None:
    with pytest.raises(RunError, match=r"no zscores\.csv; `ukb-infer zscores"):
        ukb_infer.read_estimates(folder / "run", zscores=True)
    run_zscores(config(folder), lambda _: None)
    frame = ukb_infer.read_estimates(folder / "run", zscores=True)
    assert len(frame) == PEOPLE
    assert frame["liverFat_z"].notna().all()
    assert frame["liverFat_z"].corr(frame["liverFat_mean"], method="spearman") > 0.8
    with pytest.raises(UsageError, match="leave out `long`"):
        ukb_infer.read_estimates(folder / "run", zscores=True, long=True)
    (folder / "run" / "zscores.csv").unlink()


def test_what_cannot_be_done_is_said(folder: Path, tmp_path: Path) -> None:
    few = pd.read_csv(folder / "phenotypes.csv", dtype={"eid": str}).head(150)
    few.to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(UsageError, match=r"have sex, age and height; curves need at least 200 of a sex"):
        run_zscores(config(folder, phenotypes=tmp_path / "few.csv"), lambda _: None)
    arguments = ["zscores", str(folder / "run"), "--phenotypes", str(folder / "phenotypes.csv"), "--reference"]
    result = CliRunner().invoke(app, [*arguments, str(folder / "run" / "run.json"), "--out", str(tmp_path / "z.csv")])
    assert isinstance(result.exception, UsageError)
    assert "expected a file that `ukb-infer zscores` wrote" in str(result.exception)


def test_people_unlike_the_reference_are_announced(folder: Path, tmp_path: Path) -> None:
    saved, said = tmp_path / "curves.json", []
    run_zscores(config(folder, out=tmp_path / "a.csv", save_reference=saved), lambda _: None)
    estimates = pd.read_csv(folder / "run" / "estimates.csv")
    scans = [f"{k:07d}_20201_2_0" for k in range(1, PEOPLE + 1)]
    make_run(tmp_path / "run", scans, {"liverVolume": estimates["liverVolume_mean"].to_numpy() + 0.2}, sd=0.1)
    run_zscores(config(folder, run=tmp_path / "run", reference=saved, out=tmp_path / "z.csv"), said.append)
    assert any("liverVolume: z-scores have mean" in line for line in said)
    assert not any("0000001" in line for line in said)


def test_a_reference_serves_one_person_and_says_who_has_no_score(folder: Path, tmp_path: Path) -> None:
    saved, said = tmp_path / "curves.json", []
    reference = config(folder, out=tmp_path / "a.csv", save_reference=saved, covariates=("centre",))
    everyone = table(run_zscores(reference, lambda _: None)).set_index("eid")["liverFat_z"]
    scans = ["0000001_20201_2_0", "0000002_20201_2_0", "0000003_20201_2_0"]
    means = pd.read_csv(folder / "run" / "estimates.csv")["liverFat_mean"].to_numpy()[:3]
    make_run(tmp_path / "run", scans, {"liverFat": means}, sd=0.1)
    frame = pd.read_csv(folder / "phenotypes.csv", dtype={"eid": str}).head(3)
    frame.loc[1, "centre"] = "Nowhere"
    frame.loc[2, "height"] = np.nan
    frame.to_csv(tmp_path / "few.csv", index=False)
    few = config(folder, run=tmp_path / "run", phenotypes=tmp_path / "few.csv", reference=saved, out=tmp_path / "z.csv")
    found = table(run_zscores(few, said.append)).set_index("eid")["liverFat_z"]
    assert found["0000001"] == pytest.approx(everyone["0000001"], abs=1e-3)
    assert found[["0000002", "0000003"]].isna().all()
    assert any(line.startswith("2 of 3 scans have no z-score") for line in said)
