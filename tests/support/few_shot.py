"""Cases in the finetuning layout: small volumes, labels and participants."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

#: Shape and affine of every volume; not isotropic, not at the origin.
SHAPE = (8, 9, 6)
AFFINE = np.array([[1.5, 0, 0, -10], [0, 1, 0, 5], [0, 0, 2, 3], [0, 0, 0, 1.0]])


def write_case(folder: Path, participant: str, images: Sequence[str], label: float | NDArray | None = None) -> None:
    """Write images of noise and a label: a number, or a mask."""
    place = folder / "preprocessed" / participant / "ses_1"
    place.mkdir(parents=True)
    rng = np.random.default_rng(len(participant))
    for name in images:
        data = rng.random(SHAPE).astype(np.float32)
        nib.save(nib.Nifti1Image(data, AFFINE), place / f"{name}.nii.gz")
    if label is not None:
        write_label(folder / "labels" / participant, label)


def write_label(place: Path, label: float | NDArray) -> None:
    """Write ``label.txt`` or ``seg.nii.gz``."""
    place.mkdir(parents=True, exist_ok=True)
    if isinstance(label, np.ndarray):
        nib.save(nib.Nifti1Image(label.astype(np.uint8), AFFINE), place / "seg.nii.gz")
    else:
        (place / "label.txt").write_text(f"{label}\n")


def write_participants(folder: Path, rows: Mapping[str, Mapping[str, str]]) -> None:
    """Write ``participants.tsv``."""
    columns = list(next(iter(rows.values())))
    lines = ["\t".join(["participant_id", *columns])]
    lines += ["\t".join([name, *(row[c] for c in columns)]) for name, row in rows.items()]
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n")
