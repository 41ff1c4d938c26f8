"""`summary`: attackers recover nothing from it, and recover something once it is weakened."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.support import attacks
from tests.support.made_run import make_run
from ukb_infer.cli.app import app
from ukb_infer.epidemiology import curves, disclosure, summary_models
from ukb_infer.epidemiology.cohort import Cohort, Sources
from ukb_infer.epidemiology.curves import TargetCurves, Term, design, transformed
from ukb_infer.epidemiology.summary import ALL, COUNTS, QUANTILES, STATISTICS, SummaryConfig, run_summary, summarize
from ukb_infer.epidemiology.summary_models import SharedModel, association_rows
from ukb_infer.epidemiology.zscores import read_reference
from ukb_infer.errors import UsageError

UNITS = {"liverFat": "%", "weight": "kg"}
SMALLEST, COHORTS = 5, 200
SEXES, AGES = ["female", "male"], ["under 50", "50-59", "60-69", "70-79", "80 and over"]


def cohort(seed: int) -> pd.DataFrame:
    """80 to 900 people of whom few are old, few have rare codes, and one is extreme."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(80, 900))
    frame = pd.DataFrame({"sex": rng.integers(0, 2, count).astype(float), "age": 45 + 40 * rng.beta(1.5, 2.5, count)})
    frame["by"] = rng.choice(["A", "B", "C", "rare"], count, p=[0.5, 0.3, 0.17, 0.03])
    frame["liverFat"] = np.exp(rng.normal(1.3, 0.7, count))
    frame["weight"] = rng.normal(75, 14, count)
    frame.loc[rng.integers(0, count), "weight"] = 260.0
    frame.loc[rng.random(count) < 0.03, "liverFat"] = np.nan
    return frame


def true_counts(people: pd.DataFrame, dimensions: list[str]) -> dict[attacks.Cell, int]:
    """People of every full cell."""
    ages = pd.cut(people["age"], [0, 50, 60, 70, 80, 200], right=False, labels=AGES).astype(str)
    keyed = pd.DataFrame({"sex": people["sex"].map({0.0: "female", 1.0: "male"}), "age": ages, "by": people["by"]})
    return keyed.groupby(dimensions).size().to_dict()


def recovered(seed: int, smallest: int, base: int) -> tuple[set[str], float, float]:
    """What attackers recover from two or three summaries of a cohort.

    Args:
        seed: of the cohort.
        smallest: count that the tables were made with.
        base: multiples to which an attacker takes counts to be rounded.

    Returns:
        Names of the attacks that succeeded; an attacker's guess of a person's weight, and the truth, in sds.
    """
    people, found = cohort(seed), set()
    plain, by = summarize(people, people, UNITS, smallest), summarize(people, people, UNITS, smallest, by="by")
    rng = np.random.default_rng(seed)
    person = int(people["weight"].idxmax() if seed % 2 else rng.integers(len(people)))
    others = people.drop(index=person).reset_index(drop=True)
    less = summarize(others, others, UNITS, smallest)
    for tables in (plain, by, less):
        if attacks.small_cells_shown(tables, SMALLEST):
            found.add("small cells")
    two, three = ["sex", "age"], ["sex", "age", "by"]
    shown = attacks.shown_counts(plain, two, base), attacks.shown_counts(by, three, base)
    truth = true_counts(people, two), true_counts(people, three)
    levels = [SEXES, AGES], [SEXES, AGES, ["A", "B", "C", "rare"]]
    for own, true, names in zip(shown, truth, levels, strict=True):
        hit = attacks.counts_by_difference(own, own, attacks.lines_of(names), SMALLEST)
        if any(0 < true.get(cell, 0) == count for cell, count in hit.items()):
            found.add("rows and columns")
    across = {(*cell, ALL): interval for cell, interval in shown[0].items()}
    hit = attacks.counts_by_difference(across, shown[1], attacks.lines_of(levels[1]), SMALLEST)
    if any(0 < truth[1].get(cell, 0) == count for cell, count in hit.items()):
        found.add("two summaries")
    kept = [_kept(frame, smallest) for frame in (people, people.drop(index=person))]
    weight, sd = float(people["weight"][person]), float(people["weight"].std())
    guess = attacks.value_by_difference(plain, less, "weight", (int(kept[0].sum()), int(kept[1].sum())))
    if kept[0][person] and guess.high - guess.low < sd and abs((guess.high + guess.low) / 2 - weight) < 0.5 * sd:
        found.add("one person's value")
    values = {*people["weight"], *people["liverFat"].dropna()}
    if values & {v for tables in (plain, by, less) for v in attacks.numbers_of(tables)}:
        found.add("a value itself")
    middle = float(people["weight"].mean())
    return found, ((guess.high + guess.low) / 2 - middle) / sd, (weight - middle) / sd


def _kept(people: pd.DataFrame, smallest: int) -> pd.Series:
    ages = pd.cut(people["age"], [0, 50, 60, 70, 80, 200], right=False, labels=AGES).astype(str)
    cells = people["sex"].astype(str) + ages
    return cells.map(cells.value_counts()) >= smallest


@pytest.mark.slow
def test_nothing_is_recovered_in_200_random_cohorts() -> None:
    guesses, true = [], []
    for seed in range(COHORTS):
        found, guess, truth = recovered(seed, SMALLEST, SMALLEST)
        assert not found, seed
        if np.isfinite(guess):
            guesses.append(guess)
            true.append(truth)
    assert len(guesses) > 0.9 * COHORTS
    close = np.abs(np.subtract(guesses, true)) < 0.25
    assert close.mean() <= (np.abs(true) < 0.25).mean() + 0.05  # guessing the mean does better than the attack


def _weakened(weakness: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Weaken the rules; returns the smallest count and the rounding of counts."""
    if weakness == "small cells left in":
        return 1, 1
    if weakness == "margins of everyone":
        monkeypatch.setattr(disclosure, "in_large_cells", lambda cells, _: cells.notna().to_numpy())
    if weakness in ("counts not rounded", "margins of everyone"):
        monkeypatch.setattr(disclosure, "rounded_count", lambda n, smallest: 0 if n < smallest else n)
        return SMALLEST, 1
    monkeypatch.setattr(disclosure, "to_step", lambda value, _: value)
    monkeypatch.setattr(disclosure, "step_of", lambda _: 1e-9)
    if weakness == "quantiles of one person":
        monkeypatch.setattr(disclosure, "quantile", lambda v, q, *_: float(v[int(q * len(v))]) if len(v) else np.nan)
    return SMALLEST, SMALLEST


@pytest.mark.parametrize(
    ("weakness", "attack"),
    [
        ("small cells left in", "small cells"),
        ("margins of everyone", "rows and columns"),
        ("counts not rounded", "two summaries"),
        ("means not rounded", "one person's value"),
        ("quantiles of one person", "a value itself"),
    ],
)
def test_the_same_attacks_find_a_weakened_summary(weakness: str, attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    smallest, base = _weakened(weakness, monkeypatch)
    assert any(attack in recovered(seed, smallest, base)[0] for seed in range(20))


def test_an_extreme_person_moves_no_number_by_more_than_a_step() -> None:
    people = cohort(3)
    moved = people.assign(weight=people["weight"].where(people["weight"] < 260, 1e6))
    for name, columns in ((STATISTICS, ["mean", "sd"]), (QUANTILES, ["p05", "p50", "p95"])):
        before, after = (summarize(frame, frame, UNITS)[name][columns] for frame in (people, moved))
        pd.testing.assert_frame_equal(before, after)


def test_published_numbers_are_near_the_truth() -> None:
    rng = np.random.default_rng(0)
    people = pd.DataFrame({"sex": rng.integers(0, 2, 20000).astype(float), "age": rng.uniform(45, 82, 20000)})
    people["weight"] = 70 + 10 * people["sex"] + rng.normal(0, 10, 20000)
    tables = summarize(people, people, {"weight": "kg"})
    counts = tables[COUNTS].set_index(["sex", "age"])["participants"]
    assert counts[ALL, ALL] == 20000
    row = tables[STATISTICS].set_index(["sex", "age"]).loc[("male", "60-69")]
    assert row["mean"] == pytest.approx(80, abs=0.5)
    assert row["sd"] == pytest.approx(10, abs=0.4)
    curve = tables[QUANTILES].set_index(["sex", "age"]).loc[("female", "60-64")]
    assert curve[["p05", "p50", "p95"]].tolist() == pytest.approx([53.6, 70, 86.4], abs=1.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and phenotypes with everything that must not leave."""
    where, rng = tmp_path_factory.mktemp("summary"), np.random.default_rng(2)
    eids = [f"{k:07d}" for k in range(1, 401)]
    make_run(
        where / "run",
        [f"{e}_20201_2_0" for e in eids],
        {"weight": rng.normal(75.123457, 12, 400), "age": np.full(400, 3.0), "sex": np.full(400, 7.0)},
    )
    frame = pd.DataFrame({"eid": eids, "sex": rng.integers(0, 2, 400), "age": rng.uniform(45, 82, 400).round(3)})
    frame["centre"] = rng.choice(["Cheadle", "Reading"], 400)
    frame.loc[:1, "centre"] = "Nowhere Mary Example"
    frame["note"] = [f"seen by Dr Example {k}" for k in range(400)]
    frame["letter"] = rng.choice(["ward/7", "x"], 400)
    frame.to_csv(where / "phenotypes.csv", index=False)
    return where


def test_files_name_no_person_and_no_path(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    sources = Sources(run=folder / "run", phenotypes=folder / "phenotypes.csv")
    config = SummaryConfig(sources=sources, out=tmp_path, by="centre")
    files = run_summary(config, said.append)
    assert {p.name for p in files} == {"counts.csv", "statistics.csv", "quantiles.csv", "reasons.csv", "summary.json"}
    text = "\n".join([*(p.read_text() for p in files), *said])
    frame = pd.read_csv(folder / "phenotypes.csv", dtype=str)
    forbidden = {*frame["eid"], *frame["note"], "20201", "Mary", str(folder), "/", "in/", ".zip"}
    assert not [word for word in forbidden if word in text]
    assert "Cheadle" in text
    counts = pd.read_csv(tmp_path / "counts.csv")
    rows = counts.set_index(["centre", "sex", "age"])["participants"]
    assert abs(rows["all", "all", "60-69"] - ((ages := frame["age"].astype(float)) < 70).sum() + (ages < 60).sum()) <= 5
    weights = pd.read_csv(folder / "run" / "estimates.csv", dtype=str)["weight_mean"]
    assert not [w for w in weights if w in text]
    assert json.loads((tmp_path / "summary.json").read_text())["min_count"] == 5
    reasons = pd.read_csv(tmp_path / "reasons.csv").set_index(["kind", "code"])["participants"]
    assert reasons["status", "ok"] == 400


@pytest.mark.parametrize(("by", "said"), [("note", "free text"), ("letter", "path or address"), ("age", "different")])
def test_free_text_is_refused(folder: Path, tmp_path: Path, by: str, said: str) -> None:
    arguments = ["summary", str(folder / "run"), "--phenotypes", str(folder / "phenotypes.csv"), "--out",
                 str(tmp_path / "s"), "--by", by]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)
    assert "Example" not in str(result.exception)
    assert not (tmp_path / "s").exists()


def test_a_smallest_count_below_five_is_refused(folder: Path, tmp_path: Path) -> None:
    sources = Sources(run=folder / "run", phenotypes=folder / "phenotypes.csv")
    config = SummaryConfig(sources=sources, out=tmp_path, min_count=4)
    with pytest.raises(UsageError, match="`min_count`: got 4, expected at least 5"):
        run_summary(config)


# -- associations and reference curves ---------------------------------------------------------------------------------

MODEL = "weight ~ age + sex + C(by)"


def measured_cohort(people: pd.DataFrame, seed: int) -> Cohort:
    """Estimated weights of everyone, and measured ones of two in five; every third cohort has a rare category."""
    rng = np.random.default_rng([seed, 1])
    weight = people["weight"].to_numpy()
    estimate = 8 + 0.9 * weight + 2 * people["sex"].to_numpy() + rng.normal(0, 4, len(people))
    measured = np.where(rng.random(len(people)) < 0.4, weight, np.nan)
    frame = (
        people[["age", "sex", "by"]]
        if seed % 3 == 0
        else people[["age", "sex"]].assign(by=people["by"].replace("rare", "C"))
    )
    return Cohort({"weight": estimate}, {"weight": measured}, frame, np.arange(len(people)))


def associations_of(cohort: Cohort) -> pd.DataFrame | None:
    """The table of one model as in associations.csv; None if it is refused."""
    try:
        return pd.DataFrame(association_rows(SharedModel.of(MODEL), cohort, SMALLEST)[0])
    except UsageError:  # of a small group
        return None


def recovered_from_associations(seed: int) -> set[str]:
    """Names of the attacks on associations that succeed, and "shown" if both tables were written."""
    people = cohort(seed)
    whole = measured_cohort(people, seed)
    labelled = np.flatnonzero(whole.labelled)
    rng = np.random.default_rng(seed)
    person = int(people["weight"][labelled].idxmax() if seed % 2 else rng.choice(labelled))
    tables = [associations_of(c) for c in (whole, whole.at(np.arange(len(people)) != person))]
    found = set()
    for table, out in zip(tables, (None, person), strict=True):
        if table is None:
            continue
        rows = [k for k in labelled if k != out]
        if whole.phenotypes["by"][rows].value_counts().min() < SMALLEST:
            found.add("small groups")
        if set(table["n_labelled"]) != {5 * round(len(rows) / 5)}:
            found.add("counts")
    if tables[0] is None or tables[1] is None:
        return found
    values = {*people["weight"], *whole.estimates["weight"]}
    if values & set(tables[0][["estimate", "se", "lower", "upper"]].to_numpy().ravel()):
        found.add("a value itself")
    found.add("shown")
    level = pd.get_dummies(whole.phenotypes["by"], drop_first=True).to_numpy(float)
    design = np.column_stack([np.ones(len(people)), people["age"], people["sex"], level])
    sd = float(people["weight"].std())
    for estimator, rows, truth in (("labels_only", labelled, people["weight"]),
                                   ("naive", np.arange(len(people)), whole.estimates["weight"])):  # fmt: skip
        guess = attacks.value_by_coefficients(*tables, estimator, design[rows], int(np.flatnonzero(rows == person)[0]))
        if guess.high - guess.low < sd and abs((guess.high + guess.low) / 2 - truth[person]) < 0.5 * sd:
            found.add(f"one person's value ({estimator})")
    return found


@pytest.mark.slow
def test_nothing_is_recovered_from_associations_of_200_random_cohorts() -> None:
    shown = 0
    for seed in range(COHORTS):
        found = recovered_from_associations(seed)
        assert found <= {"shown"}, seed
        shown += len(found)
    assert shown > 0.5 * COHORTS  # the others have a rare category or few labelled


@pytest.mark.parametrize(
    ("weakness", "attack"),
    [
        ("small groups left in", "small groups"),
        ("coefficients not rounded", "one person's value (labels_only)"),
        ("coefficients not rounded", "one person's value (naive)"),
        ("counts not rounded", "counts"),
    ],
)
def test_the_same_attacks_find_weakened_associations(
    weakness: str, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakness == "small groups left in":
        monkeypatch.setattr(summary_models, "smallest_group", lambda _: 1e9)
    if weakness == "coefficients not rounded":
        monkeypatch.setattr(disclosure, "one_digit_up", lambda _: 1e-9)
    if weakness == "counts not rounded":
        monkeypatch.setattr(disclosure, "rounded_count", lambda n, _: n)
    assert any(attack in recovered_from_associations(seed) for seed in range(20))


def guess_from_curves(seed: int) -> tuple[float, float]:
    """A guess of one person's residual from two reference curves, and the truth, in sds."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(210, 900))
    table = pd.DataFrame({"age": rng.uniform(45, 82, count), "height": rng.normal(163, 6, count)})
    weight = 20 + 0.3 * table["height"].to_numpy() + 0.1 * table["age"].to_numpy() + 10 * rng.standard_t(6, count)
    person = int(np.argmax(weight) if seed % 2 else rng.integers(count))
    kept = np.arange(count) != person
    terms = [Term.of(name, table[name]) for name in table]
    columns = design(terms, table)
    curves = [TargetCurves.fit({"0": columns[rows]}, {"0": weight[rows]}) for rows in (kept | True, kept)]
    truth = transformed(weight, curves[1].power) - columns @ curves[1].sexes["0"].first.mean
    scale = np.exp(0.5 * columns @ curves[1].sexes["0"].first.log_variance)
    if curves[0].power != curves[1].power:
        return np.nan, float((truth / scale)[person])
    guess = attacks.residual_by_curves(curves[0].sexes["0"], curves[1].sexes["0"], columns, person)
    return guess, float((truth / scale)[person])


def share_of_hits(seeds: int) -> tuple[float, float]:
    """Shares of people whose residual is guessed within a quarter of an sd, from curves and as zero."""
    pairs = np.array([guess_from_curves(seed) for seed in range(seeds)])
    return float((np.abs(pairs[:, 0] - pairs[:, 1]) < 0.25).mean()), float((np.abs(pairs[:, 1]) < 0.25).mean())


@pytest.mark.slow
def test_nothing_is_recovered_from_reference_curves_of_200_random_cohorts() -> None:
    attack, mean = share_of_hits(COHORTS)
    assert attack <= mean + 0.05


def test_the_same_attack_finds_curves_that_are_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "step_of", lambda _: 1e-12)
    attack, mean = share_of_hits(20)
    assert attack > mean + 0.4


def test_no_end_or_knot_of_a_reference_is_one_persons_value() -> None:
    for seed in range(20):
        values = pd.Series(np.random.default_rng(seed).normal(170, 9, 400))
        term = Term.of("height", values)
        assert not {*term.knots, *term.ends} & set(values)
        assert term.ends[0] > values.min() + 0.5
        assert term.ends[1] < values.max() - 0.5


def test_a_summary_has_reference_curves_and_associations(tmp_path: Path) -> None:
    rng, count = np.random.default_rng(5), 1200
    eids = [f"{k:07d}" for k in range(1, count + 1)]
    sex, age, height = rng.integers(0, 2, count), rng.uniform(45, 82, count), rng.normal(168, 8, count)
    fat = np.exp(1.0 + 0.4 * sex + 0.01 * (age - 60) + rng.normal(0, 0.4, count))
    make_run(tmp_path / "run", [f"{e}_20201_2_0" for e in eids], {"liverFat": 0.5 + 0.9 * fat}, sd=0.2)
    frame = pd.DataFrame({"eid": eids, "sex": sex, "age": age, "height": height})
    frame.to_csv(tmp_path / "phenotypes.csv", index=False)
    frame.assign(liverFat=fat)[["eid", "liverFat"]].sample(400, random_state=1).to_csv(
        tmp_path / "fat.csv", index=False
    )
    arguments = ["summary", str(tmp_path / "run"), "--phenotypes", str(tmp_path / "phenotypes.csv"), "--labels",
                 str(tmp_path / "fat.csv"), "--trained-on", "none", "--model", "liverFat ~ age + sex", "--model",
                 "logistic: {liverFat > 3} ~ sex", "--out", str(tmp_path / "s")]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "s/associations.csv")
    assert set(table["family"]) == {"linear", "logistic"}
    row = table[table["recommended"] & (table["term"] == "sex") & (table["family"] == "linear")].iloc[0]
    assert row["estimator"] == "chen_chen"
    assert row["lower"] < (fat[sex == 1].mean() - fat[sex == 0].mean()) < row["upper"]
    assert (row["n_labelled"], row["n_estimated"]) == (400, 1200)
    assert row["estimate"] == pytest.approx(row["estimate_step"] * round(row["estimate"] / row["estimate_step"]))
    facts = json.loads((tmp_path / "s/summary.json").read_text())
    assert [m["report"] for m in facts["associations"]] == ["chen_chen", "chen_chen"]
    reference = read_reference(tmp_path / "s/reference.json")
    assert set(reference.targets) == {"liverFat"}
    text = "".join(path.read_text() for path in (tmp_path / "s").iterdir())
    assert not [word for word in (*eids, str(tmp_path)) if word in text]
    frame.drop(columns="height").to_csv(tmp_path / "phenotypes.csv", index=False)
    fewer = CliRunner().invoke(app, [*arguments[:4], "--out", str(tmp_path / "s")])
    assert fewer.exit_code == 0
    assert "no reference curves" in fewer.output
    assert not {"associations.csv", "reference.json"} & {path.name for path in (tmp_path / "s").iterdir()}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("quantile: liverFat ~ age", "quantile lines pass through people"),
        ("liverFat ~ C(code)", "rests on about 6 labelled people"),
        ("logistic: {liverFat > 6} ~ rare", "without the outcome"),
        ("liverFat ~ C(ward)", "one like a number, path or address"),
    ],
)
def test_models_of_small_groups_are_refused(model: str, said: str) -> None:
    rng, count = np.random.default_rng(7), 600
    rare = np.arange(count) < 60
    fat = rng.normal(4, 0.5, count) + 4.0 * rare
    fat[:4] = 4.0
    frame = pd.DataFrame({"age": rng.uniform(45, 82, count), "rare": rare.astype(float)})
    frame["ward"] = np.where(rare, "ward/7", "other")
    frame["code"] = np.where(np.arange(count) % 50 == 1, "b", "a")
    measured = np.where(np.arange(count) < 300, fat, np.nan)
    everyone = Cohort({"liverFat": fat + 0.1}, {"liverFat": measured}, frame, np.arange(count))
    with pytest.raises(UsageError, match=re.escape(said)):
        association_rows(SharedModel.of(model), everyone)


def test_intervals_of_numbers_with_many_digits_are_kept() -> None:
    """An intercept of five digits whose interval begins in the sixth."""
    rng, count = np.random.default_rng(2), 4000
    age, truth = rng.uniform(45, 82, count), rng.normal(17_032.0, 5.0, count)
    measured = np.where(np.arange(count) < 2000, truth, np.nan)
    people = pd.DataFrame({"age": age - age.mean()})
    everyone = Cohort({"weight": truth + rng.normal(0, 1, count)}, {"weight": measured}, people, np.arange(count))
    for row in pd.DataFrame(association_rows(SharedModel.of("weight ~ age"), everyone)[0]).to_dict("records"):
        assert row["upper"] - row["lower"] == pytest.approx(2 * 1.96 * row["se"], rel=0.05)
        assert row["upper"] - row["estimate"] == pytest.approx(row["estimate"] - row["lower"], rel=1e-3)


def test_models_need_labels(folder: Path, tmp_path: Path) -> None:
    sources = Sources(run=folder / "run", phenotypes=folder / "phenotypes.csv")
    with pytest.raises(UsageError, match="`model` needs `labels`"):
        run_summary(SummaryConfig(sources=sources, out=tmp_path, models=("weight ~ age",)))
