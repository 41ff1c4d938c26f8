"""Stations of a simple smooth body on any geometry, for tests of fusion and projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ukb_infer.protocol import IN_PLANE_SPACING_MM
from ukb_infer.records import Station


@dataclass(frozen=True)
class Plan:
    """Geometry of one station; offsets of the first voxel and of the top slice in mm."""

    rows: int = 46
    cols: int = 40
    slices: int = 24
    spacing_mm: float = IN_PLANE_SPACING_MM
    slice_spacing_mm: float = 3.0
    x_mm: float = 0.0
    y_mm: float = 0.0
    z_mm: float = 0.0


def body(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Water and fat signal at LPS positions in mm: a waisted trunk with a fat layer, and a bright spot."""
    radius = np.hypot((x - 45.0) / (30.0 + 6.0 * np.cos(z / 40.0)), (y - 30.0) / (22.0 + 3.0 * np.sin(z / 25.0)))
    inside = 1.0 / (1.0 + np.exp((radius - 1.0) / 0.05))
    lean = 1.0 / (1.0 + np.exp((radius - 0.72) / 0.06))
    spot = np.exp(-((x - 40.0) ** 2 + (y - 28.0) ** 2) / 120.0)
    water = inside * (60.0 + 320.0 * lean + 90.0 * spot * np.cos(z / 17.0))
    fat = inside * (480.0 * (1.0 - lean) + 25.0 * lean + 40.0 * spot)
    return water, fat


def make_station(number: int, plan: Plan, rng: np.random.Generator | None, dtype: type = np.uint16) -> Station:
    """One station of the body, with noise where a generator is given; slices first in memory."""
    z = plan.z_mm - np.arange(plan.slices)[:, None, None] * plan.slice_spacing_mm
    y = plan.y_mm + np.arange(plan.rows)[None, :, None] * plan.spacing_mm
    x = plan.x_mm + np.arange(plan.cols)[None, None, :] * plan.spacing_mm
    voxels = []
    for signal in body(x, y, z):
        values = signal * (1.0 + 0.1 * np.cos(number))
        if rng is not None:
            values = np.abs(values + rng.normal(0.0, 6.0, values.shape))
        voxels.append(values.astype(dtype).transpose(1, 2, 0))
    position = np.array([plan.x_mm, plan.y_mm, plan.z_mm], np.float32)
    spacing = np.array([np.float32(plan.spacing_mm), np.float32(plan.spacing_mm), plan.slice_spacing_mm], np.float64)
    return Station(number, voxels[0], voxels[1], position, spacing)


def make_stations(plans: Sequence[Plan], seed: int | None = 0, dtype: type = np.uint16) -> list[Station]:
    """Stations of the body at the plans given; noiseless without a seed."""
    rng = None if seed is None else np.random.default_rng(seed)
    return [make_station(k + 1, plan, rng, dtype) for k, plan in enumerate(plans)]


def stack_plans(plans: Sequence[Plan], overlaps_mm: Sequence[float]) -> list[Plan]:
    """Put stations under each other with the overlaps given (of the slices' full thickness)."""
    placed, z = [], 100.0
    for k, plan in enumerate(plans):
        placed.append(
            Plan(plan.rows, plan.cols, plan.slices, plan.spacing_mm, plan.slice_spacing_mm, plan.x_mm, plan.y_mm, z)
        )
        if k < len(overlaps_mm):
            z -= plan.slices * plan.slice_spacing_mm - overlaps_mm[k]
    return placed
