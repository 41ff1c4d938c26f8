"""`summary`: attackers recover nothing from it, and recover something once it is weakened."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.support import attacks
from tests.support.made_run import make_run
from ukb_infer.cli.app import app
from ukb_infer.epidemiology import disclosure
from ukb_infer.epidemiology.summary import ALL, COUNTS, QUANTILES, STATISTICS, SummaryConfig, run_summary, summarize
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
    config = SummaryConfig(run=folder / "run", phenotypes=folder / "phenotypes.csv", out=tmp_path, by="centre")
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
    config = SummaryConfig(run=folder / "run", phenotypes=folder / "phenotypes.csv", out=tmp_path, min_count=4)
    with pytest.raises(UsageError, match="`min_count`: got 4, expected at least 5"):
        run_summary(config)
