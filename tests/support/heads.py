"""Made-up volumes of heads: a noisy ball, with a bright lump in some of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ukb_infer.training.dataset import LabelledImages

#: Box of the tests.
SIZE = (24, 24, 16)


def make_head(
    rng: np.random.Generator, *, lump: bool, channels: int = 2
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(C, X, Y, Z) volumes and the (X, Y, Z) mask of the lump."""
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SIZE], indexing="ij"))
    head = (place**2).sum(axis=0) < 0.9
    centre = rng.uniform(-0.4, 0.4, 3)
    mask = (((place - centre[:, None, None, None]) ** 2).sum(axis=0) < 0.08) & lump
    values = rng.normal(0.0, 0.3, (channels, *SIZE)) + 3.0 * mask
    return (values * head).astype(np.float32), mask.astype(np.uint8)


def make_volumes(count: int = 12, *, channels: int = 2) -> LabelledImages:
    """Every second head has a lump, which is its label."""
    rng = np.random.default_rng(0)
    images, masks = zip(*(make_head(rng, lump=k % 2 == 0, channels=channels) for k in range(count)), strict=True)
    labels = np.array([[float(k % 2 == 0)] for k in range(count)])
    people = np.array([f"p{k}" for k in range(count)])
    return LabelledImages(np.stack(images), labels, people, ("lump",), np.stack(masks))
