"""Looking after runs: ``status``, ``retry``, ``merge``, ``export`` (floor 4, no torch)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ukb_infer.errors import Reason, RunError, UsageError
from ukb_infer.execution import Journal, JournalInput, JournalRow, RunLock, current_holder
from ukb_infer.execution.lock import LockMode
from ukb_infer.inference.config import PredictConfig, ProjectConfig
from ukb_infer.inference.outputs import count_results, write_tables
from ukb_infer.inference.runlog import ScanNames, describe
from ukb_infer.inference.runs import MISSING_NAME, Progress, RunSummary, identity_differences, open_run_folder
from ukb_infer.inference.tables import safe_cell, write_run_json
from ukb_infer.storage import atomic_path, atomic_write_text
from ukb_infer.targets import suggest

#: Scans over which the current rate is taken.
RATE_SCANS = 500
#: A pause longer than this between two commits was no computing, s.
LONGEST_PAUSE_S = 120.0


# -- status and export -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        command: predict or project.
        shard: ``I/N``, or None.
        counts: scans by status; ``reasons``: by code.
        unfinished: scans without a result.
        rate: scans a second while it was last computing, or None.
        holder: process that works on it now, or None.
        last_failures: (name for logs, words), newest first.
    """

    command: str
    shard: str | None
    counts: dict[str, int]
    reasons: dict[str, int]
    unfinished: int
    rate: float | None
    holder: str | None
    last_failures: tuple[tuple[str, str], ...]

    @property
    def seconds_left(self) -> float | None:
        """Time for the rest at that rate."""
        return self.unfinished / self.rate if self.rate and self.unfinished else None


def run_status(folder: Path, *, errors: int = 5, log_ids: bool = False) -> RunStatus:
    """Look at a run, also while it is going on.

    Args:
        folder: of the run.
        errors: how many of the last failures to name.
        log_ids: name scans as they are.

    Raises:
        RunError: no run.
    """
    names = ScanNames(folder, show=log_ids)
    with Journal(folder, read_only=True) as journal:
        counts, reasons, unfinished = count_results(journal)
        identity, command = journal.get("identity") or {}, journal.get("command") or {}
        rate = _rate(journal.recent_times(RATE_SCANS))
        failures = tuple((names(r.scan), describe(r, show_ids=log_ids)) for r in journal.last_failures(errors))
    return RunStatus(
        str(command.get("name", "merge")),
        identity.get("shard"),
        counts,
        reasons,
        unfinished,
        rate,
        current_holder(folder),
        failures,
    )


def _rate(times: Sequence[float]) -> float | None:
    """Scans a second over the last commits up to a long pause; None where there are too few."""
    kept = [times[0]] if times else []
    for newer, older in pairwise(times):
        if newer - older > LONGEST_PAUSE_S:
            break
        kept.append(older)
    span = kept[0] - kept[-1] if kept else 0.0
    first_batch = sum(t == kept[-1] for t in kept) if kept else 0  # committed when the clock started
    return (len(kept) - first_batch) / span if span > 0 else None


def run_export(folder: Path, out: Path) -> list[Path]:
    """Write the tables of what a run has finished into another folder, also while it is going on.

    Raises:
        RunError: no run, or the folder cannot be written.
    """
    if out.resolve() == folder.resolve():
        raise UsageError("--out is the run itself, which writes its tables at its end; choose another folder")
    with Journal(folder, read_only=True) as journal:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"--out {out}: cannot be used as a folder ({error.strerror})") from error
        files = write_tables(out, journal)
        facts = journal.get("facts")
        if facts is not None:
            counts, reasons, unfinished = count_results(journal)
            now = {"counts": counts, "reasons": reasons, "unfinished": unfinished, "partial": unfinished > 0}
            files.append(write_run_json(out, facts | now))
    return files


# -- retry -------------------------------------------------------------------------------------------------------------


def run_retry(
    folder: Path, codes: Sequence[str] = (), progress: Progress | None = None, *, lock: LockMode = "auto"
) -> tuple[int, RunSummary]:
    """Forget failures and run the same command again.

    Args:
        folder: of the run.
        codes: reason codes; failed scans with one of them are worked on again. Empty for all failures.
        progress: told how far it is.
        lock: how the folder is locked.

    Returns:
        How many results were forgotten, and the summary of the run.

    Raises:
        UsageError: an unknown code.
        RunError: no run, or one that was merged.
    """
    known = [r.value for r in Reason]
    for code in codes:
        if code not in known:
            raise UsageError(f"--code: unknown reason {code!r}{suggest(code, known)}")
    if not folder.is_dir():
        raise RunError(f"{folder}: is no run; expected a folder written by `predict` or `project`")
    with RunLock(folder, lock) as held, Journal(folder, read_only=True, locks=held.locks_work) as journal:
        command = journal.get("command")
        if command is None:
            raise RunError(f"{folder} was merged and has no command to repeat; retry the shards, then merge again")
        chosen = [
            row.scan
            for _, row in journal.results()
            if row is not None and row.status == "failed" and (not codes or set(row.reasons.split(";")) & set(codes))
        ]
    with RunLock(folder, lock) as held, Journal(folder, locks=held.locks_work) as journal:
        journal.forget(chosen)
    return len(chosen), _repeat(folder.absolute(), command, progress)


def _repeat(folder: Path, command: dict[str, Any], progress: Progress | None) -> RunSummary:
    """The command of a run, from the folder it was given in."""
    plain = command["config"] | {"out": str(folder), "overwrite": False, "dry_run": False}
    before = Path.cwd()
    try:
        os.chdir(command["cwd"])
    except OSError as error:
        raise RunError(
            f"{folder}: the command was given in {command['cwd']}, which is gone; run it by hand, its inputs are "
            f"{', '.join(plain['inputs'][:3])}"
        ) from error
    try:
        if command["name"] == "project":
            from ukb_infer.inference.projecting import run_project

            return run_project(ProjectConfig.from_plain(plain), progress)
        from ukb_infer.inference.predicting import run_predict

        return run_predict(PredictConfig.from_plain(plain), progress)
    finally:
        os.chdir(before)


# -- merge -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MergeResult:
    """What merging did.

    Attributes:
        counts: scans by status of the merged run.
        reasons: by code.
        missing: names of scans that no shard has finished.
        files: written.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    missing: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def exit_code(self) -> int:
        """0: complete; 3: complete with failed scans; 75: scans are missing."""
        if self.missing:
            return 75
        return 3 if self.counts.get("failed", 0) else 0


def run_merge(folders: Sequence[Path], out: Path, *, overwrite: bool = False, lock: LockMode = "auto") -> MergeResult:
    """Join the runs of shards into one run, as if one machine had done it.

    Args:
        folders: of the shards, complete or not.
        out: folder of the merged run.
        overwrite: replace an earlier one.
        lock: how the folder is locked.

    Raises:
        UsageError: runs that do not belong together, or the same scan with different results.
        RunError: a folder is no run, or cannot be written.
    """
    if not folders:
        raise UsageError("RUN: name the folders of the shards")
    if out.resolve() in {f.resolve() for f in folders}:
        raise UsageError(f"--out {out} is one of the runs to merge; choose another folder")
    shards = [_read_shard(f) for f in folders]
    first = shards[0]
    for shard in shards[1:]:
        _check_compatible(first, shard)
    inputs, rows = _join(shards)
    own = ("journal.sqlite", "journal.sqlite-journal", "estimates.csv", "scans.csv", "dictionary.csv", "run.json",
           "estimates.parquet", "scans.parquet", MISSING_NAME)  # fmt: skip
    open_run_folder(out, overwrite=overwrite, own_files=own)
    with RunLock(out, lock) as held, Journal(out, locks=held.locks_work) as journal:
        if journal.get("identity") is not None:
            raise RunError(f"--out {out} holds a run already; choose another folder or pass --overwrite")
        journal.set_inputs(inputs)
        journal.record(rows)
        if first.output is not None:
            journal.put("output", first.output)
        _bring_files(shards, out)
        journal.put("identity", first.identity | {"shard": None})  # last: a merge cut short is not taken for a run
        files = write_tables(out, journal)
        counts, reasons, unfinished = count_results(journal)
        missing = tuple(i.scan for i, row in journal.results() if row is None and not i.excluded)
        if first.facts is not None:
            merged = {"shard": None}
            configuration = dict(first.facts.get("configuration", {})) | merged
            facts = first.facts | {"configuration": configuration, "merged_from": len(shards)}
            journal.put("facts", facts)
            now = {"counts": counts, "reasons": reasons, "unfinished": unfinished}
            files.append(write_run_json(out, facts | now))
    if missing:
        text = "scan\n" + "".join(f"{safe_cell(scan)}\n" for scan in missing)
        atomic_write_text(out / MISSING_NAME, text)
        files.append(out / MISSING_NAME)
    return MergeResult(counts, reasons, missing, tuple(files))


@dataclass(frozen=True)
class _ShardRun:
    folder: Path
    identity: dict[str, Any]
    output: dict[str, Any] | None
    facts: dict[str, Any] | None
    inputs: list[JournalInput]
    rows: dict[str, JournalRow]


def _read_shard(folder: Path) -> _ShardRun:
    with Journal(folder, read_only=True) as journal:
        identity = journal.get("identity")
        if identity is None:
            raise RunError(f"{folder}: the run has not begun; run its command first")
        rows = {row.scan: row for _, row in journal.results() if row is not None}
        return _ShardRun(folder, identity, journal.get("output"), journal.get("facts"), list(journal.inputs()), rows)


def _check_compatible(first: _ShardRun, other: _ShardRun) -> None:
    """Refuse runs made with other settings.

    Raises:
        UsageError: spells out the differences.
    """
    differences = identity_differences(first.identity | {"shard": None}, other.identity | {"shard": None})
    if differences:
        raise UsageError(f"{first.folder} and {other.folder} were made with different settings ({differences})")
    if first.output != other.output:
        raise UsageError(
            f"{first.folder} and {other.folder} write different tables (--ci, --targets, --uncertainty or --parquet); "
            "run one of them again with the options of the other, which computes nothing anew"
        )


def _join(shards: Sequence[_ShardRun]) -> tuple[list[JournalInput], list[JournalRow]]:
    """All inputs in key order and all results.

    Raises:
        UsageError: a scan has different results.
    """
    inputs: dict[str, JournalInput] = {}
    rows: dict[str, JournalRow] = {}
    home: dict[str, Path] = {}
    conflicts = 0
    example = ("", "")
    for shard in shards:
        for item in shard.inputs:
            known = inputs.get(item.scan)
            excluded = item.excluded or (known is not None and known.excluded)
            # Every shard lists all scans; the one that worked on a scan knows best what it was given as.
            source = item if known is None or item.mine else known
            inputs[item.scan] = JournalInput(
                source.scan, source.eid, source.instance, source.array, source.given, excluded, True
            )
        for scan, row in shard.rows.items():
            if scan in rows and rows[scan].result != row.result:
                conflicts += 1
                example = (str(home[scan]), str(shard.folder))
            rows[scan], home[scan] = row, shard.folder
    if conflicts:
        raise UsageError(
            f"{conflicts} scans have different results in different runs (first in {example[0]} and {example[1]}); "
            "they are no shards of one run, or an input changed in between: run the shards again, then merge"
        )
    ordered = sorted(inputs.values(), key=lambda i: (
        i.eid, -1 if i.instance is None else i.instance, -1 if i.array is None else i.array, i.scan
    ))  # fmt: skip
    wanted = {i.scan for i in ordered if not i.excluded}
    return ordered, [rows[s] for s in rows if s in wanted]


def _bring_files(shards: Sequence[_ShardRun], out: Path) -> None:
    """Projections and pictures of `project` runs: linked where possible, else copied."""
    for shard in shards:
        if shard.output is not None:
            continue
        for scan in shard.rows:
            for suffix in (".npy", ".png", "_water.nii.gz", "_fat.nii.gz"):
                path = shard.folder / f"{scan}{suffix}"
                if path.is_file():
                    _bring(path, out / path.name)


def _bring(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        with atomic_path(target) as partial:
            shutil.copyfile(source, partial)
