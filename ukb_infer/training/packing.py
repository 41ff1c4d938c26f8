"""Cached projections of the labelled scans in one file to map into memory (floor 4)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import RunError
from ukb_infer.geometry import PROJECTION_SHAPE
from ukb_infer.labels import Labels
from ukb_infer.records import ScanKey
from ukb_infer.storage import atomic_path, atomic_write_text
from ukb_infer.training.dataset import LabelledProjections

PACK_NAME, INDEX_NAME = "projections.npy", "projections.json"


@dataclass(frozen=True)
class Packed:
    """Training data with its keys.

    Attributes:
        keys: (N,) of the scans, sorted.
        data: projections (memory map), labels, participants.
        images_path: the mapped file, so that other processes map it too.
        without_label: projections that have no label and are left out.
    """

    keys: tuple[ScanKey, ...]
    data: LabelledProjections
    images_path: Path
    without_label: int


def pack(folder: Path, labels: Labels, work: Path, say: Callable[[str], None] = lambda _: None) -> Packed:
    """Line up projections and labels, and put the projections into one file.

    Args:
        folder: written by ``project``: ``<scan>.npy``, uint8 (3, 256, 256).
        labels: of the targets to learn.
        work: working folder; a pack of the same files made earlier is used again.
        say: receives a line now and then.

    Raises:
        RunError: no projection, none with a label, or a file that is no projection.
    """
    if not folder.is_dir():
        raise RunError(
            f"--projections {folder}: no such folder; make one with `ukb-infer project INPUT --out {folder}`"
        )
    paths = sorted(folder.glob("*.npy"))
    found = sorted((ScanKey.from_name(p.stem) for p in paths), key=lambda k: k.sort_key)
    values = labels.matrix(found)
    labelled: NDArray[np.bool_] = np.asarray(np.isfinite(values).any(axis=1))
    keys = [key for key, has in zip(found, labelled, strict=True) if has]
    if not keys:
        raise RunError(
            f"--projections {folder}: none of its {len(paths)} projections has a label; check that the table's "
            "scan, eid and instance are those of the files' names"
        )
    work.mkdir(parents=True, exist_ok=True)
    path = work / PACK_NAME
    files = [folder / f"{key.scan}.npy" for key in keys]
    stamp = _stamp(files)
    if _stamp_of(work) != stamp or not path.is_file():
        say(f"packing {len(files)} projections")
        _write_pack(files, path)
        atomic_write_text(work / INDEX_NAME, json.dumps({"stamp": stamp, "scans": [k.scan for k in keys]}) + "\n")
    data = LabelledProjections(
        np.load(path, mmap_mode="r"),
        values[labelled],
        np.array([key.eid or key.scan for key in keys]),
        labels.targets,
    )
    return Packed(tuple(keys), data, path, int((~labelled).sum()))


def _stamp(files: Sequence[Path]) -> str:
    """Fingerprint of a list of files: names, sizes, times of change."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _stamp_of(work: Path) -> str | None:
    try:
        return str(json.loads((work / INDEX_NAME).read_text(encoding="utf-8"))["stamp"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_pack(files: Sequence[Path], path: Path) -> None:
    try:
        with atomic_path(path) as partial:
            images = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(files), *PROJECTION_SHAPE))
            for k, file in enumerate(files):
                images[k] = _read_projection(file)
            images.flush()
            del images
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); free space or choose --work") from error


def _read_projection(file: Path) -> NDArray[np.uint8]:
    try:
        image = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{file}: cannot be read as a projection ({error}); project that scan again") from error
    if image.dtype != np.uint8 or image.shape != PROJECTION_SHAPE:
        raise RunError(
            f"{file}: holds {image.dtype} {image.shape}, expected uint8 {PROJECTION_SHAPE}; project that scan again"
        )
    return np.asarray(image)
