"""Cases to learn a task from: the images of a session, its label, and what is known of the participant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ukb_infer.errors import UsageError
from ukb_infer.imaging.datasets.index import find_images
from ukb_infer.imaging.datasets.participants import PARTICIPANTS_NAME, find_row, read_participants
from ukb_infer.labels.ids import plain_eid

LABELS_FOLDER, IMAGES_FOLDER = "labels", "preprocessed"
#: Files of a case's label, the outline first.
LABEL_NAMES = ("seg.nii.gz", "seg.nii", "label.txt")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One session of one participant.

    Attributes:
        participant: as the folders say.
        session: visit; "" where nothing names one.
        images: path by modality, of those that the task asks for.
        label: ``seg.nii.gz`` or ``label.txt``; None without one.
        value: of ``label.txt`` or of the table of labels; None without one.
        groups: columns of ``participants.tsv``, as text.
    """

    participant: str
    session: str
    images: Mapping[str, Path]
    label: Path | None = None
    value: float | None = None
    groups: Mapping[str, str] = field(default_factory=dict)


def read_cases(
    folder: Path, inputs: Sequence[Sequence[str]], *, labels: Path | None = None, column: str = ""
) -> list[Case]:
    """List the cases of a folder; no voxel is read.

    Args:
        folder: of the finetuning layout (``preprocessed/<sub>/ses_1``, ``labels/<sub>/[ses_1/]``), of the FOMO60K or
            BIDS layouts, of brain zips, or of projections.
        inputs: the modalities of every channel, e.g. ``(("flair",), ("t2s", "swi"))``; sessions with none are left
            out, and of several files of a modality the first is taken.
        labels: table with a value per participant or scan (CSV, TSV, Parquet, Stata); by default
            ``participants.tsv``.
        column: of the table; "" without values from a table.

    Returns:
        Cases by participant and session, with or without labels.

    Raises:
        UsageError: no folder, no cases, an unreadable table or a missing column.
    """
    if not folder.is_dir():
        raise UsageError(field="data", got=str(folder), expected="a folder of cases")
    wanted = {modality for channel in inputs for modality in channel}
    sessions: dict[tuple[str, str, str], dict[str, Path]] = {}
    for path, name in find_images(folder):
        if name.modality in wanted:
            sessions.setdefault((name.dataset, name.participant, name.session), {}).setdefault(name.modality, path)
    if not sessions:
        channels = ", ".join(" or ".join(channel) for channel in inputs)
        raise UsageError(field="data", got=f"{folder} without such images", expected=f"sessions with {channels}")
    known, values = _tables(folder, {key[0] for key in sessions}), _values(folder, labels, column)
    cases = []
    for (dataset, participant, session), images in sessions.items():
        label = _find_label(folder, participant, session)
        value = None if values else _read_label(label)  # a table that was asked for goes first
        if value is None and column:
            value = _value_of(values or known.get(dataset, {}), participant, column)
        groups = dict(find_row(known.get(dataset, {}), participant) or {})
        cases.append(
            Case(participant=participant, session=session, images=images, label=label, value=value, groups=groups)
        )
    return cases


def _tables(folder: Path, datasets: set[str]) -> dict[str, dict[str, dict[str, str]]]:
    """Rows of ``participants.tsv`` by data set: of its own folder, else of the whole."""
    found = {}
    for dataset in datasets:
        for place in (folder / dataset, folder, folder.parent):
            if (place / PARTICIPANTS_NAME).is_file():
                found[dataset] = read_participants(place / PARTICIPANTS_NAME)
                break
    return found


def _values(folder: Path, labels: Path | None, column: str) -> dict[str, dict[str, str]]:
    if labels is None or not column:
        return {}
    table = read_participants(labels, "labels")
    columns = list(next(iter(table.values()), {}))
    if column not in columns:
        raise UsageError(f"{labels} has no column {column!r} (columns: {', '.join(columns[:12])})", field="labels")
    return table


def _value_of(table: Mapping[str, Mapping[str, str]], participant: str, column: str) -> float | None:
    row = find_row(table, participant)
    if row is None and participant.isdigit():
        row = {plain_eid(name): row for name, row in table.items() if name.isdigit()}.get(plain_eid(participant))
    text = (row or {}).get(column, "")
    value = _number(text)
    if value is None and any(sign.isdigit() for sign in text) and "," in text:
        raise UsageError(
            f"column {column} of the participants holds {text!r}, expected a number with a decimal point",
            field="labels",
        )
    return value


def _find_label(folder: Path, participant: str, session: str) -> Path | None:
    """The label beside ``preprocessed``, with or without a folder of the session."""
    for root in (folder, folder.parent) if folder.name == IMAGES_FOLDER else (folder,):
        above = root / LABELS_FOLDER / participant
        for place in (above / session, above):
            for name in LABEL_NAMES:
                if (place / name).is_file():
                    return place / name
    return None


def _read_label(path: Path | None) -> float | None:
    """The number in a ``label.txt``, or in the one beside an outline.

    Raises:
        UsageError: not a number.
    """
    if path is None:
        return None
    text = path.with_name(LABEL_NAMES[-1])
    if not text.is_file():
        return None
    said = text.read_text(encoding="utf-8-sig", errors="replace").strip()
    value = _number(said)
    if value is None:
        raise UsageError(f"{text} holds {said[:40]!r}, expected one number", field="data")
    return value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
