"""What a run tells its caller: how far it is, and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ukb_infer.execution import Journal
from ukb_infer.quality.judge import LEVELS
from ukb_infer.reasons import Reason
from ukb_infer.runs.quality import judged_scans, run_judge

#: Called with (finished scans, scans in all, failed scans so far).
Progress = Callable[[int, int, int], None]
#: Exit code of a run that stopped before its end and should be started again (EX_TEMPFAIL).
EXIT_AGAIN = 75


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Scans of a run by status, by reason code, by the gravest level of their quality, and how many are unfinished."""

    statuses: dict[str, int]
    reasons: dict[str, int]
    levels: dict[str, int]
    unfinished: int

    def to_plain(self) -> dict[str, object]:
        """For ``run.json``."""
        return {
            "counts": self.statuses, "reasons": self.reasons, "quality_levels": self.levels,
            "unfinished": self.unfinished,
        }  # fmt: skip


def count_results(journal: Journal) -> Counts:
    """Count the scans of a run, also while it is going on."""
    statuses = Counter({"ok": 0, "flagged": 0, "failed": 0, "excluded": 0})
    reasons: Counter[str] = Counter()
    levels = Counter(dict.fromkeys(LEVELS, 0))
    unfinished = sum(item.mine for item in journal.inputs())
    for scan in judged_scans(journal, run_judge(journal)):
        unfinished -= 1
        statuses[scan.result.status] += 1
        reasons.update(reason.value for reason in scan.result.reasons)
        levels.update([scan.level] if scan.level else ())
    return Counts(
        statuses=dict(statuses), reasons=dict(sorted(reasons.items())), levels=dict(levels), unfinished=unfinished
    )


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did.

    Attributes:
        out: its folder.
        counts: scans by status: ok, flagged, failed, excluded.
        reasons: scans by reason code.
        levels: scans by the gravest level of their quality flags.
        computed: scans worked on now; the others were finished before.
        seconds: wall time.
        warnings: of the modules used.
        files: written, by name.
        dry_run: nothing was written.
        notes: lines for the user.
        timings: ``load_s`` and ``total_s`` of ``predict``.
        unfinished: scans without a result, because the run was asked to stop or the storage failed.
        stopped: whether it was asked to stop (SIGTERM).
    """

    out: Path
    counts: dict[str, int]
    reasons: dict[str, int] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)
    computed: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    dry_run: bool = False
    notes: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    unfinished: int = 0
    stopped: bool = False

    @property
    def exit_code(self) -> int:
        """0: every scan was used or excluded; 3: some or all failed; 75: start the same command again."""
        if self.stopped or self.unfinished or self.reasons.get(Reason.STORAGE_FAILED, 0):
            return EXIT_AGAIN
        return 3 if self.counts.get("failed", 0) else 0
