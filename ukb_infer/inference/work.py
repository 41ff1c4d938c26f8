"""The work on one scan: read, check, project."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.execution import Failure
from ukb_infer.inference.fingerprints import content_digest, fingerprint
from ukb_infer.inference.inputs import OF_THE_FILE, ScanInput
from ukb_infer.reasons import Reason
from ukb_infer.records import Projection, ReadingOptions, ScanResult, Volume
from ukb_infer.runs.files import SCANS

Done = TypeVar("Done")
#: Attempts at a file that changes while it is read.
READINGS = 2


class OutputError(OSError):
    """Writing a projection failed."""


@dataclass(frozen=True)
class Job:
    """One scan to project.

    Attributes:
        scan: to read.
        options: reading options.
        recipe: name of the recipe.
        cache: folder of cached projections to write to, or None.
        png: also write a picture; ``volumes``: also write the fused volumes.
        digest: also compute the SHA-256 of the input.
    """

    scan: ScanInput
    options: ReadingOptions
    recipe: str
    cache: Path | None = None
    png: bool = False
    volumes: bool = False
    digest: bool = False


@dataclass(frozen=True)
class Outcome:
    """Outcome of one scan: the result, and the recipe's image if it was used."""

    result: ScanResult
    image: NDArray[Any] | None = None

    def changed(self, **changes: Any) -> Outcome:
        """A copy with changed fields of the result."""
        return replace(self, result=replace(self.result, **changes))


def failed(reason: Reason, message: str = "") -> Outcome:
    """Outcome of a scan that cannot be used.

    Args:
        reason: of the failure.
        message: text; "" for the reason's meaning and advice.
    """
    return Outcome(ScanResult.failure(reason, message))


def from_failure(failure: Failure) -> Outcome:
    """Outcome of a scan whose worker died, timed out or raised an unexpected error."""
    reason = {"died": Reason.WORKER_DIED, "timed_out": Reason.TIMED_OUT, "raised": Reason.INTERNAL_ERROR}[failure.kind]
    return failed(reason, f"{failure.detail}; {reason.advice}")


def process_scan(job: Job) -> Outcome:
    """Read, check and project one scan; every problem of the scan becomes an outcome.

    A file that is replaced while it is read is read again; the outcome belongs to the file with its fingerprint.
    """
    for _ in range(READINGS):
        mark = fingerprint(job.scan.path)
        digest = content_digest(job.scan.path) if job.digest else ""
        made = _guard(lambda: _project(job))
        if fingerprint(job.scan.path) == mark:
            break
    else:
        made = failed(Reason.INPUT_CHANGED)
    if isinstance(made, Made):
        kept = made
        made = _guard(lambda: _keep(job, kept))
    return made.changed(fingerprint=mark, digest=digest)


def _guard(step: Callable[[], Done]) -> Done | Outcome:
    """Result of a step, or the failure that it raised."""
    try:
        return step()
    except ScanError as error:
        return failed(error.reason, error.message)
    except MemoryError:
        return failed(Reason.WORKER_DIED, "not enough memory to read the scan; use fewer workers")
    except OSError as error:
        if error.errno in OF_THE_FILE and not isinstance(error, OutputError):
            reason = Reason.INPUT_UNREADABLE
            return failed(reason, f"cannot be opened ({error.strerror}); {reason.advice}")
        return failed(
            Reason.STORAGE_FAILED, f"the storage failed ({error.strerror or error}); run the same command again"
        )


@dataclass(frozen=True)
class Made:
    """A projection, and the fused volumes if requested."""

    projection: Projection
    volume: Volume | None = None


def _project(job: Job) -> Made:
    from ukb_infer.imaging.readers.projection_file import read_projection
    from ukb_infer.imaging.reading import project_path
    from ukb_infer.imaging.recipes import get_recipe
    from ukb_infer.quality import measure_stations

    scan = job.scan
    if scan.kind == "projection" and scan.known is not None:
        known = scan.known
        if job.options.strict and known.reasons:
            beside = f"{scan.path.absolute().parent.name}/{SCANS}"
            raise ScanError(known.reasons[0], f"flagged in {beside} (strict: a flag is a failure)")
        messages = tuple(flag.meaning for flag in known.reasons)
        image = read_projection(scan.path, get_recipe(job.recipe))
        return Made(Projection(image, known.reasons, messages, known.stations, scan.key, measures=known.measures))
    if job.volumes and scan.kind != "projection":
        return _project_with_volumes(job)
    return Made(project_path(scan.path, job.options, job.recipe, measure_stations))


def _project_with_volumes(job: Job) -> Made:
    from ukb_infer.imaging.reading import read_stations
    from ukb_infer.imaging.recipes import get_recipe
    from ukb_infer.quality import measure_stations

    recipe = get_recipe(job.recipe)
    read = read_stations(job.scan.path, job.options)
    if job.options.strict and read.flags:
        raise ScanError(read.flags[0], f"{read.messages[0]} (strict: a flag is a failure)")
    image = recipe.project(read.stations)
    measures = measure_stations(read.stations)
    projection = Projection(image, read.flags, read.messages, len(read.stations), job.scan.key, measures)
    return Made(projection, recipe.fuse(read.stations) if job.cache is not None else None)


def _keep(job: Job, made: Made) -> Outcome:
    """Write what is to be cached, and return the outcome."""
    projection = made.projection
    if job.cache is not None:
        _write(made, job, job.cache)
    flags = tuple(dict.fromkeys(projection.flags))
    result = ScanResult(
        status="flagged" if flags else "ok",
        reasons=flags,
        message="; ".join(projection.messages),
        stations=projection.stations,
        measures=projection.measures,
    )
    return Outcome(result, projection.image)


def _write(made: Made, job: Job, folder: Path) -> None:
    from ukb_infer.imaging.recipes import get_recipe
    from ukb_infer.imaging.volumes.export import save_png, write_volumes
    from ukb_infer.storage import atomic_path

    scan = job.scan.key.scan
    try:
        if made.volume is not None:
            write_volumes(made.volume, folder, scan)
        with atomic_path(folder / f"{scan}.npy") as partial:
            np.save(partial, made.projection.image)
        if job.png:
            save_png(made.projection.image, folder / f"{scan}.png", get_recipe(job.recipe))
    except OSError as error:
        raise _of_writing(error, scan) from error


def _of_writing(error: OSError, scan: str) -> Exception:
    """A name too long for the output is a failure of the scan; other errors are of the output, and retried."""
    if error.errno == errno.ENAMETOOLONG:
        return ScanError(
            Reason.INVALID_SCAN_NAME,
            f"the scan's name has {len(scan)} characters, too many for an output file; shorten it",
        )
    return OutputError(error.errno, error.strerror) if error.errno else OutputError(str(error))
