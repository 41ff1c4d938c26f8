"""Defects of scans, made on purpose.

The names are the reason codes. Those of the image (swaps, metal …) are drawn by ``sampling.render``; the others change
the files. Codes that cannot be made by one scan's files are missing (``too_large``, which would need gigabytes;
``station_extra``, ``bad_projection``, those of the estimates and the run).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ukb_infer.errors import UsageError
from ukb_infer.phantom.plan import CONTRASTS, ScanPlan, SeriesPlan, SlicePlan
from ukb_infer.reasons import Reason
from ukb_infer.records import Station
from ukb_infer.text import suggest

Alter = Callable[[ScanPlan, int], None]

#: Smallest scan for file anomalies: it has a middle station with enough slices to lose some.
MIN_STATIONS, MIN_SLICES = 3, 8


@dataclass(frozen=True)
class Anomaly:
    """How an anomaly is made.

    Attributes:
        alter: changes the plan of the DICOM files; None if made elsewhere.
        formats: formats it can be written in.
        effect: drawn into the image by ``render``.
    """

    alter: Alter | None = None
    formats: tuple[str, ...] = ("zip", "dicom")
    effect: bool = False


def _shift(series: SeriesPlan, dx: float = 0.0, dz: float = 0.0) -> None:
    for item in series.slices:
        x, y, z = item.position_mm
        item.position_mm = (x + dx, y, z + dz)


def _copy_of(series: SeriesPlan, number: int, time: str) -> SeriesPlan:
    slices = [SlicePlan(s.position_mm, s.pixels.copy()) for s in series.slices]
    return replace(series, number=number, time=time, slices=slices, extra=dict(series.extra))


def _middle_station(plan: ScanPlan, seed: int) -> int:
    return 2 + seed % (plan.stations - 2)


def _repeat(plan: ScanPlan, seed: int, dz: float) -> None:
    """Repeat a station; the older acquisition has a motion ghost, the repeat is good."""
    old = plan.of_station(_middle_station(plan, seed))
    highest = max(s.number for s in plan.series)
    for k, series in enumerate(old):
        again = _copy_of(series, highest + 1 + k, "113000")
        _shift(again, dz=dz)
        plan.series.append(again)
        for item in series.slices:
            item.pixels = np.asarray(0.6 * item.pixels + 0.4 * np.roll(item.pixels, 12, axis=0), np.uint16)


def _station_missing(plan: ScanPlan, seed: int) -> None:
    """An interior station in most variants; the last or the first in every fourth and fifth."""
    choice = {3: plan.stations, 4: 1}.get(seed % 5, _middle_station(plan, seed))
    plan.series = [s for s in plan.series if s.station != choice]


def _stations_do_not_overlap(plan: ScanPlan, seed: int) -> None:
    """Move all stations below one down by 80 mm, more than any overlap."""
    first = _middle_station(plan, seed) + 1
    for series in plan.series:
        if series.station >= first:
            _shift(series, dz=-80.0)


def _station_too_short(plan: ScanPlan, seed: int) -> None:
    """A middle station of few slices whose neighbours come up close to it."""
    station = _middle_station(plan, seed)
    for series in plan.of_station(station):
        series.slices = series.slices[:4]
    length = 4 * plan.of_station(station)[0].slice_spacing_mm
    bottom = plan.of_station(station)[0].slices[0].position_mm[2] - length
    top_below = plan.of_station(station + 1)[0].slices[0].position_mm[2]
    for series in plan.series:
        if series.station > station:
            _shift(series, dz=bottom + 0.7 * length - top_below)


def _in_middle(change: Callable[[SeriesPlan, int], None], contrasts: Sequence[str] = CONTRASTS) -> Alter:
    """Change the series of a middle station that have some contrasts."""

    def alter(plan: ScanPlan, seed: int) -> None:
        for series in plan.of_station(_middle_station(plan, seed), contrasts):
            change(series, seed)

    return alter


def _with(contrasts: Sequence[str] = CONTRASTS, **values: Any) -> Alter:
    """Give these series of a middle station other attributes."""

    def change(series: SeriesPlan, _: int) -> None:
        for name, value in values.items():
            setattr(series, name, value)

    return _in_middle(change, contrasts)


def _cut_matrix(series: SeriesPlan, _: int) -> None:
    for item in series.slices:
        item.pixels = item.pixels[:-2, :-3]


def _lose_slices(series: SeriesPlan, _: int) -> None:
    at = len(series.slices) // 2
    del series.slices[at : at + 3]


def _slice_interpolated(plan: ScanPlan, seed: int) -> None:
    for series in plan.of_station(_middle_station(plan, seed), "W" if seed % 2 else ("W", "F")):
        del series.slices[len(series.slices) // 3]


def _repeat_slice(series: SeriesPlan, _: int) -> None:
    item = series.slices[len(series.slices) // 2]
    series.slices.append(SlicePlan(item.position_mm, item.pixels))


def _crop_end(series: SeriesPlan, seed: int) -> None:
    series.slices = series.slices[1:] if seed % 2 else series.slices[:-1]


def _move_every_other(series: SeriesPlan, _: int) -> None:
    for item in series.slices[::2]:
        x, y, z = item.position_mm
        item.position_mm = (x + 7.0, y, z)


def _empty(series: SeriesPlan, seed: int) -> None:
    for item in series.slices:
        item.pixels = np.full_like(item.pixels, 77 if seed % 2 else 0)


def _without(contrast: str) -> Alter:
    def alter(plan: ScanPlan, seed: int) -> None:
        only = _middle_station(plan, seed) if seed % 2 else None
        plan.series = [s for s in plan.series if s.contrast != contrast or (only is not None and s.station != only)]

    return alter


def _other_protocol(plan: ScanPlan, seed: int) -> None:
    """Another echo time, or another field."""
    for series in plan.series:
        series.extra |= {"MagneticFieldStrength": "3"} if seed % 2 else {"EchoTime": "1.23"}


def _long_pause(plan: ScanPlan, seed: int) -> None:
    """The scan goes on after half an hour."""
    for series in plan.series:
        if series.station > _middle_station(plan, seed):
            series.time = f"{int(series.time) + 3000:06d}"


def _several_scans(plan: ScanPlan, seed: int) -> None:
    for series in plan.of_station(plan.stations):
        series.study = 2


def _rescale_applied(plan: ScanPlan, seed: int) -> None:
    for series in plan.series:
        series.extra |= {"RescaleSlope": "2", "RescaleIntercept": "0"}


def _encode(encoding: str) -> Alter:
    def alter(plan: ScanPlan, _: int) -> None:
        for series in plan.series:
            series.encoding = encoding  # type: ignore[assignment]
            if encoding == "multiframe":
                series.extra["NumberOfFrames"] = 2

    return alter


def _no_preamble(plan: ScanPlan, seed: int) -> None:
    """A bare data set, or (odd seeds) file meta information without preamble."""
    for series in plan.series:
        series.encoding = "no_preamble" if seed % 2 else "bare"


def _plan_with(**values: Any) -> Alter:
    """Give the scan other attributes."""

    def alter(plan: ScanPlan, _: int) -> None:
        for name, value in values.items():
            setattr(plan, name, value)

    return alter


_NIFTI, _ZIP, _ALL = ("nifti",), ("zip",), ("zip", "dicom", "nifti")
#: What :func:`ukb_infer.phantom.sampling.render` draws into the picture.
EFFECTS = (
    Reason.FAT_WATER_SWAP, Reason.FAT_WATER_SWAP_LEG, Reason.KNEE_MISSING, Reason.SHOULDER_MISSING, Reason.FOLDING,
    Reason.METAL, Reason.MOTION, Reason.LOW_SIGNAL_TO_NOISE, Reason.SATURATED, Reason.EMPTY_SLICES,
    Reason.SEAM_MISMATCH, Reason.TRUNK_CUT, Reason.OFF_CENTRE,
)  # fmt: skip

#: Every anomaly a phantom can have, by reason code.
ANOMALIES: dict[Reason, Anomaly] = {
    Reason.DUPLICATE_STATION: Anomaly(partial(_repeat, dz=0.0)),
    Reason.NEAR_DUPLICATE_STATION: Anomaly(partial(_repeat, dz=-2.5)),
    Reason.STATION_MISSING: Anomaly(_station_missing, _ALL),
    Reason.STATIONS_DO_NOT_OVERLAP: Anomaly(_stations_do_not_overlap),
    Reason.STATION_TOO_SHORT: Anomaly(_station_too_short),
    Reason.WATER_FAT_MISMATCH: Anomaly(_in_middle(lambda series, _: _shift(series, dx=3.1), "F")),
    Reason.SIZE_MISMATCH: Anomaly(_in_middle(_cut_matrix, "F")),
    Reason.SLICE_MISSING: Anomaly(_in_middle(_lose_slices, "W")),
    Reason.SLICE_INTERPOLATED: Anomaly(_slice_interpolated),
    Reason.SLICE_DUPLICATE: Anomaly(_in_middle(_repeat_slice, "W")),
    Reason.END_SLICES_CROPPED: Anomaly(_in_middle(_crop_end, "F")),
    Reason.GEOMETRY_INCONSISTENT: Anomaly(_in_middle(_move_every_other, ("W", "F"))),
    Reason.NOT_AXIAL: Anomaly(_with(orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0))),
    Reason.IMPLAUSIBLE_GEOMETRY: Anomaly(_with(pixel_spacing_mm=("0.01", "0.01"))),
    Reason.NO_WATER_SERIES: Anomaly(_without("W")),
    Reason.NO_FAT_SERIES: Anomaly(_without("F")),
    Reason.NO_DICOM: Anomaly(lambda plan, _: plan.series.clear(), _ZIP),
    Reason.UNREADABLE_ZIP: Anomaly(_plan_with(container="truncated"), _ZIP),
    Reason.ENCRYPTED_ZIP: Anomaly(_plan_with(container="encrypted"), _ZIP),
    Reason.UNREADABLE_DICOM: Anomaly(_with("W", encoding="cut_short")),
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: Anomaly(_encode("undecodable")),
    Reason.COMPRESSED_TRANSFER_SYNTAX: Anomaly(_with(encoding="rle")),
    Reason.MULTIFRAME: Anomaly(_encode("multiframe")),
    Reason.SEVERAL_SCANS: Anomaly(_several_scans),
    Reason.EMPTY_IMAGE: Anomaly(_in_middle(_empty, "W"), _ALL),
    Reason.RESCALE_APPLIED: Anomaly(_rescale_applied),
    Reason.MANIFEST_MISSPELLED: Anomaly(_plan_with(manifest="misspelled")),
    Reason.MANIFEST_MISSING: Anomaly(_plan_with(manifest="missing")),
    Reason.MANIFEST_CRLF: Anomaly(_plan_with(manifest="crlf")),
    Reason.MANIFEST_NO_NEWLINE: Anomaly(_plan_with(manifest="no_newline")),
    Reason.MANIFEST_WRONG: Anomaly(_plan_with(manifest="wrong")),
    Reason.IMPLICIT_VR: Anomaly(_encode("implicit")),
    Reason.NO_PREAMBLE: Anomaly(_no_preamble),
    Reason.MISLABELLED_TRANSFER_SYNTAX: Anomaly(_encode("mislabelled")),
    **dict.fromkeys(
        (Reason.OBLIQUE, Reason.MISSING_AFFINE, Reason.UNREADABLE_NIFTI, Reason.NON_FINITE_VALUES),
        Anomaly(None, _NIFTI),
    ),
    Reason.OTHER_PROTOCOL: Anomaly(_other_protocol),
    Reason.LONG_PAUSE: Anomaly(_long_pause),
    **dict.fromkeys(EFFECTS, Anomaly(None, _ALL, effect=True)),
}


def anomaly_names() -> list[str]:
    """Names of all anomalies."""
    return [reason.value for reason in ANOMALIES]


def find_anomaly(name: str) -> Reason:
    """Anomaly by name.

    Raises:
        UsageError: unknown name.
    """
    if name not in anomaly_names():
        raise UsageError(
            f"unknown {name!r}{suggest(name, anomaly_names())} (choices: {', '.join(anomaly_names())})",
            field="anomalies",
        )
    return Reason(name)


def check_format(anomaly: Reason, format: str) -> None:
    """Make sure that an anomaly can be written in a format.

    Args:
        anomaly: of ``ANOMALIES``.
        format: ``zip``, ``dicom`` or ``nifti``.

    Raises:
        UsageError: names the formats that have it.
    """
    formats = ANOMALIES[find_anomaly(anomaly.value)].formats
    if format not in formats:
        raise UsageError(f"`anomalies`: {anomaly.value} needs `format` {' or '.join(formats)}, got {format}")


def _check_scan(anomaly: Reason, shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuse scans too small for a defect in a middle station."""
    slices = min(shape[2] for shape in shapes)
    if len(shapes) < MIN_STATIONS or slices < MIN_SLICES:
        raise UsageError(
            f"`anomalies`: {anomaly.value} needs at least {MIN_STATIONS} stations of {MIN_SLICES} slices, "
            f"got {len(shapes)} of {slices}"
        )


def apply_to_plan(plan: ScanPlan, anomaly: Reason | None, format: str, seed: int) -> None:
    """Change a plan by one anomaly of the files.

    Args:
        plan: of a scan without defects; changed in place.
        anomaly: None and those of the image change nothing.
        format: ``zip`` or ``dicom``.
        seed: chooses the station and among variants.

    Raises:
        UsageError: the anomaly does not exist in this format, or the scan is too small.
    """
    if anomaly is None:
        return
    check_format(anomaly, format)
    alter = ANOMALIES[anomaly].alter
    if alter is not None:
        _check_scan(anomaly, [(*s.slices[0].pixels.shape, len(s.slices)) for s in plan.series if s.contrast == "W"])
        alter(plan, seed)


def alter_nifti_stations(stations: list[Station], anomaly: Reason | None, seed: int) -> list[Station]:
    """Stations as written to NIfTI: one is missing or without signal if that is the anomaly.

    Args:
        stations: head first; the list is changed in place if one loses its signal.
        anomaly: None and those of the image change nothing.
        seed: chooses the station and the value of an image without signal.

    Raises:
        UsageError: the anomaly does not exist in this format, or the scan is too small.
    """
    if anomaly is None:
        return stations
    check_format(anomaly, "nifti")
    if ANOMALIES[anomaly].effect:
        return stations
    _check_scan(anomaly, [station.shape for station in stations])
    middle = 1 + seed % (len(stations) - 2)
    if anomaly is Reason.STATION_MISSING:
        gone = {3: len(stations) - 1, 4: 0}.get(seed % 5, middle)
        return [s for k, s in enumerate(stations) if k != gone]
    if anomaly is Reason.EMPTY_IMAGE:
        water = np.full_like(stations[middle].water, 77 if seed % 2 else 0)
        stations[middle] = replace(stations[middle], water=water)
    return stations
