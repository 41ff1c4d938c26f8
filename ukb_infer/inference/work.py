"""What a worker process does with one scan: read, check, project (floor 4, no torch)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import REASONS, Kind, Reason, ScanError
from ukb_infer.execution import Failure
from ukb_infer.inference.inputs import ScanInput, content_digest
from ukb_infer.records import Projection, ReadingOptions


@dataclass(frozen=True)
class Job:
    """One scan to project.

    Attributes:
        scan: what to read.
        options: how.
        cache: folder of cached projections to write to, or None.
        png: write a picture beside it; ``volumes``: write the fused volumes.
        digest: also compute the SHA-256 of the input.
    """

    scan: ScanInput
    options: ReadingOptions
    cache: Path | None = None
    png: bool = False
    volumes: bool = False
    digest: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        image: uint8 (3, 256, 256), or None where it failed.
        reasons: codes: of the failure, or the flags.
        message: for people.
        stations: fused stations.
        digest: SHA-256 of the input where it was asked for.
    """

    image: NDArray[np.uint8] | None
    reasons: tuple[str, ...]
    message: str
    stations: int
    digest: str = ""

    @property
    def status(self) -> str:
        """ok, flagged or failed."""
        return "failed" if self.image is None else "flagged" if self.reasons else "ok"


def failed(reason: Reason, message: str = "") -> Outcome:
    """Outcome of a scan that cannot be used."""
    info = REASONS[reason]
    return Outcome(None, (reason.value,), message or f"{info.meaning}; {info.advice}", 0)


def from_failure(failure: Failure) -> Outcome:
    """Outcome of a scan whose worker died, took too long or met a defect of ours."""
    reason = {"died": Reason.WORKER_DIED, "timed_out": Reason.TIMED_OUT, "raised": Reason.INTERNAL_ERROR}[failure.kind]
    return failed(reason, f"{failure.detail}; {REASONS[reason].advice}")


def process_scan(job: Job) -> Outcome:
    """Read, check and project one scan; every problem of the scan becomes an outcome."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    digest = content_digest(job.scan.path) if job.digest else ""
    return replace(_process(job), digest=digest)


def _process(job: Job) -> Outcome:
    try:
        projection = _project(job)
    except ScanError as error:
        return failed(error.reason, error.message)
    except MemoryError:
        return failed(Reason.WORKER_DIED, "not enough memory to read the scan; use fewer --workers")
    except OSError as error:
        return failed(Reason.STORAGE_FAILED, f"the storage failed ({error.strerror}); run the same command again")
    flags = tuple(dict.fromkeys(flag.value for flag in projection.flags))
    return Outcome(projection.image, flags, "; ".join(projection.messages), projection.stations)


def _project(job: Job) -> Projection:
    from ukb_infer.imaging.reading import project_path, read_projection

    scan = job.scan
    if scan.kind == "projection" and scan.flags is not None:
        flags = tuple(Reason(code) for code in scan.flags)
        if job.options.strict and flags:
            raise ScanError(flags[0], f"flagged in {scan.path.parent.name}/scans.csv (a failure because of --strict)")
        messages = tuple(REASONS[flag].meaning for flag in flags)
        projection = Projection(read_projection(scan.path), flags, messages, scan.stations, scan.key)
    elif job.volumes and scan.kind != "projection":
        projection = _project_with_volumes(job)
    else:
        projection = project_path(scan.path, job.options)
    if job.cache is not None:
        _write(projection.image, job.cache, scan.key.scan, png=job.png)
    return projection


def _project_with_volumes(job: Job) -> Projection:
    from ukb_infer.imaging.fusion import fuse_stations
    from ukb_infer.imaging.projection import project_stations
    from ukb_infer.imaging.reading import read_stations
    from ukb_infer.imaging.volumes import write_volumes

    read = read_stations(job.scan.path, job.options)
    if job.options.strict and read.flags:
        raise ScanError(read.flags[0], f"{read.messages[0]} (a failure because of --strict)")
    image = project_stations(read.stations)
    if job.cache is not None:
        write_volumes(fuse_stations(read.stations), job.cache, job.scan.key.scan)
    return Projection(image, read.flags, read.messages, len(read.stations), job.scan.key)


def _write(image: NDArray[np.uint8], folder: Path, scan: str, *, png: bool) -> None:
    from ukb_infer.imaging.volumes import save_png
    from ukb_infer.storage import atomic_path

    with atomic_path(folder / f"{scan}.npy") as partial:
        np.save(partial, image)
    if png:
        save_png(image, folder / f"{scan}.png")


def is_known_failure(scan: ScanInput) -> bool:
    """Whether a scan failed before anything was read."""
    return scan.problem is not None and REASONS[scan.problem].kind is Kind.FAILURE
