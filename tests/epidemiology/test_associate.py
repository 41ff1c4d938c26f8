"""`associate` on files: joins, what it refuses, what it writes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from typer.testing import CliRunner

from tests.support.made_run import make_run
from ukb_infer.cli.app import app
from ukb_infer.epidemiology.associate import AssociateConfig, run_associate
from ukb_infer.epidemiology.cohort import Sources, read_cohort
from ukb_infer.epidemiology.phenotypes import phenotype_names, read_phenotypes
from ukb_infer.errors import UsageError
from ukb_infer.evaluation import CrossValidation
from ukb_infer.evaluation.cross_validation import write_cross_validation
from ukb_infer.records import ScanKey
from ukb_infer.regression import Mixture

PEOPLE, LABELLED = 400, 120
MODEL = "liverFat ~ age + sex + bmi"


def people() -> pd.DataFrame:
    """True values of the participants."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({
        "eid": [f"{k:07d}" for k in range(1, PEOPLE + 1)],
        "age": rng.normal(62, 7, PEOPLE).round(1), "sex": rng.integers(0, 2, PEOPLE),
        "bmi": rng.normal(27, 4, PEOPLE).round(1),
    })  # fmt: skip
    fat = 6 + 0.03 * (frame["age"] - 62) + 0.5 * frame["sex"] + 0.2 * (frame["bmi"] - 27) + rng.normal(0, 1, PEOPLE)
    return frame.assign(liverFat=fat.round(3), estimate=(0.9 * fat + 0.6 + rng.normal(0, 0.3, PEOPLE)).round(3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, labels and phenotypes in three forms."""
    where, frame = tmp_path_factory.mktemp("association"), people()
    scans = [f"{eid}_20201_2_0" for eid in frame["eid"]]
    make_run(where / "run", scans, {"liverFat": frame["estimate"].to_numpy(), "age": frame["age"].to_numpy()}, sd=0.35)
    labels = frame[["eid", "liverFat"]].head(LABELLED).rename(columns={"liverFat": "p22402_i2"})
    labels.to_csv(where / "labels.csv", index=False)
    words = frame["sex"].map({0: "Female", 1: "Male"})
    export = pd.DataFrame({"participant.eid": frame["eid"].str.lstrip("0"), "participant.p31": words,
                           "participant.p21003_i2": frame["age"], "participant.bmi_i2": frame["bmi"],
                           "participant.bmi_i3": 99.0})  # fmt: skip
    export.to_csv(where / "export.csv", index=False)
    plain = frame[["eid", "age", "sex", "bmi"]].assign(instance=2)
    plain.sample(frac=1, random_state=1).to_csv(where / "plain.tsv", sep="\t", index=False)
    plain.assign(eid=plain["eid"].astype(int)).to_parquet(where / "plain.parquet")
    return where


def sources(folder: Path, phenotypes: str = "export.csv", **others: object) -> Sources:
    made = Sources(run=folder / "run", labels=folder / "labels.csv", phenotypes=folder / phenotypes, trained_on="none")
    return replace(made, **others)  # type: ignore[arg-type]


def run(folder: Path, out: Path, **others: object) -> tuple[pd.DataFrame, str, list[str]]:
    """Table, page and messages."""
    said: list[str] = []
    result = run_associate(
        AssociateConfig(sources=sources(folder, **others), model=MODEL, out=out, figures=False),  # type: ignore[arg-type]
        said.append,
    )
    return pd.read_csv(out / "associations.csv"), result.page, said


@pytest.mark.parametrize("phenotypes", ["export.csv", "plain.tsv", "plain.parquet"])
def test_labels_only_is_the_regression_of_the_measurements(folder: Path, tmp_path: Path, phenotypes: str) -> None:
    table, page, said = run(folder, tmp_path, phenotypes=phenotypes)
    frame = people().head(LABELLED)
    exact = sm.OLS(frame["liverFat"], sm.add_constant(frame[["age", "sex", "bmi"]])).fit(cov_type="HC2", use_t=True)
    own = table[table["estimator"] == "labels_only"]
    np.testing.assert_allclose(own["estimate"], exact.params, rtol=1e-6)
    np.testing.assert_allclose(own["se"], exact.bse, rtol=1e-6)
    np.testing.assert_allclose(own["p"], exact.pvalues, rtol=1e-4)
    assert set(own["n_labelled"]) == {LABELLED}
    assert set(own["n_estimated"]) == {PEOPLE}
    assert set(table.loc[table["recommended"], "estimator"]) == {"chen_chen"}
    best = table[table["recommended"]].set_index("term")
    assert (best["se"] < own.set_index("term")["se"]).all()
    assert (best["n_effective"] > LABELLED).all()
    assert "Report `chen_chen`" in page
    assert any("age: from the phenotypes" in line for line in said)


def test_the_command_writes_table_page_and_figure_and_names_no_participant(folder: Path, tmp_path: Path) -> None:
    arguments = ["associate", str(folder / "run"), "--labels", str(folder / "labels.csv"), "--phenotypes",
                 str(folder / "export.csv"), "--model", MODEL, "--out", str(tmp_path),
                 "--trained-on", "none"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert {p.name for p in tmp_path.iterdir()} == {f"associations.{s}" for s in ("csv", "md", "pdf", "png")}
    assert (tmp_path / "associations.pdf").read_bytes()[:5] == b"%PDF-"
    written = result.output + "".join((tmp_path / f"associations.{s}").read_text() for s in ("csv", "md"))
    assert not any(eid in written for eid in people()["eid"])
    page = (tmp_path / "associations.md").read_text()
    for words in ("What must hold", "labelled | unlabelled", "effective n", "Labelled at random"):
        assert words in page


def test_without_a_word_on_training_only_the_labels_are_recommended(folder: Path, tmp_path: Path) -> None:
    table, page, said = run(folder, tmp_path, trained_on="")
    assert set(table.loc[table["recommended"], "estimator"]) == {"labels_only"}
    assert any(line.startswith("WARNING Nothing says") for line in said)
    assert "Nothing says whether the module was trained" in page


def test_training_scans_are_left_out_and_all_of_them_refused(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "trained.csv"
    people().head(20)[["eid"]].to_csv(listed, index=False)
    table, _, said = run(folder, tmp_path / "out", trained_on=str(listed))
    assert set(table["n_labelled"]) == {LABELLED - 20}
    assert set(table["n_estimated"]) == {PEOPLE - 20}
    assert any("20 scans that the module was trained on" in line for line in said)
    people().head(LABELLED)[["eid"]].to_csv(listed, index=False)
    with pytest.raises(UsageError, match=r"lists all labelled scans.*out_of_fold"):
        run(folder, tmp_path / "out", trained_on=str(listed))


def cross_validation(folder: Path, frame: pd.DataFrame, scan_list: str = "") -> Path:
    keys = tuple(ScanKey.from_name(f"{eid}_20201_2_0") for eid in frame["eid"])
    mean = frame[["liverFat"]].to_numpy() + np.random.default_rng(2).normal(0, 0.3, (len(frame), 1))
    target = {"name": "liverFat", "unit": "%", "field": "22402", "kind": "continuous", "lower": 0.0, "upper": None}
    facts = {"targets": [target],
             "folds": 4, "members_per_fold": 1, "recipe": {"scan_list": scan_list}}  # fmt: skip
    folder.mkdir()
    mixture = Mixture(mean, np.full_like(mean, 0.09), np.zeros_like(mean))
    write_cross_validation(
        folder, CrossValidation(keys, np.arange(len(keys)) % 4, mixture, frame[["liverFat"]].to_numpy(), facts)
    )
    return folder


def test_a_module_trained_on_the_labelled_scans_needs_out_of_fold_estimates(folder: Path, tmp_path: Path) -> None:
    frame = people()
    scans = [f"{eid}_20201_2_0" for eid in frame["eid"]]
    mark = hashlib.sha256("\n".join(scans[:LABELLED]).encode()).hexdigest()[:16]
    seen = make_run(tmp_path / "seen", scans, {"liverFat": frame["estimate"].to_numpy()}, training={"scan_list": mark})
    for said in ("", "none"):  # the record outweighs the word
        with pytest.raises(UsageError, match="trained on exactly the labelled scans"):
            run(folder, tmp_path / "out", run=seen, trained_on=said)
    folds = cross_validation(tmp_path / "cv", frame.head(LABELLED), mark)
    table, page, _ = run(folder, tmp_path / "out", run=seen, trained_on="", out_of_fold=folds)
    assert "cross_ppi++" in set(table["estimator"])
    assert "Report `chen_chen`" in page
    data = read_cohort(sources(folder, run=seen, out_of_fold=folds), ["liverFat"], lambda _: None)
    assert data.relation == "out-of-fold"
    changed = data.estimates["liverFat"] != pytest.approx(frame["estimate"])
    assert changed
    np.testing.assert_allclose(data.estimates["liverFat"][LABELLED:], frame["estimate"][LABELLED:], rtol=1e-6)
    others = cross_validation(tmp_path / "others", frame.tail(50), "0" * 16)
    with pytest.raises(UsageError, match="are not those the run's module was trained on"):
        run(folder, tmp_path / "out", run=seen, trained_on="", out_of_fold=others)


def test_without_labels_the_page_says_so_first(folder: Path, tmp_path: Path) -> None:
    table, page, said = run(folder, tmp_path, labels=None)
    assert set(table["estimator"]) == {"naive", "sensitivity_range"}
    assert not table["recommended"].any()
    assert "**Report nothing from this table**" in page
    assert "## The range" in page
    assert said[-1].startswith("WARNING There are no measurements")


def test_two_visits_are_one_participant(tmp_path: Path) -> None:
    frame = people()
    scans = [f"{eid}_20201_{visit}_0" for eid in frame["eid"] for visit in (2, 3)]
    both = np.repeat(frame["estimate"].to_numpy(), 2)
    make_run(tmp_path / "run", scans, {"liverFat": both})
    frame[["eid", "liverFat"]].head(LABELLED).to_csv(tmp_path / "labels.csv", index=False)
    frame[["eid", "age", "sex", "bmi"]].to_csv(tmp_path / "plain.csv", index=False)
    where = sources(tmp_path, "plain.csv")
    twice = run_associate(
        AssociateConfig(sources=where, model=MODEL, out=tmp_path / "a", figures=False), lambda _: None
    )
    once = run_associate(
        AssociateConfig(sources=replace(where, instance=2), model=MODEL, out=tmp_path / "b", figures=False),
        lambda _: None,
    )
    a, b = (r.associations.table().set_index(["estimator", "term"])["se"] for r in (twice, once))
    np.testing.assert_allclose(a, b, rtol=0.03)  # the same information, so the same errors


def test_errors_name_the_option_and_what_to_do(folder: Path, tmp_path: Path) -> None:
    base = ["associate", str(folder / "run"), "--labels", str(folder / "labels.csv"), "--phenotypes",
            str(folder / "export.csv"), "--out", str(tmp_path / "out"), "--trained-on", "none", "--model"]  # fmt: skip
    for model, words in (
        ("liverFat ~ age + bmj", "'bmj' is neither a target of the run nor a column of the phenotypes"),
        ("bmi ~ age", "add --estimated age"),
        ("liverFat", "--model: got 'liverFat', expected outcome ~ covariates"),
    ):
        result = CliRunner().invoke(app, [*base, model])
        assert result.exit_code != 0
        assert words in str(result.exception), model
    both = CliRunner().invoke(app, [*base, "bmi ~ age", "--estimated", "age", "--no-figures"])
    assert "no column for age" in str(both.exception)  # the labels have no age


def test_a_training_record_reaches_the_run(folder: Path) -> None:
    facts = json.loads((folder / "run" / "run.json").read_text())
    assert facts["modules"][0]["training"] == {}


def test_codes_words_and_visits_of_phenotypes(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text(
        "participant.eid,participant.p20116_i2,participant.p1558_i2,participant.p1558_i3,p22009_a1,townsend,smoking_i2\n"
        "0000001,1,-3,7,-3,-1,Never\n0000002,2,2,,-2.5,-3,Prefer not to answer\n0000003,-1,5,5,1,2.5,Current\n"
    )
    keys = [ScanKey.from_name(f"{k:07d}_20201_{visit}_0") for k, visit in ((1, 2), (2, 2), (3, 2), (1, 3))]
    notes: list[str] = []
    names = ["p20116", "p1558", "p1558_i3", "p22009_a1", "townsend", "smoking"]
    frame = read_phenotypes(path, names, keys, say=notes.append)
    nan = float("nan")
    expected = {"p20116": [1, 2, nan, nan], "p1558": [nan, 2, 5, 7], "p1558_i3": [7, nan, 5, 7],
                "p22009_a1": [-3, -2.5, 1, -3], "townsend": [-1, -3, 2.5, -1]}  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_array_equal(frame[name].to_numpy(float), values)
    assert frame["smoking"].fillna("").tolist() == ["Never", "", "Current", ""]
    assert len(notes) == 2  # smoking status and alcohol, but not a principal component or the user's own column
    assert set(names) <= phenotype_names(path)
    with pytest.raises(UsageError, match="no column for 'smokin'"):
        read_phenotypes(path, ["smokin"], keys)
