"""``status``: progress, rate and recent failures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from ukb_infer.execution import Journal, current_holder
from ukb_infer.runs.log import ScanNames, describe
from ukb_infer.runs.summary import count_results

#: Scans over which the current rate is computed.
RATE_SCANS = 500
#: A longer pause between two commits counts as idle, s.
LONGEST_PAUSE_S = 120.0


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Status of a run.

    Attributes:
        command: predict or project.
        shard: ``I/N``, or None.
        counts: scans by status; ``reasons``: by code; ``levels``: by the gravest level of their quality flags.
        unfinished: scans without a result.
        rate: scans per second while it was last computing, or None.
        holder: process working on it now, or None.
        last_failures: (name for logs, description), newest first.
    """

    command: str
    shard: str | None
    counts: dict[str, int]
    reasons: dict[str, int]
    unfinished: int
    rate: float | None
    holder: str | None
    last_failures: tuple[tuple[str, str], ...]
    levels: dict[str, int] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """Time left at that rate, s."""
        return self.unfinished / self.rate if self.rate and self.unfinished else None


def run_status(folder: Path, *, errors: int = 5, log_ids: bool = False) -> RunStatus:
    """Read the status of a run, also during the run.

    Args:
        folder: of the run.
        errors: number of recent failures to return.
        log_ids: use real scan names.

    Raises:
        RunError: not a run.
    """
    names = ScanNames(folder, show=log_ids)
    with Journal(folder, read_only=True) as journal:
        counts = count_results(journal)
        identity, command = journal.get("identity") or {}, journal.get("command") or {}
        rate = commit_rate(journal.recent_times(RATE_SCANS))
        failures = tuple((names(r.scan), describe(r.result, show_ids=log_ids)) for r in journal.last_failures(errors))
    return RunStatus(
        command=str(command.get("name", "merge")),
        shard=identity.get("shard"),
        counts=counts.statuses,
        reasons=counts.reasons,
        levels=counts.levels,
        unfinished=counts.unfinished,
        rate=rate,
        holder=current_holder(folder),
        last_failures=failures,
    )


def commit_rate(times: Sequence[float]) -> float | None:
    """Scans per second over the last commits since a long pause; None if there are too few.

    Args:
        times: of the records, newest first, s.
    """
    kept = [times[0]] if times else []
    for newer, older in pairwise(times):
        if newer - older > LONGEST_PAUSE_S:
            break
        kept.append(older)
    span = kept[0] - kept[-1] if kept else 0.0
    first_batch = sum(t == kept[-1] for t in kept) if kept else 0  # committed at the start of the interval
    return (len(kept) - first_batch) / span if span > 0 else None
