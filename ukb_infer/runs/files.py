"""The files of a run folder: each name is spelled here only."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ukb_infer.errors import RunError
from ukb_infer.execution import Journal, RunLock
from ukb_infer.execution.journal import JOURNAL_NAME
from ukb_infer.execution.lock import LockMode

SCANS, ESTIMATES, DICTIONARY, FACTS = "scans.csv", "estimates.csv", "dictionary.csv", "run.json"
QUALITY = "quality.csv"
#: Tables that are also written as Parquet where that is asked for, and the names they then have.
PARQUET = {table: f"{table.removesuffix('.csv')}.parquet" for table in (ESTIMATES, SCANS, QUALITY)}
LOG, LOG_KEY = "run.log", ".log-key"
#: Scans that a merge found no result of.
MISSING = "missing.csv"
#: What ``--overwrite`` may remove.
OWN_FILES = (
    JOURNAL_NAME, f"{JOURNAL_NAME}-journal", SCANS, ESTIMATES, DICTIONARY, FACTS, QUALITY,
    *PARQUET.values(), LOG, LOG_KEY, MISSING,
)  # fmt: skip


def holds_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / JOURNAL_NAME).exists()


def holds_estimates(folder: Path) -> bool:
    """Whether a folder has the tables of ``predict``."""
    return (folder / ESTIMATES).is_file()


def projection_files(folder: Path, scan: str) -> list[Path]:
    """What ``project`` may have written of a scan, whether it is there or not.

    Args:
        folder: of the run.
        scan: name.
    """
    return [folder / f"{scan}{suffix}" for suffix in (".npy", ".png", "_water.nii.gz", "_fat.nii.gz")]


def open_run_folder(out: Path, *, overwrite: bool, lock: LockMode = "auto") -> None:
    """Create the run folder, or make sure it is one of ours.

    Args:
        out: the folder.
        overwrite: remove what an earlier run left there, unless a process is still at it.
        lock: how the folder is locked.

    Raises:
        RunError: it holds other files, cannot be written, or is in use.
    """
    try:
        ours = holds_run(out)
        if overwrite and ours:
            with RunLock(out, lock) as held:
                for path in (*_own_projections(out, locks=held.locks_work), *(out / name for name in OWN_FILES)):
                    path.unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        if not ours:
            check_run_folder(out)
    except OSError as error:
        raise RunError(f"`out` {out}: cannot be used as a folder ({error.strerror}); choose another") from error


def _own_projections(out: Path, *, locks: bool) -> list[Path]:
    """What a run of ``project`` may have written of its scans; nothing where its journal cannot be read."""
    try:
        with Journal(out, read_only=True, locks=locks) as journal:
            scans = (
                []
                if journal.get("output") is not None
                else [item.key.scan for item in journal.inputs() if item.key.is_safe]
            )
    except (RunError, sqlite3.Error):
        return []
    return [path for key in keys if key.is_safe for path in projection_files(out, key.scan)]


def check_run_folder(out: Path) -> None:
    """Make sure that a folder is a run's, empty, or not there yet; writes nothing.

    Raises:
        RunError: it holds other files.
        OSError: it cannot be listed.
    """
    if holds_run(out) or not out.exists():
        return
    if present := sorted(p.name for p in out.iterdir() if not p.name.startswith(".")):
        names = ", ".join(present[:3]) + (" ..." if len(present) > 3 else "")
        raise RunError(f"`out` {out}: holds other files ({names}); choose an empty or new folder")
