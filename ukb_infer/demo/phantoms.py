"""Labelled phantom projections, made in memory and packed for training.

A phantom's stations go straight to the projection; DICOM writer and reader are skipped, as they are lossless (tested).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.imaging.recipes import DEFAULT_RECIPE, RECIPES
from ukb_infer.targets import TARGETS

CHUNK = 50
#: Recipe of the demonstration's projections.
RECIPE = RECIPES[DEFAULT_RECIPE]


@dataclass(frozen=True)
class PhantomSet:
    """A set of phantoms.

    Attributes:
        seed: cohort seed.
        count: subjects, indices 1 to count.
        small_every: every n-th subject is scanned with the small matrix; 0 for none.
    """

    seed: int
    count: int
    small_every: int = 5


def _make_chunk(job: tuple[PhantomSet, int, Path]) -> int:
    phantoms, first, path = job
    from ukb_infer.phantom.population import sample_subject
    from ukb_infer.phantom.sampling import render
    from ukb_infer.phantom.true_values import truths

    last = min(first + CHUNK, phantoms.count + 1)
    images = np.empty((last - first, *RECIPE.shape), RECIPE.dtype)
    labels = np.empty((last - first, len(TARGETS)), np.float64)
    for k, index in enumerate(range(first, last)):
        subject = sample_subject(phantoms.seed, index)
        small = phantoms.small_every > 0 and index % phantoms.small_every == 0
        images[k] = RECIPE.project(render(subject, "small" if small else "full").stations)
        labels[k] = list(truths(subject).values())
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, images=images, labels=labels)
    partial.replace(path)
    return last - first


def make_phantom_set(
    phantoms: PhantomSet, folder: Path, *, workers: int = 2, progress: Callable[[int], None] | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Images and labels of a phantom set, kept in a folder; existing chunks are reused.

    Args:
        phantoms: what to make.
        folder: working folder, outside the repository.
        workers: processes.
        progress: called with the number of phantoms just finished.

    Returns:
        Memory-mapped images (N, channels, rows, cols) and labels (N, 72) float64 in registry units and order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed_images, packed_labels = folder / "images.npy", folder / "labels.npy"
    if not (packed_images.exists() and packed_labels.exists()):
        jobs = [(phantoms, first, folder / f"chunk{first:06d}.npz") for first in range(1, phantoms.count + 1, CHUNK)]
        todo = [job for job in jobs if not job[2].exists()]
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for done in pool.imap_unordered(_make_chunk, todo):
                if progress is not None:
                    progress(done)
        _pack([job[2] for job in jobs], phantoms.count, packed_images, packed_labels)
    return np.load(packed_images, mmap_mode="r"), np.load(packed_labels)


def _pack(chunks: list[Path], count: int, images_path: Path, labels_path: Path) -> None:
    partial = images_path.with_suffix(".partial")
    images = np.lib.format.open_memmap(partial, "w+", RECIPE.dtype, (count, *RECIPE.shape))
    labels, start = [], 0
    for chunk in chunks:
        with np.load(chunk) as data:
            images[start : start + len(data["labels"])] = data["images"]
            labels.append(data["labels"])
            start += len(data["labels"])
    images.flush()
    np.save(labels_path, np.concatenate(labels))
    partial.replace(images_path)
    for chunk in chunks:
        chunk.unlink()
