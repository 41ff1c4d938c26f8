"""Stations whose measures are known: an elliptic cylinder of water in a shell of fat, in air with Rayleigh noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ukb_infer.records import Acquired, Station

ROWS, COLS, SLICES, SPACING, STEP = 80, 112, 40, 4.5, 4.0
WATER, FAT, NOISE = 400.0, 600.0, 10.0
OVERLAP = 9


def grid(slices: int = SLICES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z (slices), y (rows), x (cols) from the middle of a station, mm, for broadcasting to (slices, rows, cols)."""
    z, y, x = ((np.arange(n) - (n - 1) / 2) * s for n, s in ((slices, STEP), (ROWS, SPACING), (COLS, SPACING)))
    return z[:, None, None], y[None, :, None], x[None, None, :]


def cylinder(x_mm: float = 0.0, half_mm: tuple[float, float] = (140.0, 95.0), shell_mm: float = 20.0) -> np.ndarray:
    """Water and fat of the body, (2, slices, rows, cols) float64 without noise."""
    _, y, x = grid()
    outer = np.hypot((x - x_mm) / half_mm[0], y / half_mm[1]) < 1
    inner = np.hypot((x - x_mm) / (half_mm[0] - shell_mm), y / (half_mm[1] - shell_mm)) < 1
    shape = np.broadcast_shapes(outer.shape, (SLICES, 1, 1))
    return np.stack([np.broadcast_to(WATER * inner, shape), np.broadcast_to(FAT * (outer & ~inner), shape)]).copy()


def station(signal: np.ndarray, number: int = 1, noise: float = NOISE, seed: int = 0, **header: Any) -> Station:
    """A station of a signal: the magnitude of signal and complex noise.

    Args:
        signal: (2, slices, rows, cols).
        number: from 1; decides where it lies.
        noise: standard deviation of the real and of the imaginary part.
        seed: of the noise.
        **header: of ``Acquired``.
    """
    rng = np.random.default_rng([seed, number])
    real, imaginary = rng.normal(0.0, noise, (2, *signal.shape)) if noise else np.zeros((2, *signal.shape))
    values = np.rint(np.hypot(signal + real, imaginary)).astype(np.uint16)
    z = -(number - 1) * (SLICES - OVERLAP) * STEP
    position = np.array([-(COLS - 1) / 2 * SPACING, -(ROWS - 1) / 2 * SPACING, z], np.float32)
    spacing = np.array([SPACING, SPACING, STEP])
    water, fat = values.transpose(0, 2, 3, 1)
    return Station(number, water, fat, position, spacing, acquired=Acquired(**header))


def turned(one: Station, **changes: Any) -> Station:
    """The same with other voxels or facts."""
    return replace(one, **changes)
