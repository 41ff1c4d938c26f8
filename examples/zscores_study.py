"""Are the z-scores of `ukb-infer zscores` standard normal in every kind of people? Simulated runs.

    python examples/zscores_study.py --full

A reference is fitted to one simulated run and applied to a fresh one, both as folders on disk, by the function behind
the command. Means and spreads depend on sex, age and height; errors are normal, skewed or heavy-tailed. Printed: mean
and sd of z in 12 cells of sex, age (in thirds) and height (below and above the median of the sex), and how many z lie
beyond 1.96. Without --full the runs are small, and the cells differ from 0 and 1 by chance alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ukb_infer.epidemiology.zscores import ZscoresConfig, run_zscores

#: Target, its shape, and what it stands for.
TARGETS = {
    "liverVolume": "normal, spread grows with height",
    "AtlasVatVolume": "log-normal, spread falls with age",
    "liverFat": "log-normal with a heavy upper tail",
    "AtlasMuscleFat": "skewed, more so in old age",
    "DxaTotalFatMass": "heavy tails",
}


def people(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Synthetic participants."""
    sex = rng.integers(0, 2, count)
    frame = {"eid": [f"0{k:07d}" for k in range(count)], "sex": sex, "age": rng.uniform(45, 82, count).round(1)}
    height = rng.normal(163 + 13 * sex - 0.06 * (frame["age"] - 63), 6.3 + 0.4 * sex)
    return pd.DataFrame(frame | {"height": height.round(1)})


def estimates(who: pd.DataFrame, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Estimates of the targets."""
    sex, age, height = who["sex"].to_numpy(), (who["age"].to_numpy() - 63) / 10, (who["height"].to_numpy() - 170) / 10
    noise = rng.normal(size=(6, len(who)))
    tail = noise[1] + 0.35 * np.maximum(noise[1], 0) ** 2
    gamma = rng.gamma(np.exp(2.0 - 0.4 * age))
    skewed = (gamma - np.exp(2.0 - 0.4 * age)) / np.exp(1.0 - 0.2 * age)
    return {
        "liverVolume": 1.4 + 0.15 * sex + 0.12 * height - 0.05 * age**2 + 0.2 * np.exp(0.2 * height) * noise[0],
        "AtlasVatVolume": np.exp(0.9 + 0.6 * sex + 0.15 * age + 0.1 * height * sex + (0.5 - 0.06 * age) * noise[2]),
        "liverFat": np.exp(1.2 + 0.2 * sex - 0.08 * age**2 + 0.5 * tail),
        "AtlasMuscleFat": 11 - 2 * sex + 1.2 * age + 0.3 * height + 1.5 * skewed,
        "DxaTotalFatMass": 26 - 3 * sex + 2 * height + np.sin(2 * age) + 6 * rng.standard_t(6, len(who)),
    }


def write_run(folder: Path, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """A run folder and the table of phenotypes beside it."""
    folder.mkdir()
    who = people(count, rng)
    keys = {"eid": who["eid"], "instance": 2, "array": 0, "scan": who["eid"] + "_20201_2_0"}
    columns = {}
    for name, mean in estimates(who, rng).items():
        sd = np.full(count, 0.1 * np.std(mean))
        columns |= {f"{name}_mean": mean, f"{name}_sd": sd}
        columns |= {f"{name}_ci95_lower": mean - 1.96 * sd, f"{name}_ci95_upper": mean + 1.96 * sd}
    pd.DataFrame(keys | columns).to_csv(folder / "estimates.csv", index=False, float_format="%.7g")
    facts = {
        "schema_version": 1,
        "level": 0.95,
        "level_name": "ci95",
        "modules": [{"name": "simulated", "sha256": "0"}],
    }
    facts["targets"] = [{"name": name} for name in TARGETS]
    (folder / "run.json").write_text(json.dumps(facts))
    who.to_csv(folder / "phenotypes.csv", index=False)
    return who


def cells(who: pd.DataFrame) -> pd.Series:
    """Number of the cell of sex, age and height, 0 to 11."""
    third = np.searchsorted([57.3, 69.7], who["age"])
    tall = who["height"] > 163 + 13 * who["sex"]
    return pd.Series(who["sex"] * 6 + third * 2 + tall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="100,000 people in the reference, 400,000 fresh ones")
    arguments = parser.parse_args()
    reference, fresh = (100_000, 400_000) if arguments.full else (4_000, 4_000)
    rng = np.random.default_rng(14)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_run(work / "reference", reference, rng)
        who = write_run(work / "fresh", fresh, rng)
        settings = {"quality": "all", "out": work / "z.csv"}
        run_zscores(
            ZscoresConfig(run=work / "reference", phenotypes=work / "reference" / "phenotypes.csv",
                          save_reference=work / "curves.json", **settings)
        )  # fmt: skip
        run_zscores(
            ZscoresConfig(run=work / "fresh", phenotypes=work / "fresh" / "phenotypes.csv",
                          reference=work / "curves.json", **settings)
        )  # fmt: skip
        found = pd.read_csv(work / "z.csv")
    print(f"\nReference of {reference}, fresh cohort of {fresh}; 12 cells of sex, age and height\n")
    print("| target | shape | mean of z, lowest and highest | sd of z, lowest and highest | beyond 1.96, % |")
    print("|---|---|---|---|---|")
    for name, shape in TARGETS.items():
        z = found[f"{name}_z"]
        groups = z.groupby(cells(who))
        mean, sd, beyond = groups.mean(), groups.std(), 100 * (z.abs() > 1.96).groupby(cells(who)).mean()
        print(f"| {name} | {shape} | {mean.min():+.3f} to {mean.max():+.3f} | {sd.min():.3f} to {sd.max():.3f} | "
              f"{beyond.min():.1f} to {beyond.max():.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
