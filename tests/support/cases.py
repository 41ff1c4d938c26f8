"""A few made-up cases in the finetuning layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tests.support.head_files import write_session


def write_cases(root: Path, count: int = 12, names: tuple[str, ...] = ("flair", "swi")) -> Path:
    """Every second case has a lump; ``label.txt`` says which, ``seg.nii.gz`` where, ``participants.tsv`` an age."""
    rng, rows = np.random.default_rng(1), ["participant_id\tage\tsex"]
    for k in range(count):
        sub = f"sub_{k:02d}"
        session = root / f"preprocessed/{sub}/ses_1"
        write_session(session, names, lump=k % 2 == 0, seed=k)
        label = root / f"labels/{sub}/ses_1"
        label.mkdir(parents=True)
        shutil.move(session / "seg.nii.gz", label / "seg.nii.gz")
        (label / "label.txt").write_text(f"{int(k % 2 == 0)}\n")
        rows.append(f"{sub}\t{rng.uniform(40, 80):.1f}\t{'FM'[k % 2]}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    return root
