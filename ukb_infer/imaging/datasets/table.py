"""The table of images: one row per file, its faults as codes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from ukb_infer.errors import UsageError
from ukb_infer.reasons import Reason
from ukb_infer.storage import atomic_write_text

IMAGES_NAME = "images.csv"
Status = Literal["ok", "flagged", "failed"]
Split = Literal["train", "validation", ""]


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One image of a data set.

    Attributes:
        dataset: folder of the layout, or name of the indexed folder.
        participant: as the folders or names say.
        session: visit; "" where nothing names one.
        modality: of :data:`~ukb_infer.imaging.datasets.names.MODALITIES`, ``projection``, or the file's own name.
        path: absolute.
        status: ok, flagged (used) or failed (not used).
        codes: reasons.
        split: train or validation, the same for all images of a participant; "" for failed ones.
    """

    dataset: str
    participant: str
    session: str
    modality: str
    path: Path
    status: Status
    codes: tuple[Reason, ...] = ()
    split: Split = ""


COLUMNS = ("dataset", "participant", "session", "modality", "path", "status", "codes", "split")


def write_images(rows: Sequence[ImageRow], path: Path) -> None:
    """Write the table, whole or not at all.

    Args:
        rows: of the images.
        path: of the CSV; its folder is made if missing.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        codes = ";".join(code.value for code in row.codes)
        writer.writerow(
            [row.dataset, row.participant, row.session, row.modality, row.path, row.status, codes, row.split]
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, buffer.getvalue())


def read_images(path: Path) -> list[ImageRow]:
    """Read the table of images, or index a folder on the fly if it has none.

    Args:
        path: of ``images.csv``, of the folder that holds it, or of a folder of images.

    Raises:
        UsageError: missing, not such a table, or a folder without images.
    """
    if path.is_dir():
        if not (path / IMAGES_NAME).is_file():
            from ukb_infer.imaging.datasets.index import index_dataset

            try:
                return index_dataset(path)
            except UsageError as error:
                error.call_options({"folder": "`data`"})
                raise
        path = path / IMAGES_NAME
    if not path.is_file():
        expected = "a folder of images, or the table that `ukb-infer dataset` makes"
        raise UsageError(field="data", got=f"{path}, which does not exist", expected=expected)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                expected = f"{', '.join(COLUMNS)}; make it with `ukb-infer dataset`"
                raise UsageError(field="data", got=f"{path} without {', '.join(sorted(missing))}", expected=expected)
            return [_row(line, number, path) for number, line in enumerate(reader, start=2)]
    except (OSError, UnicodeError, csv.Error) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} cannot be read ({words}); make it with `ukb-infer dataset`", field="data") from None


def _row(line: dict[str, str], number: int, path: Path) -> ImageRow:
    try:
        if line["status"] not in ("ok", "flagged", "failed") or line["split"] not in ("train", "validation", ""):
            raise ValueError(f"status {line['status']!r}, split {line['split']!r}")
        return ImageRow(
            dataset=line["dataset"], participant=line["participant"], session=line["session"],
            modality=line["modality"], path=Path(line["path"]), status=cast(Status, line["status"]),
            codes=tuple(Reason(code) for code in line["codes"].split(";") if code), split=cast(Split, line["split"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"row {number} of {path} cannot be read ({error}); make it again", field="data") from None
