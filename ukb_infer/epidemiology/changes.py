"""``changes``: repeat visit minus first imaging visit of every participant, with intervals.

The errors of two visits are alike: the same networks see the same body. Their correlation decides how wide the interval
of a change is; it comes from participants (or phantoms) with labels at both visits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, t

from ukb_infer.epidemiology.cohort import one_scan_per_visit
from ukb_infer.epidemiology.phenotypes import target_names
from ukb_infer.epidemiology.visit_tables import write_table
from ukb_infer.errors import RunError, UsageError
from ukb_infer.labels import read_labels
from ukb_infer.runs.files import CHANGES
from ukb_infer.runs.read import Run, read_run
from ukb_infer.storage import atomic_write_text, from_plain

Float64 = NDArray[np.float64]
Say = Callable[[str], None]

#: The imaging visits that are compared.
VISITS = (2, 3)
#: Change in a few years that no adult's body makes: two people, or one scan that went wrong. In the target's unit.
JUMPS = {"height": 4.0, "sittingHeight": 4.0}
#: Fewest pairs of visits from which a correlation is estimated.
FEWEST_PAIRS = 20
#: Fewest pairs that give the widths of intervals, which errors with heavy tails need, and the levels of these.
FOR_WIDTHS = 100
_LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)
_LARGEST = 0.99


@dataclass(frozen=True)
class VisitErrors:
    """How the errors of two visits go together.

    Attributes:
        correlation: of the errors of both visits, each in its own sd; also what both have in common for everyone.
        factor: of the sd of a change, by which its observed errors exceed what sds and correlation say.
        pairs: of visits it was estimated from; 0 if it was given.
        half_widths: (level, half width of an interval in sds of the change), conformal; empty for few pairs.
    """

    correlation: float
    factor: float = 1.0
    pairs: int = 0
    half_widths: tuple[tuple[float, float], ...] = ()

    @classmethod
    def estimate(cls, estimates: Float64, sds: Float64, labels: Float64) -> VisitErrors | None:
        """From visits with labels; None if fewer than :data:`FEWEST_PAIRS` are complete.

        Args:
            estimates: (2, N) of both visits.
            sds: (2, N) of the estimates.
            labels: (2, N) measurements.
        """
        kept = np.isfinite(estimates + labels + sds).all(axis=0) & (sds > 0).all(axis=0)
        if kept.sum() < FEWEST_PAIRS:
            return None
        errors, sds = (estimates - labels)[:, kept], sds[:, kept]
        scaled = errors / sds
        together = float(np.mean(scaled[0] * scaled[1]) / np.mean(scaled**2)) if np.any(scaled) else 0.0
        found = cls(round(float(np.clip(together, -_LARGEST, _LARGEST)), 3), 1.0, int(kept.sum()))
        ratios = np.sort(np.abs(errors[1] - errors[0]) / found.sd(sds))
        factor = float(f"{np.sqrt(np.mean(ratios**2)):.3g}")
        ranks = {level: int(np.ceil((found.pairs + 1) * level)) for level in _LEVELS if found.pairs >= FOR_WIDTHS}
        widths = tuple((a, float(f"{ratios[k - 1] / factor:.3g}")) for a, k in ranks.items() if k <= found.pairs)
        return cls(found.correlation, factor, found.pairs, widths if factor else ())

    def sd(self, sds: Float64) -> Float64:
        """(N,) standard deviation of the error of a change.

        Args:
            sds: (2, N) of the estimates.
        """
        variance = sds[0] ** 2 + sds[1] ** 2 - 2.0 * self.correlation * sds[0] * sds[1]
        return np.asarray(self.factor * np.sqrt(np.maximum(variance, 0.0)), np.float64)

    def quantile(self, level: float) -> float:
        """Half width of an interval in sds: conformal where the pairs allow it, else of a t distribution."""
        if self.half_widths and self.half_widths[0][0] <= level <= self.half_widths[-1][0]:
            levels, widths = np.array(self.half_widths).T
            return float(np.interp(level, levels, widths))
        return float(t.ppf(0.5 + level / 2, self.pairs) if self.pairs else norm.ppf(0.5 + level / 2))


@dataclass(frozen=True, kw_only=True)
class ChangesConfig:
    """What to compute.

    Attributes:
        run: folder of ``predict`` with both visits.
        out: CSV or Parquet file; None for ``changes.csv`` in the run.
        labels: measurements at both visits of some participants, from which correlations are estimated; or None.
        correlations: JSON file that was saved before, or a number for all targets; "" if unknown.
        save_correlations: where to write those that were estimated, or None.
        quality: of the estimates, "use" or "all".
    """

    run: Path
    out: Path | None = None
    labels: Path | None = None
    correlations: str = ""
    save_correlations: Path | None = None
    quality: str = "use"


def run_changes(config: ChangesConfig, say: Say = print) -> Path:
    """Write the changes of every participant with both visits; returns the file.

    Args:
        config: what to compute.
        say: receives notes, which name no participant.

    Raises:
        UsageError: no participant with both visits, unusable tables, or options that exclude each other.
        RunError: no estimates, or a file that cannot be written.
    """
    if config.labels and config.correlations:
        raise UsageError("`labels` and `correlations` exclude each other: correlations are estimated, or known")
    run = read_run(config.run)
    first, second = _pairs(run.usable() if config.quality == "use" else run)
    known = _estimated(config, first, second, say) if config.labels else read_correlations(config.correlations)
    if config.save_correlations:
        _save(config.save_correlations, known, run)
    if not known and not config.labels:
        say(
            "WARNING the correlation of the errors of both visits is unknown and taken as 0: intervals are too wide if "
            "it is positive. Give `labels` with both visits, or `correlations`"
        )
    made = change_table(first, second, known)
    say(f"{len(made)} participants have both visits")
    if jumps := int((made["implausible"] != "").sum()):
        say(f"{jumps} of them changed implausibly ({', '.join((*JUMPS, 'sex'))}): compare their scans")
    return write_table(config.out or config.run / CHANGES, made)


def _pairs(run: Run) -> tuple[Run, Run]:
    """The run at both visits, the same participants in the same order."""
    table, _ = one_scan_per_visit(run, None).estimated
    visits = [table[(table["instance"] == visit) & (table["eid"] != "")].sort_values("eid") for visit in VISITS]
    both = set(visits[0]["eid"]) & set(visits[1]["eid"])
    if not len(both):
        raise UsageError(
            f"`run` {run.folder}: has {len(visits[0])} participants at instance {VISITS[0]} and {len(visits[1])} at "
            f"{VISITS[1]}, none at both; predict both visits into one run, or merge two"
        )
    first, second = (replace(run, table=v[v["eid"].isin(both)].reset_index(drop=True)) for v in visits)
    return first, second


def _stacked(first: Run, second: Run, name: str) -> tuple[Float64, Float64]:
    """Means (2, N) and sds (2, N) of both visits."""
    found = first.estimates(name), second.estimates(name)
    return np.stack([f.mean for f in found]), np.stack([f.sd for f in found])


def change_table(first: Run, second: Run, known: Mapping[str, VisitErrors]) -> pd.DataFrame:
    """One row per participant.

    Args:
        first: run at the first visit, one scan per participant.
        second: the same participants at the second visit.
        known: errors by target, "*" for all others; missing ones are uncorrelated.
    """
    table, facts = first.estimated
    later, _ = second.estimated
    columns: dict[str, object] = {"eid": table["eid"], "scan": later["scan"], "scan_before": table["scan"]}
    jumps: list[list[str]] = [[] for _ in range(len(table))]
    for target in facts.targets:
        means, sds = _stacked(first, second, target.name)
        if target.kind == "binary":
            jumped = _flips(first, second, target.name) if target.name == "sex" else np.zeros(len(table), bool)
        else:
            errors = known.get(target.name) or known.get("*") or VisitErrors(0.0)
            columns |= _columns(target.name, means, errors.sd(sds), errors.quantile(facts.level))
            jumped = np.abs(means[1] - means[0]) > JUMPS.get(target.name, np.inf)
        for row in np.flatnonzero(jumped):
            jumps[row].append(target.name)
    made = pd.DataFrame(columns)
    made.insert(3, "implausible", [";".join(names) for names in jumps])
    return made


def _flips(first: Run, second: Run, name: str) -> NDArray[np.bool_]:
    """(N,) whether a 0/1 target is on the other side of one half."""
    sides = []
    for run in (first, second):
        found = run.estimates(name)
        sides.append(np.where(np.isfinite(found.probability), found.probability, found.mean))
    flipped = np.isfinite(sides).all(axis=0) & ((sides[0] > 0.5) != (sides[1] > 0.5))
    return np.asarray(flipped, bool)


def _columns(name: str, means: Float64, sd: Float64, quantile: float) -> dict[str, object]:
    change = means[1] - means[0]
    index = change / np.where(sd > 0, sd, np.nan)
    words = np.select([index > quantile, index < -quantile], ["increase", "decrease"], "")
    return {
        f"{name}_change": change, f"{name}_change_sd": sd, f"{name}_change_lower": change - quantile * sd,
        f"{name}_change_upper": change + quantile * sd, f"{name}_rci": index, f"{name}_reliable": words,
    }  # fmt: skip


# -- the correlation of errors -----------------------------------------------------------------------------------------


def _estimated(config: ChangesConfig, first: Run, second: Run, say: Say) -> dict[str, VisitErrors]:
    """Errors of the targets that have labels at both visits of enough participants."""
    assert config.labels is not None
    _, facts = first.estimated
    there = target_names(config.labels)
    names = [t.name for t in facts.targets if t.kind == "continuous" and t.name in there]
    if not names:
        raise UsageError(f"`labels` {config.labels}: has none of the run's continuous targets")
    labels = read_labels(config.labels, names)
    values = np.stack([labels.matrix(run.keys) for run in (first, second)])  # (2, N, T)
    found: dict[str, VisitErrors] = {}
    for k, name in enumerate(names):
        means, sds = _stacked(first, second, name)
        if errors := VisitErrors.estimate(means, sds, values[:, :, k]):
            found[name] = errors
        else:
            say(f"{name}: fewer than {FEWEST_PAIRS} have labels at both visits; its errors count as independent")
    if not found:
        raise UsageError(
            f"`labels` {config.labels}: no target has labels at instances {VISITS[0]} and {VISITS[1]} of at least "
            f"{FEWEST_PAIRS} participants of the run; give `correlations` instead"
        )
    for name, errors in found.items():
        say(f"{name}: correlation of errors {errors.correlation:.2f} from {errors.pairs} pairs")
    return found


def read_correlations(given: str) -> dict[str, VisitErrors]:
    """Errors by target from a file, or one correlation for all as "*"; empty for "".

    Args:
        given: path, number or "".

    Raises:
        UsageError: neither.
    """
    if not given:
        return {}
    try:
        correlation = float(given)
    except ValueError:
        return _read(Path(given))
    if not -1.0 < correlation < 1.0:
        raise UsageError(field="correlations", got=given, expected="a number between -1 and 1, or a file")
    return {"*": VisitErrors(correlation)}


def _read(path: Path) -> dict[str, VisitErrors]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return from_plain(dict[str, VisitErrors], plain["targets"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"`correlations` {path}: cannot be used ({error}); expected a number, or a file that `ukb-infer changes` "
            "wrote with `save_correlations`"
        ) from error


def _save(path: Path, known: Mapping[str, VisitErrors], run: Run) -> None:
    _, facts = run.estimated
    modules = [{key: str(m.get(key, "")) for key in ("name", "sha256")} for m in facts.modules]
    plain = {"modules": modules, "targets": {name: asdict(errors) for name, errors in known.items()}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(plain, indent=1) + "\n")
    except OSError as error:
        raise RunError(f"`save_correlations` {path} cannot be written ({error.strerror}); choose another") from error
