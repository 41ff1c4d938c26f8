"""What a worker process does with one scan: read, check, compute, write."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.execution import Failure
from ukb_infer.inference.fingerprints import content_digest, fingerprint
from ukb_infer.inference.inputs import OF_THE_FILE, ScanInput
from ukb_infer.reasons import Reason
from ukb_infer.records import Measures, Projection, ReadingOptions, ScanResult, SwapMode
from ukb_infer.runs.files import SCANS, UNCORRECTED

if TYPE_CHECKING:
    from ukb_infer.imaging.volumes.preprocess import Grid

Done = TypeVar("Done")
#: Attempts at a file that changes while it is read.
READINGS = 2


class OutputError(OSError):
    """Writing a result failed."""


class ScanJob(Protocol):
    """What a worker does with one scan: ``make`` reads it, ``keep`` writes what came of it."""

    @property
    def scan(self) -> ScanInput:
        """What to read."""

    @property
    def digest(self) -> bool:
        """Whether to compute the SHA-256 of the input."""

    def make(self) -> Any:
        """Read and compute; what comes back goes to ``keep`` if the file has not changed meanwhile."""

    def keep(self, made: Any) -> Outcome:
        """Write what is to be kept, and say what became of the scan."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one scan: the result, and the recipe's image if it was used.

    Attributes:
        result: of the scan.
        image: (channels, ...); None where the scan was not used.
        grid: of volumes: where the image's voxels lie in the scan.
    """

    result: ScanResult
    image: NDArray[Any] | None = None
    grid: Grid | None = None

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


def process_scan(job: ScanJob) -> Outcome:
    """Do a job; every problem of the scan becomes an outcome.

    A file that is replaced while it is read is read again; the outcome belongs to the file with its fingerprint.
    """
    for _ in range(READINGS):
        mark = fingerprint(job.scan.path)
        digest = content_digest(job.scan.path) if job.digest else ""
        made = _guard(job.make)
        if fingerprint(job.scan.path) == mark:
            break
    else:
        made = failed(Reason.INPUT_CHANGED)
    outcome: Outcome = made if isinstance(made, Outcome) else _guard(lambda: job.keep(made))
    return outcome.changed(fingerprint=mark, digest=digest)


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


def finished(
    flags: Sequence[Reason],
    messages: Sequence[str],
    stations: int,
    *,
    measures: Measures | None = None,
    image: NDArray[Any] | None = None,
    grid: Grid | None = None,
) -> Outcome:
    """Outcome of a scan that was used.

    Args:
        flags: raised on the way.
        messages: one a flag.
        stations: fused.
        measures: the scan's quality, by name.
        image: of the recipe.
        grid: of volumes.
    """
    reasons = tuple(dict.fromkeys(flags))
    result = ScanResult(
        status="flagged" if reasons else "ok", reasons=reasons, message="; ".join(messages), stations=stations,
        measures=measures or {},
    )  # fmt: skip
    return Outcome(result, image, grid)


@contextmanager
def writing(scan: str) -> Iterator[None]:
    """Tell failures to write from failures to read.

    Raises:
        OutputError: the output's storage failed.
        ScanError: the scan's name is too long for a file.
    """
    try:
        yield
    except OSError as error:
        raise _of_writing(error, scan) from error


@dataclass(frozen=True)
class Job:
    """One scan to project.

    Attributes:
        scan: what to read.
        options: how.
        recipe: name of the recipe to project by.
        cache: folder of cached projections to write to, or None.
        png: write a picture beside it.
        digest: also compute the SHA-256 of the input.
        swaps: what is done about fat-water swaps.
        uncorrected: folder for the projection before they were corrected, or None.
    """

    scan: ScanInput
    options: ReadingOptions
    recipe: str
    cache: Path | None = None
    png: bool = False
    digest: bool = False
    swaps: SwapMode = "flag"
    uncorrected: Path | None = None

    def make(self) -> Projection:
        """Read, check and project the scan."""
        from ukb_infer.imaging.readers.projection_file import read_projection
        from ukb_infer.imaging.reading import project_path
        from ukb_infer.imaging.recipes import get_recipe
        from ukb_infer.quality import inspect_scan

        scan = self.scan
        if scan.kind != "projection" or scan.known is None:
            inspect, keep = partial(inspect_scan, swaps=self.swaps), self.uncorrected is not None
            return project_path(scan.path, self.options, self.recipe, inspect, keep_uncorrected=keep)
        known = scan.known
        if self.options.strict and known.reasons:
            beside = f"{scan.path.absolute().parent.name}/{SCANS}"
            raise ScanError(known.reasons[0], f"flagged in {beside} (strict: a flag is a failure)")
        messages = tuple(flag.meaning for flag in known.reasons)
        image = read_projection(scan.path, get_recipe(self.recipe))
        return Projection(image, known.reasons, messages, known.stations, scan.key, measures=known.measures)

    def keep(self, made: Projection) -> Outcome:
        """Write the projection where it is to be cached, and what it was before it was corrected."""
        with writing(self.scan.key.scan):
            if self.cache is not None:
                self._write(made, self.cache)
            if self.uncorrected is not None:
                self._write_uncorrected(made, self.uncorrected / f"{self.scan.key.scan}{UNCORRECTED}")
        return finished(made.flags, made.messages, made.stations, measures=made.measures, image=made.image)

    def _write(self, made: Projection, folder: Path) -> None:
        from ukb_infer.imaging.recipes import get_recipe
        from ukb_infer.imaging.volumes.export import save_png
        from ukb_infer.storage import atomic_path

        scan = self.scan.key.scan
        with atomic_path(folder / f"{scan}.npy") as path:
            np.save(path, made.image)
        if self.png:
            save_png(made.image, folder / f"{scan}.png", get_recipe(self.recipe))

    @staticmethod
    def _write_uncorrected(made: Projection, path: Path) -> None:
        from ukb_infer.storage import atomic_path

        if made.uncorrected is None:
            path.unlink(missing_ok=True)  # of an earlier file of the scan
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, image=made.uncorrected)


def _of_writing(error: OSError, scan: str) -> Exception:
    """A name too long for the output is a failure of the scan; other errors are of the output, and retried."""
    if error.errno == errno.ENAMETOOLONG:
        return ScanError(
            Reason.INVALID_SCAN_NAME,
            f"the scan's name has {len(scan)} characters, too many for an output file; shorten it",
        )
    return OutputError(error.errno, error.strerror) if error.errno else OutputError(str(error))
