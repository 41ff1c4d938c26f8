"""Mean saliency maps of a run, the bodies aligned by landmarks of their outlines.

A projection shows a body twice, from the front and from the side. The rows are aligned at four landmarks of the outline
(top, shoulders, crotch, bottom), the columns at the left and right edge of each view; between landmarks positions are
interpolated linearly. Every map counts with a sum of one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from ukb_infer.errors import RunError
from ukb_infer.records import ScanKey
from ukb_infer.runs.files import SCANS
from ukb_infer.storage import save_array

if TYPE_CHECKING:
    from ukb_infer.explain.explain import ExplainConfig
    from ukb_infer.labels import Labels

Float64 = NDArray[np.float64]

#: A pixel belongs to the body from this share of the picture's 99th percentile.
_BODY = 0.08
#: Columns between which the two views meet, as shares of the width.
_MIDDLE = (0.45, 0.75)
#: Width of the shoulders relative to the widest row, and rows that are searched for them.
_SHOULDERS, _UPPER = 0.75, 0.45
#: Rows that are searched for the crotch, as shares of the body's height.
_LOWER = (0.45, 0.95)
#: Names of the groups by the values of target sex.
_GROUPS = {0.0: "women", 1.0: "men"}
#: Scans whose mean is drawn behind the averages.
_PICTURED = 200


@dataclass(frozen=True)
class Outline:
    """Landmarks of a projection, pixels.

    Attributes:
        rows: (4,) top, shoulders, crotch, bottom.
        views: left and right edge of the body from the front, then from the side.
    """

    rows: Float64
    views: tuple[tuple[float, float], tuple[float, float]]


def find_outline(image: NDArray[Any]) -> Outline:
    """Landmarks of a projection's body.

    Args:
        image: (channels, rows, cols); the first two are water and fat.
    """
    total = image[:2].astype(np.float64).sum(axis=0)
    mask = total > _BODY * np.percentile(total, 99)
    width = mask.shape[1]
    low, high = (round(share * width) for share in _MIDDLE)
    split = low + int(np.argmin(total[:, low:high].sum(axis=0)))
    front = mask[:, :split]
    used = np.flatnonzero(front.any(axis=1))
    top, bottom = (int(used[0]), int(used[-1])) if used.size else (0, len(mask) - 1)
    rows = np.array([top, _shoulders(front, top, bottom), _crotch(total[:, :split], top, bottom), bottom], np.float64)
    rows = np.maximum.accumulate(rows + np.arange(4) * 1e-3)  # rising, whatever was found
    return Outline(rows, (_edges(front, 0), _edges(mask[:, split:], split)))


def _shoulders(front: NDArray[np.bool_], top: int, bottom: int) -> int:
    """First row of the upper part that is nearly as wide as the widest."""
    widths = front.sum(axis=1)
    upper = widths[top : top + max(2, round(_UPPER * (bottom - top)))]
    return top + int(np.argmax(upper >= _SHOULDERS * upper.max()))


def _crotch(front: Float64, top: int, bottom: int) -> int:
    """Row below which a gap between the legs is seen: the darkest column between them begins there."""
    used = np.flatnonzero(front.sum(axis=0) > 0)
    middle = int(used.mean()) if used.size else front.shape[1] // 2
    near = slice(max(0, middle - front.shape[1] // 12), middle + front.shape[1] // 12)
    first, last = (top + round(share * (bottom - top)) for share in _LOWER)
    inner, whole = front[first:last, near].min(axis=1), front[first:last].max(axis=1)
    dark = inner < 0.35 * np.maximum(whole, 1e-9)
    above = np.flatnonzero(~dark)
    return first + (int(above[-1]) + 1 if above.size else 0)


def _edges(mask: NDArray[np.bool_], offset: int) -> tuple[float, float]:
    used = np.flatnonzero(mask.any(axis=0))
    if used.size < 2:
        return float(offset), float(offset + mask.shape[1] - 1)
    return float(offset + used[0]), float(offset + used[-1])


def align(saliency: NDArray[np.floating], own: Outline, common: Outline) -> Float64:
    """A map drawn on another outline.

    Args:
        saliency: (rows, cols).
        own: of its scan.
        common: to draw on.

    Returns:
        (rows, cols) with a sum of one.
    """
    rows, cols = saliency.shape
    r = np.interp(np.arange(rows), common.rows, own.rows, left=-1.0, right=rows + 1.0)
    c = np.full(cols, -1.0)
    for (a, b), (left, right) in zip(common.views, own.views, strict=True):
        place = np.arange(cols)
        inside = (place >= a) & (place <= b)
        c[inside] = left + (place[inside] - a) / max(b - a, 1e-9) * (right - left)
    moved = map_coordinates(np.asarray(saliency, np.float64), np.meshgrid(r, c, indexing="ij"), order=1, cval=0.0)
    return np.asarray(moved / max(float(moved.sum()), 1e-30))


def mean_outline(outlines: list[Outline]) -> Outline:
    """The outline in the middle of many."""
    views = np.mean([o.views for o in outlines], axis=0)
    (a, b), (c, d) = views
    return Outline(np.mean([o.rows for o in outlines], axis=0), ((a, b), (c, d)))


def write_averages(config: ExplainConfig, sexes: Labels | None = None) -> list[Path]:
    """Average a run's maps, over all scans and by sex, and write them.

    Args:
        config: of the run.
        sexes: labels whose only target is sex; None to average over all scans only.

    Returns:
        ``cohort_<target>.npy`` and pictures; with sexes also ``cohort_<target>_women`` and ``_men``.

    Raises:
        RunError: the run has no maps.
    """
    from ukb_infer.explain.explain import PROJECTIONS_NAME, map_path
    from ukb_infer.explain.pictures import save_overlay

    folder = config.out / PROJECTIONS_NAME
    paths = [p for p in sorted(folder.glob("*.npy")) if _has_maps(config, p.stem)]
    if not paths:
        raise RunError(f"{config.out} has no maps to average; see its {SCANS}")
    outlines = {path.stem: find_outline(np.load(path)) for path in paths}
    common = mean_outline(list(outlines.values()))
    body = np.mean([[align(c, outlines[p.stem], common) for c in np.load(p)[:2]] for p in paths[:_PICTURED]], axis=0)
    body *= 255.0 / body.max()
    written = []
    for target in config.targets:
        sums: dict[str, Float64] = defaultdict(lambda: np.zeros(body.shape[1:]))
        for scan, own in outlines.items():
            aligned = align(np.load(map_path(config.out, scan, target)), own, common)
            sex = np.nan if sexes is None else sexes.of(ScanKey.from_name(scan))[0]
            for group in {"", _GROUPS.get(float(sex), "")}:
                sums[group] += aligned
        for group, total in sorted(sums.items()):
            path = config.out / f"cohort_{target}{'_' if group else ''}{group}.npy"
            mean = (total / total.sum()).astype(np.float32)
            save_array(path, mean)
            save_overlay(mean, body, path.with_suffix(".png"))
            written += [path, path.with_suffix(".png")]
    return written


def _has_maps(config: ExplainConfig, scan: str) -> bool:
    from ukb_infer.explain.explain import map_path

    return all(map_path(config.out, scan, target).is_file() for target in config.targets)
