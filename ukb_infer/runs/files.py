"""The files of a run folder: each name is spelled here only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ukb_infer.errors import RunError
from ukb_infer.execution import RunLock
from ukb_infer.execution.journal import JOURNAL_NAME
from ukb_infer.execution.lock import LockMode
from ukb_infer.imaging.volumes.names import CONTRASTS, image_path, sidecar_path
from ukb_infer.records import ScanKey

SCANS, ESTIMATES, DICTIONARY, FACTS = "scans.csv", "estimates.csv", "dictionary.csv", "run.json"
SCANS_PARQUET, ESTIMATES_PARQUET = "scans.parquet", "estimates.parquet"
LOG, LOG_KEY = "run.log", ".log-key"
#: Scans that a merge found no result of.
MISSING = "missing.csv"
#: What makes the folder of ``stitch`` a BIDS dataset.
BIDS_FILES = DESCRIPTION, BIDS_IGNORE = ("dataset_description.json", ".bidsignore")
#: What ``--overwrite`` may remove.
OWN_FILES = (
    JOURNAL_NAME, f"{JOURNAL_NAME}-journal", SCANS, ESTIMATES, DICTIONARY, FACTS, SCANS_PARQUET, ESTIMATES_PARQUET,
    LOG, LOG_KEY, MISSING, *BIDS_FILES,
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


def fused_files(folder: Path, key: ScanKey, contrasts: Iterable[str] = CONTRASTS) -> list[Path]:
    """What ``stitch`` may have written of a scan, whether it is there or not: images and sidecars.

    Args:
        folder: of the run.
        key: of the scan.
        contrasts: their names.
    """
    images = [image_path(key, name) for name in contrasts]
    return [folder / path for image in images for path in (image, sidecar_path(image))]


def not_bids() -> tuple[str, ...]:
    """Names of a run folder that are not BIDS."""
    return (*(name for name in OWN_FILES if name not in BIDS_FILES), ".lock*")


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
        ours = holds_run(out)  # also once its journal is removed: projections stay until they are written again
        if overwrite and ours:
            with RunLock(out, lock):
                for name in OWN_FILES:
                    (out / name).unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        present = [p.name for p in out.iterdir() if not p.name.startswith(".")]
    except OSError as error:
        raise RunError(f"--out {out}: cannot be used as a folder ({error}); choose another") from error
    if present and not ours:
        raise RunError(
            f"--out {out}: holds other files ({', '.join(sorted(present)[:3])} …); choose an empty or new folder"
        )
