"""``benchmark score``: the outputs of any system against labels, with the metrics of a suite."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.evaluation.fairness import GroupValue, fairness, grouped
from ukb_infer.evaluation.metrics import MetricValue, bootstrap_weights, resampled, summarize
from ukb_infer.evaluation.segmentation import dice, surface_dice
from ukb_infer.imaging.datasets.cases import LABELS_FOLDER
from ukb_infer.imaging.datasets.participants import PARTICIPANTS_NAME, find_row, read_participants
from ukb_infer.labels import read_labels
from ukb_infer.labels.ids import participant_of, plain_eid, plain_scan
from ukb_infer.records import ScanKey
from ukb_infer.storage import csv_text, write_texts
from ukb_infer.tasks.files import find_task
from ukb_infer.tasks.outputs import SUFFIXES, OutputError, read_grid, read_mask, read_value
from ukb_infer.tasks.registry import TASKS
from ukb_infer.tasks.task import Task

Float64 = NDArray[np.float64]

SUITES = tuple(dict.fromkeys(task.suite for task in TASKS.values() if task.suite))
#: What counts where a metric cannot be computed.
WORST = {"auroc": 0.0, "dice": 0.0, "nsd": 0.0, "mae": 100.0, "r": -100.0}
#: Absolute error of a case without usable output, in the target's unit.
_WORST_ERROR = WORST["mae"]
#: Outputs named by participant, or participant and session.
_VISIT = re.compile(r"(\d+)(?:_ses-(\d+))?")
_LABEL_NAMES = {"segmentation": ("seg.nii.gz", "seg.nii"), "class": ("label.txt",), "regression": ("label.txt",)}


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What to score.

    Attributes:
        predictions: folder of ``<sub>.txt`` or ``<sub>.nii.gz``.
        labels: folder of the finetuning layout, or its ``labels``; for numbers also a table, see
            :func:`ukb_infer.labels.read_labels`.
        out: folder of the tables.
        suite: whose metrics are computed; "" to take that of the task.
        task: of that suite; "" if only one of its kinds of output fits the labels. Or a user's own, a ``.toml`` file.
        replicates: bootstrap replicates over participants; 0 for no intervals; ``seed`` of their draws.
        both_empty: surface Dice of two empty masks.
    """

    predictions: Path
    labels: Path
    out: Path
    suite: str = ""
    task: str = ""
    replicates: int = 1000
    seed: int = 0
    both_empty: float = 0.0

    def __post_init__(self) -> None:
        if not (self.suite or self.task):
            raise UsageError(field="suite", got="none", expected=f"one of {', '.join(SUITES)}, or a task")
        if self.suite and self.suite not in SUITES:
            raise UsageError(field="suite", got=self.suite, expected=", ".join(SUITES))
        if not 0 <= self.replicates <= 100_000:
            raise UsageError(field="replicates", got=self.replicates, expected="0 to 100000")
        if not self.predictions.is_dir():
            raise UsageError(field="predictions", got=str(self.predictions), expected="a folder of outputs")


@dataclass(frozen=True, kw_only=True)
class ScoredCase:
    """A case with its label.

    Attributes:
        name: participant or scan, as the output is named.
        participant: whose it is; the cases of one are drawn together by the bootstrap.
        fault: why the output does not count; "" if it does.
        label: number; NaN for a segmentation.
        estimate: number, NaN without.
        values: ``dice`` and ``nsd`` of a segmentation, means over the labels; the worst without a usable output.
        groups: columns of ``participants.tsv``.
    """

    name: str
    participant: str
    fault: str = ""
    label: float = np.nan
    estimate: float = np.nan
    values: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric over all cases; ``missing`` of the ``count`` cases have no usable output and counted as worst."""

    task: str
    metric: str
    value: MetricValue
    count: int
    missing: int


@dataclass(frozen=True, kw_only=True)
class ScoreReport:
    """Scores, cases, values by group, outputs without a label, and the files written."""

    scores: tuple[Score, ...]
    cases: tuple[ScoredCase, ...]
    groups: tuple[GroupValue, ...]
    unlabelled: tuple[str, ...]
    files: tuple[Path, ...]


def run_score(config: ScoreConfig) -> ScoreReport:
    """Score every labelled case and write ``scores.csv``, ``cases.csv`` and, with groups, ``groups.csv``.

    A case without a usable output counts as the worst: probability 1 of the wrong class, an error of 100 in the
    direction that lowers the correlation, Dice and surface Dice 0.

    Args:
        config: what to score.

    Raises:
        UsageError: unknown task, no labels, or labels of another kind.
        RunError: the folder cannot be written, or MONAI is missing.
    """
    task = choose_task(config)
    suffix = SUFFIXES[task.output]
    outputs = sorted(p.name.removesuffix(suffix) for p in config.predictions.glob(f"*{suffix}"))
    labels = _labels_of(config.labels, task, outputs)
    known = _participants(config.labels)
    people = [folder.name for folder in _people(config.labels)] if config.labels.is_dir() else []
    cases = [_score_case(config, task, name, label, known, _owner(name, people)) for name, label in labels.items()]
    scores, groups = _scores(config, task, cases)
    texts = {"scores.csv": scores_csv(scores), "cases.csv": _cases_csv(cases)}
    if groups:
        texts["groups.csv"] = groups_csv(groups)
    return ScoreReport(
        scores=tuple(scores), cases=tuple(cases), groups=tuple(groups),
        unlabelled=tuple(name for name in outputs if name not in labels), files=write_texts(config.out, texts),
    )  # fmt: skip


# -- tasks and labels --------------------------------------------------------------------------------------------------


def choose_task(config: ScoreConfig) -> Task:
    """The task named, or the only one of the suite whose output the labels fit.

    Raises:
        UsageError: of another suite, without a score, or several fit.
    """
    suite = [task for task in TASKS.values() if task.suite == config.suite]
    if config.task:
        short = {f"task{task.number}": task for task in suite if task.number}
        task = short.get(config.task) or find_task(config.task)
        if config.suite and task not in suite:
            raise UsageError(f"{task.name} is not of the suite {config.suite}", field="task")
        if task.output == "embedding":
            raise UsageError(f"{task.name} is judged by a linear probe; run `ukb-infer probe`", field="task")
        if task.output != "segmentation" and len(task.targets) > 1:
            raise UsageError(f"{task.name} has {len(task.targets)} targets; outputs of one can be scored", field="task")
        return task
    kind = _kind_of(config.labels)
    fitting = [task.name for task in suite if task.output == kind]
    if len(fitting) != 1:
        choices = ", ".join(fitting or [task.name for task in suite])
        raise UsageError(
            f"the labels do not say which task of {config.suite} this is (choices: {choices})", field="task"
        )
    return TASKS[fitting[0]]


def _kind_of(labels: Path) -> str:
    """Kind of output that labels are of: outlines, only 0 and 1, or other numbers."""
    if not labels.is_dir():
        return ""
    if _label_files(labels, _LABEL_NAMES["segmentation"]):
        return "segmentation"
    values = {_read_number(path) for path in _label_files(labels, _LABEL_NAMES["class"]).values()}
    return "class" if values <= {0.0, 1.0} else "regression"


def _people(folder: Path) -> list[Path]:
    """Folders of the participants with labels."""
    root = folder / LABELS_FOLDER if (folder / LABELS_FOLDER).is_dir() else folder
    return sorted(p for p in root.iterdir() if p.is_dir())


def _owner(name: str, people: Sequence[str]) -> str:
    """Participant of an output, which may be named by a session or scan too; its own name if that says none."""
    own = [person for person in people if name == person or name.startswith(f"{person}_")]
    return max(own, key=len, default=participant_of(name) or plain_eid(_scan_of(name).eid) or name)


def _label_files(folder: Path, names: Sequence[str], outputs: Sequence[str] = ()) -> dict[str, Path]:
    """Label by name of the output: the participant's, with the session where several are labelled or returned.

    A label of the participant holds for every session that is returned.

    Args:
        folder: with ``labels``, or that folder.
        names: of the files, the first that exists is taken.
        outputs: names of the outputs, without suffix.
    """
    found: dict[str, Path] = {}
    participants = _people(folder)
    people = [place.name for place in participants]
    owner = {output: _owner(output, people) for output in outputs if output not in people}
    for place in participants:
        whole = next((place / name for name in names if (place / name).is_file()), None)
        own = {f"{place.name}_{f.parent.name}": f for name in reversed(names) for f in sorted(place.glob(f"*/{name}"))}
        visits = sorted(output for output, person in owner.items() if person == place.name)
        first = whole or next((own[name] for name in sorted(own)), None)
        if place.name in outputs or not (visits or len(own) > 1):
            found |= {place.name: first} if first else {}
        else:
            found |= (dict.fromkeys(visits, whole) if whole else {}) | own
    return found


def _labels_of(labels: Path, task: Task, outputs: Sequence[str]) -> dict[str, Path | float]:
    """Outline, or number, by name of the output."""
    if labels.is_file() and task.output != "segmentation":
        numbers: dict[str, Path | float] = dict(_from_table(labels, task, outputs))
    elif labels.is_dir():
        files = _label_files(labels, _LABEL_NAMES[task.output], outputs)
        if task.output == "segmentation":
            return dict(_some(files, labels, task))
        numbers = {name: _read_number(path) for name, path in files.items()}
    else:
        raise UsageError(field="labels", got=str(labels), expected="a folder labels/<sub>/[ses_1/]")
    if task.output == "class" and not set(numbers.values()) <= {0.0, 1.0}:
        raise UsageError(f"{labels}: the labels of {task.name} must be 0 or 1", field="labels")
    return _some(numbers, labels, task)


def _from_table(labels: Path, task: Task, outputs: Sequence[str]) -> dict[str, float]:
    """Numbers of a table by name of the output; rows that no output belongs to keep their own names."""
    read = read_labels(labels, [task.targets[0].name])
    scans = {scan: ScanKey.from_name(scan) for scan in read.by_scan}
    found, used = {}, set()
    for name in outputs:
        key, scan = _scan_of(name), plain_scan(name)
        if scan not in scans and key.eid:
            own = [other for other, row in scans.items() if _fits(key, row)]
            scan = own[0] if len(own) == 1 else scan
        found[name] = float(read.by_scan[scan][0] if scan in scans else read.of(key)[0])
        used |= {scan, plain_eid(key.eid) if key.eid else ""}
    rest = {scan: float(v[0]) for scan, v in read.by_scan.items() if scan not in used}
    rest |= {eid: float(v[0]) for (eid, _), v in read.by_visit.items() if eid not in used}
    return {name: value for name, value in (found | rest).items() if np.isfinite(value)}


def _fits(output: ScanKey, row: ScanKey) -> bool:
    """Whether a row of labels is of the participant, and visit if it says so, that an output is named by."""
    same = bool(row.eid) and plain_eid(output.eid) == plain_eid(row.eid)
    return same and output.instance in (None, row.instance) and output.array in (None, row.array)


def _scan_of(name: str) -> ScanKey:
    """The scan that an output belongs to: named by it, or by participant, possibly with a session."""
    named = _VISIT.fullmatch(name)
    return ScanKey(named[1], int(named[2]) if named[2] else None, None, name) if named else ScanKey.from_name(name)


def _some(found: dict[str, Path | float] | dict[str, Path], labels: Path, task: Task) -> dict[str, Path | float]:
    if not found:
        wanted = " or ".join(_LABEL_NAMES[task.output])
        raise UsageError(
            f"{labels} has no labels of {task.name}; expected labels/<sub>/[ses_1/]{wanted}", field="labels"
        )
    return dict(found)


def _read_number(path: Path) -> float:
    text = path.read_text(encoding="utf-8-sig", errors="replace").strip()
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise UsageError(f"{path} holds {text[:40]!r}, expected one number", field="labels")
    return value


def _participants(labels: Path) -> dict[str, dict[str, str]]:
    """Groups by participant, from the table beside the labels."""
    places = (labels, labels.parent) if labels.is_dir() else ()
    table = next((p / PARTICIPANTS_NAME for p in places if (p / PARTICIPANTS_NAME).is_file()), None)
    return read_participants(table) if table else {}


# -- cases -------------------------------------------------------------------------------------------------------------


def _score_case(
    config: ScoreConfig, task: Task, name: str, label: Path | float, known: Mapping[str, Mapping[str, str]],
    participant: str,
) -> ScoredCase:  # fmt: skip
    groups = dict(find_row(known, participant) or {})
    about: dict[str, Any] = {"name": name, "participant": participant, "groups": groups}
    output = config.predictions / f"{name}{SUFFIXES[task.output]}"
    try:
        if isinstance(label, Path):
            values = _overlap(output, label, task, config.both_empty)
            return ScoredCase(values=values, **about)
        return ScoredCase(label=label, estimate=read_value(output, task), **about)
    except OutputError as error:
        if isinstance(label, Path):
            return ScoredCase(fault=error.fault.value, values=dict.fromkeys(task.metrics, 0.0), **about)
        return ScoredCase(fault=error.fault.value, label=label, **about)


def _overlap(output: Path, label: Path, task: Task, both_empty: float) -> dict[str, float]:
    """Dice and surface Dice, means over the task's labels."""
    try:
        grid = read_grid(label)
        wanted = read_mask(label, task, [grid])
    except OutputError as error:
        raise UsageError(f"{label}: {error}", field="labels") from None
    found = read_mask(output, task, [grid])
    spacing = np.linalg.norm(grid[1][:3, :3], axis=0).tolist()
    numbers = range(1, len(task.targets) + 1)
    return {
        "dice": float(np.mean([dice(found == n, wanted == n) for n in numbers])),
        "nsd": float(np.mean([surface_dice(found == n, wanted == n, spacing, both_empty=both_empty) for n in numbers])),
    }


# -- scores ------------------------------------------------------------------------------------------------------------


def worst_estimates(label: Float64, estimate: Float64, output: str) -> Float64:
    """Fill missing estimates with the worst: probability 1 of the wrong class, or an error of 100.

    Args:
        label: (n,).
        estimate: (n,), NaN where missing.
        output: ``class`` or ``regression``.
    """
    if output == "class":
        worst = 1.0 - label
    else:
        worst = label + np.where(label > np.median(label), -_WORST_ERROR, _WORST_ERROR)
    return np.where(np.isnan(estimate), worst, estimate)


def _scores(config: ScoreConfig, task: Task, cases: Sequence[ScoredCase]) -> tuple[list[Score], list[GroupValue]]:
    people = np.array([c.participant for c in cases])
    weights = np.concatenate(list(bootstrap_weights(people, config.replicates, config.seed)))
    missing = sum(bool(c.fault) for c in cases)
    label, given = np.array([c.label for c in cases]), np.array([c.estimate for c in cases])
    estimate = given if task.output == "segmentation" else worst_estimates(label, given, task.output)
    rows: dict[str, Float64] = {}
    for metric in task.metrics:
        if task.output == "segmentation":
            each = np.array([c.values[metric] for c in cases])
            rows[metric] = weights @ each / weights.sum(axis=1)
        elif missing == len(cases):
            rows[metric] = np.full(len(weights), WORST[metric])
        else:
            rows[metric] = resampled(metric, label, estimate, weights)
            rows[metric][0] = rows[metric][0] if np.isfinite(rows[metric][0]) else WORST[metric]
    values: list[GroupValue] = []
    named = {g: grouped([c.groups.get(g, "") for c in cases]) for g in task.groups if any(g in c.groups for c in cases)}
    if named and task.output != "segmentation":
        judge = "auroc" if task.output == "class" else "r"
        rows["fairness"], values = fairness(
            lambda member, own: resampled(judge, label[member], estimate[member], own), named, weights
        )
    counts = {"count": len(cases), "missing": missing}
    return [Score(task=task.name, metric=m, value=summarize(v), **counts) for m, v in rows.items()], values


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def scores_csv(scores: Sequence[Score]) -> str:
    """Table: task, metric, value, lower, upper, n, missing."""
    rows = [
        (s.task, s.metric, *map(_cell, (s.value.value, s.value.low, s.value.high)), s.count, s.missing) for s in scores
    ]
    return csv_text(("task", "metric", "value", "lower", "upper", "n", "missing"), rows)


def groups_csv(values: Sequence[GroupValue]) -> str:
    """Table: attribute, group, n, value."""
    rows = [(v.attribute, v.group, v.count, _cell(v.value)) for v in values]
    return csv_text(("attribute", "group", "n", "value"), rows)


def _cases_csv(cases: Sequence[ScoredCase]) -> str:
    metrics = list(dict.fromkeys(name for case in cases for name in case.values))
    numbers = [] if metrics else ["label", "estimate"]
    rows = []
    for case in cases:
        own = [case.values[m] for m in metrics] if metrics else [case.label, case.estimate]
        rows.append((case.name, case.fault or "ok", *map(_cell, own)))
    return csv_text(("participant", "status", *numbers, *metrics), rows)
