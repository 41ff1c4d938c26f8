"""The scans of a run, and which of them are still to be processed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ukb_infer.errors import RunError
from ukb_infer.execution import Journal, JournalInput, Shard, parse_shard
from ukb_infer.inference.config import CommonConfig
from ukb_infer.inference.fingerprints import content_digest
from ukb_infer.inference.inputs import ScanInput, describe_exclusions, is_excluded, read_exclusions, resolve_inputs
from ukb_infer.reasons import Kind, Reason
from ukb_infer.records import ScanResult
from ukb_infer.runs.files import SCANS, check_run_folder, holds_run
from ukb_infer.runs.identity import check_same_run
from ukb_infer.runs.summary import RunSummary
from ukb_infer.text import format_duration

#: Machine failures: the same command retries these scans.
TRANSIENT = frozenset(
    (Reason.WORKER_DIED, Reason.TIMED_OUT, Reason.INTERNAL_ERROR, Reason.INPUT_CHANGED, Reason.INPUT_MISSING,
     Reason.INPUT_UNREADABLE, Reason.STORAGE_FAILED)
)  # fmt: skip
#: Flags of a scan's estimates, which no projection carries.
OF_ESTIMATES = frozenset((Reason.MEAN_OUTSIDE_LIMITS, Reason.IMPLAUSIBLE_ESTIMATES, Reason.OUT_OF_DISTRIBUTION))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The scans of a run and which of them to process.

    Attributes:
        scans: all scans of the inputs, of all shards, in key order.
        excluded: names of excluded scans.
        shard: of this run; None for all. Determined before exclusions, so that a new withdrawal
            moves no scan to another shard.
        notes: effect of the exclusion lists; ``warnings``: lists without matches.
    """

    scans: tuple[ScanInput, ...]
    excluded: frozenset[str]
    shard: Shard | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def mine(self) -> list[ScanInput]:
        """Scans of this shard, excluded ones too."""
        return [s for k, s in enumerate(self.scans) if self.shard is None or self.shard.holds(k)]

    @property
    def included(self) -> list[ScanInput]:
        """Scans of this shard that are not excluded, in key order."""
        return [s for s in self.mine if s.key.scan not in self.excluded]

    def journal_inputs(self) -> Iterator[JournalInput]:
        """All scans, for the journal."""
        for position, s in enumerate(self.scans):
            mine = self.shard is None or self.shard.holds(position)
            yield JournalInput(key=s.key, given=s.given, excluded=s.key.scan in self.excluded, mine=mine)


#: Finds the scans that inputs name, like :func:`ukb_infer.inference.inputs.resolve_inputs`.
FindScans = Callable[..., list[ScanInput]]


def make_plan(config: CommonConfig, find: FindScans = resolve_inputs) -> Plan:
    """Find the scans, apply the exclusion lists and the shard.

    Args:
        config: of the run.
        find: finds them.

    Raises:
        UsageError: invalid inputs, lists or shard.
        RunError: there are no scans.
    """
    not_searched: list[str] = []
    scans = find(config.inputs, config.root, base=config.base, outputs=config.outputs, say=not_searched.append)
    exclusions = read_exclusions(config.exclude, config.base)
    excluded = frozenset(s.key.scan for s in scans if s.excluded or is_excluded(s.key, exclusions))
    notes, warnings = describe_exclusions(exclusions, [s.key for s in scans])
    if before := sum(s.excluded for s in scans):
        notes.append(f"{before} projections are left out because their {SCANS} says excluded")
    return Plan(
        scans=tuple(scans), excluded=excluded, shard=parse_shard(config.shard),
        notes=(*notes, *not_searched), warnings=tuple(warnings),
    )  # fmt: skip


def still_to_do(plan: Plan, journal: Journal, *, verify: bool = False) -> list[ScanInput]:
    """Scans to process: new ones, those with other files or flags, and machine failures.

    Args:
        plan: of the run.
        journal: of the run.
        verify: detect changes by SHA-256 instead of size and modification time.
    """
    finished = journal.finished()
    todo, unsure = [], []
    for scan in plan.included:
        known = finished.get(scan.key.scan)
        if (
            known is None
            or (known.status == "failed" and TRANSIENT.intersection(known.reasons))
            or _is_told_anew(scan, known)
        ):
            todo.append(scan)
        elif verify and scan.problem is None:
            unsure.append((scan, known.digest))
        elif known.fingerprint != scan.fingerprint:
            todo.append(scan)
    if unsure:
        with ThreadPoolExecutor(8) as pool:
            digests = pool.map(lambda pair: content_digest(pair[0].path), unsure)
            todo += [scan for (scan, before), now in zip(unsure, digests, strict=True) if now != before]
        todo.sort(key=lambda s: s.key.sort_key)
    return todo


def _is_told_anew(scan: ScanInput, result: ScanResult) -> bool:
    """Whether the flags of a cached projection in its folder's table differ from those of the result."""
    if scan.kind != "projection" or scan.problem is not None:
        return False
    told = {Reason.QUALITY_UNKNOWN} if scan.known is None else set(scan.known.reasons)
    carried = set(result.reasons) - OF_ESTIMATES
    if result.status == "failed":  # with strict only the first of its flags
        return any(r not in told and r.kind in (Kind.FLAG, Kind.FAILURE_OR_FLAG) for r in carried)
    return carried != told


# -- dry runs ----------------------------------------------------------------------------------------------------------


def left_to_do(
    config: CommonConfig, plan: Plan, identity: dict[str, Any], find: Callable[[Journal], list[ScanInput]]
) -> list[ScanInput]:
    """Scans that a run would process, after checking its folder; writes nothing.

    Args:
        config: of the run.
        plan: its scans.
        identity: settings that affect its results.
        find: finds scans to process in the journal of a resumed run.

    Raises:
        UsageError: the folder has a run with another identity.
        RunError: the folder cannot be used.
    """
    try:
        check_run_folder(config.out)
    except OSError as error:
        raise RunError(f"`out` {config.out} cannot be used as a folder ({error.strerror}); choose another") from error
    if config.overwrite or not holds_run(config.out):
        return plan.included
    with Journal(config.out, read_only=True) as journal:
        if journal.get("identity") is not None:
            check_same_run(journal, identity)
        return find(journal)


def count_words(plan: Plan, todo: Sequence[ScanInput]) -> str:
    """Numbers of scans by kind, excluded and finished, in words.

    Args:
        plan: of the run.
        todo: scans to process.
    """
    kinds = Counter(str(s.kind if s.problem is None else s.problem.value) for s in plan.included)
    listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return (
        f"{len(plan.included)} scans{f' ({listed})' if listed else ''}, {len(plan.excluded)} excluded, "
        f"{len(plan.included) - len(todo)} finished before"
    )


def time_words(seconds: float, scans: int, measured_on: str) -> str:
    """Expected time in words, without start-up.

    Args:
        seconds: expected.
        scans: number to process.
        measured_on: basis of the measurement.
    """
    length = f"about {format_duration(seconds)}" if seconds > 60 else "less than a minute"
    return f"{length} for {scans} scans, measured on {measured_on}"


def empty_summary(config: CommonConfig, plan: Plan, notes: Sequence[str], warnings: tuple[str, ...] = ()) -> RunSummary:
    """The summary of a dry run.

    Args:
        config: of the run.
        plan: its scans.
        notes: lines for the user.
        warnings: of the modules.
    """
    counts = {"ok": 0, "flagged": 0, "failed": 0, "excluded": len(plan.excluded)}
    return RunSummary(
        out=config.out, counts=counts, warnings=plan.warnings + warnings, dry_run=True, notes=(*plan.notes, *notes)
    )


def seconds_of(call: Callable[[], object]) -> float:
    """Time of a call after a first call, s."""
    call()
    started = time.monotonic()
    call()
    return time.monotonic() - started
