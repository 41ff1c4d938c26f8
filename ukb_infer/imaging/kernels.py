"""Compiled loops of the fast projection (floor 2).

Each is a single pass over voxels that NumPy would need several temporaries for. Compiled by numba on first use and
cached on disk; single-threaded on purpose: scans are spread over worker processes.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def slice_sums(volume, body_rows, column_sums, row_sums):  # type: ignore[no-untyped-def]
    """Sum every slice over its rows and over its columns, in place.

    Args:
        volume: (slices, rows, cols) uint16 or float32.
        body_rows: rows in front of the table; only these count in ``column_sums``.
        column_sums: (slices, cols) float64, starts as zeros.
        row_sums: (slices, rows) float64.
    """
    slices, rows, cols = volume.shape
    for k in range(slices):
        for r in range(rows):
            total = 0.0
            for c in range(cols):
                total += volume[k, r, c]
            row_sums[k, r] = total
            if r < body_rows:
                for c in range(cols):
                    column_sums[k, c] += volume[k, r, c]


@njit(cache=True, nogil=True)
def slice_sums_uint16(volume, body_rows, column_sums, row_sums):  # type: ignore[no-untyped-def]
    """As :func:`slice_sums` for uint16 with integer sums: (slices, cols) and (slices, rows) uint32."""
    slices, rows, cols = volume.shape
    for k in range(slices):
        for r in range(rows):
            total = np.uint32(0)
            for c in range(cols):
                total += np.uint32(volume[k, r, c])
            row_sums[k, r] = total
            if r < body_rows:
                for c in range(cols):
                    column_sums[k, c] += np.uint32(volume[k, r, c])


@njit(cache=True, nogil=True)
def add_station(total, water, fat, out_index, lower, upper, weights, adds, row0, col0):  # type: ignore[no-untyped-def]
    """Add one station's water + fat to the fused sum, in place.

    Args:
        total: (z, y, x) float32.
        water: (slices, rows, cols) uint16 or float32; ``fat`` likewise.
        out_index: (n,) int64, index in ``total`` of every output slice, -1 to skip it.
        lower: (n,) int64 lower source slice; ``upper`` the upper one.
        weights: (n, 4) float32: water lower, water upper, fat lower, fat upper.
        adds: (n,) bool: add to what is there instead of setting it.
        row0: first row; ``col0`` first column of the station's box.
    """
    rows, cols = water.shape[1], water.shape[2]
    for n in range(out_index.shape[0]):
        z = out_index[n]
        if z < 0:
            continue
        low, up = lower[n], upper[n]
        wl, wu, fl, fu = weights[n, 0], weights[n, 1], weights[n, 2], weights[n, 3]
        for r in range(rows):
            out = total[z, row0 + r, col0 : col0 + cols]
            a, b, c, d = water[low, r], water[up, r], fat[low, r], fat[up, r]
            if adds[n]:
                for x in range(cols):
                    out[x] += (
                        wl * np.float32(a[x]) + wu * np.float32(b[x]) + fl * np.float32(c[x]) + fu * np.float32(d[x])
                    )
            elif low == up or wu == np.float32(0.0):
                for x in range(cols):
                    out[x] = wl * np.float32(a[x]) + fl * np.float32(c[x])
            else:
                for x in range(cols):
                    out[x] = (
                        wl * np.float32(a[x]) + wu * np.float32(b[x]) + fl * np.float32(c[x]) + fu * np.float32(d[x])
                    )


@njit(cache=True, nogil=True, fastmath={"nnan", "ninf", "nsz", "reassoc"})
def row_extremes(total, low, high):  # type: ignore[no-untyped-def]
    """Minimum and maximum of every y over z and x: (z, y, x) float32 -> (y,) float32 each, in place."""
    depth, rows, cols = total.shape
    for z in range(depth):
        for y in range(rows):
            smallest, largest = total[z, y, 0], total[z, y, 0]
            for x in range(cols):
                smallest = min(smallest, total[z, y, x])
                largest = max(largest, total[z, y, x])
            low[y] = min(low[y], smallest)
            high[y] = max(high[y], largest)


@njit(cache=True, nogil=True)
def row_histograms(total, low, high, counts):  # type: ignore[no-untyped-def]
    """Histogram of every y with equal bins between its extremes: ``counts`` (y, bins) int32, in place."""
    depth, rows, cols = total.shape
    bins = counts.shape[1]
    index = np.empty(cols, np.int32)
    for z in range(depth):
        for y in range(rows):
            span = high[y] - low[y]
            if span <= 0.0:
                continue
            factor = np.float32(bins / span)
            base = np.float32(low[y])
            row = total[z, y]
            for x in range(cols):
                index[x] = np.int32((row[x] - base) * factor)
            for x in range(cols):
                counts[y, min(index[x], bins - 1)] += 1


@njit(cache=True, nogil=True)
def mask_counts(total, threshold, by_y, by_x, half):  # type: ignore[no-untyped-def]
    """Count voxels not below the threshold: per y over all x, and per x < half; in place.

    Args:
        total: (z, y, x) float32, rows in front of the table only.
        threshold: of the body mask.
        by_y: (y,) int64; ``by_x``: (half,) int64.
        half: columns of the first half.
    """
    depth, rows, cols = total.shape
    for z in range(depth):
        for y in range(rows):
            row = total[z, y]
            count = 0
            for x in range(cols):
                count += row[x] >= threshold
            by_y[y] += count
            for x in range(half):
                by_x[x] += row[x] >= threshold
