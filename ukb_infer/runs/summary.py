"""Progress and summary of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ukb_infer.execution import Journal
from ukb_infer.quality.judge import LEVELS
from ukb_infer.reasons import Reason
from ukb_infer.runs.quality import judged_scans, run_judge

#: Called with (finished scans, all scans, failed scans so far).
Progress = Callable[[int, int, int], None]
#: Exit code of a run that stopped early and should be started again (EX_TEMPFAIL).
EXIT_AGAIN = 75


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Scans of a run by status, by reason code, by the gravest level of their quality; the number without result."""

    statuses: dict[str, int]
    reasons: dict[str, int]
    levels: dict[str, int]
    unfinished: int
    trouble: str = ""

    def to_plain(self) -> dict[str, object]:
        """Values for ``run.json``."""
        return {
            "counts": self.statuses, "reasons": self.reasons, "quality_levels": self.levels,
            "unfinished": self.unfinished,
        }  # fmt: skip


def count_results(journal: Journal) -> Counts:
    """Count the scans of a run, also during the run."""
    statuses = Counter({"ok": 0, "flagged": 0, "failed": 0, "excluded": 0})
    reasons: Counter[str] = Counter()
    levels = Counter(dict.fromkeys(LEVELS, 0))
    unfinished, trouble = sum(item.mine for item in journal.inputs()), ""
    for scan in judged_scans(journal, run_judge(journal)):
        unfinished -= 1
        statuses[scan.result.status] += 1
        reasons.update(reason.value for reason in scan.result.reasons)
        levels.update([scan.level] if scan.level else ())
        if Reason.STORAGE_FAILED in scan.result.reasons:
            trouble = scan.result.message.split(";")[0]
    return Counts(
        statuses=dict(statuses),
        reasons=dict(sorted(reasons.items())),
        levels=dict(levels),
        unfinished=unfinished,
        trouble=trouble,
    )


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Summary of a run.

    Attributes:
        out: its folder.
        counts: scans by status: ok, flagged, failed, excluded.
        reasons: scans by reason code.
        levels: scans by the gravest level of their quality flags.
        computed: scans processed by this call; others were finished before.
        seconds: wall time.
        warnings: of the modules used.
        files: written, by name.
        dry_run: nothing was written.
        notes: lines for the user.
        timings: ``load_s`` and ``total_s`` of ``predict``.
        unfinished: scans without a result, because the run was asked to stop or the storage failed.
        stopped: whether it was stopped by SIGTERM.
        trouble: what the system said where the storage failed.
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
    trouble: str = ""

    @property
    def again(self) -> int:
        """Scans that the same command works on: without a result, or failed by the storage."""
        return self.unfinished + self.reasons.get(Reason.STORAGE_FAILED, 0)

    @property
    def exit_code(self) -> int:
        """0: every scan was used or excluded; 3: some or all failed; 75: start the same command again."""
        if self.stopped or self.again:
            return EXIT_AGAIN
        return 3 if self.counts.get("failed", 0) else 0
