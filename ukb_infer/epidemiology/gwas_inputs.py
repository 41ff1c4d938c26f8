"""``gwas-inputs``: phenotype and covariate files of an estimated quantity for regenie, PLINK and SAIGE.

Three phenotypes make a valid genome-wide association study of an estimate: the measured and the estimated quantity of
the labelled, and the estimated quantity of the others. ``gwas-combine`` combines their summary statistics.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from ukb_infer.epidemiology.cohort import Sources, read_cohort
from ukb_infer.epidemiology.phenotypes import column_names, target_names
from ukb_infer.errors import UsageError
from ukb_infer.runs.read import read_run
from ukb_infer.storage import write_texts

Float64 = NDArray[np.float64]

#: What the three phenotypes of a target end in, in the order ``gwas-combine`` takes their results.
PARTS = ("labelled_observed", "labelled_estimated", "unlabelled_estimated")
FACTS = "gwas.json"
#: Most targets that are described one by one.
_FEW_LINES = 3
#: Rank offset of the inverse normal transformation (Blom 1958).
_BLOM = 3.0 / 8.0


@dataclass(frozen=True, kw_only=True)
class GwasInputsConfig:
    """What to write.

    Attributes:
        sources: run and labels; its ``phenotypes`` are the covariates.
        out: folder.
        targets: to write; empty for every one that the run estimates and the labels have, and the covariates have not.
        covariates: columns to write; empty for all.
        rank_normal: rank-based inverse normal transformation of measured and estimated values.
    """

    sources: Sources
    out: Path
    targets: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    rank_normal: bool = False


@dataclass(frozen=True)
class GwasInputs:
    """Tables, one row per participant.

    Attributes:
        eids: (N,) as the genotype files write them.
        phenotypes: (N rows) columns ``<target>_<part>`` of :data:`PARTS`, and ``<target>_estimated`` of everyone.
        covariates: (N rows) numbers.
        correlations: of measured and estimated values of the labelled given the covariates, by target.
    """

    eids: tuple[str, ...]
    phenotypes: pd.DataFrame
    covariates: pd.DataFrame
    correlations: Mapping[str, float]


def rank_inverse_normal(values: Float64) -> Float64:
    """(N,) normal quantiles of the ranks, ties at their mean rank, NaN where missing.

    >>> rank_inverse_normal(np.array([3.0, np.nan, 1.0, 2.0])).round(2).tolist()
    [0.82, nan, -0.82, 0.0]
    """
    ranks = pd.Series(values).rank()
    return np.asarray(norm.ppf((ranks - _BLOM) / (ranks.notna().sum() - 2 * _BLOM + 1)), np.float64)


def make_gwas_inputs(
    eids: Sequence[str],
    estimates: Mapping[str, Float64],
    measured: Mapping[str, Float64],
    covariates: pd.DataFrame,
    *,
    rank_normal: bool = False,
) -> GwasInputs:
    """Split every target into its three phenotypes.

    Estimates are transformed before they are split, so that labelled and unlabelled keep one scale.

    Args:
        eids: (N,) participants.
        estimates: (N,) by target.
        measured: (N,) by target, NaN where not measured.
        covariates: (N rows); text becomes 0/1 columns.
        rank_normal: transform measured and estimated values to normal scores.
    """
    wide = _numeric(covariates)
    wide.columns = [_plain(str(c)) for c in wide.columns]
    columns: dict[str, Float64] = {}
    correlations: dict[str, float] = {}
    for name, values in estimates.items():
        truth = measured.get(name, np.full(len(values), np.nan))
        if rank_normal:
            values, truth = rank_inverse_normal(values), rank_inverse_normal(truth)
        few = np.isfinite(truth) & np.isfinite(values)
        parts = (np.where(few, truth, np.nan), np.where(few, values, np.nan), np.where(few, np.nan, values))
        columns |= {f"{name}_{part}": v for part, v in zip(PARTS, parts, strict=True)} | {f"{name}_estimated": values}
        correlations[name] = _partial_correlation(truth, values, wide, few)
    return GwasInputs(tuple(eids), pd.DataFrame(columns), wide, correlations)


def _numeric(covariates: pd.DataFrame) -> pd.DataFrame:
    """Covariates with 0/1 columns instead of text, missing where the text is."""
    if covariates.columns.empty:
        return covariates.copy()  # pandas refuses a table without columns
    wide = pd.get_dummies(covariates, drop_first=True, dtype=float)
    for column in covariates:
        made = [c for c in wide if c not in covariates and str(c).startswith(f"{column}_")]
        wide.loc[covariates[column].isna(), made] = np.nan
    return wide


def _plain(name: str) -> str:
    """A column name without blanks, as the programs need."""
    return "_".join("".join(c if c.isalnum() else " " for c in name).split())


def _partial_correlation(truth: Float64, estimate: Float64, covariates: pd.DataFrame, few: NDArray[np.bool_]) -> float:
    """Correlation of what the covariates leave of measurement and estimate, among the labelled."""
    few = few & np.asarray(covariates.notna().all(axis=1), bool)
    if few.sum() <= covariates.shape[1] + 2:
        return float("nan")
    columns = np.column_stack([np.ones(few.sum()), covariates[few].to_numpy(np.float64)])
    both = np.column_stack([truth[few], estimate[few]])
    left = both - columns @ np.linalg.lstsq(columns, both)[0]
    return float(np.corrcoef(left.T)[0, 1])


def run_gwas_inputs(config: GwasInputsConfig, say: Callable[[str], None] = print) -> list[Path]:
    """Write the files; returns their paths.

    Args:
        config: what to write.
        say: receives notes.

    Raises:
        UsageError: unusable tables, or estimates that must not be combined with these labels.
        RunError: no estimates, or a folder that cannot be written.
    """
    cohort = read_cohort(config.sources, _names(config), say)
    inputs = make_gwas_inputs(cohort.eids, cohort.estimates, cohort.measured, cohort.phenotypes,
                              rank_normal=config.rank_normal)  # fmt: skip
    if len(set(inputs.eids)) < len(inputs.eids):
        raise UsageError("`instance`: some participants have several visits, and a GWAS takes one; choose 2 or 3")
    for line in _described(inputs):
        say(line)
    if cohort.measured and cohort.relation == "unknown":
        say(
            "WARNING nothing says whether the module was trained on the labelled scans: their estimates may be too good"
        )
    return write_gwas_inputs(config.out, inputs, rank_normal=config.rank_normal)


def _described(inputs: GwasInputs) -> list[str]:
    """Labelled and correlation of each of a few targets, one line for many."""
    known = {n: int(inputs.phenotypes[f"{n}_{PARTS[0]}"].notna().sum()) for n in inputs.correlations}
    if len(known) > _FEW_LINES:
        values = np.array(list(inputs.correlations.values()))
        known_values = values[np.isfinite(values)]
        low, high = (f"{f(known_values):.3f}" if known_values.size else "-" for f in (np.min, np.max))
        return [
            f"{len(known)} targets: {min(known.values())} to {max(known.values())} labelled, correlation with the "
            f"estimate given the covariates {low} to {high} ({FACTS} has each)"
        ]
    return [
        f"{name}: {count} labelled, correlation with the estimate given the covariates {inputs.correlations[name]:.3f}"
        for name, count in known.items()
    ]


def _names(config: GwasInputsConfig) -> tuple[str, ...]:
    """Targets and covariates to read."""
    sources = config.sources
    covariates = config.covariates or (column_names(sources.phenotypes) if sources.phenotypes else ())
    targets = config.targets
    if not targets:
        _, facts = read_run(sources.run).estimated
        measured = target_names(sources.labels) if sources.labels else tuple(t.name for t in facts.targets)
        targets = tuple(t.name for t in facts.targets if t.name in measured and t.name not in covariates)
        if not targets:
            raise UsageError(
                f"`labels` {sources.labels}: has none of the run's targets ("
                f"{', '.join(t.name for t in facts.targets[:8])}); name those to write with `targets`"
            )
    return tuple(dict.fromkeys((*targets, *covariates)))


def write_gwas_inputs(out: Path, inputs: GwasInputs, *, rank_normal: bool) -> list[Path]:
    """Write the files of the three programs and ``gwas.json``.

    Args:
        out: folder.
        inputs: tables.
        rank_normal: whether values were transformed, for the record.

    Raises:
        RunError: they cannot be written.
    """
    ids = {"FID": inputs.eids, "IID": inputs.eids}
    pheno, covar = inputs.phenotypes, inputs.covariates
    tables: dict[str, tuple[pd.DataFrame, str]] = {
        "regenie_phenotypes.txt": (pd.DataFrame(ids).join(pheno), " "),
        "regenie_covariates.txt": (pd.DataFrame(ids).join(covar), " "),
        "plink_phenotypes.txt": (pd.DataFrame(ids).join(pheno).rename(columns={"FID": "#FID"}), "\t"),
        "plink_covariates.txt": (pd.DataFrame(ids).join(covar).rename(columns={"FID": "#FID"}), "\t"),
        "saige_phenotypes.txt": (pd.DataFrame({"IID": inputs.eids}).join(pheno).join(covar), "\t"),
    }
    facts: dict[str, Any] = {
        "rank_inverse_normal": rank_normal, "covariates": list(covar), "parts": list(PARTS),
        "targets": {n: {"correlation": r, "labelled": int(pheno[f"{n}_{PARTS[0]}"].notna().sum()),
                        "unlabelled": int(pheno[f"{n}_{PARTS[2]}"].notna().sum())}
                    for n, r in inputs.correlations.items()},
    }  # fmt: skip
    texts = {
        name: table.to_csv(sep=separator, index=False, na_rep="NA", float_format="%.8g", lineterminator="\n")
        for name, (table, separator) in tables.items()
    }
    return list(write_texts(out, texts | {FACTS: json.dumps(facts, indent=2) + "\n"}))
