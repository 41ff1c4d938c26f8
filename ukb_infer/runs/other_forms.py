"""The estimates in the forms of other programs: Stata, and BIDS phenotype tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

from ukb_infer._version import __version__
from ukb_infer.errors import RunError
from ukb_infer.imaging.volumes.names import subject_label
from ukb_infer.runs.read import Run
from ukb_infer.runs.tables import KEY_COLUMNS
from ukb_infer.storage import atomic_path, atomic_write_text

STATA, PHENOTYPES = "estimates.dta", "phenotype/ukb_infer.tsv"
#: Longest name and label of a variable in Stata.
_STATA_NAME, _STATA_LABEL = 32, 80
#: Room for what follows a target's name: the longest is ``_sd_epistemic``.
_STEM = _STATA_NAME - len("_sd_epistemic")
#: Columns whose name Stata keeps for itself.
_STATA_WORDS = {"array": "scan_array"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


def stata_stems(targets: Iterable[str]) -> dict[str, str]:
    """A name of at most 19 characters for every target: its words, each cut to as many letters as fit.

    >>> stata_stems(["weight", "AtlasPosteriorThighLeanMuscleRight"])
    {'weight': 'weight', 'AtlasPosteriorThighLeanMuscleRight': 'AtlPosThiLeaMusRig'}
    """
    found: dict[str, str] = {}
    for name in targets:
        words = _WORD.findall(name)
        cut = ("".join(word[:letters] for word in words) for letters in range(12, 0, -1))
        stem = name if len(name) <= _STEM else next((c for c in cut if len(c) <= _STEM), name[:_STEM])
        numbered = (f"{stem[: _STEM - len(str(k))]}{k}" for k in count(2))
        found[name] = stem if stem not in found.values() else next(n for n in numbered if n not in found.values())
    return found


def write_stata(run: Run, out: Path) -> Path:
    """Write the estimates as a Stata file; labels of variables hold the full names.

    Args:
        run: with estimates.
        out: folder.

    Raises:
        RunError: no estimates, or a file that cannot be written.
    """
    table, facts = run.estimated
    stems = stata_stems(t.name for t in facts.targets)
    names, labels = {}, {}
    units = {column.name: column.unit for column in run.dictionary}
    for column in map(str, table.columns):
        target = next((t for t in sorted(stems, key=len, reverse=True) if column.startswith(f"{t}_")), "")
        names[column] = stems[target] + column[len(target) :] if target else _STATA_WORDS.get(column, column)
        unit = f" [{units[column]}]" if units.get(column) else ""
        labels[names[column]] = f"{column}{unit}"[:_STATA_LABEL]
    made = table.rename(columns=names)
    integers = [str(column) for column in made.columns[made.dtypes == "Int64"]]
    made[integers] = made[integers].astype("float64")
    texts = [str(column) for column in made.select_dtypes(["string", "object"]).columns]
    made[texts] = made[texts].fillna("").astype(object)
    try:
        with atomic_path(out / STATA) as partial:
            made.to_stata(partial, write_index=False, variable_labels=labels, version=118)
    except OSError as error:
        raise _cannot(out / STATA, error) from error
    return out / STATA


def write_bids(run: Run, out: Path) -> list[Path]:
    """Write ``phenotype/ukb_infer.tsv`` and its JSON, one row per participant and session (the highest array).

    Source: BIDS 1.9, phenotypic and assessment data.

    Args:
        run: with estimates.
        out: root of the data set.

    Raises:
        RunError: no estimates, or a file that cannot be written.
    """
    table, facts = run.estimated
    keys = run.keys
    made = table.drop(columns=list(KEY_COLUMNS))
    made.insert(0, "participant_id", [f"sub-{subject_label(key)}" for key in keys])
    made.insert(1, "session_id", [None if key.instance is None else f"ses-{key.instance}" for key in keys])
    order = table["array"].fillna(0).astype(int).argsort(kind="stable")
    made = made.iloc[order].drop_duplicates(["participant_id", "session_id"], keep="last")
    made = made.sort_values(["participant_id", "session_id"])
    known = {column.name: column for column in run.dictionary}
    about: dict[str, Any] = {
        "MeasurementToolMetadata": {
            "Description": f"Estimates from neck-to-knee Dixon MRI by ukb-infer {__version__}, not measurements; "
            "modules " + ", ".join(f"{m.get('name')} {m.get('version')}" for m in facts.modules)
        },
        "session_id": {"Description": "Visit: the instance of UK Biobank"},
    }
    for column in map(str, made.columns[2:]):
        found = known.get(column)
        if found:
            about[column] = {"Description": found.meaning} | ({"Units": found.unit} if found.unit else {})
    path = out / PHENOTYPES
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = made.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n")
        atomic_write_text(path, text)
        atomic_write_text(path.with_suffix(".json"), json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise _cannot(path, error) from error
    return [path, path.with_suffix(".json")]


def _cannot(path: Path, error: OSError) -> RunError:
    return RunError(f"`out` {path} cannot be written ({error.strerror}); choose another folder")
