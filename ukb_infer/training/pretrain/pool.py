"""Preprocess every image once into one memory map; a broken one becomes a row with a code."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import RunError, ScanError
from ukb_infer.execution import Failure, run_in_workers
from ukb_infer.imaging.datasets import ImageRow, write_images
from ukb_infer.imaging.readers.projection_file import load_projection
from ukb_infer.imaging.recipes import DEFAULT_RECIPE, get_recipe
from ukb_infer.imaging.volumes.preprocess import VolumeSettings, preprocess
from ukb_infer.imaging.volumes.read import Volume, read_volume
from ukb_infer.reasons import Kind, Reason
from ukb_infer.storage import atomic_write_text

POOL_NAME, INDEX_NAME, TABLE_NAME = "images.npy", "pool.json", "images.csv"
#: Sessions between two points from which an interrupted preprocessing goes on.
SESSIONS_AT_ONCE = 64
#: One session may take so long, s.
TIME_LIMIT_S = 600.0
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Pool:
    """Images to learn from.

    Attributes:
        images: (M, C, *size), a memory map: float16 z-scores of heads, uint8 projections.
        places: (N,) of the usable ones in it.
        rows: N rows of the images table.
        all_rows: also those that could not be used, with their codes.
    """

    images: NDArray[Any]
    places: NDArray[np.int64]
    rows: tuple[ImageRow, ...]
    all_rows: tuple[ImageRow, ...]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Images of some rows, of any shape: (..., C, *size)."""
        return np.asarray(self.images[self.places[rows]])

    @property
    def failed(self) -> tuple[ImageRow, ...]:
        """Rows that could not be used."""
        return tuple(row for row in self.all_rows if row.status == "failed")


@dataclass(frozen=True)
class Found:
    """One session, read: an image per path, or the reason why there is none.

    Attributes:
        images: (C, *size) or None, as many as paths.
        codes: of every path.
    """

    images: tuple[NDArray[Any] | None, ...]
    codes: tuple[tuple[Reason, ...], ...]


def read_session(paths: Sequence[Path], settings: VolumeSettings | None) -> Found:
    """Read the images of one session; the contrasts of a head share one box.

    Args:
        paths: of its images.
        settings: of the box; None for projections.
    """
    codes: list[tuple[Reason, ...]] = []
    read: list[Volume | NDArray[Any] | None] = []
    for path in paths:
        try:
            image = _read(path, settings)
            read.append(image)
            codes.append(tuple(f.reason for f in image.findings) if isinstance(image, Volume) else ())
        except ScanError as error:
            read.append(None)
            codes.append((error.reason,))
    volumes = [v for v in read if isinstance(v, Volume)]
    if settings is None or not volumes:
        return Found(tuple(None if isinstance(v, Volume) else v for v in read), tuple(codes))
    boxed, grid = preprocess(volumes, settings)
    stored = iter(np.clip(boxed, -6e4, 6e4).astype(np.float16)[:, None])
    images = tuple(None if v is None else next(stored) for v in read)
    return Found(images, tuple(own if v is None else (*own, *grid.flags) for own, v in zip(codes, read, strict=True)))


def _read(path: Path, settings: VolumeSettings | None) -> Volume | NDArray[Any]:
    if settings is not None:
        return read_volume(path)
    image = load_projection(path, (get_recipe(DEFAULT_RECIPE),))
    if np.all(image == image.flat[0]):
        raise ScanError(Reason.EMPTY_IMAGE, "every pixel of the projection is the same; project the scan again")
    return image


def make_pool(
    rows: Sequence[ImageRow],
    work: Path,
    settings: VolumeSettings | None,
    *,
    workers: int = 0,
    progress: Progress = lambda *_: None,
) -> Pool:
    """Preprocess all usable rows, or go on where an earlier call was interrupted.

    Args:
        rows: of the images table.
        work: folder of the memory map; exists.
        settings: of the box of heads; None for projections.
        workers: processes; 0 reads in this one.
        progress: called with images done, in total, and failed.

    Raises:
        RunError: no image can be used, or the memory map cannot be written or read.
    """
    usable = [row for row in rows if row.status != "failed"]
    if not usable:
        raise RunError(f"none of the {len(rows)} images can be used; their codes are in the images table")
    shape: tuple[int, ...] = (1, *settings.size) if settings else get_recipe(DEFAULT_RECIPE).shape
    stamp, path = stamp_of(rows, settings), work / POOL_NAME
    index = _read_index(work)
    if index.get("stamp") != stamp or not path.is_file():
        index = {"stamp": stamp, "sessions": 0, "codes": {}}
    try:
        whole = (len(usable), *shape)
        kind = np.float16 if settings else get_recipe(DEFAULT_RECIPE).dtype
        images = np.lib.format.open_memmap(path, "r+" if index["sessions"] else "w+", np.dtype(kind), whole)
        if images.shape != whole:
            raise ValueError(f"holds {images.shape}, expected {whole}")
        _fill(images, usable, settings, index, work, workers, progress)
        images.flush()
        del images
        mapped = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: {error}; free space or remove it, then run the same command again") from error
    return _pool(mapped, rows, usable, index["codes"], work)


def _fill(
    images: NDArray[Any], rows: Sequence[ImageRow], settings: VolumeSettings | None, index: dict[str, Any],
    work: Path, workers: int, progress: Progress,
) -> None:  # fmt: skip
    """Read the sessions that are left, some at a time, each time noting how far it came."""
    sessions, done = _sessions(rows), index["sessions"]
    count = sum(map(len, sessions[:done]))
    progress(count, len(rows), _failures(index["codes"]))
    for first in range(done, len(sessions), SESSIONS_AT_ONCE):
        part = sessions[first : first + SESSIONS_AT_ONCE]
        todo = [[rows[k].path for k in places] for places in part]
        read = partial(read_session, settings=settings)
        for place, found in run_in_workers(read, todo, workers=workers, timeout_s=TIME_LIMIT_S):
            own = part[place]
            if isinstance(found, Failure):
                found = Found((None,) * len(own), ((_reason_of(found),),) * len(own))
            for k, image, codes in zip(own, found.images, found.codes, strict=True):
                images[k] = 0 if image is None else image
                index["codes"][str(k)] = [*dict.fromkeys(code.value for code in codes)]
            count += len(own)
            progress(count, len(rows), _failures(index["codes"]))
        images.flush()  # type: ignore[attr-defined]
        index["sessions"] += len(part)
        _write_index(work, index)


def _reason_of(failure: Failure) -> Reason:
    return {"died": Reason.WORKER_DIED, "timed_out": Reason.TIMED_OUT}.get(failure.kind, Reason.INTERNAL_ERROR)


def _sessions(rows: Sequence[ImageRow]) -> list[tuple[int, ...]]:
    """Rows that are read together: the volumes of a session."""
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for k, row in enumerate(rows):
        groups[row.dataset, row.participant, row.session or str(row.path.parent)].append(k)
    return [tuple(group) for group in groups.values()]


def _failures(codes: dict[str, list[str]]) -> int:
    return sum(any(Reason(code).kind is Kind.FAILURE for code in own) for own in codes.values())


def _pool(
    images: NDArray[Any], rows: Sequence[ImageRow], usable: Sequence[ImageRow], codes: dict[str, list[str]], work: Path
) -> Pool:
    """The pool without the rows that failed; all rows are written down with their codes."""
    judged: list[ImageRow] = []
    for k, row in enumerate(usable):
        every = tuple(dict.fromkeys((*row.codes, *map(Reason, codes[str(k)]))))
        failed = any(code.kind is Kind.FAILURE for code in every)
        status = "failed" if failed else "flagged" if every else "ok"
        judged.append(replace(row, codes=every, status=status))  # type: ignore[arg-type]
    left = iter(judged)
    everything = tuple(row if row.status == "failed" else next(left) for row in rows)
    write_images(everything, work / TABLE_NAME)
    good = np.array([k for k, row in enumerate(judged) if row.status != "failed"], np.int64)
    if not good.size:
        raise RunError(f"none of the {len(rows)} images can be used; their codes are in {work / TABLE_NAME}")
    return Pool(images, good, tuple(judged[k] for k in good), everything)


def stamp_of(rows: Iterable[ImageRow], settings: VolumeSettings | None) -> str:
    """Fingerprint of the files and of what is made of them."""
    digest = hashlib.sha256(repr(settings).encode())
    for row in rows:
        try:
            stat = row.path.stat()
            facts = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            facts = "missing"
        digest.update(
            f"{row.dataset} {row.participant} {row.session} {row.modality} {row.split} {row.path} {facts}\n".encode()
        )
    return digest.hexdigest()


def _read_index(work: Path) -> dict[str, Any]:
    try:
        found = json.loads((work / INDEX_NAME).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _write_index(work: Path, index: dict[str, Any]) -> None:
    atomic_write_text(work / INDEX_NAME, json.dumps(index) + "\n")
