"""Compiled loops of the measures; each works on the samples of one station."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.compiling import compiled

Array = NDArray[Any]

#: What a voxel of a sample is: air outside the body, body, or void that the body encloses in its slice.
OUTSIDE, BODY, ENCLOSED = 0, 1, 2


@compiled
def find_body(total: Array, threshold: float, body: Array) -> None:
    """Voxels above a threshold of which two of the four neighbours in the plane are too, in place.

    Args:
        total: (slices, rows, cols) float32.
        threshold: of it.
        body: same shape, bool; set. Single bright voxels of noise are none.
    """
    slices, rows, cols = total.shape
    for k in range(slices):
        plane = total[k]
        for r in range(rows):
            for c in range(cols):
                if not plane[r, c] > threshold:
                    body[k, r, c] = False
                    continue
                count = 0
                count += r > 0 and plane[r - 1, c] > threshold
                count += r + 1 < rows and plane[r + 1, c] > threshold
                count += c > 0 and plane[r, c - 1] > threshold
                count += c + 1 < cols and plane[r, c + 1] > threshold
                body[k, r, c] = count >= 2


@compiled
def find_regions(body: Array, regions: Array) -> None:
    """Tell air that reaches the edge of its slice from voids that the body encloses, in place.

    Args:
        body: (slices, rows, cols) bool.
        regions: same shape, uint8; set to ``OUTSIDE``, ``BODY`` or ``ENCLOSED``.
    """
    slices, rows, cols = body.shape
    stack = np.empty((rows * cols, 2), np.int32)
    for k in range(slices):
        plane, region = body[k], regions[k]
        for r in range(rows):
            for c in range(cols):
                region[r, c] = 1 if plane[r, c] else 2
        count = 0
        for r in range(rows):  # what is seen from the left and right edge, without a stack
            first, last = 0, cols - 1
            while first < cols and region[r, first] != 1:
                region[r, first] = 0
                first += 1
            while last > first and region[r, last] != 1:
                region[r, last] = 0
                last -= 1
        for r in range(rows):
            for c in range(cols):
                if region[r, c] != 2:
                    continue
                above, below = r == 0 or region[r - 1, c] == 0, r == rows - 1 or region[r + 1, c] == 0
                if (
                    above or below or region[r, c - 1] == 0 or region[r, c + 1] == 0
                ):  # never in the first or last column
                    region[r, c] = 0
                    stack[count, 0], stack[count, 1] = r, c
                    count += 1
        while count:
            count -= 1
            r, c = stack[count, 0], stack[count, 1]
            for step in range(4):
                y = r + (step == 0) - (step == 1)
                x = c + (step == 2) - (step == 3)
                if 0 <= y < rows and 0 <= x < cols and region[y, x] == 2:
                    region[y, x] = 0
                    stack[count, 0], stack[count, 1] = y, x
                    count += 1


@compiled
def find_extents(regions: Array, extents: Array) -> None:
    """First and last row and column of the body in every slice, in place.

    Args:
        regions: (slices, rows, cols) uint8 of :func:`find_regions`.
        extents: (slices, 4) int64; set to first row, last row, first column, last column, or -1 without body.
    """
    slices, rows, cols = regions.shape
    for k in range(slices):
        top, bottom, left, right = rows, -1, cols, -1
        for r in range(rows):
            for c in range(cols):
                if regions[k, r, c] == 1:
                    top, bottom = min(top, r), max(bottom, r)
                    left, right = min(left, c), max(right, c)
        if bottom < 0:
            top, left = -1, -1
        extents[k, 0], extents[k, 1], extents[k, 2], extents[k, 3] = top, bottom, left, right


@compiled
def sum_air(water: Array, fat: Array, extents: Array, margin: int, reach: int, sums: Array) -> None:
    """Squared signal of the air in front of the body, beside it, and in the corners in front, in place.

    Args:
        water: (slices, rows, cols) float32.
        fat: same shape.
        extents: (slices, 4) of :func:`find_extents`.
        margin: voxels next to the body that are left out.
        reach: rows in front of the body that count.
        sums: (3, 2) float64; for front, side and corner the sum of squares over both contrasts, and how many voxels.
    """
    slices, _, cols = water.shape
    for k in range(slices):
        top, bottom, left, right = extents[k, 0], extents[k, 1], extents[k, 2], extents[k, 3]
        if bottom < 0:
            continue
        for r in range(max(0, top - reach), bottom + 1):
            before, level = r < top - margin, r >= top
            for c in range(cols):
                beside, within = c < left - margin or c > right + margin, left <= c <= right
                if before and within:
                    where = 0
                elif level and beside:
                    where = 1
                elif before and beside:
                    where = 2
                else:
                    continue
                value = np.float64(water[k, r, c]) ** 2 + np.float64(fat[k, r, c]) ** 2
                sums[where, 0] += value
                sums[where, 1] += 1.0


@compiled
def outer_fractions(water: Array, fat: Array, threshold: float, first: int, last: int, found: Array) -> int:
    """Fat fractions just below the surface, along every line from its left and right end, in place.

    Args:
        water: (slices, rows, cols) of any type.
        fat: same shape.
        threshold: of water + fat, above which a voxel is body.
        first: depth in voxels from the surface at which to begin.
        last: depth at which to end, included.
        found: float32, long enough for two ends of every line; set to the fractions.

    Returns:
        How many there are. Lines that are body up to the edge of the image are left out.
    """
    slices, rows, cols = water.shape
    count = 0
    for k in range(slices):
        for r in range(rows):
            w, f = water[k, r], fat[k, r]
            for side in range(2):
                start = -1
                for n in range(cols):
                    c = n if side == 0 else cols - 1 - n
                    if np.float32(w[c]) + np.float32(f[c]) > threshold:
                        start = n
                        break
                if start < 1:
                    continue
                for n in range(start + first, min(start + last + 1, cols)):
                    c = n if side == 0 else cols - 1 - n
                    both = np.float32(w[c]) + np.float32(f[c])
                    if both > threshold:
                        found[count] = np.float32(f[c]) / both
                        count += 1
    return count


@compiled
def open_voids(regions: Array, opened: Array) -> int:
    """Keep the enclosed voxels that lie in a square of 3 x 3 enclosed ones of their slice, in place.

    Args:
        regions: (slices, rows, cols) uint8 of :func:`find_regions`.
        opened: same shape, bool, all False; set where kept.

    Returns:
        How many are kept.
    """
    slices, rows, cols = regions.shape
    count = 0
    for k in range(slices):
        for r in range(1, rows - 1):
            for c in range(1, cols - 1):
                if regions[k, r, c] != 2:
                    continue
                inside = 0
                for y in range(r - 1, r + 2):
                    for x in range(c - 1, c + 2):
                        inside += regions[k, y, x] == 2
                if inside == 9:
                    for y in range(r - 1, r + 2):
                        for x in range(c - 1, c + 2):
                            count += not opened[k, y, x]
                            opened[k, y, x] = True
    return count


@compiled
def count_empty(water: Array, fat: Array, threshold: float, step: int, from_first: bool) -> int:
    """Slices of which fewer than three voxels of a grid pass a threshold: one may be noise.

    Args:
        water: (slices, rows, cols) of any type.
        fat: same shape.
        threshold: of water + fat.
        step: of the grid, in rows and columns.
        from_first: whether slices above the first with signal count.
    """
    slices, rows, cols = water.shape
    empty, begun = 0, from_first
    lines = (rows + step - 1) // step
    for k in range(slices):
        found = 0
        for n in range(lines):
            r = (n + lines // 2) % lines * step  # the body is amid the slice
            for c in range(0, cols, step):
                if np.float32(water[k, r, c]) + np.float32(fat[k, r, c]) > threshold:
                    found += 1
            if found >= 3:
                break
        begun = begun or found >= 3
        empty += begun and found < 3
    return empty if begun else slices


@compiled
def interpolate(water: Array, fat: Array, z: float, rows: Array, cols: Array, found: Array) -> None:
    """Trilinear interpolation of both contrasts at one height, in place.

    Args:
        water: (slices, rows, cols) of any type.
        fat: same shape.
        z: slice, a fraction of one between two.
        rows: (rows out,) float64 places; more than half a voxel outside gives 0.
        cols: (cols out,) float64.
        found: (2, rows out, cols out) float32.
    """
    depth, height, breadth = water.shape
    z = min(max(z, 0.0), depth - 1.0)
    low = min(int(z), depth - 2)
    w = np.float32(z - low)
    first, weight = np.empty(cols.size, np.int64), np.empty(cols.size, np.float32)
    for j in range(cols.size):
        c = min(max(cols[j], 0.0), breadth - 1.0)
        first[j] = min(int(c), breadth - 2)
        weight[j] = c - first[j]
        if cols[j] <= -0.5 or cols[j] >= breadth - 0.5:
            first[j] = -1
    for i in range(rows.size):
        if rows[i] <= -0.5 or rows[i] >= height - 0.5:
            found[0, i], found[1, i] = 0.0, 0.0
            continue
        r = min(max(rows[i], 0.0), height - 1.0)
        y = min(int(r), height - 2)
        v = np.float32(r - y)
        for contrast in range(2):
            near = water[low : low + 2, y : y + 2] if contrast == 0 else fat[low : low + 2, y : y + 2]
            for j in range(cols.size):
                x, u = first[j], weight[j]
                if x < 0:
                    found[contrast, i, j] = 0.0
                    continue
                total = np.float32(0.0)
                for k in range(2):
                    upper = (1 - v) * ((1 - u) * near[k, 0, x] + u * near[k, 0, x + 1])
                    lower = v * ((1 - u) * near[k, 1, x] + u * near[k, 1, x + 1])
                    total += (w if k == 1 else 1 - w) * np.float32(upper + lower)
                found[contrast, i, j] = total


@compiled
def sum_body(water: Array, fat: Array, body: Array, by_slice: Array, by_col: Array) -> None:
    """Voxels, water and fat of the body by slice and by column, in place.

    Args:
        water: (slices, rows, cols) float32.
        fat: same shape.
        body: same shape, bool.
        by_slice: (slices, 3) float64, starts as zeros; voxels, water, fat.
        by_col: (cols, 3) float64, likewise.
    """
    slices, rows, cols = body.shape
    for k in range(slices):
        for r in range(rows):
            for c in range(cols):
                if body[k, r, c]:
                    w, f = np.float64(water[k, r, c]), np.float64(fat[k, r, c])
                    by_slice[k, 0] += 1.0
                    by_slice[k, 1] += w
                    by_slice[k, 2] += f
                    by_col[c, 0] += 1.0
                    by_col[c, 1] += w
                    by_col[c, 2] += f


@compiled
def sum_fatty_blocks(water: Array, fat: Array, body: Array, share: float, sums: Array) -> None:
    """Sum water + fat of fatty body voxels in blocks of a station, in place.

    Args:
        water: (slices, rows, cols) float32.
        fat: same shape.
        body: same shape, bool.
        share: of fat over water, above which a voxel is fatty.
        sums: (blocks, blocks, blocks, 2) float64, starts as zeros; signal and voxels.
    """
    slices, rows, cols = body.shape
    blocks = sums.shape[0]
    for k in range(slices):
        for r in range(rows):
            line = sums[k * blocks // slices, r * blocks // rows]
            for c in range(cols):
                if body[k, r, c] and fat[k, r, c] > share * water[k, r, c]:
                    block = line[c * blocks // cols]
                    block[0] += water[k, r, c] + fat[k, r, c]
                    block[1] += 1.0


@compiled
def count_lean(water: Array, fat: Array, threshold: float, counts: Array) -> None:
    """Voxels of every slice with signal and more water than fat, in place.

    Args:
        water: (slices, rows, cols) of any type.
        fat: same shape.
        threshold: of water + fat.
        counts: (slices,) float64, set.
    """
    slices, rows, cols = water.shape
    for k in range(slices):
        count = 0
        for r in range(rows):
            for c in range(cols):
                w, f = np.float32(water[k, r, c]), np.float32(fat[k, r, c])
                if w > f and w + f > threshold:
                    count += 1
        counts[k] = count


@compiled
def sum_halves(water: Array, fat: Array, body: Array, border: float, core: float, sums: Array) -> None:
    """What tells water from fat in the right and the left half of a station, in place.

    Args:
        water: (slices, rows, cols) float32.
        fat: same shape.
        body: same shape, bool.
        border: column between the halves.
        core: radius of the middle, as a share of that of a disc of the half's area.
        sums: (2, 7) float64, starts as zeros. Of each half: body voxels; those amid body with more fat and their
            W + F; the others and theirs; water and fat of the middle, around the half's centre in every slice.
    """
    slices, rows, cols = body.shape
    for k in range(slices):
        places = np.zeros((2, 3))
        for r in range(rows):
            for c in range(cols):
                if body[k, r, c]:
                    half = 1 if c > border else 0
                    places[half, 0] += 1.0
                    places[half, 1] += r
                    places[half, 2] += c
        for r in range(rows):
            for c in range(cols):
                if not body[k, r, c]:
                    continue
                half = 1 if c > border else 0
                count = places[half, 0]
                w, f = np.float64(water[k, r, c]), np.float64(fat[k, r, c])
                sums[half, 0] += 1.0
                dr, dc = r - places[half, 1] / count, c - places[half, 2] / count
                if (dr * dr + dc * dc) * np.pi <= core * core * count:
                    sums[half, 5] += w
                    sums[half, 6] += f
                inner = 0 < r < rows - 1 and 0 < c < cols - 1
                if inner and body[k, r - 1, c] and body[k, r + 1, c] and body[k, r, c - 1] and body[k, r, c + 1]:
                    kind = 1 if f > w else 3
                    sums[half, kind] += 1.0
                    sums[half, kind + 1] += w + f


@compiled
def sum_surface(
    water: Array, fat: Array, threshold: float, body: Array, step: Array, border: float, depth: Array, sums: Array
) -> None:
    """Water and fat just below the front of the right and the left half, in place.

    Args:
        water: (slices, rows, cols) of any type, every voxel.
        fat: same shape.
        threshold: of water + fat, above which a voxel is body.
        body: bool, of the samples.
        step: (3,) voxels from one sample to the next.
        border: sampled column between the halves.
        depth: (2,) first and last depth in voxels from the surface.
        sums: (2, 3) float64, starts as zeros; water, fat and how many voxels.
    """
    slices, rows, cols = body.shape
    for k in range(slices):
        for c in range(cols):
            found = 0
            while found < rows and not body[k, found, c]:
                found += 1
            if found == 0 or found == rows:
                continue
            half, z, x = 1 if c > border else 0, k * step[0], c * step[2]
            first = (found - 1) * step[1] + 1
            while np.float32(water[z, first, x]) + np.float32(fat[z, first, x]) <= threshold:
                first += 1
            for y in range(first + depth[0], min(first + depth[1] + 1, water.shape[1])):
                w, f = np.float64(water[z, y, x]), np.float64(fat[z, y, x])
                if w + f > threshold:
                    sums[half, 0] += w
                    sums[half, 1] += f
                    sums[half, 2] += 1.0


@compiled
def count_exchanged(water: Array, fat: Array, body: Array, border: float, counts: Array) -> None:
    """Body voxels whose larger contrast is clearly another one than in the next slice, in place.

    Args:
        water: (slices, rows, cols) float32.
        fat: same shape.
        body: same shape, bool.
        border: column between the halves.
        counts: (slices - 1, 2, 2) float64, starts as zeros; of each half voxels that are body in both, and exchanged.
    """
    slices, rows, cols = body.shape
    for k in range(slices - 1):
        for r in range(rows):
            for c in range(cols):
                if not (body[k, r, c] and body[k + 1, r, c]):
                    continue
                half = 1 if c > border else 0
                counts[k, half, 0] += 1.0
                w, f, v, g = water[k, r, c], fat[k, r, c], water[k + 1, r, c], fat[k + 1, r, c]
                counts[k, half, 1] += (f > 2.0 * w and v > 2.0 * g) or (w > 2.0 * f and g > 2.0 * v)


@compiled
def find_patch(water: Array, fat: Array, body: Array, limits: Array, found: Array) -> None:
    """Largest connected patch of a plane in which water and fat of it and the next plane are exchanged, in place.

    A voxel belongs to it if in its window of 3 x 3 the cosine between r = (F - W)/(F + W) of both planes is clearly
    negative, and no longer agrees if one plane is moved by a voxel, as after a mere movement.

    Args:
        water: (planes, rows, cols) float32.
        fat: same shape.
        body: same shape, bool.
        limits: (3,) largest cosine, largest cosine once moved, largest mean of |T1 - T2| / (T1 + T2), T = W + F.
        found: (6,) float64, set to the voxels of the patch, the sum of their cosines with the sign changed, and of the
            plane in their windows W + F and voxels where fat prevails, and where water does.
    """
    planes, rows, cols = body.shape
    ratio, total = np.zeros(body.shape, np.float32), np.zeros(body.shape, np.float32)
    score, stack = np.zeros((rows, cols)), np.empty((rows * cols, 2), np.int32)
    found[:] = 0.0
    for k in range(planes):
        for r in range(rows):
            for c in range(cols):
                if body[k, r, c]:
                    total[k, r, c] = water[k, r, c] + fat[k, r, c]
                    ratio[k, r, c] = (fat[k, r, c] - water[k, r, c]) / total[k, r, c]
    for k in range(planes - 1):
        pair, sums_of_pair, marked = ratio[k : k + 2], total[k : k + 2], 0
        for r in range(1, rows - 1):
            for c in range(1, cols - 1):
                if pair[0, r, c] * pair[1, r, c] < 0:
                    score[r, c] = _exchange_score(pair, sums_of_pair, r, c, limits)
                    marked += score[r, c] > 0
        for r in range(1, rows - 1 if marked else 1):
            for c in range(1, cols - 1):
                if score[r, c] > 0:
                    sums = _take_patch(score, pair, sums_of_pair, r, c, stack)
                    if sums[0] > found[0]:
                        found[:] = sums


@compiled
def _take_patch(score: Array, ratio: Array, total: Array, row: int, col: int, stack: Array) -> Array:
    """Sums of :func:`find_patch` over the voxels that touch one, whose scores are set to 0: (6,) float64.

    Args:
        score: (rows, cols), above 0 in patches.
        ratio: (2, rows, cols) of both planes.
        total: same shape.
        row: of the first voxel.
        col: likewise.
        stack: (voxels, 2) int32 to work with.
    """
    sums, count = np.zeros(6), 1
    rows, cols = score.shape
    stack[0, 0], stack[0, 1] = row, col
    sums[1] += score[row, col]
    score[row, col] = 0.0
    while count:
        count -= 1
        r, c = stack[count, 0], stack[count, 1]
        sums[0] += 1.0
        for y in range(r - 1, r + 2):
            for x in range(c - 1, c + 2):
                if ratio[0, y, x] * ratio[1, y, x] < 0:
                    kind = 2 if ratio[0, y, x] > 0 else 4
                    sums[kind] += total[0, y, x]
                    sums[kind + 1] += 1.0
        for step in range(4):
            y = r + (step == 0) - (step == 1)
            x = c + (step == 2) - (step == 3)
            if 0 <= y < rows and 0 <= x < cols and score[y, x] > 0:
                sums[1] += score[y, x]
                score[y, x] = 0.0
                stack[count, 0], stack[count, 1] = y, x
                count += 1
    return sums


@compiled
def _exchange_score(ratio: Array, total: Array, row: int, col: int, limits: Array) -> float:
    """Cosine, with the sign changed, of the window around a voxel; 0 where it is not exchanged.

    Args:
        ratio: (2, rows, cols) of both planes.
        total: same shape, 0 outside the body.
        row: not the first or last.
        col: likewise.
        limits: of :func:`find_patch`.
    """
    _, rows, cols = ratio.shape
    score = 0.0
    for turn in range(9):
        place = (turn + 4) % 9  # not moved first
        dy, dx = place // 3 - 1, place % 3 - 1
        count, product, one, other, uneven = 0, 0.0, 0.0, 0.0, 0.0
        for r in range(row - 1, row + 2):
            for c in range(col - 1, col + 2):
                y, x = r + dy, c + dx
                if 0 <= y < rows and 0 <= x < cols and total[0, r, c] > 0 and total[1, y, x] > 0:
                    a, b = ratio[0, r, c], ratio[1, y, x]
                    count += 1
                    product, one, other = product + a * b, one + a * a, other + b * b
                    uneven += abs(total[0, r, c] - total[1, y, x]) / (total[0, r, c] + total[1, y, x])
        length = np.sqrt(one * other)
        if turn > 0 and product > limits[1] * length:
            return 0.0
        if turn == 0:
            if count < 7 or length < 0.2 * count or product > limits[0] * length or uneven > limits[2] * count:
                return 0.0
            score = -product / length
    return score
