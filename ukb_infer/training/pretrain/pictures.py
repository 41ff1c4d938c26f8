"""Pictures of what a network reconstructs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ukb_infer.storage import atomic_path
from ukb_infer.training.objectives.unlabelled import Views

#: Images in a picture, and how many times its pixels are enlarged.
SHOWN, ENLARGED = 6, 3


def save_picture(path: Path, views: Views, reconstruction: Tensor) -> None:
    """Write a grey PNG: a column per image; from above its input, its reconstruction, the original.

    Args:
        path: of the PNG; its folder is made if missing.
        views: of a batch; the middle slice of the first channel of the first view is shown.
        reconstruction: (V, N, C, *size).
    """
    from PIL import Image

    original = _slices(views.targets)
    low, high = np.percentile(original, [0.5, 99.5])
    lines = [np.concatenate(list(_slices(part)), axis=1) for part in (views.inputs, reconstruction)]
    whole = np.concatenate([*lines, np.concatenate(list(original), axis=1)], axis=0)
    grey = (255 * np.clip((whole - low) / max(1e-6, high - low), 0, 1)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        Image.fromarray(grey.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)).save(partial, format="PNG")


def _slices(images: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(V, N, C, *size) -> (n, rows, cols): front of the head up, as radiologists see it from below."""
    first = images[0, :SHOWN, 0].detach().to(torch.float32).cpu().numpy()
    if first.ndim == 4:
        return np.asarray(first[:, ::-1, ::-1, first.shape[3] // 2].transpose(0, 2, 1))
    return np.asarray(first)
