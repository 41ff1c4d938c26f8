"""A linear probe of embeddings: how much of a label a linear layer reads from frozen features.

As in FOMO26: 13 learning rates, each trained for 20 epochs with cosine annealing on 40 % of the participants; the
learning rate is chosen on 10 %, and judged on the other half. Features are standardized on the training part, so that
the fixed rates suit any embedding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.evaluation.fairness import GroupValue, fairness, grouped
from ukb_infer.evaluation.metrics import MetricValue, bootstrap_weights, over_seeds, resampled, summarize
from ukb_infer.imaging.datasets.participants import find_row, is_participant_key, read_participants
from ukb_infer.labels.ids import participant_of, plain_eid
from ukb_infer.labels.tables import read_table
from ukb_infer.records import ScanKey
from ukb_infer.storage import csv_text, write_texts

Float64 = NDArray[np.float64]

LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
EPOCHS, BATCH, MOMENTUM = 20, 64, 0.9
#: Of ten participants of similar label: how many train, choose and judge.
TRAIN, CHOOSE, JUDGE = 4, 1, 5
#: Fewest labelled participants: every part has a few.
FEWEST = 20
#: A numeric target with more different values is regressed.
_MOST_CLASSES = 8
_FEATURE = re.compile(r"(f|feature|features|e|emb|embedding)_?\d+")
_LIST_COLUMNS = ("embedding", "features")
_UNKNOWN = ("", "nan", "none", "n/a", "na")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What to probe.

    Attributes:
        embeddings: Parquet (or CSV) with a column ``participant``, ``eid`` or ``scan`` and a column per feature
            (``feature_0`` ...) or one with vectors (``embedding``); or a folder of ``<sub>.npy``.
        labels: table with one row per participant.
        target: its column to read from the features.
        out: folder of the tables.
        groups: its columns over which fairness is judged.
        seeds: number of divisions into training, choosing and judging.
        replicates: of the bootstrap over participants and seeds; 0 for no intervals.
        seed: first of the divisions, and of the bootstrap.
    """

    embeddings: Path
    labels: Path
    target: str
    out: Path
    groups: tuple[str, ...] = ()
    seeds: int = 5
    replicates: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= 1000:
            raise UsageError(field="seeds", got=self.seeds, expected="1 to 1000")
        if not 0 <= self.replicates <= 10_000:
            raise UsageError(field="replicates", got=self.replicates, expected="0 to 10000")


@dataclass(frozen=True)
class ProbeData:
    """Labelled rows of the embeddings.

    Attributes:
        participants: (n,) text.
        features: (n, F).
        label: (n,) value, or number of the class.
        classes: names of the classes; empty for a regression.
        groups: (n,) names by attribute.
    """

    participants: NDArray[np.str_]
    features: Float64
    label: Float64
    classes: tuple[str, ...]
    groups: Mapping[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """Metrics over all seeds, values by group, the learning rate each seed chose, and the files written."""

    metrics: Mapping[str, MetricValue]
    groups: tuple[GroupValue, ...]
    rates: tuple[float, ...]
    participants: int
    classes: tuple[str, ...]
    files: tuple[Path, ...]


def run_probe(config: ProbeConfig) -> ProbeReport:
    """Probe embeddings and write ``probe.csv``, ``seeds.csv`` and, with groups, ``groups.csv``.

    Args:
        config: what to probe.

    Raises:
        UsageError: a table or column is missing, or fewer than :data:`FEWEST` labelled participants.
        RunError: the folder cannot be written.
    """
    data = read_probe_data(config)
    weights = np.concatenate(list(bootstrap_weights(data.participants, config.replicates, config.seed)))
    rows: dict[str, list[Float64]] = {}
    by_group: list[list[GroupValue]] = []
    rates, counts = [], []
    for number in range(config.seeds):
        parts = divide(data, config.seed + number)
        rate, estimate = probe_once(data, parts, config.seed + number)
        found, values = _judge(data, parts[2], estimate, weights[:, parts[2]])
        for metric, row in found.items():
            rows.setdefault(metric, []).append(row)
        by_group.append(values)
        rates.append(rate)
        counts.append([len(part) for part in parts])
    metrics = {name: summarize(over_seeds(np.array(found), config.seed)) for name, found in rows.items()}
    groups = _mean_groups(by_group)
    texts = {
        "probe.csv": _metrics_csv(metrics, counts, len(set(data.participants))),
        "seeds.csv": _seeds_csv(config, rates, counts, rows),
    }
    if groups:
        texts["groups.csv"] = csv_text(
            ("attribute", "group", "n", "value"), [(g.attribute, g.group, g.count, _cell(g.value)) for g in groups]
        )
    return ProbeReport(
        metrics=metrics, groups=tuple(groups), rates=tuple(rates), participants=len(set(data.participants)),
        classes=data.classes, files=write_texts(config.out, texts),
    )  # fmt: skip


# -- reading -----------------------------------------------------------------------------------------------------------


def read_probe_data(config: ProbeConfig) -> ProbeData:
    """Embeddings with their labels and groups; rows without a label are left out.

    Args:
        config: what to probe.

    Raises:
        UsageError: as :func:`run_probe`.
    """
    people, features = _read_embeddings(config.embeddings)
    table = read_participants(config.labels, "labels")
    columns = list(next(iter(table.values()), {}))
    for name, column in (("target", config.target), *(("groups", group) for group in config.groups)):
        if column not in columns:
            raise UsageError(
                f"{config.labels} has no column {column!r} (columns: {', '.join(columns[:12])})", field=name
            )
    plain = {plain_eid(name): row for name, row in table.items() if name.isdigit()}
    known = [find_row(table, name) or plain.get(plain_eid(name) if name else "") or {} for name in people]
    texts = [row.get(config.target, "").strip() for row in known]
    use = np.flatnonzero([text.lower() not in _UNKNOWN for text in texts])
    chosen = np.array([people[k] for k in use])
    if len(set(chosen)) < FEWEST:
        raise UsageError(
            f"{len(set(chosen))} participants of {config.embeddings} have a value of {config.target}, expected at "
            f"least {FEWEST}; check that both tables name participants alike",
            field="labels",
        )
    label, classes = _coded([texts[k] for k in use])
    groups = {group: grouped([known[k].get(group, "") for k in use]) for group in config.groups}
    return ProbeData(chosen, features[use], label, classes, groups)


def _read_embeddings(path: Path) -> tuple[list[str], Float64]:
    """Participant of each row, and (n, F) features."""
    if path.is_dir():
        return _read_vectors(path)
    if not path.is_file():
        raise UsageError(field="embeddings", got=str(path), expected="a file written by `ukb-infer embed`")
    frame = read_table(path, f"`embeddings` {path}", lambda c: is_participant_key(c) or c == "scan").frame
    names = [str(column) for column in frame.columns]
    key = next((n for n in names if is_participant_key(n)), "scan" if "scan" in names else "")
    numbered = [n for n in names if _FEATURE.fullmatch(n)]
    listed = next((n for n in _LIST_COLUMNS if n in names), "")
    if not key or not (numbered or listed):
        raise UsageError(
            f"{path} has the columns {', '.join(names[:8])}; expected participant (or eid, scan) and feature_0 ... or "
            "embedding", field="embeddings",
        )  # fmt: skip
    try:
        stacked = np.stack([np.asarray(v, float) for v in frame[listed]]) if listed else frame[numbered].to_numpy(float)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: the features are not all numbers ({error})", field="embeddings") from None
    if not np.isfinite(stacked).all():
        raise UsageError(f"{path}: a feature is NaN or infinite", field="embeddings")
    people = [str(value).strip() for value in frame[key]]
    return [ScanKey.from_name(p).eid or p for p in people] if key == "scan" else people, stacked


def _read_vectors(folder: Path) -> tuple[list[str], Float64]:
    """The same of a container's outputs, ``<sub>.npy`` or ``<sub>_<session>.npy``."""
    paths = sorted(folder.glob("*.npy"))
    if not paths:
        raise UsageError(field="embeddings", got=f"{folder} without .npy files", expected="outputs named <sub>.npy")
    try:
        vectors = [np.asarray(np.load(path, allow_pickle=False), np.float64) for path in paths]
        stacked = np.stack(vectors)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{folder}: the vectors cannot be read together ({error})", field="embeddings") from None
    if stacked.ndim != 2 or not np.isfinite(stacked).all():
        raise UsageError(f"{folder}: expected vectors of finite numbers, got {stacked.shape}", field="embeddings")
    return [participant_of(path.stem) or path.stem for path in paths], stacked


def _coded(texts: Sequence[str]) -> tuple[Float64, tuple[str, ...]]:
    """Numbers of a regression, or of classes with their names."""
    numbers = pd.to_numeric(pd.Series(list(texts)), errors="coerce").to_numpy(float)
    if np.isfinite(numbers).all():
        if len(set(numbers)) > _MOST_CLASSES:
            return numbers, ()
        texts = [f"{v:g}" for v in numbers]
    names = tuple(sorted(set(texts)))
    if len(names) < 2:
        raise UsageError(f"every participant has the same value, {names[0]!r}; expected at least two", field="target")
    return np.array([names.index(text) for text in texts], float), names


# -- training ----------------------------------------------------------------------------------------------------------


def divide(data: ProbeData, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Rows to train on, to choose by and to judge by: 40, 10 and 50 % of the participants, with similar labels.

    Args:
        data: whose participants are divided, all rows of one staying together.
        seed: of the division.
    """
    rng = np.random.default_rng(seed)
    names, first, index = np.unique(data.participants, return_index=True, return_inverse=True)
    order = np.lexsort((rng.random(len(names)), data.label[first]))
    size = TRAIN + CHOOSE + JUDGE
    roles = np.array([0] * TRAIN + [1] * CHOOSE + [2] * JUDGE)
    part = np.empty(len(names), np.int64)
    for start in range(0, len(names), size):
        block = order[start : start + size]
        part[block] = rng.permutation(roles)[: len(block)]
    return tuple(np.flatnonzero(part[index] == role) for role in range(3))


def probe_once(data: ProbeData, parts: Sequence[NDArray[np.int64]], seed: int) -> tuple[float, Float64]:
    """Train every learning rate, choose the one of lowest loss, and estimate the rows to judge.

    Args:
        data: features and labels.
        parts: rows to train on, to choose by, to judge by.
        seed: of the order of the batches.

    Returns:
        The learning rate; (n, K) probabilities of the classes, or (n, 1) values.
    """
    train, choose, judge = parts
    x = _standardized(data.features, train)
    centre, scale = data.label[train].mean(), data.label[train].std() or 1.0
    y = np.eye(len(data.classes))[data.label.astype(int)] if data.classes else ((data.label - centre) / scale)[:, None]
    heads = train_heads(x[train], y[train], classes=bool(data.classes), seed=seed)
    with np.errstate(all="ignore"):  # high rates may diverge
        outputs = _outputs(x[choose] @ heads, bool(data.classes))
        if data.classes:
            losses = -(y[choose] * np.log(np.clip(outputs, 1e-12, 1.0))).sum(axis=2).mean(axis=1)
        else:
            losses = np.square(outputs - y[choose]).mean(axis=(1, 2))
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    estimate = _outputs(x[judge] @ heads[best], bool(data.classes))
    return LEARNING_RATES[best], estimate if data.classes else estimate * scale + centre


def _standardized(features: Float64, train: NDArray[np.int64]) -> Float64:
    """(n, F + 1) standardized on the training rows, with a column of ones for the offset."""
    mean, sd = features[train].mean(axis=0), features[train].std(axis=0)
    scaled = (features - mean) / np.where(sd > 1e-12, sd, 1.0)
    return np.column_stack([scaled, np.ones(len(features))])


def _outputs(raw: Float64, classes: bool) -> Float64:
    """Probabilities of classes, or the values themselves."""
    if not classes:
        return raw
    shifted = np.exp(raw - raw.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def train_heads(x: Float64, y: Float64, *, classes: bool, seed: int) -> Float64:
    """Linear layers by stochastic gradient descent with momentum, one per learning rate, (L, F + 1, K).

    Args:
        x: (n, F + 1) features with a column of ones.
        y: (n, K) one-hot classes or standardized values.
        classes: cross-entropy instead of squared error.
        seed: of the order of the batches.
    """
    rng = np.random.default_rng(seed)
    rates = np.array(LEARNING_RATES)[:, None, None]
    heads = np.zeros((len(LEARNING_RATES), x.shape[1], y.shape[1]))
    speed = np.zeros_like(heads)
    with np.errstate(all="ignore"):
        for epoch in range(EPOCHS):
            annealed = rates * 0.5 * (1.0 + np.cos(np.pi * epoch / EPOCHS))
            order = rng.permutation(len(x))
            for start in range(0, len(x), BATCH):
                own = order[start : start + BATCH]
                slope = (1.0 if classes else 2.0) * (_outputs(x[own] @ heads, classes) - y[own])
                speed = MOMENTUM * speed + x[own].T @ slope / (len(own) * (1 if classes else y.shape[1]))
                heads = heads - annealed * speed
    return heads


# -- judging -----------------------------------------------------------------------------------------------------------


def _judge(
    data: ProbeData, rows: NDArray[np.int64], estimate: Float64, weights: Float64
) -> tuple[dict[str, Float64], list[GroupValue]]:
    """Metrics of the judged rows for every row of weights, and values by group."""
    label = data.label[rows]
    groups = {name: [values[k] for k in rows] for name, values in data.groups.items()}

    def auroc(member: NDArray[np.bool_], own: Float64) -> Float64:
        """Of the second class of two, or the mean over classes against the rest."""
        wanted = (1,) if len(data.classes) == 2 else range(len(data.classes))
        each = [resampled("auroc", (label[member] == k).astype(float), estimate[member, k], own) for k in wanted]
        return np.asarray(np.mean(each, axis=0))

    def correlation(member: NDArray[np.bool_], own: Float64) -> Float64:
        return resampled("r", label[member], estimate[member, 0], own)

    measure: Callable[[NDArray[np.bool_], Float64], Float64] = auroc if data.classes else correlation
    everyone = np.ones(len(rows), bool)
    if data.classes:
        found = {"auroc": auroc(everyone, weights)}
    else:
        found = {name: resampled(name, label, estimate[:, 0], weights) for name in ("r", "r2", "mae")}
    if not groups:
        return found, []
    score, values = fairness(measure, groups, weights)
    return found | {"fairness": score}, values


def _mean_groups(found: Sequence[Sequence[GroupValue]]) -> list[GroupValue]:
    """Mean over the seeds that define each group's metric; mean number of rows."""
    together: dict[tuple[str, str], list[GroupValue]] = {}
    for values in found:
        for value in values:
            together.setdefault((value.attribute, value.group), []).append(value)
    means = []
    for (attribute, group), values in together.items():
        defined = [v.value for v in values if np.isfinite(v.value)]
        count = round(float(np.mean([v.count for v in values])))
        mean = float(np.mean(defined)) if defined else np.nan
        means.append(GroupValue(attribute=attribute, group=group, count=count, value=mean))
    return means


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _metrics_csv(metrics: Mapping[str, MetricValue], counts: Sequence[Sequence[int]], participants: int) -> str:
    rows = [
        (
            name,
            *map(_cell, (m.value, m.low, m.high)),
            round(float(np.mean([c[2] for c in counts]))),
            participants,
            len(counts),
        )
        for name, m in metrics.items()
    ]
    return csv_text(("metric", "value", "lower", "upper", "n_judged", "participants", "seeds"), rows)


def _seeds_csv(
    config: ProbeConfig, rates: Sequence[float], counts: Sequence[Sequence[int]], rows: Mapping[str, Sequence[Float64]]
) -> str:
    table = [
        (config.seed + k, f"{rates[k]:g}", *counts[k], *(_cell(float(found[k][0])) for found in rows.values()))
        for k in range(len(rates))
    ]
    return csv_text(("seed", "learning_rate", "n_train", "n_choose", "n_judge", *rows), table)
