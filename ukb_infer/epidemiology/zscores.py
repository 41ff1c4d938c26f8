"""``zscores``: where every estimate lies among people of the same sex, age and height."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from ukb_infer.epidemiology.cohort import one_scan_per_visit
from ukb_infer.epidemiology.curves import FEWEST, LARGEST_Z, Curve, TargetCurves, Term, design, transformed
from ukb_infer.epidemiology.phenotypes import read_phenotypes
from ukb_infer.epidemiology.visit_tables import write_table
from ukb_infer.errors import RunError, UsageError
from ukb_infer.runs.files import ZSCORES
from ukb_infer.runs.read import Run, TargetEstimates, read_run
from ukb_infer.runs.tables import KEY_COLUMNS
from ukb_infer.storage import atomic_write_text, from_plain

Float64 = NDArray[np.float64]
Say = Callable[[str], None]

#: Covariates of every reference; sex has its own curves.
COVARIATES = ("age", "height")
_SEXES = {"0": "women", "1": "men"}
#: A run whose z-scores have a mean or an sd further from 0 and 1 is said to differ from the reference.
_FAR_MEAN, _FAR_SD = 0.2, (0.8, 1.25)
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Curves of many targets; holds no value of any one person.

    Attributes:
        covariates: besides sex.
        terms: of the covariates, by sex ("0" women, "1" men).
        targets: curves by target; ``units``: of the targets.
        modules: name and sha256 of those that made the estimates.
        people: participants by sex, rounded to tens.
    """

    covariates: tuple[str, ...]
    terms: Mapping[str, tuple[Term, ...]]
    targets: Mapping[str, TargetCurves]
    units: Mapping[str, str]
    modules: tuple[Mapping[str, str], ...] = ()
    people: Mapping[str, int] = field(default_factory=dict)
    version: int = _VERSION

    def z_table(self, run: Run, covariates: pd.DataFrame) -> pd.DataFrame:
        """(N rows) ``outside_reference`` and, per target, ``_z``, ``_z_lower``, ``_z_upper``, ``_percentile``.

        Args:
            run: N scans.
            covariates: (N rows) sex and the reference's covariates.
        """
        _, facts = run.estimated
        outside = np.zeros(len(covariates), bool)
        columns: dict[str, Float64] = {}
        rows = {sex: np.asarray(covariates["sex"] == float(sex), bool) for sex in self.terms}
        designs = {sex: design(self.terms[sex], covariates[rows[sex]]) for sex in rows}
        for sex, terms in self.terms.items():
            for term in terms:
                outside[rows[sex]] |= term.outside(covariates[term.name][rows[sex]])
        quantile = norm.ppf(0.5 + facts.level / 2)
        for name, curves in self.targets.items():
            if name not in {t.name for t in facts.targets}:
                continue
            found = np.full((3, len(covariates)), np.nan)
            for sex, curve in curves.sexes.items():
                estimates = _at(run.estimates(name), rows[sex])
                found[:, rows[sex]] = _interval(curve, curves.power, designs[sex], estimates, quantile)
            columns |= {f"{name}_z": found[0], f"{name}_z_lower": found[1], f"{name}_z_upper": found[2]}
            columns[f"{name}_percentile"] = 100.0 * norm.cdf(found[0])
        return pd.DataFrame({"outside_reference": outside, **columns})

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            RunError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_text(path, self.text())
        except OSError as error:
            raise RunError(f"`save_reference` {path} cannot be written ({error.strerror}); choose another") from error


def _at(found: TargetEstimates, rows: NDArray[np.bool_]) -> tuple[Float64, Float64, Float64]:
    """Estimates and ends of their intervals of some rows."""
    return found.mean[rows], found.lower[rows], found.upper[rows]


def _interval(
    curve: Curve, power: float, columns: Float64, estimates: tuple[Float64, Float64, Float64], quantile: float
) -> Float64:
    """(3, N) z-scores with the ends of their intervals: those of the estimate, widened by the error of the curve."""
    z, low, high = (curve.z(columns, transformed(v, power)) for v in estimates)
    own = quantile * curve.second.error(columns)
    return np.stack([z, z - np.hypot(z - low, own), z + np.hypot(high - z, own)]).clip(-LARGEST_Z, LARGEST_Z)


def fit_reference(run: Run, covariates: pd.DataFrame, names: tuple[str, ...]) -> Reference:
    """Fit the curves of all continuous targets to the first visit of every participant.

    Args:
        run: N scans.
        covariates: (N rows) sex, age, height and others.
        names: covariates besides sex.

    Raises:
        UsageError: too few people.
    """
    table, facts = run.estimated
    person = table["eid"].where(table["eid"] != "", table["scan"])
    order = np.argsort(table["instance"].fillna(-1).to_numpy(int), kind="stable")
    first = np.zeros(len(table), bool)
    first[order[~person.iloc[order].duplicated().to_numpy()]] = True
    complete = first & covariates.notna().all(axis=1).to_numpy()
    rows = {sex: complete & np.asarray(covariates["sex"] == float(sex), bool) for sex in _SEXES}
    enough = {sex: kept for sex, kept in rows.items() if kept.sum() >= FEWEST}
    if not enough:
        counts = " and ".join(f"{int(kept.sum())} {_SEXES[sex]}" for sex, kept in rows.items())
        raise UsageError(
            f"`phenotypes`: {counts} of the run have sex, {' and '.join(names)}; curves need at least {FEWEST} of a "
            "sex. Give a saved reference with `reference`"
        )
    terms = {sex: tuple(Term.of(name, covariates[name][kept]) for name in names) for sex, kept in enough.items()}
    designs = {sex: design(terms[sex], covariates[kept]) for sex, kept in enough.items()}
    known = {sex: np.isfinite(x).all(axis=1) for sex, x in designs.items()}
    targets = [t for t in facts.targets if t.kind == "continuous" and t.name not in names]
    curves = {}
    for target in targets:
        mean = run.estimates(target.name).mean
        values = {sex: mean[kept][known[sex]] for sex, kept in enough.items()}
        curves[target.name] = TargetCurves.fit({sex: designs[sex][known[sex]] for sex in enough}, values)
    return Reference(
        covariates=names, terms=terms, targets={n: c for n, c in curves.items() if c.sexes},
        units={t.name: t.unit for t in targets}, modules=_modules(run),
        people={sex: round(int(kept.sum()), -1) for sex, kept in enough.items()},
    )  # fmt: skip


def _modules(run: Run) -> tuple[Mapping[str, str], ...]:
    _, facts = run.estimated
    return tuple({key: str(module.get(key, "")) for key in ("name", "sha256")} for module in facts.modules)


def read_reference(path: Path) -> Reference:
    """Read a saved reference.

    Raises:
        UsageError: it is none.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(plain, dict) or plain.get("version") != _VERSION:
            raise ValueError(f"no reference of version {_VERSION}")
        return from_plain(Reference, plain)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"`reference` {path}: cannot be used ({why}); expected a file that `ukb-infer zscores` wrote with "
            "`save_reference`"
        ) from error


@dataclass(frozen=True, kw_only=True)
class ZscoresConfig:
    """What to compute.

    Attributes:
        run: folder of ``predict``; ``phenotypes``: table with age, sex, height and other covariates.
        out: CSV or Parquet file; None for ``zscores.csv`` in the run.
        reference: saved earlier, or None to fit one to the run.
        save_reference: where to write the fitted one, or None.
        covariates: besides sex, age and height.
        quality: of the estimates, "use" or "all".
    """

    run: Path
    phenotypes: Path
    out: Path | None = None
    reference: Path | None = None
    save_reference: Path | None = None
    covariates: tuple[str, ...] = ()
    quality: str = "use"


def run_zscores(config: ZscoresConfig, say: Say = print) -> Path:
    """Write z-scores and percentiles of a run; returns the file.

    Args:
        config: what to compute.
        say: receives notes, which name no participant.

    Raises:
        UsageError: unusable tables, too few people, or options that exclude each other.
        RunError: no estimates, or a file that cannot be written.
    """
    if config.reference and (config.save_reference or config.covariates):
        raise UsageError("`reference` has its own curves and covariates: leave out `save_reference` and `covariates`")
    run = read_run(config.run)
    run = one_scan_per_visit(run.usable() if config.quality == "use" else run, None)
    saved = read_reference(config.reference) if config.reference else None
    names = saved.covariates if saved else tuple(dict.fromkeys((*COVARIATES, *config.covariates)))
    covariates = read_phenotypes(config.phenotypes, ["sex", *names], run.keys, None, say)
    reference = saved or fit_reference(run, covariates, names)
    if config.save_reference:
        reference.save(config.save_reference)
    made = reference.z_table(run, covariates)
    _say_what_was_found(reference, run, made, say, was_saved=saved is not None)
    keys = run.estimated[0][list(KEY_COLUMNS)]
    return write_table(config.out or config.run / ZSCORES, pd.concat([keys, made], axis=1))


def _say_what_was_found(reference: Reference, run: Run, made: pd.DataFrame, say: Say, *, was_saved: bool) -> None:
    people = ", ".join(f"{count} {_SEXES[sex]}" for sex, count in reference.people.items())
    names = [name for name in reference.targets if f"{name}_z" in made]
    say(f"z-scores of {len(names)} targets given sex, {', '.join(reference.covariates)}; reference of about {people}")
    missing = int(made.filter(regex="_z$").isna().all(axis=1).sum())
    if missing:
        say(f"{missing} of {len(made)} scans have no z-score: a covariate is missing, or their sex has no curve")
    if outside := int(made["outside_reference"].sum()):
        say(f"{outside} scans lie outside the reference's range of covariates, where curves are lines: use with care")
    if not was_saved:
        return
    if reference.modules != _modules(run):
        say("WARNING the reference was made by other modules, whose estimates may be spread otherwise")
    for name in names:
        z = made[f"{name}_z"].dropna()
        if len(z) >= FEWEST and (abs(z.mean()) > _FAR_MEAN or not _FAR_SD[0] < z.std() < _FAR_SD[1]):
            say(f"WARNING {name}: z-scores have mean {z.mean():.2f} and sd {z.std():.2f}; not the reference's people")
