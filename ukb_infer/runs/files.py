"""File names of a run folder, defined only here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from ukb_infer.errors import RunError
from ukb_infer.execution import Journal, RunLock
from ukb_infer.execution.journal import JOURNAL_NAME
from ukb_infer.execution.lock import LockMode
from ukb_infer.imaging.volumes.names import CONTRASTS, PROCESSING, image_path, sidecar_path
from ukb_infer.records import ScanKey

SCANS, ESTIMATES, DICTIONARY, FACTS = "scans.csv", "estimates.csv", "dictionary.csv", "run.json"
QUALITY = "quality.csv"
#: Derived from the estimates by `zscores` and `changes`; removed when the estimates are written again.
DERIVED = ZSCORES, CHANGES = ("zscores.csv", "changes.csv")
#: Tables that are also written as Parquet where that is asked for, and the names they then have.
PARQUET = {table: f"{table.removesuffix('.csv')}.parquet" for table in (ESTIMATES, SCANS, QUALITY)}
LOG, LOG_KEY = "run.log", ".log-key"
#: Scans without result after a merge.
MISSING = "missing.csv"
#: The page that `predict` writes on request.
REPORT = "report.html"
#: What makes the folder of ``stitch`` a BIDS dataset.
BIDS_FILES = DESCRIPTION, BIDS_IGNORE = ("dataset_description.json", ".bidsignore")
#: What ``overwrite`` may remove.
OWN_FILES = (
    JOURNAL_NAME, f"{JOURNAL_NAME}-journal", SCANS, ESTIMATES, DICTIONARY, FACTS, QUALITY, *DERIVED,
    *PARQUET.values(), LOG, LOG_KEY, MISSING, REPORT, *BIDS_FILES,
)  # fmt: skip


def holds_run(folder: Path) -> bool:
    """Whether a folder is a run."""
    return (folder / JOURNAL_NAME).exists()


def holds_estimates(folder: Path) -> bool:
    """Whether a folder has the tables of ``predict``."""
    return (folder / ESTIMATES).is_file()


def holds_fused_bodies(folder: Path) -> bool:
    """Whether a folder is a run of ``stitch``."""
    return holds_run(folder) and (folder / DESCRIPTION).is_file()


#: Folder of the masks in that of a run.
MASKS = "masks"
#: Ending of the projection of a scan before its swaps were corrected, no input of ``predict``; and the folder that
#: ``predict`` keeps them in.
UNCORRECTED, UNCORRECTED_FOLDER = ".uncorrected.npz", "uncorrected"


def projection_files(folder: Path, scan: str) -> list[Path]:
    """Files that ``project`` may have written for a scan, whether or not they exist.

    Args:
        folder: of the run.
        scan: name.
    """
    return [folder / f"{scan}{suffix}" for suffix in (".npy", ".png", UNCORRECTED, "_water.nii.gz", "_fat.nii.gz")]


def mask_path(folder: Path, scan: str) -> Path:
    """Mask that ``predict`` may have written for a scan, with a module that segments.

    Args:
        folder: of the run.
        scan: name.
    """
    return folder / MASKS / f"{scan}.nii.gz"


def fused_files(
    folder: Path, key: ScanKey, contrasts: Iterable[str] = CONTRASTS, processing: Iterable[str] = PROCESSING
) -> list[Path]:
    """Images and sidecars that ``stitch`` may have written for a scan, whether or not they exist.

    Args:
        folder: of the run.
        key: of the scan.
        contrasts: their names.
        processing: fused, uncorrected.
    """
    images = [image_path(key, name, how) for how in processing for name in contrasts]
    return [folder / path for image in images for path in (image, sidecar_path(image))]


def not_bids() -> tuple[str, ...]:
    """Names of a run folder that are not BIDS."""
    return (*(name for name in OWN_FILES if name not in BIDS_FILES), ".lock*")


def open_run_folder(out: Path, *, overwrite: bool, lock: LockMode = "auto") -> None:
    """Create the run folder, or check that it is one.

    Args:
        out: the folder.
        overwrite: remove an earlier run, unless a process is working on it.
        lock: how the folder is locked.

    Raises:
        RunError: it has other files, cannot be written, or is in use.
    """
    try:
        ours = holds_run(out)
        if overwrite and ours:
            with RunLock(out, lock) as held:
                for path in (*_files_of_scans(out, locks=held.locks_work), *(out / name for name in OWN_FILES)):
                    path.unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        if not ours:
            check_run_folder(out)
    except OSError as error:
        raise RunError(f"`out` {out} cannot be used as a folder ({error.strerror}); choose another") from error


def _files_of_scans(out: Path, *, locks: bool) -> list[Path]:
    """Files that a command may have written for a run's scans; none if its journal cannot be read."""
    try:
        with Journal(out, read_only=True, locks=locks) as journal:
            predicted, keys = journal.get("output") is not None, [item.key for item in journal.inputs()]
            stitched = "contrasts" in (journal.get("identity") or {})
    except (RunError, sqlite3.Error):
        return []
    safe = [key for key in keys if key.is_safe]
    if predicted:
        aside = out / UNCORRECTED_FOLDER
        return [path for k in safe for path in (mask_path(out, k.scan), aside / f"{k.scan}{UNCORRECTED}")]
    return [path for key in safe for path in (fused_files(out, key) if stitched else projection_files(out, key.scan))]


def check_run_folder(out: Path) -> None:
    """Check that a folder is a run, empty, or missing; writes nothing.

    Raises:
        RunError: it has other files.
        OSError: it cannot be listed.
    """
    if holds_run(out) or not out.exists():
        return
    if present := sorted(p.name for p in out.iterdir() if not p.name.startswith(".")):
        names = ", ".join(present[:3]) + (" ..." if len(present) > 3 else "")
        raise RunError(f"`out` {out} contains other files ({names}); choose an empty or new folder")
