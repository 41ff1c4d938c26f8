"""Is a GWAS of estimates valid? Simulated genotypes, estimates whose errors are heritable.

    python examples/gwas_study.py --full

20,000 people, 100,000 variants without and 50 with an effect on a quantity; 2,000 of those without affect the error of
its estimate, half of whose variance they explain. 10 % of the people are measured. Phenotypes are made by
`gwas-inputs`' function, each is tested by least squares, and the three results are combined by `gwas-combine`'s from
files in PLINK's form. Without --full everything is small, and the figures are meaningless. Simulated genotypes:
independent variants, no relatives.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom, chi2

from ukb_infer.epidemiology.gwas_combine import GwasCombineConfig, inflation, run_gwas_combine
from ukb_infer.epidemiology.gwas_inputs import PARTS, make_gwas_inputs

Float64 = NDArray[np.float64]
SEED, CHUNK, TARGET = 2024, 1000, "liverFat"
LEVELS = (5e-2, 1e-2, 1e-3, 1e-4, 1e-5)
#: Shares of variance: of the quantity by causal variants, of the error by its variants.
HERITABILITY, ERROR_HERITABILITY = 0.15, 0.5


@dataclass(frozen=True)
class Size:
    people: int
    null: int
    causal: int
    of_error: int
    share: float


FULL, SMALL = Size(20_000, 100_000, 50, 2_000, 0.1), Size(1_500, 3_000, 10, 200, 0.2)


def genotypes(rng: np.random.Generator, people: int, count: int) -> NDArray[np.uint8]:
    """(people, count) numbers of the effect allele; frequencies 0.05 to 0.5, in Hardy-Weinberg equilibrium."""
    frequency = rng.integers(13, 129, count).astype(np.uint8)  # of 256
    first, second = (rng.integers(0, 256, (people, count), np.uint8) < frequency for _ in range(2))
    return first.astype(np.uint8) + second


def score(rng: np.random.Generator, found: NDArray[np.uint8]) -> Float64:
    """(people,) standardized polygenic score."""
    centred = found - found.mean(axis=0)
    total = (centred / centred.std(axis=0)) @ rng.normal(size=found.shape[1])
    return total / total.std()


def associations(found: NDArray[np.uint8], values: Float64, covariates: int) -> tuple[Float64, Float64, int]:
    """Effects and standard errors of least squares; values are residuals of the covariates, NaN where missing."""
    rows = np.isfinite(values)
    g, y = found[rows].astype(np.float32), (values[rows] - values[rows].mean()).astype(np.float32)
    square = np.einsum("ij,ij->j", g, g, dtype=np.float64) - len(y) * g.mean(axis=0, dtype=np.float64) ** 2
    beta = (y @ g).astype(np.float64) / square
    left = float(y.astype(np.float64) @ y) - beta**2 * square
    return beta, np.sqrt(left / (len(y) - 2 - covariates) / square), len(y)


def residuals(values: Float64, covariates: Float64) -> Float64:
    """(people,) values without what the covariates explain, NaN where missing."""
    rows, found = np.isfinite(values), np.full(len(values), np.nan)
    columns = np.column_stack([np.ones(rows.sum()), covariates[rows]])
    found[rows] = values[rows] - columns @ np.linalg.lstsq(columns, values[rows])[0]
    return found


def simulate(size: Size, work: Path) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """Combined results, those of all estimates (naive) and of the measured; and R2 of the estimate."""
    rng = np.random.default_rng(SEED)
    causal, of_error = (genotypes(rng, size.people, n) for n in (size.causal, size.of_error))
    age, sex = rng.normal(size=size.people), rng.integers(0, 2, size.people).astype(float)
    noise, blur = rng.normal(size=(2, size.people))
    quantity = 0.3 * age + 0.4 * sex + np.sqrt(HERITABILITY) * score(rng, causal) + np.sqrt(1 - HERITABILITY) * noise
    error = np.sqrt(ERROR_HERITABILITY) * score(rng, of_error) + np.sqrt(1 - ERROR_HERITABILITY) * blur
    estimate = 0.85 * quantity + 0.1 * sex + 0.45 * error * np.exp(0.2 * age)
    measured = np.where(rng.permutation(size.people) < size.share * size.people, quantity, np.nan)
    covariates = pd.DataFrame({"age": age, "sex": sex})
    eids = [f"{k:07d}" for k in range(1, size.people + 1)]
    inputs = make_gwas_inputs(eids, {TARGET: estimate}, {TARGET: measured}, covariates, rank_normal=True)
    names = [*PARTS, "estimated"]
    values = {n: residuals(inputs.phenotypes[f"{TARGET}_{n}"].to_numpy(), covariates.to_numpy()) for n in names}

    def chunks() -> Iterator[NDArray[np.uint8]]:
        yield causal
        yield of_error
        for first in range(0, size.null - size.of_error, CHUNK):
            yield genotypes(rng, size.people, min(CHUNK, size.null - size.of_error - first))

    found: dict[str, list[pd.DataFrame]] = {n: [] for n in names}
    for chunk in chunks():
        for name in names:
            beta, se, n = associations(chunk, values[name], 2)
            found[name].append(pd.DataFrame({"BETA": beta, "SE": se, "OBS_CT": n}))
    tables = {n: pd.concat(parts, ignore_index=True) for n, parts in found.items()}
    for name, table in tables.items():
        place = pd.RangeIndex(1, len(table) + 1)
        keyed = pd.DataFrame(
            {"#CHROM": 1, "POS": place, "ID": [f"v{k}" for k in place], "REF": "A", "ALT": "G", "A1": "G"}
        )
        keyed.join(table).to_csv(work / f"{name}.glm.linear", sep="\t", index=False)
    observed, estimated, unlabelled = (work / f"{n}.glm.linear" for n in PARTS)
    combined = run_gwas_combine(
        GwasCombineConfig(observed=observed, estimated=estimated, unlabelled=unlabelled, out=work / "combined.tsv",
                          correlation=f"{inputs.correlations[TARGET]:.6f}"),
        lambda line: print(f"gwas-combine: {line}"),
    )  # fmt: skip
    z = pd.DataFrame({n: t["BETA"] / t["SE"] for n, t in tables.items()}).assign(combined=combined["z"])
    return z, combined, float(np.corrcoef(quantity, estimate)[0, 1] ** 2)


def summarize(z: Float64, size: Size) -> str:
    """Cells: inflation, false positives with their 95 % binomial limits, causal variants found."""
    p = chi2.sf(z**2, 1)
    null = p[size.causal :]
    cells = [f"{inflation(z[size.causal :]):.3f}"]
    for level in LEVELS:
        low, high = binom.ppf([0.025, 0.975], len(null), level).astype(int)
        count = int((null < level).sum())
        cells.append(f"{count} ({low}–{high})" + ("" if low <= count <= high else " **outside**"))
    return " | ".join([*cells, f"{int((p[: size.causal] < 5e-8).sum())} of {size.causal}"])


def main() -> None:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="20,000 people, 100,050 variants")
    size = FULL if parser.parse_args().full else SMALL
    with tempfile.TemporaryDirectory() as temporary:
        z, _, r2 = simulate(size, Path(temporary))
    print(f"R2 of the estimate: {r2:.2f}")
    print("| analysis | inflation | " + " | ".join(f"p < {level:g}" for level in LEVELS) + " | causal found |")
    print("|---" * (len(LEVELS) + 3) + "|")
    for name, title in (
        ("estimated", "naive: estimates of everyone"),
        (PARTS[0], "measured only"),
        ("combined", "combined"),
    ):
        print(f"| {title} | {summarize(z[name].to_numpy(), size)} |")


if __name__ == "__main__":
    main()
