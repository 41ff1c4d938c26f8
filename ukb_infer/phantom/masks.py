"""Where each organ of a synthetic body is in its projection.

An organ is scanned as the body is, with one signal inside the organ and none outside, and projected by the recipe: a
pixel belongs to the organ if at least 1/255 of the thickness at its thickest place lies along the pixel's line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.phantom.anatomy import KNEE, Body, Region, Tissue, paint_level
from ukb_infer.phantom.population import Subject
from ukb_infer.phantom.sampling import Size, StationGrid, station_grids
from ukb_infer.protocol import UK_BIOBANK, Protocol
from ukb_infer.records import Station

Project = Callable[[Sequence[Station]], NDArray[Any]]
_LEGS = (Region.LEG_LEFT, Region.LEG_RIGHT)
_ALL = tuple(region for region in Region if region)
_BODY = tuple(t for t in Tissue if t not in (Tissue.AIR, Tissue.TABLE))
#: Organ to the regions and tissues it consists of.
ORGANS: Mapping[str, tuple[tuple[Region, ...], tuple[Tissue, ...]]] = MappingProxyType(
    {
        "body": (_ALL, _BODY),
        "trunk": ((Region.TRUNK,), _BODY),
        "arms": ((Region.ARM_LEFT, Region.ARM_RIGHT), _BODY),
        "thighs": (_LEGS, _BODY),
        "liver": ((Region.TRUNK,), (Tissue.LIVER,)),
        "spleen": ((Region.TRUNK,), (Tissue.SPLEEN,)),
        "kidneys": ((Region.TRUNK,), (Tissue.KIDNEY,)),
        "heart": ((Region.TRUNK,), (Tissue.HEART,)),
        "lungs": ((Region.TRUNK,), (Tissue.LUNG,)),
        "bladder": ((Region.TRUNK,), (Tissue.BLADDER,)),
        "visceral_fat": ((Region.TRUNK,), (Tissue.VISCERAL_FAT,)),
        "subcutaneous_fat": (_ALL, (Tissue.SUBCUTANEOUS_FAT,)),
    }
)
#: Signal inside an organ.
_SIGNAL = 1000


def organ_masks(
    subject: Subject, project: Project, size: Size = "full", protocol: Protocol = UK_BIOBANK
) -> dict[str, NDArray[np.bool_]]:
    """The projected region of each organ.

    Args:
        subject: whose body it is.
        project: of the recipe: stations, head first, to (channels, rows, cols).
        size: of the stations, as for :func:`ukb_infer.phantom.render`.
        protocol: of the site.

    Returns:
        (rows, cols) by the names of :data:`ORGANS`; thighs are the legs above the knee.
    """
    grids = station_grids(subject, size, protocol=protocol)
    labels = [_paint(subject, grid) for grid in grids]
    knee_mm = KNEE * subject.leg_share * subject.height_mm
    masks = {}
    for name, (regions, tissues) in ORGANS.items():
        wanted = np.zeros(256, np.uint16)
        wanted[[16 * region + tissue for region in regions for tissue in tissues]] = _SIGNAL
        stations = []
        for number, (grid, painted) in enumerate(zip(grids, labels, strict=True), start=1):
            signal = wanted[painted]
            if name == "thighs":
                signal[grid.z_mm < knee_mm] = 0
            volume = signal.transpose(1, 2, 0)
            spacing = np.array([grid.spacing_mm, grid.spacing_mm, grid.slice_spacing_mm], np.float64)
            stations.append(Station(number, volume, volume, grid.position_mm, spacing))
        masks[name] = project(stations)[0] > 0
    masks["body"] = np.logical_or.reduce(list(masks.values()))  # a thin part is less of a body than of an organ
    return masks


def _paint(subject: Subject, grid: StationGrid) -> NDArray[np.uint8]:
    """(slices, rows, cols) labels of one station."""
    shapes = Body(subject, grid.z_mm).shapes()
    painted = np.zeros((grid.slices, grid.rows, grid.cols), np.uint8)
    for k in range(grid.slices):
        paint_level(shapes[k], grid.z_mm[k], grid.x0_mm, grid.y0_mm, grid.spacing_mm, subject.index % 1000, painted[k])
    return painted
