"""In-phase and opposed-phase images of stations that water and fat have made."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from ukb_infer.errors import ScanError
from ukb_infer.imaging.series import MAX_TILT_DEGREES, Contrast, Series, Voxels, scale
from ukb_infer.imaging.stations import checks
from ukb_infer.imaging.stations.checks import Notes, Pair
from ukb_infer.imaging.stations.choice import join_parts
from ukb_infer.protocol import SAME_POSITION_TOLERANCE_MM
from ukb_infer.reasons import Reason
from ukb_infer.records import Station

PHASES = (Contrast.IN_PHASE, Contrast.OPPOSED_PHASE)


def attach_phases(
    stations: tuple[Station, ...],
    pairs: Sequence[Pair],
    series: Sequence[Series],
    wanted: Collection[Contrast],
    notes: Notes,
) -> tuple[Station, ...]:
    """Add to every station the images of further contrasts, which must lie on its grid.

    Args:
        stations: head first.
        pairs: the water and fat that each was made of.
        series: in-phase and opposed-phase, as read.
        wanted: the contrasts that every station must have.
        notes: gains a flag for each repair.

    Raises:
        ScanError: ``contrast_missing`` where a station lacks one or it lies on another grid; those of the checks of
            water and fat.
    """
    for contrast in wanted:
        own = join_parts([item for item in series if item.header.contrast is contrast], notes)
        own = [item for item in own if checks.tilt_degrees(item) <= MAX_TILT_DEGREES]
        both = zip(stations, pairs, strict=True)
        found = [_voxels_of(station, pair, own, contrast, notes) for station, pair in both]
        if contrast is Contrast.IN_PHASE:
            stations = tuple(replace(s, in_phase=v) for s, v in zip(stations, found, strict=True))
        else:
            stations = tuple(replace(s, opposed_phase=v) for s, v in zip(stations, found, strict=True))
    return stations


def _voxels_of(station: Station, pair: Pair, series: Sequence[Series], contrast: Contrast, notes: Notes) -> Voxels:
    """The voxels of a contrast on a station's grid: (rows, cols, slices), head first."""
    chosen = checks.nearest_series(pair.water, series)
    if chosen is None:
        raise ScanError(
            Reason.CONTRAST_MISSING,
            f"station {station.number} has no {contrast.label} series; leave it out of `contrasts`, or check the "
            "export or the unpacking of the scan",
        )
    item = scale(checks.repair_slices(station.number, chosen, notes))
    checks.check_values(station.number, item)
    rows, cols, slices = station.shape
    z = float(station.position_mm[2]) - np.arange(slices) * float(station.spacing_mm[2])
    first = int(np.argmin(np.abs(item.positions_mm[:, 2] - z[0])))
    place = item.positions_mm[first : first + slices]
    voxels = item.voxels[first : first + slices, :rows, :cols]
    in_plane = np.asarray(item.header.pixel_spacing_mm, np.float32) - station.spacing_mm[:2]
    if (
        voxels.shape != (slices, rows, cols)
        or np.abs(place[:, 2] - z).max() > SAME_POSITION_TOLERANCE_MM
        or np.abs(place.max(axis=0)[:2] - station.position_mm[:2]).max() > SAME_POSITION_TOLERANCE_MM
        or np.abs(in_plane * (rows, cols)).max() > SAME_POSITION_TOLERANCE_MM
    ):
        raise ScanError(
            Reason.CONTRAST_MISSING,
            f"{item.header.label} does not lie on the grid of water and fat at station {station.number} (tolerance "
            f"{SAME_POSITION_TOLERANCE_MM:g} mm); leave it out of `contrasts`",
        )
    return voxels.transpose(1, 2, 0)
