"""Cached projections of the labelled scans in one memory-mapped file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import RunError, ScanError
from ukb_infer.imaging.readers.projection_file import load_projection
from ukb_infer.imaging.recipe import Recipe, form_of
from ukb_infer.imaging.recipes import RECIPES, find_recipe, recipe_forms
from ukb_infer.labels import Labels
from ukb_infer.records import ScanKey
from ukb_infer.runs import read_scans
from ukb_infer.runs.files import SCANS
from ukb_infer.storage import atomic_path, atomic_write_text
from ukb_infer.training.dataset import LabelledImages

PACK_NAME, INDEX_NAME = "projections.npy", "projections.json"


@dataclass(frozen=True)
class Packed:
    """Training data with its keys.

    Attributes:
        keys: (N,) of the scans, sorted.
        data: projections (memory map), labels, participants.
        recipe: of all projections.
        images_path: the mapped file, so that other processes map it too.
        without_label: projections without label, which are left out.
    """

    keys: tuple[ScanKey, ...]
    data: LabelledImages
    recipe: Recipe
    images_path: Path
    without_label: int


def pack(folder: Path, labels: Labels, work: Path, say: Callable[[str], None] = lambda _: None) -> Packed:
    """Match projections and labels, and pack the projections into one file.

    Args:
        folder: written by ``project``: ``<scan>.npy``, all of one recipe.
        labels: of the targets to learn.
        work: working folder; an existing pack of the same files is reused.
        say: receives messages.

    Raises:
        RunError: no projection, none with a label, a file that is not a projection, or projections of several recipes.
    """
    found, values = line_up(folder, labels, say)
    labelled: NDArray[np.bool_] = np.asarray(np.isfinite(values).any(axis=1))
    keys = [key for key, has in zip(found, labelled, strict=True) if has]
    work.mkdir(parents=True, exist_ok=True)
    path = work / PACK_NAME
    files = [folder / f"{key.scan}.npy" for key in keys]
    stamp = _stamp(files)
    if _stamp_of(work) != stamp or not path.is_file():
        say(f"packing {len(files)} projections")
        _write_pack(files, path)
        atomic_write_text(work / INDEX_NAME, json.dumps({"stamp": stamp, "scans": [k.scan for k in keys]}) + "\n")
    images, recipe = _read_pack(path, len(keys))
    data = LabelledImages(images, values[labelled], np.array([key.eid or key.scan for key in keys]), labels.targets)
    return Packed(tuple(keys), data, recipe, path, int((~labelled).sum()))


def line_up(folder: Path, labels: Labels, say: Callable[[str], None]) -> tuple[list[ScanKey], NDArray[np.float64]]:
    """Scans of a folder of projections and their labels, (N, T), NaN where missing.

    Args:
        folder: written by ``project``; scans that its table calls excluded or failed are skipped.
        labels: of the targets to learn.
        say: receives a message about scans or labels that do not match.

    Raises:
        RunError: no projections, or none with a label.
    """
    if not folder.is_dir():
        raise RunError(
            f"`projections` {folder}: no such folder; make one with `ukb-infer project INPUT --out {folder}`"
        )
    excluded = excluded_scans(folder)
    names = {path.stem for path in folder.glob("*.npy")}
    if left_out := len(names & excluded):
        say(f"{left_out} projections are left out because their {SCANS} says excluded or failed")
    found = sorted(map(ScanKey.from_name, names - excluded), key=lambda k: k.sort_key)
    if not found:
        raise RunError(
            f"`projections` {folder} has no projections; make some with `ukb-infer project INPUT --out FOLDER`"
        )
    values = labels.matrix(found)
    if not np.isfinite(values).any():
        raise RunError(
            f"`projections` {folder}: none of its {len(found)} projections has a label; compare the table's "
            "scan, eid and instance with the file names"
        )
    listed, matching = labels.count_matches(found)
    if matching < listed:
        say(f"{matching} of {listed} labelled participants (or scans) have a projection, {listed - matching} have none")
    return found, values


def excluded_scans(folder: Path) -> set[str]:
    """Scans of a folder of projections that ``project`` excluded afterwards, or failed (``--require-quality``)."""
    rows = read_scans(folder) if (folder / SCANS).is_file() else []
    return {row.key.scan for row in rows if row.result.status in ("excluded", "failed")}


def _stamp(files: Sequence[Path]) -> str:
    """Fingerprint of a list of files: names, sizes, modification times."""
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
    first = _read_projection(files[0])
    try:
        with atomic_path(path) as partial:
            images = np.lib.format.open_memmap(partial, "w+", first.dtype, (len(files), *first.shape))
            for k, file in enumerate(files):
                image = _read_projection(file)
                if (found := form_of(image.dtype, image.shape)) != form_of(first.dtype, first.shape):
                    raise RunError(
                        f"{file}: is {found}, but {files[0].name} is {form_of(first.dtype, first.shape)}; train on "
                        f"projections of one recipe ({recipe_forms()}), each in its own folder"
                    )
                images[k] = image
            images.flush()
            del images
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another `work`"
        ) from error


def _read_pack(path: Path, count: int) -> tuple[NDArray[Any], Recipe]:
    """Map a pack; a damaged one must not be taken for scans.

    Raises:
        RunError: it is not the pack that was written.
    """
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path}: cannot be read ({error}); remove it, then run the same command again") from error
    recipe = find_recipe(images.dtype, images.shape[1:])
    if recipe is None or len(images) != count:
        found, expected = form_of(images.dtype, images.shape), f"{count} projections of a recipe ({recipe_forms()})"
        raise RunError(
            f"{path}: holds {found}, expected {expected}; it was damaged: remove it, then run the same command again"
        )
    return images, recipe


def _read_projection(file: Path) -> NDArray[Any]:
    try:
        return load_projection(file, RECIPES.values())
    except ScanError as error:
        raise RunError(f"{file}: {error.message}") from error
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
