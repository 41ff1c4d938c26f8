"""``ukb-infer dataset``: index a folder, write the table, and count what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ukb_infer.errors import UsageError
from ukb_infer.imaging.datasets.index import index_dataset
from ukb_infer.imaging.datasets.table import IMAGES_NAME, ImageRow, write_images
from ukb_infer.storage import write_texts


@dataclass(frozen=True)
class DatasetCounts:
    """What one data set holds: ``modalities`` counts the usable images of each."""

    dataset: str
    participants: int
    validation: int
    images: int
    failed: int
    modalities: dict[str, int]


@dataclass(frozen=True)
class DatasetSummary:
    """The table that was written.

    Attributes:
        path: of ``images.csv``.
        datasets: counts by data set.
        statuses: images by status.
        reasons: images by code.
    """

    path: Path
    datasets: tuple[DatasetCounts, ...]
    statuses: dict[str, int]
    reasons: dict[str, int]

    @property
    def exit_code(self) -> int:
        """0, or 3 where an image failed."""
        return 3 if self.statuses["failed"] else 0


def make_dataset(
    folder: Path,
    out: Path,
    *,
    validation: float = 0.0,
    seed: int = 0,
    workers: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
) -> DatasetSummary:
    """Index a folder of images and write ``OUT/images.csv``.

    Args:
        folder: see :func:`~ukb_infer.imaging.datasets.index.index_dataset`, as ``validation``, ``seed``, ``workers``
            and ``progress``.
        out: folder of the table; made if missing.
        validation: share of participants set aside.
        seed: of the division.
        workers: processes; 0 reads in this one.
        overwrite: replace an existing table.
        progress: called with images done, in total, and failed.

    Raises:
        UsageError: as ``index_dataset``, or the table exists.
        RunError: the folder cannot be written.
    """
    path = out / IMAGES_NAME
    if path.exists() and not overwrite:
        raise UsageError(f"`out` {out} already contains {IMAGES_NAME}; choose another folder or use `overwrite`")
    if out.exists() and not out.is_dir():
        raise UsageError(f"`out` {out} is a file, expected a folder")
    is_new = not out.exists()
    if folder.is_dir():
        write_texts(out, {})  # a folder that cannot be written is better known before hours of reading
    try:
        rows = index_dataset(folder, validation=validation, seed=seed, workers=workers, progress=progress)
    except UsageError:
        if is_new and out.is_dir():
            out.rmdir()
        raise
    write_images(rows, path)
    statuses = Counter(row.status for row in rows)
    reasons = Counter(code.value for row in rows for code in row.codes)
    return DatasetSummary(
        path,
        tuple(_count(name, [r for r in rows if r.dataset == name]) for name in sorted({r.dataset for r in rows})),
        {name: statuses[name] for name in ("ok", "flagged", "failed")},
        dict(reasons.most_common()),
    )


def _count(dataset: str, rows: Sequence[ImageRow]) -> DatasetCounts:
    usable = [row for row in rows if row.status != "failed"]
    return DatasetCounts(
        dataset=dataset,
        participants=len({row.participant for row in rows}),
        validation=len({row.participant for row in rows if row.split == "validation"}),
        images=len(rows),
        failed=len(rows) - len(usable),
        modalities=dict(sorted(Counter(row.modality for row in usable).items())),
    )
