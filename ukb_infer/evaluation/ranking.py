"""Ranks of submissions by the rules of FOMO25 and FOMO26, and how stable they are.

Every metric is ranked within a track, ties by their average rank; a task's score is the mean of its metrics' ranks, the
overall score the weighted mean over tasks; a missing result gets the number of valid submissions plus one.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ukb_infer.errors import UsageError
from ukb_infer.storage import csv_text, write_texts
from ukb_infer.text import suggest

Float64 = NDArray[np.float64]
Ties = Literal["average", "min"]

#: Metrics that a table can hold, as in ``task2_dice``; True where larger is better.
LARGER_IS_BETTER = {
    "auroc": True, "ovr_auroc": True, "f1": True, "macro_f1": True, "accuracy": True, "dice": True, "dsc": True,
    "nsd": True, "r": True, "pearson_r": True, "correlation": True, "r2": True, "fairness": True,
    "fairness_score": True, "mae": False, "mae_years": False, "absolute_error": False,
}  # fmt: skip
#: Weight of each task by its number; they sum to 1.
RULES: dict[str, dict[int, float]] = {
    "fomo25": {1: 1 / 3, 2: 1 / 3, 3: 1 / 3},
    "fomo26": {1: 0.10, 2: 0.25, 3: 0.10, 4: 0.25, 5: 0.10, 6: 0.10, 7: 0.10},
}
#: Rows of systems that are shown for comparison and take no place.
BASELINE = "baseline_"
_MISSING = ("", "-", "nan")
_COLUMN = re.compile(r"^task(?P<task>\d+)_(?P<metric>.+?)(?P<end>_lower|_upper)?$")
#: Columns of published tables that say what is computed here.
_RANK = re.compile(r"^task\d+_rank$")
#: Half the width of a 95 % interval in standard deviations.
_HALF_95 = 1.959963984540054
#: Scores closer than this are equal: the same thirds added in another order.
_EQUAL = 1e-9


@dataclass(frozen=True, kw_only=True)
class RankedMetric:
    """A column of results: ``task2_dice``."""

    task: int
    metric: str

    @property
    def column(self) -> str:
        """Name in the table."""
        return f"task{self.task}_{self.metric}"


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Results as read, without baselines.

    Attributes:
        track: (T,) competition of each row; teams are ranked within theirs.
        team: (T,) names.
        metrics: (M,) columns.
        values: (T, M), NaN where a team has no result.
        sd: (T, M) standard error of each value, NaN where the table has no interval.
        baselines: names of the rows left out.
    """

    track: tuple[str, ...]
    team: tuple[str, ...]
    metrics: tuple[RankedMetric, ...]
    values: Float64
    sd: Float64
    baselines: tuple[str, ...] = ()

    def rows_of(self, track: str) -> NDArray[np.int64]:
        """Rows of a track."""
        return np.flatnonzero(np.array(self.track) == track)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Ranks of one track, best first.

    Attributes:
        track: its name.
        teams: (T,) by overall rank, then name.
        overall: (T,) weighted mean of the task ranks, unrounded; ``place`` (T,) is its position, equal for equal ranks.
        tasks: (T, K) rank of each team in each task of the rules.
        numbers: (K,) of these tasks.
        places: (N, T) places in the replicates of the bootstrap, N may be 0; ``basis`` says what was drawn.
    """

    track: str
    teams: tuple[str, ...]
    overall: Float64
    place: NDArray[np.int64]
    tasks: Float64
    numbers: tuple[int, ...]
    places: NDArray[np.int64]
    basis: str


def read_leaderboard(path: Path) -> Leaderboard:
    """Read a table with columns ``team``, ``taskN_METRIC`` [, ``track``, ``taskN_METRIC_lower`` and ``_upper``].

    Args:
        path: CSV. ``taskN_rank`` and columns of other names are ignored; empty cells and ``-`` are missing results.

    Raises:
        UsageError: no such table, a column or number that cannot be understood, or a team listed twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            columns = [name.strip() for name in next(csv.reader(handle), [])]
            rows = list(csv.DictReader(handle, columns, restval=""))
    except (OSError, UnicodeError, csv.Error) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path}: cannot be read as CSV table ({words})", field="table") from error
    if "team" not in columns or not rows:
        raise UsageError(
            f"{path}: expected comma-separated columns with the column team, and a row per team", field="table"
        )
    metrics = _metrics_of(path, columns)
    listed = _teams_of(path, rows)
    ranked = [k for k, (_, team) in listed.items() if not team.startswith(BASELINE)]
    ends = [
        np.array([[_number(path, rows[k], k, m.column + end) for m in metrics] for k in ranked]).reshape(
            -1, len(metrics)
        )
        for end in ("", "_lower", "_upper")
    ]
    return Leaderboard(
        track=tuple(listed[k][0] for k in ranked), team=tuple(listed[k][1] for k in ranked), metrics=metrics,
        values=ends[0], sd=(ends[2] - ends[1]) / (2.0 * _HALF_95),
        baselines=tuple(team for _, team in listed.values() if team.startswith(BASELINE)),
    )  # fmt: skip


def _teams_of(path: Path, rows: Sequence[Mapping[Any, Any]]) -> dict[int, tuple[str, str]]:
    """Track and team by place in the table; rows of empty cells, as spreadsheets leave them, are skipped."""
    filled = [k for k, row in enumerate(rows) if any(cell.strip() for cell in _cells(row))]
    longer = next((k for k in filled if any(cell.strip() for cell in rows[k].get(None, ()))), None)
    if longer is not None:
        raise UsageError(
            f"{path}: row {longer + 2} has more cells than the header; decimal commas must be points", field="table"
        )
    listed = {k: (rows[k].get("track", "").strip(), rows[k]["team"].strip()) for k in filled}
    nameless = next((k for k, (_, team) in listed.items() if not team), None)
    if nameless is not None:
        raise UsageError(f"{path}: row {nameless + 2} has no team; name it, or take the row out", field="table")
    twice = next((name for name, count in Counter(listed.values()).items() if count > 1), None)
    if twice:
        raise UsageError(f"{path}: team {twice[1]!r} is listed twice in one track; keep one row", field="table")
    return listed


def _cells(row: Mapping[Any, Any]) -> list[str]:
    """All cells of a row, also those beyond the header."""
    return [*(cell for name, cell in row.items() if name is not None), *row.get(None, ())]


def _metrics_of(path: Path, columns: Sequence[str]) -> tuple[RankedMetric, ...]:
    found = []
    for column in columns:
        match = _COLUMN.match(column)
        if match is None or match["end"] or _RANK.match(column):
            continue
        if match["metric"] not in LARGER_IS_BETTER:
            known = ", ".join(LARGER_IS_BETTER)
            near = suggest(match["metric"], LARGER_IS_BETTER)
            raise UsageError(f"{path}: column {column}: unknown metric{near} (known: {known})", field="table")
        found.append(RankedMetric(task=int(match["task"]), metric=match["metric"]))
    twice = next((name for name, count in Counter(columns).items() if name and count > 1), None)
    if twice:
        raise UsageError(f"{path}: column {twice} is there twice; keep one", field="table")
    if not found:
        raise UsageError(f"{path}: no column of results, e.g. task1_auroc", field="table")
    return tuple(found)


def _number(path: Path, row: Mapping[str, str | None], place: int, column: str) -> float:
    text = (row.get(column) or "").strip()
    if text.lower() in _MISSING:
        return np.nan
    try:
        value = float(text)
    except ValueError:
        value = np.inf
    if not np.isfinite(value):
        raise UsageError(f"{path}: row {place + 2}, column {column}: got {text!r}, expected a number", field="table")
    return value


def metric_ranks(values: Float64, metrics: Sequence[RankedMetric], ties: Ties = "average") -> Float64:
    """Rank of every result, 1 for the best.

    Args:
        values: (..., T, M) results, NaN where missing.
        metrics: (M,) columns.
        ties: equal results get their average rank, or all the best of these ranks (min).

    Returns:
        (..., T, M); missing results get the number of valid ones plus one.
    """
    sign = np.array([-1.0 if LARGER_IS_BETTER[m.metric] else 1.0 for m in metrics])
    missing = np.isnan(values)
    ranks = rankdata(np.where(missing, np.inf, values * sign), method=ties, axis=-2)
    valid = (~missing).sum(axis=-2, keepdims=True)
    return np.asarray(np.where(missing, valid + 1.0, ranks))


def task_ranks(
    values: Float64, metrics: Sequence[RankedMetric], numbers: Sequence[int], ties: Ties = "average"
) -> Float64:
    """Mean rank over each task's metrics, (..., T, K).

    Args:
        values: (..., T, M) results, NaN where missing.
        metrics: (M,) columns.
        numbers: (K,) of the tasks.
        ties: see :func:`metric_ranks`.
    """
    ranks = metric_ranks(values, metrics, ties)
    own = np.array([[m.task == number for m in metrics] for number in numbers], dtype=np.float64)
    return np.asarray(ranks @ (own / own.sum(axis=1, keepdims=True)).T)


def _place(overall: Float64) -> NDArray[np.int64]:
    """(..., T) position by overall score, equal scores share the better one."""
    return np.asarray((overall[..., None, :] < overall[..., :, None] - _EQUAL).sum(axis=-1) + 1, dtype=np.int64)


def rank_teams(
    table: Leaderboard, rules: str = "fomo25", *, replicates: int = 1000, seed: int = 0, ties: Ties = "average"
) -> list[Ranking]:
    """Rank the teams of every track.

    The bootstrap redraws every result from its interval if the table has intervals (``task2_dice_lower`` ...);
    otherwise it redraws the tasks, with their weights as probabilities: how much the order hangs on their choice.

    Args:
        table: results.
        rules: name in :data:`RULES`.
        replicates: of the bootstrap; 0 for none.
        seed: of its draws.
        ties: see :func:`metric_ranks`.

    Raises:
        UsageError: unknown rules, or the table does not hold exactly their tasks.
    """
    if rules not in RULES:
        raise UsageError(field="rules", got=rules, expected=" or ".join(RULES))
    weights = RULES[rules]
    have = {m.task for m in table.metrics}
    if have != set(weights):
        raise UsageError(
            f"the table has results of the tasks {sorted(have)}, but {rules} ranks {sorted(weights)}; expected at "
            "least one column taskN_METRIC of each",
            field="rules",
        )
    if ties not in ("average", "min"):
        raise UsageError(field="ties", got=ties, expected="average or min")
    return [_rank_track(table, track, weights, replicates, seed, ties) for track in dict.fromkeys(table.track)]


def _rank_track(
    table: Leaderboard, track: str, weights: Mapping[int, float], replicates: int, seed: int, ties: Ties
) -> Ranking:
    rows, numbers = table.rows_of(track), tuple(weights)
    share = np.array(list(weights.values()))
    values, sd = table.values[rows], table.sd[rows]
    tasks = task_ranks(values, table.metrics, numbers, ties)
    overall = tasks @ share
    rng = np.random.default_rng(seed)
    if np.isfinite(sd).any():
        basis = "results drawn from their intervals"
        drawn = values + rng.standard_normal((replicates, *values.shape)) * np.nan_to_num(sd)
        replicated = task_ranks(drawn, table.metrics, numbers, ties) @ share
    else:
        basis = "tasks drawn with replacement"
        replicated = rng.multinomial(len(share), share / share.sum(), size=replicates) @ tasks.T / len(share)
    order = sorted(range(len(rows)), key=lambda k: (round(overall[k], 9), table.team[rows[k]]))
    return Ranking(
        track=track, teams=tuple(table.team[rows[k]] for k in order), overall=overall[order],
        place=_place(overall)[order], tasks=tasks[order], numbers=numbers, places=_place(replicated)[:, order],
        basis=basis,
    )  # fmt: skip


def ranking_csv(rankings: Sequence[Ranking]) -> str:
    """Table of unrounded ranks: track, team, overall_rank, task1_rank ..., place."""
    rows = [
        (r.track, team, *(repr(float(v)) for v in (r.overall[k], *r.tasks[k])), r.place[k])
        for r in rankings
        for k, team in enumerate(r.teams)
    ]
    return csv_text(("track", "team", "overall_rank", *(f"task{n}_rank" for n in rankings[0].numbers), "place"), rows)


def stability_csv(rankings: Sequence[Ranking]) -> str:
    """How the places vary over the bootstrap: 95 % interval, share of replicates in first place and in the same one."""
    rows = []
    for r in rankings:
        low, high = np.percentile(r.places, [2.5, 97.5], axis=0, method="inverted_cdf")
        for k, team in enumerate(r.teams):
            shares = [f"{np.mean(r.places[:, k] == place):.4f}" for place in (1, r.place[k])]
            rows.append((r.track, team, r.place[k], int(low[k]), int(high[k]), *shares, r.basis))
    return csv_text(
        ("track", "team", "place", "place_lower", "place_upper", "share_first", "share_same", "basis"), rows
    )


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """What ``benchmark rank`` did: the ranks per track, the rows left out, the files written."""

    rankings: tuple[Ranking, ...]
    baselines: tuple[str, ...]
    files: tuple[Path, ...]


def run_rank(
    table: Path,
    out: Path,
    *,
    rules: str = "fomo25",
    bootstrap: int = 1000,
    seed: int = 0,
    without: Sequence[str] = (),
    ties: Ties = "average",
) -> RankResult:
    """Rank a table and write ``ranking.csv`` and, with a bootstrap, ``stability.csv``.

    Args:
        table: results, see :func:`read_leaderboard`.
        out: folder of the tables.
        rules: ``fomo25`` or ``fomo26``.
        bootstrap: replicates; 0 for none.
        seed: of the draws.
        without: teams to leave out, as if they had not taken part.
        ties: see :func:`metric_ranks`.

    Raises:
        UsageError: the table, the rules or a team cannot be used.
        RunError: the folder cannot be written.
    """
    if not 0 <= bootstrap <= 100_000:
        raise UsageError(field="bootstrap", got=bootstrap, expected="0 to 100000")
    read = _leave_out(read_leaderboard(table), without)
    if not read.team:
        raise UsageError(f"{table}: no team to rank", field="table")
    rankings = rank_teams(read, rules, replicates=bootstrap, seed=seed, ties=ties)
    texts = {"ranking.csv": ranking_csv(rankings)} | ({"stability.csv": stability_csv(rankings)} if bootstrap else {})
    files = write_texts(out, texts)
    return RankResult(rankings=tuple(rankings), baselines=read.baselines, files=files)


def _leave_out(table: Leaderboard, teams: Sequence[str]) -> Leaderboard:
    strange = next((team for team in teams if team not in table.team), None)
    if strange is not None:
        raise UsageError(f"no team {strange!r}{suggest(strange, table.team)}", field="without")
    keep = [k for k, team in enumerate(table.team) if team not in teams]
    return Leaderboard(
        track=tuple(table.track[k] for k in keep), team=tuple(table.team[k] for k in keep), metrics=table.metrics,
        values=table.values[keep], sd=table.sd[keep], baselines=table.baselines,
    )  # fmt: skip
