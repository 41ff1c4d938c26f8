"""``changes``: repeat visit minus first imaging visit of every participant, with intervals.

The errors of two visits are alike: the same networks see the same body. Their correlation decides how wide the interval
of a change is; it comes from participants (or phantoms) with labels at both visits, and is a part of the module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.epidemiology.cohort import one_scan_per_visit
from ukb_infer.epidemiology.phenotypes import target_names
from ukb_infer.epidemiology.visit_tables import write_table
from ukb_infer.errors import ModuleError, RunError, UsageError
from ukb_infer.labels import read_labels
from ukb_infer.modules import find_module, read_manifest
from ukb_infer.modules.visits import FEWEST_PAIRS, VISITS_NAME, MadeBy, VisitErrors, Visits, read_visits, write_visits
from ukb_infer.runs.files import CHANGES
from ukb_infer.runs.read import Run, read_run

Float64 = NDArray[np.float64]
Say = Callable[[str], None]

#: The imaging visits that are compared.
VISITS = (2, 3)
#: Change in a few years that no adult's body makes: two people, or one scan that went wrong. In the target's unit.
JUMPS = {"height": 4.0, "sittingHeight": 4.0}


@dataclass(frozen=True, kw_only=True)
class ChangesConfig:
    """What to compute.

    Attributes:
        run: folder of ``predict`` with both visits.
        out: CSV or Parquet file; None for ``changes.csv`` in the run.
        labels: measurements at both visits of some participants, from which correlations are estimated; or None.
        correlations: JSON file that was saved before, or a number for all targets; "" for those of the module.
        save_correlations: where to write those that were estimated, or None.
        module: name or folder of the module that made the run, if it is not found by its name.
        quality: of the estimates, "use" or "all".
    """

    run: Path
    out: Path | None = None
    labels: Path | None = None
    correlations: str = ""
    save_correlations: Path | None = None
    module: str = ""
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
    if config.save_correlations and not config.labels:
        raise UsageError("`save_correlations` needs `labels`, from which correlations are estimated")
    run = read_run(config.run)
    first, second = _pairs(run.usable() if config.quality == "use" else run)
    known = _known(config, first, second, say)
    if config.save_correlations:
        _save(config.save_correlations, Visits(modules=_made_by(run), targets=known))
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


def _known(config: ChangesConfig, first: Run, second: Run, say: Say) -> Mapping[str, VisitErrors]:
    """Errors by target: estimated, given, or those of the module."""
    if config.module and (config.labels or config.correlations):
        raise UsageError("is useless with `labels` or `correlations`, which say how errors go together", field="module")
    if config.labels:
        return _estimated(config.labels, first, second, say)
    if config.correlations:
        say(f"correlations of errors: {config.correlations}, as given")
        return read_correlations(config.correlations)
    found = _of_modules(first, config.module, say)
    if not found:
        say(
            "WARNING the correlation of the errors of both visits is unknown and taken as 0: intervals are too wide if "
            "it is positive. Give `labels` with both visits, or `correlations`, or `ukb-infer modules fit-visits`"
        )
    return found


def _of_modules(run: Run, given: str, say: Say) -> dict[str, VisitErrors]:
    """What the modules of a run know of their own errors; nothing of targets that several of them estimate."""
    _, facts = run.estimated
    if given and len(facts.modules) != 1:
        raise UsageError(
            f"`module`: {len(facts.modules)} modules made {run.folder}, which are found by their names; leave it out"
        )
    found: dict[str, VisitErrors] = {}
    counts: Counter[str] = Counter()
    for record in facts.modules:
        name, made = str(record.get("name", "")), str(record.get("sha256", ""))
        try:
            folder = find_module(given if given and len(facts.modules) == 1 else name)
            manifest = read_manifest(folder)
            if manifest.hash != made:
                raise ModuleError(f"{folder} is not in the state that made this run")
            counts.update(manifest.target_names)
            visits = read_visits(folder / VISITS_NAME) if (folder / VISITS_NAME).exists() else None
        except ModuleError as error:
            if given:
                raise UsageError(f"`module`: {error}") from error
            say(f"module {name}: its correlations of errors are unknown ({error}); name its folder with `module`")
            return {}
        if visits is None:
            say(f"module {name} has no {VISITS_NAME}")
        elif MadeBy(name, made) not in visits.modules:
            say(f"module {name}: its {VISITS_NAME} was made before it was calibrated; make it again")
        else:
            found |= visits.targets
            say(f"correlations of errors: of module {name}, from {visits.fitted_on} ({len(visits.targets)} targets)")
    return {name: errors for name, errors in found.items() if counts[name] == 1}


def _made_by(run: Run) -> tuple[MadeBy, ...]:
    _, facts = run.estimated
    return tuple(MadeBy(str(m.get("name", "")), str(m.get("sha256", ""))) for m in facts.modules)


def run_fit_visits(name: str, run: Path, labels: Path, quality: str = "use", say: Say = print) -> Path:
    """Estimate how the errors of two visits go together, and make that a part of the module; returns the file.

    Args:
        name: of the module, or its folder.
        run: made by it, with both visits.
        labels: measurements at both visits of participants whom the module never saw.
        quality: of the estimates, "use" or "all".
        say: receives notes, which name no participant.

    Raises:
        UsageError: the run is not of this module, or too few participants have labels at both visits.
        ModuleError: the module cannot be read or written.
    """
    folder = find_module(name)
    manifest, found = read_manifest(folder), read_run(run)
    made = manifest.made_by
    if _made_by(found) != (made,):
        others = ", ".join(m.name for m in _made_by(found)) or "no module"
        raise UsageError(
            f"`run` {run}: was made by {others}, not by {manifest.name} alone as it is now; predict both visits with it"
        )
    first, second = _pairs(found.usable() if quality == "use" else found)
    targets = _estimated(labels, first, second, say)
    note = f"{max(e.pairs for e in targets.values())} pairs of visits with labels"
    path = folder / VISITS_NAME
    write_visits(path, Visits(modules=(made,), targets=targets, fitted_on=note))
    return path


def _estimated(path: Path, first: Run, second: Run, say: Say) -> dict[str, VisitErrors]:
    """Errors of the targets that have labels at both visits of enough participants.

    Args:
        path: of the labels.
        first: run at the first visit.
        second: the same participants at the second visit.
        say: receives notes.
    """
    _, facts = first.estimated
    there = target_names(path)
    names = [t.name for t in facts.targets if t.kind == "continuous" and t.name in there]
    if not names:
        raise UsageError(f"`labels` {path}: has none of the run's continuous targets")
    labels = read_labels(path, names)
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
            f"`labels` {path}: no target has labels at instances {VISITS[0]} and {VISITS[1]} of at least "
            f"{FEWEST_PAIRS} participants of the run; give `correlations` instead"
        )
    for name, errors in found.items():
        say(f"{name}: correlation of errors {errors.correlation:.2f} from {errors.pairs} pairs")
    return found


def read_correlations(given: str) -> Mapping[str, VisitErrors]:
    """Errors by target from a file, or one correlation for all as "*".

    Args:
        given: path or number.

    Raises:
        UsageError: neither.
    """
    try:
        correlation = float(given)
    except ValueError:
        try:
            return read_visits(Path(given)).targets
        except ModuleError as error:
            raise UsageError(
                f"`correlations`: cannot be used ({error}); expected a number, a module's {VISITS_NAME}, or a file of "
                "`save_correlations`"
            ) from error
    if not -1.0 < correlation < 1.0:
        raise UsageError(field="correlations", got=given, expected="a number between -1 and 1, or a file")
    return {"*": VisitErrors(correlation)}


def _save(path: Path, visits: Visits) -> None:
    try:
        write_visits(path, visits)
    except ModuleError as error:
        raise RunError(f"`save_correlations` {error}") from error
