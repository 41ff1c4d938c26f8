"""Small heads to pretrain on: an ellipsoid with a ventricle, in two contrasts."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from ukb_infer.imaging.datasets import ImageRow
from ukb_infer.imaging.datasets.table import Split
from ukb_infer.training.pretrain.config import PretrainConfig, make_pretrain_config
from ukb_infer.training.pretrain.pool import Pool

#: Values of outside, ventricle, brain, shell.
CONTRASTS = {"t1": (0, 30, 100, 60), "t2": (0, 120, 50, 80)}


def make_head(seed: int, contrast: str, side: int = 24) -> np.ndarray:
    """(side,) * 3 float32."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij")
    radius = np.sqrt(sum((axis / half) ** 2 for axis, half in zip(axes, (0.7, 0.9, 0.6), strict=True)))
    tissue = np.where(radius < 0.25 + 0.2 * rng.random(), 1, np.where(radius < 0.8, 2, np.where(radius < 1, 3, 0)))
    noise = 4 * np.random.default_rng([seed, len(contrast)]).normal(size=tissue.shape) * (tissue > 0)
    return np.asarray(np.array(CONTRASTS[contrast], float)[tissue] + noise, np.float32)


def write_heads(folder: Path, count: int, *, broken: int = 0) -> Path:
    """Heads of ``count`` participants in BIDS-like folders, with ``broken`` files more."""
    lines = ["participant_id\tage"]
    for person in range(count):
        session = folder / f"sub-0{person:03d}" / "ses-1"
        session.mkdir(parents=True)
        lines.append(f"sub-0{person:03d}\t{40 + person}")
        for contrast in CONTRASTS:
            image = nib.Nifti1Image(make_head(person, contrast), np.diag([7.0, 7.0, 7.0, 1.0]))
            nib.save(image, session / f"{contrast}.nii.gz")
        if person < broken:
            (session / "flair.nii.gz").write_bytes(b"broken")
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n")
    return folder


def memory_pool(people: int = 12, side: int = 16) -> Pool:
    """A pool in memory: two contrasts of every participant, z-scores."""
    images, rows = [], []
    for person in range(people):
        split: Split = "train" if person < people - 3 else "validation"
        for contrast in CONTRASTS:
            head = make_head(person, contrast, side)
            inside = head != 0
            images.append(np.where(inside, (head - head[inside].mean()) / head[inside].std(), 0.0)[None])
            rows.append(
                ImageRow(
                    dataset="made", participant=f"sub-0{person:03d}", session="ses-1", modality=contrast,
                    path=Path(f"/{person}/{contrast}"), status="ok", split=split,
                )
            )  # fmt: skip
    return Pool(np.array(images, np.float16), np.arange(len(rows)), tuple(rows), tuple(rows))


def short_config(objective: str = "mae", steps: int = 12, **changes: object) -> PretrainConfig:
    """A short pretraining in a small box."""
    settings = {"batch_size": 4, "size": (16, 16, 16), "spacing_mm": 10.0} | changes
    return make_pretrain_config(3, objective, steps=steps, **settings)  # type: ignore[arg-type]
