"""``gwas-combine``: one valid association per variant from three sets of summary statistics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_ndtr

from ukb_infer.epidemiology.gwas_inputs import FACTS
from ukb_infer.errors import RunError, UsageError
from ukb_infer.storage import atomic_path

Float64 = NDArray[np.float64]

#: Columns of a program's results; ``other`` is the allele without effect, "" if it is one of two columns.
_FORMS: Mapping[str, Mapping[str, str]] = {
    "regenie": {"chrom": "CHROM", "pos": "GENPOS", "id": "ID", "effect": "ALLELE1", "other": "ALLELE0", "beta": "BETA",
                "se": "SE", "n": "N"},
    "PLINK 2": {"chrom": "#CHROM", "pos": "POS", "id": "ID", "effect": "A1", "other": "", "beta": "BETA", "se": "SE",
                "n": "OBS_CT"},
    "SAIGE": {"chrom": "CHR", "pos": "POS", "id": "MarkerID", "effect": "Allele2", "other": "Allele1", "beta": "BETA",
              "se": "SE", "n": "N"},
    "gwas-combine": {"chrom": "chrom", "pos": "pos", "id": "id", "effect": "effect_allele", "other": "other_allele",
                     "beta": "beta", "se": "se", "n": "n"},
}  # fmt: skip
_KEYS = ["chrom", "pos", "first", "second"]
#: Fewest variants from which the correlation of the labelled results is estimated.
FEWEST_VARIANTS = 1000
#: Distance of the quartiles of a normal distribution, in standard deviations.
_NORMAL_QUARTILES = 1.3489795003921634


@dataclass(frozen=True)
class Combined:
    """Results of a combination, (M,) each.

    Attributes:
        beta: effect; ``se``: its standard error; ``weight``: of the estimated results.
        correlation: of the two results of the labelled under no association.
    """

    beta: Float64
    se: Float64
    weight: Float64
    correlation: float

    @property
    def z(self) -> Float64:
        """(M,) effects in standard errors."""
        return self.beta / self.se

    @property
    def log10p(self) -> Float64:
        """(M,) ``-log10`` of the two-sided p, also where p is below the smallest number."""
        return np.asarray(-(log_ndtr(-np.abs(self.z)) + np.log(2.0)) / np.log(10.0), np.float64)


def combine(
    observed: tuple[Float64, Float64],
    estimated: tuple[Float64, Float64],
    unlabelled: tuple[Float64, Float64],
    correlation: float | None = None,
) -> Combined:
    """``beta_observed + w (beta_unlabelled - beta_estimated)``, with the w of the smallest variance.

    The difference has mean zero for every variant, however the estimates' errors depend on genotype, so the result is
    valid; it uses no genetic correlation. The two results of the labelled come from the same people: their errors
    correlate like measurement and estimate given the covariates. Source: Miao, Wu, Sun et al., Valid inference for
    machine learning-assisted genome-wide association studies, Nature Genetics 56 (2024) 2361; the estimator is that of
    Chen and Chen (2000).

    Args:
        observed: (M,) effects and standard errors of the measured quantity in the labelled.
        estimated: those of the estimate in the labelled.
        unlabelled: those of the estimate in the others.
        correlation: of measurement and estimate given the covariates; None to estimate it from the results.

    Raises:
        UsageError: a correlation outside -1 to 1, or too few variants to estimate it.
    """
    (beta, se), (beta_few, se_few), (beta_rest, se_rest) = observed, estimated, unlabelled
    if correlation is None:
        spread = np.sqrt(se_few**2 + se_rest**2)
        correlation = _correlation(beta / se, (beta_few - beta_rest) / spread, float(np.median(spread / se_few)))
    if not -1.0 < correlation < 1.0:
        raise UsageError(field="correlation", got=correlation, expected="above -1 and below 1")
    together = correlation * se * se_few
    spread = se_few**2 + se_rest**2
    weight = together / spread
    return Combined(
        beta + weight * (beta_rest - beta_few), np.sqrt(se**2 - together * weight), weight, float(correlation)
    )


def _correlation(observed: Float64, difference: Float64, ratio: float) -> float:
    """Correlation of the errors of the two results of the labelled.

    From the covariance with the difference of the estimated results, to which no variant contributes, neither of the
    quantity nor of the error; by quartiles, which few outlying variants do not move.

    Args:
        observed: (M,) z scores of the measured quantity.
        difference: (M,) z scores of labelled less unlabelled results of the estimate.
        ratio: standard error of that difference over that of the labelled result.
    """
    if len(observed) < FEWEST_VARIANTS:
        raise UsageError(
            f"`correlation`: {len(observed)} variants are too few to estimate it, expected at least {FEWEST_VARIANTS}; "
            f"give the correlation that `gwas-inputs` wrote to {FACTS}"
        )
    both, apart = ((np.subtract(*np.percentile(v, [75, 25])) / _NORMAL_QUARTILES) ** 2
                   for v in (observed + difference, observed - difference))  # fmt: skip
    return float(np.clip((both - apart) / 4.0 * ratio, -0.999, 0.999))


@dataclass(frozen=True, kw_only=True)
class GwasCombineConfig:
    """Files to combine.

    Attributes:
        observed, estimated, unlabelled: results of the three phenotypes of ``gwas-inputs``.
        out: table to write.
        correlation: of measurement and estimate given the covariates: a number, ``gwas.json``, or None to estimate it.
        target: whose correlation in ``gwas.json``, if it has several.
    """

    observed: Path
    estimated: Path
    unlabelled: Path
    out: Path
    correlation: str | None = None
    target: str = ""


def run_gwas_combine(config: GwasCombineConfig, say: Callable[[str], None] = print) -> pd.DataFrame:
    """Combine the files and write the table, which is also returned.

    Args:
        config: files.
        say: receives notes.

    Raises:
        UsageError: a file of unknown form, or without common variants.
        RunError: the table cannot be written.
    """
    known = _known_correlation(config)
    named = {"observed": config.observed, "estimated": config.estimated, "unlabelled": config.unlabelled}
    tables = {name: read_summary(path, name) for name, path in named.items()}
    joined = _join(tables)
    say(", ".join(f"{name}: {len(table)} variants" for name, table in tables.items()) + f"; {len(joined)} in all three")
    pairs = [(joined[f"beta_{n}"].to_numpy(), joined[f"se_{n}"].to_numpy()) for n in named]
    found = combine(pairs[0], pairs[1], pairs[2], known)
    source = "given" if known is not None else "estimated from the results"
    say(f"correlation of the labelled results: {found.correlation:.3f} ({source})")
    table = joined[["chrom", "pos", "id", "effect_allele", "other_allele"]].assign(
        beta=found.beta, se=found.se, z=found.z, p=10.0 ** -found.log10p, log10p=found.log10p,
        n=(joined["n_observed"] * (pairs[0][1] / found.se) ** 2).round(1), weight=found.weight,
    )  # fmt: skip
    gain = float(np.median((pairs[0][1] / found.se) ** 2))
    say(f"genomic inflation {inflation(found.z):.3f}; effective n {gain:.2f} times that of the labelled (median)")
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(config.out) as partial:
            table.to_csv(partial, sep="\t", index=False, float_format="%.6g", na_rep="NA", lineterminator="\n")
    except OSError as error:
        raise RunError(f"`out` {config.out} cannot be written ({error.strerror}); choose another file") from error
    return table


def inflation(z: Float64) -> float:
    """Genomic inflation factor: median of z squared over that of chi squared with one degree of freedom."""
    return float(np.nanmedian(z**2) / 0.4549364231195724)


def _known_correlation(config: GwasCombineConfig) -> float | None:
    """The correlation that is given, or recorded by ``gwas-inputs``."""
    given = config.correlation
    if given is None:
        return None
    try:
        return float(given)
    except ValueError:
        pass
    try:
        targets = json.loads(Path(given).read_text(encoding="utf-8"))["targets"]
        names = [config.target] if config.target else list(targets)
        if len(names) != 1 or names[0] not in targets:
            raise UsageError(
                field="target", got=config.target or ", ".join(names), expected=f"one of {', '.join(targets)}"
            )
        return float(targets[names[0]]["correlation"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not one"
        raise UsageError(
            f"`correlation`: got {given!r} ({why}), expected a number, or the {FACTS} that `gwas-inputs` wrote"
        ) from error


def read_summary(path: Path, option: str) -> pd.DataFrame:
    """Read summary statistics of regenie, PLINK 2 (``--glm``), SAIGE or this command.

    Args:
        path: text with blanks or tabs, possibly compressed (.gz).
        option: names the file in messages.

    Returns:
        Rows with chrom, pos, id, effect_allele, other_allele, beta, se, n; only those with a finite beta and se.

    Raises:
        UsageError: unreadable, or columns of no known program.
    """
    where = f"`{option}` {path}"
    try:
        table = pd.read_csv(path, sep=r"\s+", dtype=str, keep_default_na=False)
    except (OSError, ValueError, EOFError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())[:200]
        raise UsageError(f"{where}: cannot be read ({why}); expected summary statistics as text or .gz") from error
    form = next((f for f in _FORMS.values() if all(c in table for c in f.values() if c)), None)
    if form is None:
        needed = "; ".join(f"{name}: {' '.join(filter(None, f.values()))}" for name, f in _FORMS.items())
        raise UsageError(f"{where}: has the columns {' '.join(table.columns[:12])}; expected those of {needed}")
    if "TEST" in table and (table["TEST"] == "ADD").any():
        table = table[table["TEST"] == "ADD"]
    effect = table[form["effect"]]
    if form["other"] or "OMITTED" in table:
        other = table[form["other"] or "OMITTED"]
    else:  # of PLINK 2 before the column OMITTED
        other = table["ALT"].where(effect == table["REF"], table["REF"])
    found = pd.DataFrame({"chrom": table[form["chrom"]].str.removeprefix("chr"), "pos": table[form["pos"]],
                          "id": table[form["id"]], "effect_allele": effect, "other_allele": other})  # fmt: skip
    for name in ("beta", "se", "n"):
        found[name] = pd.to_numeric(table[form[name]], errors="coerce")
    usable: pd.DataFrame = found[np.isfinite(found["beta"]) & (found["se"] > 0)]
    return usable.reset_index(drop=True)


def _join(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Variants that all tables have, effects for the alleles of the first."""
    joined: pd.DataFrame | None = None
    for name, table in tables.items():
        pair = np.sort(table[["effect_allele", "other_allele"]].to_numpy(str), axis=1)
        table = table.assign(first=pair[:, 0], second=pair[:, 1])
        twice = int(table.duplicated(_KEYS).sum())
        if twice:
            raise UsageError(f"`{name}`: {twice} variants occur twice; keep one result of each, of one test")
        values = {c: f"{c}_{name}" for c in ("beta", "se", "n")}
        if joined is None:
            joined = table.rename(columns=values)
            continue
        own = table[[*_KEYS, "effect_allele", *values]].rename(columns=values | {"effect_allele": "effect"})
        joined = joined.merge(own, on=_KEYS, validate="1:1")
        joined[f"beta_{name}"] *= np.where(joined.pop("effect") == joined["effect_allele"], 1.0, -1.0)
    assert joined is not None
    if not len(joined):
        raise UsageError("`observed`: no variant is in all three files; compare chromosomes, positions and alleles")
    return joined
