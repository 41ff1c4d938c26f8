"""Pictures of the projections, a hundred scans to a sheet, as grey JPEG; saliency maps, one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ukb_infer.errors import ScanError
from ukb_infer.imaging.readers.projection_file import read_projection
from ukb_infer.imaging.recipes import RECIPES

#: Scans on a sheet: columns and rows.
SHEET = (10, 10)
#: Most scans whose pictures are in the page itself; those of more lie in a folder beside it.
MOST_IN_PAGE = 2_000
#: Side of a channel, pixels, by the most scans that have it.
SIDES = ((100, 256), (500, 160), (MOST_IN_PAGE, 96), (1 << 40, 96))
JPEG_QUALITY = 75
CHANNELS = ("water", "fat", "fat fraction")
#: Most saliency maps in a page, and their side, pixels.
MOST_MAPS, MAP_SIDE = 300, 256


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A sheet of pictures: the scans in rows, the channels of each side by side.

    Attributes:
        jpeg: the file.
        present: (100,) or fewer: whether there is a picture of a scan.
    """

    jpeg: bytes
    present: NDArray[np.bool_]


def side_of(count: int) -> int:
    """Side of a channel in a page of so many scans, pixels."""
    return next(side for most, side in SIDES if count <= most)


def draw_sheets(projections: Sequence[Path | None]) -> Iterator[Sheet]:
    """Draw projections, a sheet at a time.

    Args:
        projections: (N,) file of each scan in the order of the page, or None; one that cannot be read has no picture.
    """
    side, each = side_of(len(projections)), SHEET[0] * SHEET[1]
    for first in range(0, len(projections), each):
        files = projections[first : first + each]
        canvas = np.zeros((-(-len(files) // SHEET[0]) * side, SHEET[0] * len(CHANNELS) * side), np.uint8)
        present = np.zeros(len(files), bool)
        for place, path in enumerate(files):
            tile = None if path is None else _tile(path, side)
            if tile is not None:
                row, column = divmod(place, SHEET[0])
                canvas[row * side : (row + 1) * side, column * tile.shape[1] : (column + 1) * tile.shape[1]] = tile
                present[place] = True
        yield Sheet(jpeg=_jpeg(canvas), present=present)


@dataclass(frozen=True, kw_only=True)
class SaliencyMap:
    """A scan's saliency for a target, drawn over the scan.

    Attributes:
        row: of the scan in the page.
        target: name.
        jpeg: the picture.
    """

    row: int
    target: str
    jpeg: bytes


def read_maps(folder: Path, scans: Sequence[str], targets: Sequence[str]) -> list[SaliencyMap]:
    """Saliency maps of scans, the first :data:`MOST_MAPS`.

    Args:
        folder: with ``<scan>_<target>.png``, as `explain` writes them.
        scans: names, in the order of the page.
        targets: names.
    """
    present = {path.name for path in folder.glob("*.png")}
    wanted = ((row, scan, target) for row, scan in enumerate(scans) for target in targets)
    found = ((row, target, f"{scan}_{target}.png") for row, scan, target in wanted)
    chosen = islice((item for item in found if item[2] in present), MOST_MAPS)
    return [SaliencyMap(row=row, target=target, jpeg=_small(folder / name)) for row, target, name in chosen]


def _small(path: Path) -> bytes:
    with Image.open(path) as picture:
        width, height = picture.size
        small = picture.convert("RGB")
        if width == 2 * height:  # the scan alone, beside the map over it
            small = small.crop((height, 0, width, height))
        small.thumbnail((MAP_SIDE, MAP_SIDE))
        return _jpeg(np.asarray(small))


def _tile(path: Path, side: int) -> NDArray[np.uint8] | None:
    """(side, 3 * side) of a projection, or None where there is none."""
    try:
        image = next(_readable(path))
    except StopIteration:
        return None
    channels = (Image.fromarray(channel).resize((side, side), Image.Resampling.BOX) for channel in image)
    return np.concatenate([np.asarray(channel) for channel in channels], axis=1)


def _readable(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The projection, of whichever recipe with three 8-bit channels it is."""
    for recipe in RECIPES.values():
        if recipe.dtype == "uint8" and recipe.shape[0] == len(CHANNELS):
            try:
                yield read_projection(path, recipe)
            except ScanError:
                continue


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()
