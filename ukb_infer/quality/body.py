"""Measures of where the body lies in the field, what is cut, and what is missing in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ukb_infer.quality.sample import Float64, Sample

Bools = NDArray[np.bool_]

#: A stretch of body along the left or right edge up to this is an arm's, a longer one the trunk's, mm.
ARM_DEPTH_MM = 180.0
#: A shorter stretch along any edge is no contact, mm.
SHORTEST_CONTACT_MM = 10.0
#: Lungs lie within this distance of the upper end of the field, mm; there only small voids that do not reach the end of
#: their station are none of them, ml.
LUNG_REACH_MM, LARGEST_BESIDE_LUNG_ML = 480.0, 100.0
#: Depth of the outer fat, mm.
OUTER_MM = 5.0
#: The knee is looked for within this distance of the lower end of the field, mm; its dip is at least this part deep,
#: compared with what lies up to a thigh above that, mm.
KNEE_REACH_MM, KNEE_DIP, THIGH_MM = 340.0, 0.02, 200.0
#: Muscle at the knee has at most this part of the greatest cross-section above it; between legs and pelvis it has more.
KNEE_SHARE = 0.6
#: A body whose thick cross-sections are less than this many times its thin ones is a block; a person's vary more.
BLOCK_VARIATION = 1.3
#: Profiles along the body are smoothed over this, mm.
SMOOTHING_MM = 15.0
#: The shoulder is where a side reaches this part of its greatest breadth within this distance of the upper end, mm.
SHOULDER_BREADTH, SHOULDER_REACH_MM = 0.75, 300.0


def contact_arms(sample: Sample) -> float | None:
    """Share of the slices with body in which 10 to 180 mm of it touch the left or right edge of the image."""
    return _contact_share(
        sample, lambda sides, _: np.asarray(_within(sides, SHORTEST_CONTACT_MM, ARM_DEPTH_MM).any(axis=0))
    )


def contact_trunk(sample: Sample) -> float | None:
    """Share of the slices with body that touches the front edge, or the left or right one over more than 180 mm."""
    return _contact_share(
        sample, lambda sides, front: (sides > ARM_DEPTH_MM).any(axis=0) | (front >= SHORTEST_CONTACT_MM)
    )


def _within(values: Float64, low: float, high: float) -> Bools:
    return np.asarray((values >= low) & (values <= high))


def _contact_share(sample: Sample, touches: Callable[[Float64, Float64], Bools]) -> float | None:
    """Share of slices that touch, told by their contact at the sides (2, slices) and in front (slices,), mm."""
    if not sample.has_body.any():
        return None
    both = [line.astype(np.float32) for line in (sample.lines[0][:, :, [0, -1]], sample.lines[1][:, :, [0, -1]])]
    sides = (both[0] + both[1] > sample.threshold).sum(axis=1).T * sample.spacing_mm[1]
    front = sample.body[:, 0].sum(axis=1) * sample.spacing_mm[2]
    return float(touches(sides, front)[sample.has_body].mean())


def void_ml(sample: Sample, top_mm: float) -> float:
    """Volume of voids that the body encloses in their slices and that are at least three samples wide, ml; not of lung.

    Args:
        sample: of the station.
        top_mm: z of the upper end of the field.
    """
    from ukb_infer.quality import kernels

    opened = np.zeros(sample.regions.shape, bool)
    if not kernels.open_voids(sample.regions, opened):
        return 0.0
    from scipy import ndimage  # few scans come this far

    (box,) = ndimage.find_objects(opened.view(np.uint8))
    parts, count = ndimage.label(opened[box])
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * sample.voxel_ml
    places = ndimage.find_objects(parts)
    ends = [(box[0].start + z.start, box[0].start + z.stop) for z, _, _ in places]
    kept = [
        size
        for size, (first, end) in zip(sizes, ends, strict=True)
        if top_mm - sample.z_mm[first] > LUNG_REACH_MM
        or (size <= LARGEST_BESIDE_LUNG_ML and first > 0 and end < len(opened))
    ]
    return float(sum(kept))


def outer_fat_fraction(sample: Sample) -> float | None:
    """Median of F / (W + F) of the voxels 2 to 5 mm below the surface, from the left and the right."""
    from ukb_infer.quality import kernels

    spacing = float(sample.station.spacing_mm[1])
    last = max(1, int(OUTER_MM / spacing))
    water, fat = (line[::2] for line in sample.lines)
    found = np.empty(2 * water.shape[0] * water.shape[1] * last, np.float32)
    count = kernels.outer_fractions(water, fat, sample.threshold, 1, last, found)
    return float(np.median(found[:count])) if count else None


def asymmetry(sample: Sample) -> float | None:
    """(|W_l - W_r| + |F_l - F_r|) / (W + F) of the body left and right of the middle of its slices; 0 to 1."""
    if sample.middle_mm is None:
        return None
    x = float(sample.station.position_mm[0]) + sample.spacing_mm[2] * np.arange(len(sample.by_col))
    offset = (x - sample.middle_mm) / sample.spacing_mm[2]
    left, right = (sample.by_col[side, 1:].sum(axis=0) for side in (offset > 0.25, offset < -0.25))
    total = (left + right).sum()
    return float(np.abs(left - right).sum() / total) if total > 0 else None


def off_centre(sample: Sample) -> float | None:
    """Distance of the middle of the body from the isocentre (x = 0), median over slices, mm."""
    return None if sample.middle_mm is None else abs(sample.middle_mm)


def body_area(sample: Sample) -> float | None:
    """Mean area of the body's cross-section, cm2."""
    area = sample.by_slice[:, 0].mean() * sample.spacing_mm[1] * sample.spacing_mm[2] / 100.0
    return float(area) if area > 0 else None


# -- of the whole scan -------------------------------------------------------------------------------------------------


def coverage_knee(samples: Sequence[Sample]) -> float | None:
    """Distance from the middle of the knee to the lower end of the field, mm; 0 where no knee is found.

    Between thigh and calf the cross-section of muscle (voxels with W > F) has a dip: at the knee, bones are wide. It
    shows where some 40 mm of the field lie beyond it. A body as thick everywhere has none.
    """
    if _is_block(samples):
        return None
    bottom = min(_end_mm(sample) for sample in samples)
    near = [sample for sample in samples if sample.z_mm[-1] - bottom <= KNEE_REACH_MM + THIGH_MM]
    z, lean = np.concatenate([_lean_areas(sample) for sample in near], axis=1)
    order = np.argsort(z, kind="stable")
    z, lean = z[order], _smooth(z[order], lean[order])
    z, lean = z[z - bottom <= KNEE_REACH_MM + THIGH_MM], lean[z - bottom <= KNEE_REACH_MM + THIGH_MM]
    if len(z) < 5 or not lean.any():
        return None
    deepest = _dip(lean, int((z - bottom <= KNEE_REACH_MM).sum()))
    if deepest is None:
        return 0.0
    height = min(lean[:deepest].max(), lean[deepest + 1 :].max()) - lean[deepest]
    low = lean <= lean[deepest] + 0.5 * height
    first = deepest - int(np.argmin(low[deepest::-1])) + 1 if not low[: deepest + 1].all() else 0
    last = deepest + int(np.argmin(low[deepest:])) - 1 if not low[deepest:].all() else len(low) - 1
    return float(max(0.5 * (z[first] + z[last]) - bottom, 0.0))


def _is_block(samples: Sequence[Sample]) -> bool:
    """Whether the body is as thick everywhere, like a bottle: no person, who has no knee or shoulder to look for."""
    areas = np.concatenate([s.by_slice[:, 0] * s.spacing_mm[1] * s.spacing_mm[2] for s in samples])
    thin, thick = np.quantile(areas[areas > 0], (0.05, 0.95)) if (areas > 0).any() else (0.0, 0.0)
    return bool(thick < BLOCK_VARIATION * thin)


def _lean_areas(sample: Sample) -> Float64:
    """Height z (mm) and the area with more water than fat (samples) of every sampled slice: (2, slices)."""
    from ukb_infer.quality import kernels

    counts = np.empty(len(sample.water))
    kernels.count_lean(*sample.lines, sample.threshold, counts)
    return np.stack([sample.z_mm, counts])


def _dip(profile: Float64, count: int) -> int | None:
    """The lowest of the first places from which a profile rises by ``KNEE_DIP`` of itself on both sides, or None."""
    inner = np.arange(1, min(count, len(profile) - 1))
    one = np.maximum.accumulate(profile)[inner - 1]
    other = np.maximum.accumulate(profile[::-1])[::-1][inner + 1]
    rises, widest = np.minimum(one, other), np.maximum(one, other)
    deep = inner[(rises >= (1.0 + KNEE_DIP) * profile[inner]) & (profile[inner] <= KNEE_SHARE * widest)]
    return int(deep[np.argmin(profile[deep])]) if len(deep) else None


def coverage_shoulder(samples: Sequence[Sample]) -> float | None:
    """Distance from the upper end of the field down to the shoulder, the nearer of both, mm; 0 where it is cut.

    A shoulder is where its side first reaches three quarters of its greatest breadth within 300 mm.
    """
    if _is_block(samples):
        return None
    top = max(float(sample.station.position_mm[2]) for sample in samples)
    rows = [
        (z, extent[2], extent[3], sample)
        for sample in samples
        for z, extent in zip(sample.z_mm, sample.extents, strict=True)
        if top - z <= SHOULDER_REACH_MM and extent[1] >= 0
    ]
    middles = [sample.middle_mm for sample in samples[:2] if sample.middle_mm is not None]
    if len(rows) < 3 or not middles:
        return None
    rows.sort(key=lambda row: -row[0])
    x0 = np.array([float(row[3].station.position_mm[0]) for row in rows])
    step = np.array([row[3].spacing_mm[2] for row in rows])
    right, left = (x0 + np.array([row[k] for row in rows]) * step for k in (1, 2))
    found = []
    for breadth in (left - middles[-1], middles[-1] - right):
        first = int(np.argmax(breadth >= SHOULDER_BREADTH * breadth.max()))
        found.append(0.0 if first == 0 else top - rows[first][0])
    return float(min(found))


def body_volume(samples: Sequence[Sample]) -> float | None:
    """Volume of the body in the field: its cross-sections summed along z, litres."""
    areas = [s.by_slice[:, 0] * s.spacing_mm[1] * s.spacing_mm[2] for s in samples]
    z = np.concatenate([s.z_mm for s in samples])
    order = np.argsort(z, kind="stable")
    litres = float(np.trapezoid(np.concatenate(areas)[order], z[order])) / 1e6
    return litres if litres > 0 else None


def _end_mm(sample: Sample) -> float:
    """Height z of the lowest slice."""
    station = sample.station
    return float(station.position_mm[2]) - float(station.spacing_mm[2]) * (station.shape[2] - 1)


def _smooth(z: Float64, values: Float64) -> Float64:
    """Weighted mean of neighbours, Gaussian in z."""
    weights = np.exp(-0.5 * ((z[:, None] - z) / (0.5 * SMOOTHING_MM)) ** 2)
    smoothed: Float64 = weights @ values / weights.sum(axis=1)
    return smoothed
