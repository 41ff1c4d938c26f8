"""Find the images of a data set, try each, and divide them by participant."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from ukb_infer.errors import ScanError, UsageError
from ukb_infer.execution.workers import Failure, run_in_workers
from ukb_infer.imaging.datasets.names import PROJECTION, SKIPPED_FOLDERS, ImageName, name_of
from ukb_infer.imaging.datasets.participants import PARTICIPANTS_NAME, find_row, read_participants
from ukb_infer.imaging.datasets.table import ImageRow
from ukb_infer.reasons import Kind, Reason

#: One image may take so long, s.
_TIME_LIMIT_S = 300.0


def index_dataset(
    folder: Path,
    *,
    validation: float = 0.0,
    seed: int = 0,
    workers: int = 0,
    progress: Callable[[int, int, int], None] | None = None,
) -> list[ImageRow]:
    """Find and read every image below a folder.

    Args:
        folder: of the FOMO60K layouts, BIDS, UK Biobank brain zips or projections; see ``docs/foundation.md``.
        validation: share of participants set aside, 0 to below 1.
        seed: of the division; a participant's side depends on it and the participant's name alone.
        workers: processes; 0 reads in this one.
        progress: called with images done, in total, and failed.

    Returns:
        One row per image, by data set, participant, session, modality and path.

    Raises:
        UsageError: no folder, no images, or a share out of range.
    """
    if not 0 <= validation < 1:
        raise UsageError(field="validation", got=validation, expected="0 to below 1, e.g. 0.1")
    if not folder.is_dir():
        raise UsageError(field="folder", got=str(folder), expected="a folder of images")
    named = find_images(folder)
    if not named:
        expected = ".nii, .nii.gz, zips of field 20252 or 20253, or .npy projections below it"
        raise UsageError(field="folder", got=f"{folder} without images", expected=expected)
    rows = [_unread(name, path) for path, name in named]
    report, failures = progress or (lambda *_: None), 0
    report(0, len(rows), 0)
    tried = run_in_workers(check_image, [row.path for row in rows], workers=workers, timeout_s=_TIME_LIMIT_S)
    for done, (index, found) in enumerate(tried, start=1):
        rows[index] = _with_codes(rows[index], _codes_of_failure(found) if isinstance(found, Failure) else found)
        failures += rows[index].status == "failed"
        report(done, len(rows), failures)
    return divide(_check_participants(rows, folder), validation, seed)


def find_images(folder: Path) -> list[tuple[Path, ImageName]]:
    """Absolute paths of all images below a folder, and what they say, in a fixed order."""
    root, found = folder.resolve(), []
    for where, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name.lower() not in SKIPPED_FOLDERS and not name.startswith(".")]
        for file in files:
            path = Path(where, file)
            name = name_of(path.relative_to(root), root.name)
            if name is not None:
                found.append((path, name))
    return sorted(found, key=lambda f: (f[1].dataset, f[1].participant, f[1].session, f[1].modality, str(f[0])))


def check_image(path: Path) -> tuple[Reason, ...]:
    """Codes of one image, read to its last byte."""
    try:
        if path.suffix.lower() == ".npy":
            _check_projection(path)
            return ()
        from ukb_infer.imaging.volumes.read import read_volume

        return tuple(dict.fromkeys(finding.reason for finding in read_volume(path).findings))
    except ScanError as error:
        return (error.reason,)


def _check_projection(path: Path) -> None:
    from ukb_infer.imaging.readers.projection_file import load_projection
    from ukb_infer.imaging.recipes import RECIPES

    image = load_projection(path, tuple(RECIPES.values()))
    if np.all(image == image.flat[0]):
        raise ScanError(Reason.EMPTY_IMAGE, "every pixel of the projection is the same; project the scan again")


def _codes_of_failure(failure: Failure) -> tuple[Reason, ...]:
    kinds = {"died": Reason.WORKER_DIED, "timed_out": Reason.TIMED_OUT}
    return (kinds.get(failure.kind, Reason.INTERNAL_ERROR),)


def _unread(name: ImageName, path: Path) -> ImageRow:
    return ImageRow(
        dataset=name.dataset, participant=name.participant, session=name.session, modality=name.modality, path=path,
        status="ok",
    )  # fmt: skip


def _with_codes(row: ImageRow, codes: Iterable[Reason]) -> ImageRow:
    """A row with further codes, and the status that follows."""
    every = tuple(dict.fromkeys((*row.codes, *codes)))
    failed = any(code.kind is Kind.FAILURE for code in every)
    return replace(row, codes=every, status="failed" if failed else "flagged" if every else "ok")


def _check_participants(rows: Sequence[ImageRow], folder: Path) -> list[ImageRow]:
    """Flag volumes whose participant no ``participants.tsv`` lists; zips and projections come without one."""

    @cache
    def table(path: Path) -> dict[str, dict[str, str]]:
        try:
            return read_participants(path) if path.is_file() else {}
        except UsageError:
            return {}

    def is_listed(row: ImageRow) -> bool:
        places = (folder / row.dataset, folder)
        return any(find_row(table(place / PARTICIPANTS_NAME), row.participant) is not None for place in places)

    return [
        row
        if row.modality == PROJECTION or row.path.suffix.lower() == ".zip" or is_listed(row)
        else _with_codes(row, (Reason.PARTICIPANTS_MISSING,))
        for row in rows
    ]


def divide(rows: Sequence[ImageRow], validation: float, seed: int) -> list[ImageRow]:
    """Give every usable row its side, by participant.

    Args:
        rows: of any data sets; equal names are taken for one participant.
        validation: share of the participants; above 0 at least one of two is set aside.
        seed: of the division.
    """
    places = {row.participant: _place(row.participant, seed) for row in rows if row.status != "failed"}
    aside = {name for name, place in places.items() if place < validation}
    if validation > 0 and not aside and len(places) > 1:
        aside = {min(places, key=places.__getitem__)}
    return [
        replace(row, split="" if row.status == "failed" else "validation" if row.participant in aside else "train")
        for row in rows
    ]


def _place(participant: str, seed: int) -> float:
    """A number in [0, 1) that depends on participant and seed alone."""
    digest = hashlib.sha256(f"{seed}:{participant}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
