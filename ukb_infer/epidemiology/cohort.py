"""The cohort of an analysis: estimates of a run, measurements, phenotypes, one row per scan."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.epidemiology.formulas import check_names
from ukb_infer.epidemiology.phenotypes import phenotype_names, read_phenotypes, target_names
from ukb_infer.errors import UsageError
from ukb_infer.evaluation import read_predictions
from ukb_infer.evaluation.cross_validation import CrossValidation, is_cross_validation, read_cross_validation
from ukb_infer.labels import Labels, read_definitions, read_id_list, read_labels
from ukb_infer.labels.ids import plain_scan
from ukb_infer.labels.reading import LabelSummary
from ukb_infer.records import ScanKey
from ukb_infer.runs.read import Run, read_run

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Say = Callable[[str], None]

#: Most targets whose labels are described one by one.
_FEW_LINES = 3
#: What is known of the relation between the module and the labelled scans.
#: ``unseen``: the user says that it never saw them; ``out-of-fold``: their estimates come from networks that did not;
#: ``unknown``: nothing says so.
Relation = Literal["unseen", "out-of-fold", "unknown"]


@dataclass(frozen=True)
class Cohort:
    """N scans, one per participant and visit.

    Attributes:
        estimates: (N,) of every estimated variable by name; ``sds``: their standard deviations, NaN where unknown.
        measured: (N,) by name, NaN where not measured.
        phenotypes: (N rows) every other variable.
        people: (N,) number of the participant, from 0.
        relation: of module and labelled scans.
        notes: what was converted, taken or left out.
        eids: (N,) of the participants, for files of individual data only; or empty.
    """

    estimates: Mapping[str, Float64]
    measured: Mapping[str, Float64]
    phenotypes: pd.DataFrame
    people: NDArray[np.int64]
    sds: Mapping[str, Float64] = field(default_factory=dict)
    relation: Relation = "unseen"
    notes: tuple[str, ...] = ()
    eids: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Rows."""
        return len(self.people)

    @property
    def labelled(self) -> Bool:
        """(N,) rows where every estimated variable is measured."""
        found = np.ones(len(self), bool)
        for values in self.measured.values():
            found &= np.isfinite(values)
        return found if self.measured else np.zeros(len(self), bool)

    def at(self, rows: Bool) -> Cohort:
        """Some of the rows; participants are numbered again."""
        return replace(
            self, estimates={n: v[rows] for n, v in self.estimates.items()},
            measured={n: v[rows] for n, v in self.measured.items()}, sds={n: v[rows] for n, v in self.sds.items()},
            phenotypes=self.phenotypes[rows].reset_index(drop=True),
            people=np.unique(self.people[rows], return_inverse=True)[1].astype(np.int64),
            eids=tuple(e for e, kept in zip(self.eids, rows, strict=True) if kept) if self.eids else (),
        )  # fmt: skip

    def complete(self) -> Cohort:
        """The rows in which no estimate and no phenotype is missing."""
        rows = np.array(self.phenotypes.notna().all(axis=1), bool)
        for values in self.estimates.values():
            rows &= np.isfinite(values)
        return self if rows.all() else self.at(rows)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Files of an analysis.

    Attributes:
        run: folder of ``predict``.
        labels: measurements, or None; ``phenotypes``: everything else, or None.
        out_of_fold: folder of ``cross-validate``, if the module was trained on the labelled scans.
        trained_on: list of the participants or scans the module was trained on, "none", or "" if unknown.
        estimated: targets to take from the run although the phenotypes have them.
        units: unit of columns of labels and phenotypes; ``define``: user-defined targets.
        instance: the only visit to use; None for all.
        quality: of the estimates, "use" or "all".
    """

    run: Path
    labels: Path | None = None
    phenotypes: Path | None = None
    out_of_fold: Path | None = None
    trained_on: str = ""
    estimated: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    define: Path | None = None
    instance: int | None = None
    quality: Literal["use", "all"] = "use"


def read_cohort(sources: Sources, names: Sequence[str], say: Say = print) -> Cohort:
    """Line up estimates, measurements and phenotypes.

    Args:
        sources: files.
        names: variables of the analysis.
        say: receives notes, which name no participant.

    Raises:
        UsageError: unknown names, unusable tables, or estimates that the labelled scans must not be used with.
        RunError: the run has no estimates.
    """
    run = read_run(sources.run)
    run = one_scan_per_visit(run.usable() if sources.quality == "use" else run, sources.instance)
    _, facts = run.estimated
    targets = [t.name for t in facts.targets]
    columns = phenotype_names(sources.phenotypes) if sources.phenotypes else frozenset[str]()
    origin = dict.fromkeys(columns, "phenotypes") | {
        n: "run" for n in targets if n not in columns or n in sources.estimated
    }
    check_names(tuple(names), origin)
    estimated = [n for n in names if origin[n] == "run"]
    if not estimated:
        both = [n for n in names if n in targets]
        raise UsageError(
            "`model`: nothing in it is estimated by the run" + (
                f"; {', '.join(both)}: the phenotypes have it too, add `estimated` {both[0]} to use the estimates"
                if both else f" (it estimates {', '.join(targets[:8])} ...)"
            )
        )  # fmt: skip
    given = [n for n in names if n in targets and n not in estimated]
    notes = [f"{', '.join(given)}: from the phenotypes; the run has estimates, too"] if given else []
    keys = run.keys
    units = {n: u for n, u in sources.units.items() if n not in estimated and n in columns}
    others = [n for n in names if n not in estimated]
    phenotypes = (
        read_phenotypes(sources.phenotypes, others, keys, units, notes.append)
        if sources.phenotypes
        else pd.DataFrame(index=range(len(keys)))
    )
    cohort = Cohort(
        {n: _best(run, n) for n in estimated}, _measured(sources, estimated, keys, units, notes), phenotypes,
        np.unique([k.eid or k.scan for k in keys], return_inverse=True)[1].astype(np.int64),
        {n: run.estimates(n).sd for n in estimated}, eids=tuple(k.eid or k.scan for k in keys),
    )  # fmt: skip
    cohort = _relate(cohort, sources, run, keys, notes)
    for note in notes:
        say(note)
    return replace(cohort, notes=tuple(notes))


def one_scan_per_visit(run: Run, instance: int | None) -> Run:
    """The run with the highest array of every participant and visit, of one visit if that is asked for."""
    table, _ = run.estimated
    if instance is not None:
        table = table[table["instance"] == instance]
        if not len(table):
            raise UsageError(field="instance", got=instance, expected="a visit of which the run has scans")
    keyed = table["eid"] != ""
    latest = table[keyed].sort_values("array").drop_duplicates(["eid", "instance"], keep="last")
    return replace(run, table=pd.concat([latest, table[~keyed]]).sort_index().reset_index(drop=True))


def _best(run: Run, name: str) -> Float64:
    """(N,) estimates: the mean, of a 0/1 target the probability."""
    found = run.estimates(name)
    return found.probability if found.target.kind == "binary" and np.isfinite(found.probability).any() else found.mean


def _labels(sources: Sources, names: Sequence[str], units: Mapping[str, str]) -> Labels:
    assert sources.labels is not None
    definitions = read_definitions(sources.define) if sources.define else {}
    return read_labels(sources.labels, names, units=units, definitions=definitions)


def _measured(
    sources: Sources, estimated: Sequence[str], keys: Sequence[ScanKey], units: Mapping[str, str], notes: list[str]
) -> dict[str, Float64]:
    """(N,) measurements of the estimated variables; none without labels."""
    if sources.labels is None:
        return {}
    labels = _labels(sources, estimated, {n: u for n, u in sources.units.items() if n not in units})
    values = labels.matrix(keys)
    listed, matching = labels.count_matches(keys)
    notes += _described(labels.summaries)
    if matching < listed:
        notes.append(f"{matching} of {listed} labelled participants (or scans) are in the run")
    if not np.isfinite(values).all(axis=1).any():
        raise UsageError(
            f"`labels` {sources.labels}: none of the run's {len(keys)} scans has a measurement; compare eid and "
            "instance with the run's estimates.csv"
        )
    return {n: values[:, k] for k, n in enumerate(estimated)}


def _described(summaries: Sequence[LabelSummary]) -> list[str]:
    """A line for each of a few targets, one line for many."""
    if len(summaries) <= _FEW_LINES:
        return list(map(str, summaries))
    present = [s.present for s in summaries]
    special = sum(s.special_codes + s.not_finite for s in summaries)
    tail = f"; {special} special codes and non-finite values made missing" if special else ""
    return [f"labels: {len(summaries)} targets, {min(present)} to {max(present)} values each{tail}"]


# -- did the module see the labelled scans? ----------------------------------------------------------------------------

_ADVICE = (
    "its estimates of them are closer to the measurements than those of other scans, and every estimator that combines "
    "both would be biased. Give the out-of-fold estimates of `ukb-infer cross-validate` with `out_of_fold` FOLDER, or "
    "labels of scans that the module never saw"
)


def _relate(cohort: Cohort, sources: Sources, run: Run, keys: Sequence[ScanKey], notes: list[str]) -> Cohort:
    """Replace or refuse the estimates of scans that the module was trained on."""
    if not cohort.measured:
        return replace(cohort, relation="unknown")
    if sources.out_of_fold is not None:
        return _out_of_fold(cohort, sources.out_of_fold, run, keys, notes)
    if _was_trained_on(sources, run, list(cohort.estimates)):
        raise UsageError(
            f"`run` {run.folder}: its module was trained on exactly the labelled scans (the lists of scans have the "
            f"same hash): {_ADVICE}"
        )
    if sources.trained_on in ("", "none"):
        return replace(cohort, relation="unseen" if sources.trained_on else "unknown")
    seen = read_id_list(Path(sources.trained_on), f"`trained_on` {sources.trained_on}")
    listed = np.array([seen.holds(key) for key in keys])
    if not (cohort.labelled & ~listed).any():
        raise UsageError(f"`trained_on` {sources.trained_on}: lists all labelled scans of the run: {_ADVICE}")
    if listed.any():
        notes.append(f"{int(listed.sum())} scans that the module was trained on are left out")
        cohort = cohort.at(~listed)
    return replace(cohort, relation="unseen")


def _was_trained_on(sources: Sources, run: Run, estimated: Sequence[str]) -> bool:
    """Whether a module's list of training scans is that of the labelled ones, those that quality rules out included."""
    _, facts = run.estimated
    assert sources.labels is not None
    whole = read_run(sources.run)
    there = target_names(sources.labels)
    for record in (m.get("training") or {} for m in facts.modules):
        if not record.get("scan_list"):
            continue
        for names in ([t for t in record.get("targets", ()) if t in there], list(estimated)):
            with contextlib.suppress(UsageError):  # another target's column, which is not ours to check
                known = _labels(sources, names, sources.units).matrix(whole.keys)
                keys = [k for k, row in zip(whole.keys, known, strict=True) if np.isfinite(row).any()]
                names_of_scans = "\n".join(k.scan for k in sorted(keys, key=lambda k: k.sort_key))
                if hashlib.sha256(names_of_scans.encode()).hexdigest()[:16] == record["scan_list"]:
                    return True
    return False


def _out_of_fold(cohort: Cohort, folder: Path, run: Run, keys: Sequence[ScanKey], notes: list[str]) -> Cohort:
    """Take the estimates of all cross-validated scans from networks that never saw them."""
    if not is_cross_validation(folder):
        raise UsageError(f"`out_of_fold` {folder}: expected a folder written by `ukb-infer cross-validate`")
    found = read_cross_validation(folder)
    missing = [n for n in cohort.estimates if n not in found.targets]
    if missing:
        raise UsageError(f"`out_of_fold` {folder}: has no estimates of {', '.join(missing)}, only of "
                         f"{', '.join(found.targets[:8])}; cross-validate these targets too")  # fmt: skip
    _check_same_scans(folder, found, run)
    predictions = read_predictions(folder)
    place = {plain_scan(k.scan): row for row, k in enumerate(found.keys)}
    rows = np.array([place.get(plain_scan(k.scan), -1) for k in keys])
    if not (cohort.labelled & (rows >= 0)).any():
        raise UsageError(f"`out_of_fold` {folder}: has none of the labelled scans of the run; give that of its module")
    estimates = {}
    for name in cohort.estimates:
        mean = run.estimates(name).mean.copy()  # of a 0/1 target, too: the folds have no calibrated probability
        mean[rows >= 0] = predictions.targets[name].mean[rows[rows >= 0]]
        estimates[name] = mean
    notes.append(f"{int((rows >= 0).sum())} scans have out-of-fold estimates from {folder.name}")
    return replace(cohort, estimates=estimates, sds={}, relation="out-of-fold")


def _check_same_scans(folder: Path, found: CrossValidation, run: Run) -> None:
    """Refuse a cross-validation of other scans than the module was trained on, as far as both are recorded."""
    _, facts = run.estimated
    trained = {m["training"]["scan_list"] for m in facts.modules if (m.get("training") or {}).get("scan_list")}
    crossed = (found.facts.get("recipe") or {}).get("scan_list")
    if trained and crossed and crossed not in trained:
        raise UsageError(
            f"`out_of_fold` {folder}: its scans are not those the run's module was trained on, so that the module may "
            "have seen other labelled scans; cross-validate with the labels and projections of its training"
        )
