"""``merge``: merge the runs of shards into one, as if one machine had done it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution import Journal, JournalInput, JournalRow, RunLock
from ukb_infer.execution.lock import LockMode
from ukb_infer.records import ScanResult
from ukb_infer.runs.files import (
    BIDS_FILES,
    UNCORRECTED_FOLDER,
    fused_files,
    mask_path,
    open_run_folder,
    projection_files,
)
from ukb_infer.runs.identity import identity_differences
from ukb_infer.runs.quality import SPEC_KEY
from ukb_infer.runs.read import PackedMeasures
from ukb_infer.runs.summary import EXIT_AGAIN, Counts, count_results
from ukb_infer.runs.tables import write_facts, write_missing, write_tables
from ukb_infer.storage import atomic_path


@dataclass(frozen=True, kw_only=True)
class MergeResult:
    """Result of a merge.

    Attributes:
        counts: scans by status of the merged run.
        reasons: by code.
        levels: scans by the gravest level of their quality flags.
        missing: names of scans that no shard finished.
        files: written.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    levels: dict[str, int]
    missing: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def exit_code(self) -> int:
        """0: complete; 3: complete with failed scans; 75: scans are missing."""
        if self.missing:
            return EXIT_AGAIN
        return 3 if self.counts.get("failed", 0) else 0


def run_merge(folders: Sequence[Path], out: Path, *, overwrite: bool = False, lock: LockMode = "auto") -> MergeResult:
    """Merge the runs of shards into one run, as if one machine had done it.

    Args:
        folders: of the shards, possibly incomplete.
        out: folder of the merged run.
        overwrite: replace an earlier one.
        lock: how the folder is locked.

    Raises:
        UsageError: runs that do not belong together, or conflicting results.
        RunError: a folder is not a run, or cannot be written.
    """
    if not folders:
        raise UsageError("none given; name the folders of the shards", field="runs")
    if os.path.realpath(out) in {os.path.realpath(f) for f in folders}:
        raise UsageError(f"`out` {out} is one of the runs to merge; choose another folder")
    shards = [_read_shard(f) for f in folders]
    first = shards[0]
    for shard in shards[1:]:
        _check_compatible(first, shard)
    inputs, rows = _join(shards)
    open_run_folder(out, overwrite=overwrite, lock=lock)
    with RunLock(out, lock) as held, Journal(out, locks=held.locks_work) as journal:
        if journal.get("identity") is not None:
            raise UsageError(f"`out` {out} already contains a run; choose another folder or use `overwrite`")
        journal.set_inputs(inputs)
        journal.record(rows)
        if first.output is not None:
            journal.put("output", first.output)
        if first.quality is not None:
            journal.put(SPEC_KEY, first.quality)
        _bring_files(shards, out)
        journal.put("identity", first.identity | {"shard": None})  # last: an interrupted merge does not count as a run
        files = write_tables(out, journal)
        counts = count_results(journal)
        files += _write_facts(out, journal, first, len(shards), counts)
        missing = tuple(i.key.scan for i, row in journal.results() if row is None and not i.excluded)
    if missing:
        files.append(write_missing(out, missing))
    return MergeResult(
        counts=counts.statuses, reasons=counts.reasons, levels=counts.levels, missing=missing, files=tuple(files)
    )


def _write_facts(out: Path, journal: Journal, first: _ShardRun, shards: int, counts: Counts) -> list[Path]:
    """``run.json`` of a merged run of ``predict``; projections have none."""
    if first.facts is None:
        return []
    configuration = dict(first.facts.get("configuration", {})) | {"shard": None}
    facts = first.facts | {"configuration": configuration, "merged_from": shards}
    journal.put("facts", facts)
    return [write_facts(out, facts | counts.to_plain())]


@dataclass(frozen=True, kw_only=True)
class _ShardRun:
    folder: Path
    identity: dict[str, Any]
    output: dict[str, Any] | None
    facts: dict[str, Any] | None
    quality: dict[str, Any] | None
    inputs: list[JournalInput]
    rows: dict[str, JournalRow]


def _read_shard(folder: Path) -> _ShardRun:
    with Journal(folder, read_only=True) as journal:
        identity = journal.get("identity")
        if identity is None:
            raise RunError(f"{folder}: the run has not started; run its command first")
        places: dict[str, int] = {}
        rows = {row.scan: _packed(row, places) for _, row in journal.results() if row is not None}
        return _ShardRun(
            folder=folder, identity=identity, output=journal.get("output"), facts=journal.get("facts"),
            quality=journal.get(SPEC_KEY),
            inputs=list(journal.inputs()), rows=rows,
        )  # fmt: skip


def _packed(row: JournalRow, places: dict[str, int]) -> JournalRow:
    return replace(row, result=replace(row.result, measures=PackedMeasures(row.result.measures, places)))


def _check_compatible(first: _ShardRun, other: _ShardRun) -> None:
    """Refuse runs made with other settings.

    Raises:
        UsageError: lists the differences.
    """
    differences = identity_differences(first.identity | {"shard": None}, other.identity | {"shard": None})
    if differences:
        raise UsageError(f"{first.folder} and {other.folder} were made with different settings ({differences})")
    if first.output != other.output:
        raise UsageError(
            f"{first.folder} and {other.folder} write different tables (level, targets, uncertainty or Parquet); "
            "repeat one run with the options of the other, which recomputes nothing"
        )
    if first.quality != other.quality:
        raise UsageError(
            f"{first.folder} and {other.folder} judge quality by different limits (`quality`, `require_quality`); run "
            "one of them again with the files of the other, which computes nothing anew"
        )


def _join(shards: Sequence[_ShardRun]) -> tuple[list[JournalInput], list[JournalRow]]:
    """All inputs in key order and all results.

    Raises:
        UsageError: a scan has conflicting results.
    """
    inputs: dict[str, JournalInput] = {}
    rows: dict[str, JournalRow] = {}
    home: dict[str, Path] = {}
    conflicts = 0
    example = ("", "")
    for shard in shards:
        for item in shard.inputs:
            known = inputs.get(item.key.scan)
            excluded = item.excluded or (known is not None and known.excluded)
            # Every shard lists all scans; the path comes from the shard that processed the scan.
            source = item if known is None or item.mine else known
            inputs[item.key.scan] = replace(source, excluded=excluded, mine=True)
        for scan, row in shard.rows.items():
            if scan in rows and _told(rows[scan]) != _told(row):
                conflicts += 1
                example = (str(home[scan]), str(shard.folder))
            rows[scan], home[scan] = row, shard.folder
    if conflicts:
        raise UsageError(
            f"{conflicts} scans have different results in different runs (first in {example[0]} and {example[1]}); "
            "they are not shards of one run, or an input changed: run the shards again, then merge"
        )
    ordered = sorted(inputs.values(), key=lambda i: i.key.sort_key)
    wanted = {i.key.scan for i in ordered if not i.excluded}
    return ordered, [rows[s] for s in rows if s in wanted]


def _told(row: JournalRow) -> tuple[ScanResult, bytes]:
    """The result of a scan in the tables, without file facts."""
    return replace(row.result, fingerprint="", digest=""), row.payload


def _bring_files(shards: Sequence[_ShardRun], out: Path) -> None:
    """Files of scans: linked where possible, else copied."""
    for shard in shards:
        for path in _files_of(shard):
            if path.is_file():
                target = out / path.relative_to(shard.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                _bring(path, target)


def _files_of(shard: _ShardRun) -> Iterator[Path]:
    """What a run may have written besides its tables."""
    if shard.output is not None:
        yield from (mask_path(shard.folder, scan) for scan in shard.rows)
        yield from (shard.folder / UNCORRECTED_FOLDER).glob("[!.]*")
        return
    contrasts = shard.identity.get("contrasts")
    if contrasts is None:
        for scan in shard.rows:
            yield from projection_files(shard.folder, scan)
        return
    yield from (shard.folder / name for name in BIDS_FILES)
    for item in shard.inputs:
        if item.key.scan in shard.rows:
            yield from fused_files(shard.folder, item.key, contrasts.split(","))


def _bring(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        with atomic_path(target) as partial:
            shutil.copyfile(source, partial)
