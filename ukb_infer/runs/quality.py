"""The scans of a run as they are judged: what the journal holds, and the flags that limits raise over the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ukb_infer.execution import Journal, JournalInput, JournalRow
from ukb_infer.quality.judge import Flag, Judge
from ukb_infer.quality.swaps import uncorrected
from ukb_infer.reasons import Kind, Reason
from ukb_infer.records import ScanResult

#: Key of the journal under which a run keeps how it judges quality.
SPEC_KEY = "quality"


@dataclass(frozen=True, kw_only=True)
class JudgedScan:
    """A scan of a run.

    Attributes:
        item: as the run was asked for it.
        result: what the tables say of it.
        payload: its estimates, empty where it has none or failed.
        flags: of its quality, the gravest first.
    """

    item: JournalInput
    result: ScanResult
    payload: bytes = b""
    flags: tuple[Flag, ...] = ()

    @property
    def level(self) -> str:
        """The gravest level of its flags; "" without. A swap that was left makes a scan unusable."""
        if self.result.status != "failed" and uncorrected(self.result.measures):
            return "unusable"
        return self.flags[0].limit.level if self.flags else ""


def run_judge(journal: Journal) -> Judge:
    """Who judges the scans of a run.

    Relative limits take in every usable scan of the journal: the same journal gives the same flags, in whatever order
    its scans were finished.
    """
    from ukb_infer.quality.limits import QualitySpec

    return Judge(QualitySpec.from_journal(journal.get(SPEC_KEY)), journal.usable_measures())


def judged_scans(journal: Journal, judge: Judge) -> Iterator[JudgedScan]:
    """Scans of a run that are finished or excluded, in the order of the tables, with the flags of their quality.

    Args:
        journal: of the run.
        judge: of :func:`run_judge`.
    """
    for item, row in journal.results():
        if item.excluded:
            yield JudgedScan(item=item, result=ScanResult(status="excluded", reasons=(Reason.EXCLUDED,)))
        elif row is not None:
            yield _judged(item, row, judge)


def _judged(item: JournalInput, row: JournalRow, judge: Judge) -> JudgedScan:
    result = row.result
    failed = result.status == "failed"
    flags, swapped = () if failed else judge.flags(result.measures), not failed and judge.lacks(result.measures)
    if not flags and not swapped:
        return JudgedScan(item=item, result=result, payload=row.payload)
    message = "; ".join(part for part in (result.message, *(flag.message for flag in flags)) if part)
    reasons = (*result.reasons, *(flag.reason for flag in flags))
    if not swapped and not any(judge.fails(flag) for flag in flags):
        judged = replace(result, status="flagged", reasons=reasons, message=message)
        return JudgedScan(item=item, result=judged, payload=row.payload, flags=flags)
    why = "--strict" if judge.spec.strict else "--require-quality"
    judged = replace(result, status="failed", reasons=reasons, message=f"{message} (a failure because of {why})")
    return JudgedScan(item=item, result=judged, flags=flags)


def without_judgement(result: ScanResult) -> ScanResult:
    """A result of ``scans.csv`` without the flags of its quality, which every run raises by its own limits."""
    kept = tuple(reason for reason in result.reasons if reason.kind is not Kind.QUALITY)
    if kept == result.reasons:
        return result
    return replace(result, status="flagged" if kept else "ok", reasons=kept)
