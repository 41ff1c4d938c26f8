"""Make the fast projection round as the recipe does.

The recipe stores voxels in float32 after resampling, fading and intensity correction; the fast path sums first. Both
agree to about 1e-7. Truncation to 8 bits can turn that into another grey level where a pixel is this close to the next
level: in a few of a hundred scans, in some pixels. Pixels whose grey level could change (a handful per scan), and those
that may be the minimum or maximum of their image, are therefore summed again from voxels rounded as in the recipe, in
its order. The intensity factors that they need are recomputed likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ukb_infer.imaging.recipes.mimir1 import kernels
from ukb_infer.imaging.recipes.mimir1.constants import BED_ROWS, FAT_FRACTION_DISPLAY_MAX, TRIMMED_END_SLICES
from ukb_infer.imaging.recipes.mimir1.display import GREY_LEVELS
from ukb_infer.imaging.recipes.mimir1.fusion import Float64, overlap_factors, slice_mean
from ukb_infer.imaging.recipes.mimir1.parts import CONTRASTS, NEGLIGIBLE_WEIGHT, Int64, Part, fused_lines

#: Largest relative error of rounding to float32.
UNIT = 2.0**-24
#: Relative difference that summing float64 numbers in another order can make.
ORDER = 1e-12
#: Relative doubt of a resampled pixel: its voxels are rounded once; sums neglect small weights.
RESAMPLED_DOUBT = 1.01 * (UNIT + NEGLIGIBLE_WEIGHT)
#: Of an intensity factor: rounded itself, from a mean rounded once over a mean rounded twice.
FACTOR_DOUBT = 1.01 * (4.0 * UNIT + 2.0 * NEGLIGIBLE_WEIGHT)
#: Of a fat fraction whose factors are in doubt.
FRACTION_DOUBT = 2.0 * FACTOR_DOUBT
#: Of a pixel in an overlap: resampled, faded, corrected.
OVERLAP_DOUBT = 1.01 * (3.0 * UNIT + NEGLIGIBLE_WEIGHT) + FACTOR_DOUBT
#: Pixels summed again at a time; artificial images may have very many.
CHUNK = 4096


def slice_doubts(parts: Sequence[Part], slices: int) -> Float64:
    """Relative doubt of the pixels of every fused slice, head first: (slices,) float64.

    Args:
        parts: all stations.
        slices: of the fused grid before trimming, their number.
    """
    doubt = np.full(slices, ORDER)
    for part in parts:
        own = doubt[part.box[2]]
        np.maximum(own, RESAMPLED_DOUBT if part.resampled else ORDER, out=own)
        own[part.fade != 1.0] = OVERLAP_DOUBT
    return doubt


def round_image(parts: Sequence[Part], contrast: int, axis: int, image: Float64, doubt: Float64) -> None:
    """Make every pixel whose grey level could differ from the recipe's exactly the recipe's, in place.

    Args:
        parts: all stations with their intensity factors.
        contrast: 0 water, 1 fat.
        axis: 0 for a coronal image (summed over rows), 1 for a sagittal one (summed over columns).
        image: (z head first and trimmed, n) float64 sums.
        doubt: (z,) relative doubt of its pixels.
    """
    magnitude = max(part.magnitudes[contrast] for part in parts) * _line_length(parts, axis)
    found = np.empty((image.size, 2), np.int64)
    low, high, most = float(image.min()), float(image.max()), float(doubt.max())
    bottom, top = low + most * max(abs(low), magnitude), high - most * max(abs(high), magnitude)
    count = kernels.uncertain_pixels(image, doubt, magnitude, bottom, top, 0.0, found)
    _sum_again(parts, contrast, axis, image, found[:count])
    low, high = float(image.min()), float(image.max())
    if high > low:
        count = kernels.uncertain_pixels(image, doubt, magnitude, low, high, GREY_LEVELS / (high - low), found)
        _sum_again(parts, contrast, axis, image, found[:count])


def _line_length(parts: Sequence[Part], axis: int) -> int:
    """Voxels that are summed to one pixel."""
    length = max(part.box[axis].stop for part in parts)
    return int(length) - BED_ROWS if axis == 0 else int(length)


def _sum_again(parts: Sequence[Part], contrast: int, axis: int, image: Float64, pixels: Int64) -> None:
    """Sum some pixels (z, n) from voxels rounded as the recipe does."""
    if not len(pixels):
        return
    fused = pixels[:, 0] + TRIMMED_END_SLICES
    settle_factors(parts, fused, (contrast,))
    length = _line_length(parts, axis)
    for first in range(0, len(pixels), CHUNK):
        some = slice(first, first + CHUNK)
        lines = fused_lines(parts, contrast, axis, pixels[some, 1].copy(), fused[some], length)
        in_order = np.add.accumulate(lines, axis=1)
        image[pixels[some, 0], pixels[some, 1]] = in_order[:, -1]


def doubtful_fractions(parts: Sequence[Part], slices: Int64, fraction: Float64) -> Int64:
    """Slices of a fat fraction plane where a grey level hangs on an unsettled intensity factor.

    Args:
        parts: all stations; where water or fat has negative voxels, its factors must be settled.
        slices: (n,) of the fused grid, head first.
        fraction: (n, x or y) fat fraction, per mille.

    Returns:
        Indices into ``slices``.
    """
    unsettled = np.zeros(int(slices.max()) + 1 + TRIMMED_END_SLICES, bool)
    for part in parts:
        unsettled[part.box[2]] |= ~(part.settled[0] & part.settled[1])
    places = np.flatnonzero(unsettled[slices])
    level = fraction[places] / FAT_FRACTION_DISPLAY_MAX * GREY_LEVELS
    slack = level * FRACTION_DOUBT
    doubtful = (np.floor(level - slack) != np.floor(level + slack)) & (level - slack < GREY_LEVELS)
    chosen: Int64 = places[doubtful.any(axis=1)]
    return chosen


def settle_factors(parts: Sequence[Part], fused: Int64 | None = None, contrasts: Sequence[int] = (0, 1)) -> None:
    """Round the intensity factors of some slices as the recipe does, in place.

    Args:
        parts: all stations, head first.
        fused: slices of the fused grid, head first; all without.
        contrasts: 0 water, 1 fat.
    """
    wanted = np.full(max(part.box[2].stop for part in parts), fused is None)
    if fused is not None:
        wanted[fused] = True
    for upper, lower in pairwise(parts):
        own = wanted[lower.start[2] : lower.start[2] + upper.trim.overlap_below]
        if not own.any():
            continue
        for contrast in contrasts:
            slices = np.flatnonzero(own & ~lower.settled[contrast][: own.size])
            if slices.size:
                _settle_overlap(upper, lower, contrast, slices)


def _settle_overlap(upper: Part, lower: Part, contrast: int, slices: Int64) -> None:
    """Step 7 for some slices of one overlap."""
    n = upper.trim.overlap_below
    first = upper.shape[2] - n
    above, below = np.ones(n), np.ones(n)
    for j in slices:
        above[j], below[j] = rounded_mean(upper, contrast, first + int(j)), rounded_mean(lower, contrast, int(j))
    before, after = rounded_mean(upper, contrast, first - 1), rounded_mean(lower, contrast, n)
    factors = overlap_factors(above, below, before, after).astype(np.float32)[slices]
    for part, places in ((upper, first + slices), (lower, slices)):
        part.factors[contrast][places] = factors
        part.settled[contrast][places] = True


def rounded_mean(part: Part, contrast: int, kept: int) -> float:
    """Mean of one faded slice of a station, its voxels rounded as the recipe does.

    Args:
        part: the station; keeps the mean for the next time.
        contrast: 0 water, 1 fat.
        kept: index among the kept slices, head first.
    """
    known = part.rounded_means.get((contrast, kept))
    if known is not None:
        return known
    rows, cols, _ = part.shape
    plane = np.zeros((rows, 1, cols), np.float32)
    z_pair, z_weight, rows_pair, row_weight, cols_pair, col_weight = part.interpolation
    own, scale = slice(kept, kept + 1), np.array([[part.fade[kept], 1.0]], np.float32)
    taps = (z_pair[:, own].copy(), z_weight[own], rows_pair, row_weight, cols_pair, col_weight)
    first, sets = np.zeros(1, np.int64), np.zeros(1, bool)
    kernels.add_trilinear(plane, 0, part.sources[contrast], first, taps, scale, sets, (0, 0, 0))
    part.rounded_means[contrast, kept] = mean = slice_mean(plane[:, 0])
    return mean


def settle_signed(parts: Sequence[Part]) -> None:
    """Settle all factors where voxels of both signs cancel: then no bound on an unsettled one holds."""
    signed = [c for c in range(len(CONTRASTS)) if any(part.magnitudes[c] > 0 for part in parts)]
    settle_factors(parts, None, signed)
