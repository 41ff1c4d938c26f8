"""Do the intervals of `ukb-infer associate` cover the truth? Simulated cohorts with known slopes.

    python examples/valid_use_study.py --work WORK --full

Every cohort has 10,000 people. A quantity depends on sex, age and size; its estimate is pulled to the mean, biased by
sex and size, and its error, drawn from residuals of the demonstration ensemble on fresh phantoms, is larger in large
and in male bodies. R2 between estimate and quantity is 0.9. 2.5 or 10 % of the people are measured. Each cohort goes
through `ukb_infer.epidemiology.associate`, the function behind the command. Without --full only a few small cohorts
are made, and the coverage is meaningless. Synthetic bodies: this says nothing about people.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from ukb_infer.epidemiology.analysis import associate
from ukb_infer.epidemiology.cohort import Cohort

Float64 = NDArray[np.float64]
#: Slopes on sex, age, size and, of models with the quantity as exposure, on the quantity.
SLOPES = {"sex": 0.3, "age": 0.2, "size": 0.3, "quantity": 0.4}
#: Residuals of which target of the demonstration: one whose errors have heavy tails.
RESIDUALS_OF = "AtlasLiverFat"
SEED, PHANTOM_SEED = 14, 909


@dataclass(frozen=True)
class Scenario:
    """A model, its family, and how well the quantity is estimated (R2) and how many are measured (share)."""

    name: str
    model: str
    family: str
    share: float
    r2: float = 0.9

    @property
    def is_outcome(self) -> bool:
        return "quantity" in self.model.split("~")[0]


MODELS = {
    "outcome, linear": ("quantity ~ sex + age + size", "linear"),
    "outcome, logistic": ("{quantity > 1} ~ sex + age + size", "logistic"),
    "exposure, linear": ("trait ~ sex + age + size + quantity", "linear"),
    "exposure, logistic": ("disease ~ sex + age + size + quantity", "logistic"),
}


def scenarios(*, full: bool) -> list[Scenario]:
    """All models with 2.5 and 10 % measured; and a yes/no outcome whose own R2 is about 0.9."""
    shares = (0.025, 0.1) if full else (0.1,)
    found = [Scenario(name, *how, share) for share in shares for name, how in MODELS.items()]
    if full:
        found.append(Scenario("outcome, logistic", *MODELS["outcome, logistic"], 0.025, 0.99))
    return found


def demonstration_residuals(work: Path, count: int) -> Float64:
    """Standardized residuals of the demonstration ensemble on fresh phantoms."""
    from ukb_infer.demo.phantoms import PhantomSet, make_phantom_set
    from ukb_infer.modules import load_module
    from ukb_infer.training.ensemble import predict_in_batches

    module = load_module("phantom-demo")
    images, labels = make_phantom_set(PhantomSet(PHANTOM_SEED, count), work / f"phantoms-{count}")
    place = module.manifest.target_names.index(RESIDUALS_OF)
    estimate, label = predict_in_batches(module, images).mean[:, place], labels[:, place]
    left = estimate - np.polyval(np.polyfit(label, estimate, 1), label)
    return (left - left.mean()) / left.std()


def simulate(scenario: Scenario, people: int, residuals: Float64, rng: np.random.Generator) -> Cohort:
    """One cohort."""
    sex = rng.integers(0, 2, people).astype(float)
    age, size = rng.normal(size=people), 0.5 * sex + rng.normal(size=people)
    linear = SLOPES["sex"] * sex + SLOPES["age"] * age + SLOPES["size"] * size
    # A logistic model for {quantity > 1} is true if the rest of the quantity is logistic.
    rest = (
        rng.logistic(size=people) if scenario.family == "logistic" and scenario.is_outcome else rng.normal(size=people)
    )
    quantity = linear + rest
    error = rng.choice(residuals, people) * np.exp(0.2 * size) * (1.0 + 0.3 * sex)
    signal = 0.9 * quantity + 0.1 * sex + 0.1 * size
    # The error's size gives the R2 between estimate and quantity, the systematic part counted as error.
    covariance = np.cov(signal, quantity)
    wanted = covariance[0, 1] ** 2 / (scenario.r2 * covariance[1, 1]) - covariance[0, 0]
    estimate = signal + error * np.sqrt(wanted / error.var())
    chosen = rng.permutation(people) < round(scenario.share * people)
    frame = pd.DataFrame({"sex": sex, "age": age, "size": size})
    if not scenario.is_outcome:
        effect = linear + SLOPES["quantity"] * quantity
        frame["trait"] = effect + rng.normal(size=people) * np.exp(0.2 * size)
        frame["disease"] = (rng.random(people) < expit(effect - 2.0)).astype(float)
    sd = np.full(people, np.sqrt(wanted))
    measured = np.where(chosen, quantity, np.nan)
    return Cohort({"quantity": estimate}, {"quantity": measured}, frame, np.arange(people), {"quantity": sd})


def one_cohort(job: tuple[Scenario, int, int, Float64]) -> pd.DataFrame:
    """Whether each interval covers the truth, and its width."""
    scenario, people, number, residuals = job
    rng = np.random.default_rng([SEED, number, *scenario.name.encode(), round(1000 * scenario.share)])
    found = associate(
        scenario.model, simulate(scenario, people, residuals, rng), family=scenario.family, imputations=25, seed=number
    )
    table = found.table()
    table = table[table["term"] != "Intercept"]
    truth = table["term"].map(SLOPES)
    return pd.DataFrame({
        "estimator": table["estimator"], "term": table["term"], "recommended": table["recommended"],
        "covers": (table["lower"] <= truth) & (truth <= table["upper"]), "width": table["upper"] - table["lower"],
    })  # fmt: skip


def study(scenario: Scenario, cohorts: range, people: int, residuals: Float64, workers: int) -> pd.DataFrame:
    """Coverage and width relative to labels only, by estimator and term."""
    jobs = [(scenario, people, number, residuals) for number in cohorts]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        found = pd.concat(pool.imap_unordered(one_cohort, jobs, chunksize=5))
    # SIMEX is given in the few cohorts whose labelled happen to look as if the errors were classical.
    given = found.groupby("estimator")["covers"].transform("size") >= 0.1 * len(cohorts) * found["term"].nunique()
    groups = found[given].groupby(["estimator", "term"], sort=False)
    table = groups[["covers", "width", "recommended"]].mean().reset_index()
    own = table[table["estimator"] == "labels_only"].set_index("term")["width"]
    return table.assign(width=table["width"] / table["term"].map(own))


def rows_of(scenario: Scenario, table: pd.DataFrame) -> list[str]:
    """Markdown rows: coverage and width averaged over the slopes, and their ranges."""
    rows = []
    for estimator, part in table.groupby("estimator", sort=False):
        mark = "**" if part["recommended"].all() else ""
        low, high = 100 * part["covers"].min(), 100 * part["covers"].max()
        narrow, wide = part["width"].min(), part["width"].max()
        rows.append(
            f"| {scenario.name} | {100 * scenario.share:g} % | {scenario.r2:g} | {mark}{estimator}{mark} "
            f"| {100 * part['covers'].mean():.1f} ({low:.1f}–{high:.1f}) "
            f"| {part['width'].mean():.2f} ({narrow:.2f}–{wide:.2f}) |"
        )
    return rows


def main() -> None:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for phantoms and table.md [default: temporary]")
    parser.add_argument("--full", action="store_true", help="1,000 cohorts of 10,000 people")
    parser.add_argument("--cohorts", type=int, help="number of cohorts")
    parser.add_argument("--first", type=int, default=0, help="number of the first cohort: fresh ones, from 1000 on")
    parser.add_argument("--only", default="", help="models whose name contains this, e.g. outcome")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    cohorts, people, phantoms = (given.cohorts or 1000, 10_000, 500) if given.full else (given.cohorts or 4, 2000, 12)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        residuals = demonstration_residuals(work, phantoms)
        head = ["| model | measured | R² | estimator | coverage % (range of slopes) | width (range), labels only 1 |",
                "|---|---|---|---|---|---|"]  # fmt: skip
        print("\n".join(head), flush=True)
        lines: list[str] = []
        for scenario in [s for s in scenarios(full=given.full) if given.only in s.name]:
            numbers = range(given.first, given.first + cohorts)
            rows = rows_of(scenario, study(scenario, numbers, people, residuals, given.workers))
            print("\n".join(rows), flush=True)
            lines += rows
        (work / "table.md").write_text("\n".join([*head, *lines, ""]))


if __name__ == "__main__":
    main()
