"""`gwas-inputs` and `gwas-combine`: forms of the programs, the combination, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

from tests.support.made_run import make_run
from ukb_infer.cli.app import app
from ukb_infer.epidemiology.cohort import Sources
from ukb_infer.epidemiology.gwas_combine import GwasCombineConfig, combine, inflation, read_summary, run_gwas_combine
from ukb_infer.epidemiology.gwas_inputs import PARTS, GwasInputsConfig, rank_inverse_normal, run_gwas_inputs
from ukb_infer.errors import UsageError

PEOPLE, LABELLED = 60, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two visits of everyone, labels of some, covariates with text and a gap."""
    where, rng = tmp_path_factory.mktemp("gwas"), np.random.default_rng(3)
    eids = [f"{k:07d}" for k in range(1, PEOPLE + 1)]
    fat = rng.normal(6, 2, PEOPLE)
    scans = [f"{eid}_20201_{visit}_0" for eid in eids for visit in (2, 3)]
    make_run(
        where / "run",
        scans,
        {"liverFat": np.repeat(fat + rng.normal(0, 0.5, PEOPLE), 2), "age": np.full(2 * PEOPLE, 60.0)},
    )
    pd.DataFrame({"eid": eids, "liverFat": fat}).head(LABELLED).to_csv(where / "labels.csv", index=False)
    covariates = pd.DataFrame({"eid": eids, "age": rng.normal(60, 8, PEOPLE), "PC 1": rng.normal(size=PEOPLE),
                               "site": rng.choice(["Cheadle", "Reading"], PEOPLE)})  # fmt: skip
    covariates = covariates.rename(columns={"PC 1": "pc1"})
    covariates.loc[5, "site"] = np.nan
    covariates.to_csv(where / "covariates.csv", index=False)
    return where


def config(folder: Path, out: Path, **others: object) -> GwasInputsConfig:
    sources = Sources(run=folder / "run", labels=folder / "labels.csv", phenotypes=folder / "covariates.csv",
                      trained_on="none", instance=2)  # fmt: skip
    return replace(GwasInputsConfig(sources=sources, out=out), **others)  # type: ignore[arg-type]


def test_files_have_the_forms_of_the_programs(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    files = run_gwas_inputs(config(folder, tmp_path), said.append)
    text = {path.name: path.read_text() for path in files}
    columns = [f"liverFat_{part}" for part in PARTS] + ["liverFat_estimated"]
    heads = {name: content.splitlines()[0] for name, content in text.items()}
    assert heads["regenie_phenotypes.txt"] == " ".join(["FID", "IID", *columns])
    assert heads["regenie_covariates.txt"] == "FID IID age pc1 site_Reading"
    assert heads["plink_phenotypes.txt"] == "\t".join(["#FID", "IID", *columns])
    assert heads["saige_phenotypes.txt"] == "\t".join(["IID", *columns, "age", "pc1", "site_Reading"])
    table = pd.read_csv(tmp_path / "regenie_phenotypes.txt", sep=" ", dtype={"FID": str, "IID": str}, na_values="NA")
    assert len(table) == PEOPLE
    assert (table["FID"] == table["IID"]).all()
    assert table["IID"].iloc[0] == "0000001"
    few, rest = table["liverFat_labelled_observed"].notna(), table["liverFat_unlabelled_estimated"].notna()
    assert few.sum() == LABELLED
    assert (few ^ rest).all()
    assert (table["liverFat_labelled_estimated"].notna() == few).all()
    assert text["regenie_covariates.txt"].splitlines()[6].endswith(" NA")  # the participant without site
    facts = json.loads(text["gwas.json"])["targets"]["liverFat"]
    assert facts["labelled"] == LABELLED
    assert 0.9 < facts["correlation"] < 1.0
    assert not any("0000001" in line for line in said)


def test_the_command_names_no_participant_and_asks_about_training(folder: Path, tmp_path: Path) -> None:
    arguments = ["gwas-inputs", str(folder / "run"), "--labels", str(folder / "labels.csv"), "--covariates",
                 str(folder / "covariates.csv"), "--use", "age,pc1", "--out", str(tmp_path)]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "nothing says whether the module was trained" in result.output
    assert "0000001" not in result.output
    head = (tmp_path / "plink_covariates.txt").read_text().splitlines()[0]
    assert head == "\t".join(["#FID", "IID", "age", "pc1"])


def test_covariates_are_optional(folder: Path, tmp_path: Path) -> None:
    arguments = ["--labels", str(folder / "labels.csv"), "--trained-on", "none", "--out", str(tmp_path / "gwas")]
    result = CliRunner().invoke(app, ["gwas-inputs", str(folder / "run"), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "correlation" in (tmp_path / "gwas" / "gwas.json").read_text()


def test_the_rank_transformation_keeps_order_and_makes_normal_scores(folder: Path, tmp_path: Path) -> None:
    values = np.array([5.0, 1.0, np.nan, 100.0, 1.0])
    scores = rank_inverse_normal(values)
    assert np.isnan(scores[2])
    assert scores[1] == scores[4] < scores[0] < scores[3]
    assert scores[3] == pytest.approx(norm.ppf((4 - 0.375) / 4.25))
    run_gwas_inputs(config(folder, tmp_path, rank_normal=True), lambda _: None)
    table = pd.read_csv(tmp_path / "plink_phenotypes.txt", sep="\t")
    whole = table["liverFat_estimated"]
    assert whole.mean() == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(
        table["liverFat_labelled_estimated"].dropna(), whole[table["liverFat_labelled_estimated"].notna()]
    )


def test_several_visits_are_refused(folder: Path, tmp_path: Path) -> None:
    made = config(folder, tmp_path)
    with pytest.raises(UsageError, match="a GWAS takes one; choose 2 or 3"):
        run_gwas_inputs(replace(made, sources=replace(made.sources, instance=None)), lambda _: None)


def summary_statistics(variants: int = 4000, correlation: float = 0.8, seed: int = 0) -> dict[str, np.ndarray]:
    """Effects without association, errors of the labelled correlated; the estimates have effects of their own."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, 0.02, variants)  # variants of the error
    first, second, third = rng.normal(size=(3, variants))
    second = correlation * first + np.sqrt(1 - correlation**2) * second
    return {"observed": 0.02 * first, "estimated": own + 0.02 * second, "unlabelled": own + 0.005 * third}


def test_the_combination_is_valid_although_the_errors_are_heritable() -> None:
    found = summary_statistics(40_000)
    pairs = [
        (found[n], np.full(40_000, se)) for n, se in (("observed", 0.02), ("estimated", 0.02), ("unlabelled", 0.005))
    ]
    assert inflation(found["unlabelled"] / 0.005) > 5
    for correlation in (0.8, None):
        combined = combine(pairs[0], pairs[1], pairs[2], correlation)
        assert combined.correlation == pytest.approx(0.8, abs=0.02)
        assert inflation(combined.z) == pytest.approx(1.0, abs=0.04)
        # The smallest variance: se^2 (1 - r^2 / (1 + 1/16)).
        assert combined.se[0] == pytest.approx(0.02 * np.sqrt(1 - combined.correlation**2 / (1 + 1 / 16)))
        assert combined.beta.std() == pytest.approx(combined.se[0], rel=0.04)  # 0.02 of the correlation
    with pytest.raises(UsageError, match="`correlation`"):
        combine(pairs[0], pairs[1], pairs[2], 1.0)
    with pytest.raises(UsageError, match="too few to estimate"):
        combine(*[(b[:50], s[:50]) for b, s in pairs])  # type: ignore[arg-type]


def test_p_values_below_the_smallest_number_keep_their_logarithm() -> None:
    one = np.array([1.0])
    found = combine((one, one / 50), (one, one / 50), (one, one / 100), 0.5)
    assert float(found.log10p[0]) > 300


def write(path: Path, form: str, beta: np.ndarray, *, flip: bool = False) -> Path:
    """The same results in a program's form; flipped: for the other allele."""
    count = len(beta)
    effect, other, sign = ("C", "T", -1.0) if flip else ("T", "C", 1.0)
    place = np.arange(1, count + 1)
    columns = {
        "regenie": {"CHROM": 1, "GENPOS": place, "ID": "rs", "ALLELE0": other, "ALLELE1": effect, "A1FREQ": 0.3,
                    "N": 500, "TEST": "ADD", "BETA": sign * beta, "SE": 0.02, "CHISQ": 1, "LOG10P": 1, "EXTRA": "NA"},
        "plink": {"#CHROM": 1, "POS": place, "ID": "rs", "REF": "C", "ALT": "T", "A1": effect, "TEST": "ADD",
                  "OBS_CT": 500, "BETA": sign * beta, "SE": 0.02, "T_STAT": 1, "P": 1},
        "saige": {"CHR": 1, "POS": place, "MarkerID": "rs", "Allele1": other, "Allele2": effect, "AC_Allele2": 3,
                  "AF_Allele2": 0.3, "BETA": sign * beta, "SE": 0.02, "Tstat": 1, "var": 1, "p.value": 1, "N": 500},
    }[form]  # fmt: skip
    pd.DataFrame(columns).to_csv(path, sep=" " if form == "regenie" else "\t", index=False)
    return path


@pytest.mark.parametrize("flip", [False, True])
def test_every_programs_results_are_read_for_the_same_allele(tmp_path: Path, *, flip: bool) -> None:
    found = summary_statistics(1500)
    reference = read_summary(write(tmp_path / "plain.txt", "plink", found["observed"]), "observed")
    assert reference["effect_allele"].iloc[0] == "T"
    assert reference["other_allele"].iloc[0] == "C"
    paths = [write(tmp_path / f"{form}.gz", form, found[name], flip=flip and name != "observed")
             for form, name in (("regenie", "observed"), ("plink", "estimated"), ("saige", "unlabelled"))]  # fmt: skip
    made = GwasCombineConfig(observed=paths[0], estimated=paths[1], unlabelled=paths[2], out=tmp_path / "out.tsv",
                             correlation="0.8")  # fmt: skip
    table = run_gwas_combine(made, lambda _: None)
    expected = combine(*[(found[n], np.full(1500, 0.02)) for n in ("observed", "estimated", "unlabelled")], 0.8)  # type: ignore[misc, arg-type]
    np.testing.assert_allclose(table["beta"], expected.beta, atol=1e-9)
    written = pd.read_csv(tmp_path / "out.tsv", sep="\t")
    assert list(written) == [
        "chrom",
        "pos",
        "id",
        "effect_allele",
        "other_allele",
        "beta",
        "se",
        "z",
        "p",
        "log10p",
        "n",
        "weight",
    ]
    np.testing.assert_allclose(written["n"], 500 * (0.02 / expected.se) ** 2, rtol=1e-3)


def test_the_omitted_allele_of_plink_is_the_other_one(tmp_path: Path) -> None:
    """With several alternative alleles, ALT lists them all."""
    rows = {"#CHROM": 1, "POS": [5, 6], "ID": "rs", "REF": "C", "ALT": "T,G", "PROVISIONAL_REF?": "N",
            "A1": ["G", "C"], "OMITTED": ["C", "T,G"], "A1_FREQ": 0.3, "TEST": "ADD", "OBS_CT": 500,
            "BETA": [0.1, "NA"], "SE": [0.02, "NA"], "T_STAT": 5, "P": 0.1, "ERRCODE": "."}  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "a.glm.linear", sep="\t", index=False)
    found = read_summary(tmp_path / "a.glm.linear", "observed")
    assert found[["effect_allele", "other_allele"]].to_numpy().tolist() == [["G", "C"]]


def test_the_command_takes_the_correlation_of_gwas_inputs(tmp_path: Path) -> None:
    found = summary_statistics(1200)
    paths = [write(tmp_path / f"{n}.txt", "plink", found[n]) for n in ("observed", "estimated", "unlabelled")]
    facts = tmp_path / "gwas.json"
    facts.write_text(json.dumps({"targets": {"liverFat": {"correlation": 0.7}, "age": {"correlation": 0.2}}}))
    base = ["gwas-combine", *map(str, paths), "--out", str(tmp_path / "out.tsv"), "--correlation"]
    result = CliRunner().invoke(app, [*base, str(facts), "--target", "liverFat"])
    assert result.exit_code == 0, result.output
    assert "correlation of the labelled results: 0.700 (given)" in result.output
    for extra, words in (
        ([str(facts)], "--target: got"),
        ([str(tmp_path / "no.json")], "expected a number, or the gwas.json"),
    ):
        assert words in str(CliRunner().invoke(app, [*base, *extra]).exception)
    (tmp_path / "observed.txt").write_text("SNP B\nrs1 2\n")
    assert "OBSERVED" in str(CliRunner().invoke(app, [*base, "0.5"]).exception)
