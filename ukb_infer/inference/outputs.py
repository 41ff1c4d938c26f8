"""Tables from the journal alone: what ``predict`` writes at its end, anybody may write at any time (floor 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import RunError
from ukb_infer.execution import Journal, JournalInput, JournalRow
from ukb_infer.inference.tables import (
    Column,
    format_float32,
    safe_cell,
    write_dictionary,
    write_estimates,
    write_parquet,
    write_scans,
)
from ukb_infer.records import ScanKey
from ukb_infer.regression import prediction_interval, probability_and_class


@dataclass(frozen=True)
class WrittenTarget:
    """A target of the tables; ``half_width`` of its intervals, in total standard deviations."""

    name: str
    unit: str
    field: str
    kind: str
    lower: float | None
    upper: float | None
    half_width: float


@dataclass(frozen=True)
class OutputSpec:
    """How results in the journal become tables; kept in the journal itself.

    Attributes:
        stored: names of the targets in the order of the stored results.
        targets: to be written.
        level: of the intervals; ``level_name``: as in the columns.
        uncertainty: total or full.
        parquet: also write Parquet.
    """

    stored: tuple[str, ...]
    targets: tuple[WrittenTarget, ...]
    level: float
    level_name: str
    uncertainty: str
    parquet: bool

    def to_plain(self) -> dict[str, Any]:
        """For the journal."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> OutputSpec:
        """From the journal."""
        targets = tuple(WrittenTarget(**t) for t in plain["targets"])
        return cls(
            tuple(plain["stored"]), targets, plain["level"], plain["level_name"], plain["uncertainty"], plain["parquet"]
        )


def estimate_columns(spec: OutputSpec) -> list[Column]:
    """Columns after the key, with their lines of the dictionary."""
    columns = []
    percent = f"{100 * spec.level:g} %"
    for target in spec.targets:
        limits = _limits_text(target.lower, target.upper)
        entries = [
            ("mean", "estimate (mean of the predictive distribution); never clipped"),
            ("sd", "total standard deviation of the predictive distribution"),
            (f"{spec.level_name}_lower", f"lower end of the {percent} prediction interval{limits}"),
            (f"{spec.level_name}_upper", f"upper end of the {percent} prediction interval{limits}"),
        ]
        if spec.uncertainty == "full":
            entries += [
                ("sd_aleatoric", "part of the sd from the members' own variances (noise in the data)"),
                ("sd_epistemic", "part of the sd from the spread between members (what the networks do not know)"),
            ]
        name, field = target.name, target.field
        columns += [Column(f"{name}_{s}", f"{name}: {meaning}", target.unit, field, name) for s, meaning in entries]
        if target.kind == "binary":
            columns += [
                Column(f"{name}_probability", f"{name}: mean clipped to 0-1", "", field, name),
                Column(f"{name}_class", f"{name}: 1 where the probability is at least 0.5", "", field, name),
            ]
    return columns


def _limits_text(lower: float | None, upper: float | None) -> str:
    if lower is None and upper is None:
        return ""
    low, high = "-" if lower is None else f"{lower:g}", "-" if upper is None else f"{upper:g}"
    return f", clipped to the physical limits [{low}, {high}]"


def _cells(spec: OutputSpec, place: dict[str, int], values: NDArray[np.float64]) -> list[str]:
    """Cells of one scan: (stored targets, 3) mean, aleatoric and epistemic variance -> text."""
    cells: list[str] = []
    for target in spec.targets:
        mean, aleatoric, epistemic = values[place[target.name]]
        sd = np.sqrt(aleatoric + epistemic)
        low, high = prediction_interval(np.array([mean]), np.array([sd]), target.half_width, target.lower, target.upper)
        numbers = [mean, sd, low[0], high[0]]
        if spec.uncertainty == "full":
            numbers += [np.sqrt(aleatoric), np.sqrt(epistemic)]
        cells += [format_float32(n) for n in numbers]
        if target.kind == "binary":
            probability, positive = probability_and_class(np.array([mean]))
            cells += [format_float32(probability[0]), str(positive[0])]
    return cells


def _estimate_rows(journal: Journal, spec: OutputSpec) -> Iterator[tuple[ScanKey, list[str]]]:
    place = {name: k for k, name in enumerate(spec.stored)}
    for item, row in journal.results():
        if row is not None and row.payload:
            values = np.frombuffer(row.payload, np.float64).reshape(len(spec.stored), 3)
            yield ScanKey(item.eid, item.instance, item.array, item.scan), _cells(spec, place, values)


def scan_cells(item: JournalInput, row: JournalRow | None) -> dict[str, str] | None:
    """Row of ``scans.csv``; None for a scan that is not finished."""
    if item.excluded:
        state = {"status": "excluded", "reasons": "excluded", "message": "", "stations": ""}
    elif row is None:
        return None
    else:
        stations = str(row.stations) if row.stations else ""
        state = {"status": row.status, "reasons": row.reasons, "message": row.message, "stations": stations}
    return {
        "scan": safe_cell(item.scan),
        "eid": item.eid,
        "instance": "" if item.instance is None else str(item.instance),
        "array": "" if item.array is None else str(item.array),
        "path": safe_cell(item.given),
    } | state


def _scan_rows(journal: Journal) -> Iterator[dict[str, str]]:
    for item, row in journal.results():
        cells = scan_cells(item, row)
        if cells is not None:
            yield cells


def write_tables(folder: Path, journal: Journal) -> list[Path]:
    """Write the tables of everything finished so far, each whole or not at all.

    Args:
        folder: where; the run's own, or another for a partial export.
        journal: of the run.

    Returns:
        The files.

    Raises:
        RunError: they cannot be written.
    """
    plain = journal.get("output")
    try:
        if plain is None:  # projections have no estimates
            return [write_scans(folder, _scan_rows(journal))]
        spec = OutputSpec.from_plain(plain)
        columns = estimate_columns(spec)
        files = [
            write_estimates(folder, columns, _estimate_rows(journal, spec)),
            write_scans(folder, _scan_rows(journal)),
            write_dictionary(folder, columns),
        ]
        if spec.parquet:
            files += [write_parquet(folder / "estimates.csv"), write_parquet(folder / "scans.csv")]
    except OSError as error:
        raise RunError(
            f"{folder}: the tables cannot be written ({error.strerror}); free space or restore access and run the same "
            "command again: what is finished is kept in the journal"
        ) from error
    return files


def count_results(journal: Journal) -> tuple[dict[str, int], dict[str, int], int]:
    """Scans by status, by reason, and how many are not finished."""
    statuses = Counter({"ok": 0, "flagged": 0, "failed": 0, "excluded": 0})
    reasons: Counter[str] = Counter()
    unfinished = 0
    for item, row in journal.results():
        if item.excluded:
            statuses["excluded"] += 1
            reasons["excluded"] += 1
        elif row is None:
            unfinished += 1
        else:
            statuses[row.status] += 1
            reasons.update(code for code in row.reasons.split(";") if code)
    return dict(statuses), dict(sorted(reasons.items())), unfinished
