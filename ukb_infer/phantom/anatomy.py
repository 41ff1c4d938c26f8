"""The parametric body: from latent variables to shapes at any height.

A body is a stack of axial levels; at each level it is a list of superellipses painted over each other. Heights and
breadths are round anthropometric proportions (fractions of standing height, millimetres at 1.75 m).

Frame: x grows to the subject's left, y to the back, z upwards from the floor, all in mm (DICOM's LPS up to an offset).
A label holds a region and a tissue: ``label = 16 * region + tissue``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.compiling import compiled
from ukb_infer.phantom.population import Subject


class Tissue(IntEnum):
    """Low four bits of a label."""

    AIR, SUBCUTANEOUS_FAT, MUSCLE, ANTERIOR_THIGH_MUSCLE, POSTERIOR_THIGH_MUSCLE, VISCERAL_FAT = range(6)
    LIVER, KIDNEY, LUNG, HEART, MARROW, CORTICAL_BONE, TABLE, BOWEL, SPLEEN, BLADDER = range(6, 16)


class Region(IntEnum):
    """High bits of a label."""

    NONE, TRUNK, ARM_LEFT, ARM_RIGHT, LEG_LEFT, LEG_RIGHT = range(6)


N_LABELS = 16 * len(Region)
Values = NDArray[np.float64] | float

#: Landmarks as fractions of standing height.
KNEE, CROTCH, HIP_JOINT, ILIAC_CREST, SHOULDER, CHIN = 0.285, 0.47, 0.52, 0.60, 0.818, 0.87
#: End of the neck; the head above is outside the field of a well-placed scan and not counted in the true values.
NECK_TOP = 0.90
#: Body height for which all lengths below are given, mm.
REFERENCE_HEIGHT_MM = 1750.0
#: Back of the body above the table, mm from the front edge of a 174-row station.
BACK_Y_MM = 336.0
#: Columns of a shape: centre x, y; half axes a, b; power; label; region it may paint on (0 any); x limits; end in y;
#: mixture.
SHAPE_COLUMNS = 11


@dataclass(frozen=True)
class Level:
    """Keypoints of one outline along the height: fraction of height, half width and half depth in mm."""

    height: tuple[float, ...]
    half_width_mm: tuple[float, ...]
    half_depth_mm: tuple[float, ...]


TRUNK = Level(
    (0.46, 0.485, 0.52, 0.55, 0.60, 0.645, 0.70, 0.75, 0.785, 0.805, 0.820, 0.832, 0.845, 0.87),
    (162.0, 168.0, 164.0, 156.0, 141.0, 137.0, 143.0, 150.0, 152.0, 150.0, 128.0, 88.0, 62.0, 57.0),
    (90.0, 98.0, 104.0, 102.0, 96.0, 97.0, 104.0, 104.0, 94.0, 82.0, 72.0, 64.0, 60.0, 62.0),
)
TRUNK_FEMALE_WIDTH = (
    (0.46, 0.52, 0.55, 0.60, 0.645, 0.70, 0.80, 0.84, 0.87),
    (1.05, 1.06, 1.03, 0.96, 0.90, 0.90, 0.90, 0.92, 0.92),
)
LEG = Level(
    (0.03, 0.045, 0.10, 0.20, 0.25, 0.285, 0.32, 0.36, 0.42, 0.47, 0.49),
    (31.0, 32.0, 37.0, 54.0, 51.0, 53.0, 58.0, 68.0, 81.0, 87.0, 88.0),
    (35.0, 35.0, 39.0, 58.0, 54.0, 56.0, 61.0, 72.0, 85.0, 92.0, 94.0),
)
LEG_CENTRE_X_MM = ((0.03, 0.285, 0.40, 0.47), (64.0, 72.0, 85.0, 91.0))
ARM = Level(
    (0.40, 0.44, 0.475, 0.50, 0.55, 0.61, 0.635, 0.69, 0.75, 0.79, 0.81, 0.822),
    (12.0, 17.0, 22.0, 25.0, 33.0, 37.0, 33.0, 38.0, 41.0, 46.0, 40.0, 16.0),
    (26.0, 36.0, 34.0, 27.0, 33.0, 38.0, 36.0, 42.0, 46.0, 52.0, 46.0, 20.0),
)
#: Subcutaneous fat thickness at adiposity 1, mm: front, side, back of the trunk; legs; arms.
FAT_HEIGHT = (0.03, 0.10, 0.285, 0.36, 0.47, 0.52, 0.56, 0.60, 0.645, 0.70, 0.75, 0.80, 0.83, 0.87)
FAT_FRONT_MM = (3.0, 4.0, 6.0, 9.0, 8.0, 12.0, 20.0, 21.0, 20.0, 15.0, 13.0, 8.0, 4.0, 4.0)
FAT_SIDE_MM = (3.0, 5.0, 7.0, 11.0, 15.0, 21.0, 20.0, 18.0, 15.0, 11.0, 10.0, 7.0, 4.0, 4.0)
FAT_BACK_MM = (3.0, 5.0, 6.0, 10.0, 16.0, 25.0, 22.0, 16.0, 13.0, 11.0, 10.0, 9.0, 5.0, 4.0)
ARM_FAT_MM = ((0.40, 0.50, 0.61, 0.72, 0.80, 0.822), (2.0, 3.0, 5.0, 8.0, 8.0, 6.0))


def _at(fraction: NDArray[np.float64], keys: tuple[float, ...], values: tuple[float, ...]) -> NDArray[np.float64]:
    return np.interp(fraction, keys, values)


def _bump(fraction: NDArray[np.float64], low: float, high: float, power: float = 0.5) -> NDArray[np.float64]:
    """1 in the middle of (low, high), falling like an ellipse to 0 at both ends and outside."""
    u = (2.0 * fraction - low - high) / (high - low)
    return np.maximum(0.0, 1.0 - u * u) ** power


def _smooth_step(fraction: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    t = np.clip((fraction - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def middle_mm(subject: Subject, z_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place x of the body's middle, where its legs meet: (levels,) mm.

    Args:
        subject: may lie askew.
        z_mm: (levels,) heights above the floor, mm.
    """
    return subject.offset_x_mm + subject.lean_x * (z_mm - 0.6 * subject.height_mm)


class Body:
    """Outlines of one subject at given heights; built once per set of levels.

    Args:
        subject: the latent variables.
        z_mm: (levels,) heights above the floor, mm.
    """

    def __init__(self, subject: Subject, z_mm: NDArray[np.float64]) -> None:
        self.subject = subject
        self.z_mm = np.asarray(z_mm, np.float64)
        self.scale = subject.height_mm / REFERENCE_HEIGHT_MM
        self.h = self._fraction(self.z_mm)
        self._shapes: list[NDArray[np.float64]] = []
        self._trunk_outline()

    def _fraction(self, z_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Heights as fractions of the average body's height: leg length moves every landmark below the shoulders."""
        keys = (0.0, KNEE * self.subject.leg_share, HIP_JOINT * self.subject.leg_share, SHOULDER, CHIN, 1.0)
        return np.interp(z_mm / self.subject.height_mm, keys, (0.0, KNEE, HIP_JOINT, SHOULDER, CHIN, 1.0))

    # -- outlines ------------------------------------------------------------------------------------------------

    def _trunk_outline(self) -> None:
        s, h = self.subject, self.h
        breadth = self.scale * s.frame
        muscle = 0.55 + 0.45 * s.muscle
        wide = _at(h, TRUNK.height, TRUNK.half_width_mm) * breadth * muscle
        deep = _at(h, TRUNK.height, TRUNK.half_depth_mm) * breadth * muscle
        if not s.male:
            wide = wide * _at(h, *TRUNK_FEMALE_WIDTH)
        wall = 15.0 * s.muscle * self.scale
        belly = _bump(h, 0.500, 0.735, 0.75)
        growth = np.sqrt(0.65 + 0.35 * s.visceral)
        self.cavity_a = np.maximum(wide - wall, 8.0) * (1.0 + (growth**0.7 - 1.0) * belly)
        self.cavity_b = np.maximum(deep - wall, 8.0) * (1.0 + (growth**1.5 - 1.0) * belly)
        self.lean_a, self.lean_b = self.cavity_a + wall, self.cavity_b + wall
        self.visceral_share = 0.35 * s.visceral / (0.65 + 0.35 * s.visceral)
        trunk_factor = s.adiposity * np.exp(0.35 * s.android)
        hip_factor = s.adiposity * np.exp(-0.35 * s.android)
        mix = _smooth_step(h, 0.52, 0.60)
        self.fat_factor = hip_factor * (1.0 - mix) + trunk_factor * mix
        front = _at(h, FAT_HEIGHT, FAT_FRONT_MM) * self.fat_factor
        side = _at(h, FAT_HEIGHT, FAT_SIDE_MM) * self.fat_factor
        back = _at(h, FAT_HEIGHT, FAT_BACK_MM) * self.fat_factor
        if not s.male:
            front = front + 26.0 * np.sqrt(s.adiposity) * _bump(h, 0.70, 0.775, 1.0)
        self.outer_a = self.lean_a + side
        self.outer_b = self.lean_b + 0.5 * (front + back)
        self.x = middle_mm(s, self.z_mm)
        self.back_y = BACK_Y_MM - 14.0 * _bump(h, 0.57, 0.68, 1.0) - 30.0 * _smooth_step(h, 0.80, 0.87)
        self.outer_y = self.back_y - self.outer_b
        self.lean_y = self.back_y - back - self.lean_b

    def _hip_half_width_mm(self) -> float:
        """Half width of the trunk at the hips: the same for a subject whatever the levels."""
        share = self.subject.leg_share
        keys = (0.0, KNEE * share, HIP_JOINT * share, SHOULDER, CHIN, 1.0)
        fraction = float(np.interp(0.56, (0.0, KNEE, HIP_JOINT, SHOULDER, CHIN, 1.0), keys))
        return float(Body(self.subject, np.array([fraction * self.subject.height_mm])).outer_a[0])

    # -- painting ------------------------------------------------------------------------------------------------

    def _paint(
        self, cx: Values, cy: Values, a: Values, b: Values, label: int, *, on: int = 0, power: Values = 2.0,
        x_min: Values = -1e4, x_max: Values = 1e4, y_max: Values = 1e4, mixture: Values = 0.0,
        where: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        columns = (cx, cy, a, b, power, label, on, x_min, x_max, y_max, mixture)
        shape = np.stack([np.broadcast_to(np.asarray(c, np.float64), self.z_mm.shape) for c in columns], axis=1).copy()
        if where is not None:
            shape[~where, 2] = 0.0
        self._shapes.append(shape)

    def _paint_inside(
        self, region: Region, tissue: Tissue, cx: Values, cy: Values, a: Values, b: Values, **how: Any
    ) -> None:
        """Paint a tissue over others of its region only."""
        self._paint(cx, cy, a, b, 16 * region + tissue, on=region, **how)

    def shapes(self) -> NDArray[np.float32]:
        """All shapes in painting order.

        Returns:
            (levels, shapes, SHAPE_COLUMNS) float32.
        """
        self._shapes = []
        self._paint_arms()
        self._paint_legs()
        self._paint_trunk()
        self._paint_thorax()
        self._paint_abdomen()
        self._paint_skeleton()
        return np.stack(self._shapes, axis=1).astype(np.float32)

    def _paint_arms(self) -> None:
        s, h = self.subject, self.h
        is_arm = (h > 0.40) & (h < 0.822)
        inside = h < 0.80
        fat = _at(h, *ARM_FAT_MM) * s.adiposity
        reach = np.maximum(self.outer_a, 0.8 * self._hip_half_width_mm())
        for side, region, limb in ((1.0, Region.ARM_LEFT, s.arm_left), (-1.0, Region.ARM_RIGHT, s.arm_right)):
            a = _at(h, ARM.height, ARM.half_width_mm) * self.scale * s.muscle * limb
            b = _at(h, ARM.height, ARM.half_depth_mm) * self.scale * s.muscle * limb
            gap = s.arm_gap_mm * _smooth_step(0.80 - h, 0.0, 0.06)
            hang = np.where(inside, reach + a + fat + gap, self.outer_a + 0.55 * a)
            near_shoulder = _smooth_step(h, 0.745, 0.805)
            x = self.x + side * (hang * (1.0 - near_shoulder) + (self.lean_a * 0.98 + 0.45 * a) * near_shoulder)
            y = self.back_y - 62.0 * self.scale - 0.25 * self.outer_b
            self._paint(x, y, a + fat, b + fat, 16 * region + Tissue.SUBCUTANEOUS_FAT, where=is_arm)
            self._paint_inside(region, Tissue.MUSCLE, x, y, a, b, where=is_arm)
            bone = 9.0 * self.scale * s.bone**0.5
            self._paint_inside(region, Tissue.CORTICAL_BONE, x, y, bone, bone, where=is_arm)
            self._paint_inside(region, Tissue.MARROW, x, y, 0.6 * bone, 0.6 * bone, where=is_arm)

    def _paint_legs(self) -> None:
        s, h = self.subject, self.h
        is_leg = h <= CROTCH
        is_thigh = is_leg & (h > KNEE + 0.015)
        hip_factor = s.adiposity * np.exp(-0.35 * s.android)
        fat = 0.5 * (_at(h, FAT_HEIGHT, FAT_SIDE_MM) + _at(h, FAT_HEIGHT, FAT_BACK_MM)) * hip_factor
        for side, region, limb in ((1.0, Region.LEG_LEFT, s.leg_left), (-1.0, Region.LEG_RIGHT, s.leg_right)):
            a = _at(h, LEG.height, LEG.half_width_mm) * self.scale * s.muscle * limb
            b = _at(h, LEG.height, LEG.half_depth_mm) * self.scale * s.muscle * limb
            x = self.x + side * (_at(h, *LEG_CENTRE_X_MM) * self.scale * s.leg_spread * s.frame + 0.35 * fat)
            y = self.back_y - b - fat - 10.0
            x_min, x_max = (self.x, 1e4) if side > 0 else (-1e4, self.x)
            skin = 16 * region + Tissue.SUBCUTANEOUS_FAT
            self._paint(x, y, a + fat, b + fat, skin, where=is_leg, power=2.25, x_min=x_min, x_max=x_max)
            self._paint_inside(region, Tissue.MUSCLE, x, y, a, b, where=is_leg, power=2.25)
            back, front = Tissue.POSTERIOR_THIGH_MUSCLE, Tissue.ANTERIOR_THIGH_MUSCLE
            self._paint_inside(region, back, x, y, 0.95 * a, 0.95 * b, where=is_thigh)
            self._paint_inside(region, front, x, y, 0.95 * a, 0.95 * b, where=is_thigh, y_max=y - 0.05 * b)
            joint = 1.0 + 1.1 * _bump(h, KNEE - 0.03, KNEE + 0.03, 0.5) + 0.3 * _smooth_step(h, 0.44, 0.47)
            bone = 14.5 * self.scale * s.bone**0.5 * joint
            marrow = bone * np.where(joint > 1.2, 0.9, 0.62)
            self._paint_inside(region, Tissue.CORTICAL_BONE, x, y - 0.1 * b, bone, bone, where=is_leg)
            self._paint_inside(region, Tissue.MARROW, x, y - 0.1 * b, marrow, marrow, where=is_leg)

    def _paint_trunk(self) -> None:
        is_trunk = (self.h > CROTCH) & (self.h < NECK_TOP)
        trunk = 16 * Region.TRUNK
        power = 1.9 + 0.6 * _smooth_step(self.h, CROTCH, 0.53)
        skin = trunk + Tissue.SUBCUTANEOUS_FAT
        self._paint(self.x, self.outer_y, self.outer_a, self.outer_b, skin, power=power, where=is_trunk)
        self._organ(Tissue.MUSCLE, 0.0, self.lean_y, self.lean_a, self.lean_b, power=power, where=is_trunk)
        self._paint_head(skin)
        self._organ(Tissue.SUBCUTANEOUS_FAT, 0.0, self.back_y, 5.0, 38.0, where=is_trunk & (self.h < 0.515))

    def _organ(self, tissue: Tissue, dx: Values, cy: Values, a: Values, b: Values, **how: Any) -> None:
        """Paint a tissue of the trunk, ``dx`` to the left of its axis."""
        self._paint_inside(Region.TRUNK, tissue, self.x + dx, cy, a, b, **how)

    def _paint_head(self, skin: int) -> None:
        """Skin, skull and brain above the neck; only a field moved up (``knee_missing``) includes them."""
        skull = self.scale * _bump(self.h, 0.85, 1.0, 0.5)
        for half, label in (
            (76.0, skin),
            (72.0, 16 * Region.TRUNK + Tissue.CORTICAL_BONE),
            (66.0, 16 * Region.TRUNK + Tissue.BOWEL),
        ):
            size = half * skull
            self._paint(self.x, self.outer_y - 10.0, size, 1.25 * size, label, where=self.h >= NECK_TOP)

    def _paint_thorax(self) -> None:
        h, y, cavity_a, cavity_b = self.h, self.lean_y, self.cavity_a, self.cavity_b
        size = _bump(h, 0.655, 0.825, 0.45)
        a, b = 0.43 * cavity_a * size, 0.83 * cavity_b * size
        for side in (1.0, -1.0):
            self._organ(Tissue.LUNG, side * 0.46 * cavity_a, y - 2.0, a, b, power=2.4, where=size > 0)
        heart = 56.0 * self.scale * self.subject.heart_scale * _bump(h, 0.690, 0.757)
        self._organ(Tissue.HEART, 20.0, y - 0.30 * cavity_b, heart, 0.82 * heart)
        vessel = (h > 0.50) & (h < 0.77)
        self._organ(Tissue.HEART, 8.0, y + 0.32 * self.lean_b, 11.0, 11.0, where=vessel)

    def _paint_abdomen(self) -> None:
        s, h, y, cavity_a, cavity_b = self.subject, self.h, self.lean_y, self.cavity_a, self.cavity_b
        cavity = _bump(h, 0.488, 0.712, 0.22)
        share = self.visceral_share * (0.75 + 0.25 * _bump(h, 0.52, 0.70, 1.0))
        fat = {"power": 2.3, "mixture": share, "where": cavity > 0}
        self._organ(Tissue.VISCERAL_FAT, 0.0, y - 0.04 * cavity_b, cavity_a * cavity, cavity_b * cavity, **fat)
        grow = self.scale * s.liver_scale
        size = 66.0 * grow * _bump(h, 0.612, 0.715, 0.42)
        self._organ(Tissue.LIVER, -60.0 * grow, y - 8.0, size, size, power=2.3)
        lobe = _bump(h, 0.645, 0.71, 0.5)
        self._organ(Tissue.LIVER, 14.0 * grow, y - 30.0 * grow, 56.0 * grow * lobe, 38.0 * grow * lobe)
        spleen = 30.0 * self.scale * _bump(h, 0.645, 0.695)
        self._organ(Tissue.SPLEEN, 0.72 * cavity_a, y + 0.38 * cavity_b, 0.8 * spleen, 1.3 * spleen)
        grow = self.scale * s.kidney_scale
        for side, low, high in ((1.0, 0.598, 0.664), (-1.0, 0.592, 0.656)):
            kidney = grow * _bump(h, low, high)
            self._organ(Tissue.KIDNEY, side * 56.0 * self.scale, y + 0.42 * cavity_b, 29.0 * kidney, 25.0 * kidney)
        bladder = 33.0 * _bump(h, 0.497, 0.533)
        self._organ(Tissue.BLADDER, 0.0, y - 0.25 * cavity_b, 1.15 * bladder, bladder)

    def _paint_skeleton(self) -> None:
        s, h, cortex, marrow = self.subject, self.h, Tissue.CORTICAL_BONE, Tissue.MARROW
        bone = s.bone**0.5 * self.scale
        spine = h > 0.505
        y = self.lean_y + 0.52 * self.lean_b
        size = (21.0 - 7.0 * _smooth_step(h, 0.72, 0.86)) * bone
        self._organ(cortex, 0.0, y, size + 2.5, size + 2.5, where=spine)
        self._organ(marrow, 0.0, y, size, size, where=spine)
        wing = _bump(h, 0.505, 0.598, 0.6)
        head = _bump(h, 0.497, 0.531, 0.5)
        y = self.lean_y + 0.20 * self.lean_b
        for side in (1.0, -1.0):
            x = side * 0.60 * self.lean_a
            self._organ(cortex, x, y, 11.0 * bone, 40.0 * bone * wing, where=wing > 0)
            self._organ(marrow, x, y, 8.0 * bone, 36.0 * bone * wing, where=wing > 0)
            x = side * 0.63 * self.lean_a
            self._organ(cortex, x, self.lean_y, 26.0 * bone * head, 26.0 * bone * head)
            self._organ(marrow, x, self.lean_y, 23.5 * bone * head, 23.5 * bone * head)


@compiled
def _hash01(a: Any, b: Any, c: Any) -> Any:
    """Uniform number in [0, 1) from three integers (an integer mixing hash)."""
    x = (a * 73856093) ^ (b * 19349663) ^ (c * 83492791)
    x = (x ^ (x >> 15)) & 0x7FFFFFFF
    x = (x * 0x2C1B3C6D) & 0x7FFFFFFF
    x = x ^ (x >> 12)
    x = (x * 0x297A2D39) & 0x7FFFFFFF
    x = x ^ (x >> 15)
    return x / 2147483648.0


@compiled
def paint_level(shapes: Any, z_mm: Any, x0_mm: Any, y0_mm: Any, step_mm: Any, seed: Any, labels: Any) -> None:
    """Paint one level into ``labels`` (rows, cols) uint8, all in place.

    Args:
        shapes: (shapes, SHAPE_COLUMNS) float32, in painting order.
        z_mm: height of the level, mm; with ``seed`` it determines the pattern of the visceral mixture.
        x0_mm: x of the first column's centre.
        y0_mm: y of the first row's centre.
        step_mm: spacing of rows and columns.
        seed: of the mixture's pattern.
        labels: result; starts as air.
    """
    rows, cols = labels.shape
    cell_z = int(np.floor(z_mm / 7.0))
    for k in range(shapes.shape[0]):
        a, b = shapes[k, 2], shapes[k, 3]
        if a < 0.5 or b < 0.5:
            continue
        cx, cy, power = shapes[k, 0], shapes[k, 1], shapes[k, 4]
        label, on, share = int(shapes[k, 5]), int(shapes[k, 6]), shapes[k, 10]
        first = max(0, int(np.ceil((cy - b - y0_mm) / step_mm)))
        last = min(rows - 1, int(np.floor((min(cy + b, shapes[k, 9]) - y0_mm) / step_mm)))
        for r in range(first, last + 1):
            v = abs((y0_mm + r * step_mm - cy) / b)
            if v >= 1.0:
                continue
            half = a * (np.sqrt(1.0 - v * v) if power == 2.0 else (1.0 - v**power) ** (1.0 / power))
            left = max(0, int(np.ceil((max(cx - half, shapes[k, 7]) - x0_mm) / step_mm)))
            right = min(cols - 1, int(np.floor((min(cx + half, shapes[k, 8]) - x0_mm) / step_mm)))
            if share > 0.0:
                cell_y = int(np.floor((y0_mm + r * step_mm) / 6.7))
                for c in range(left, right + 1):
                    if (labels[r, c] >> 4) == on:
                        cell_x = int(np.floor((x0_mm + c * step_mm) / 6.7))
                        fat = _hash01(cell_x + 1000 + seed, cell_y + 1000, cell_z + 1000) < share
                        labels[r, c] = label if fat else label + 8
            elif on > 0:
                for c in range(left, right + 1):
                    if (labels[r, c] >> 4) == on:
                        labels[r, c] = label
            else:
                for c in range(left, right + 1):
                    labels[r, c] = label
