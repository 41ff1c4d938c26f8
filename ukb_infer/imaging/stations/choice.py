"""Choose the series of stations: join split series, ignore other images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from ukb_infer.errors import ScanError
from ukb_infer.imaging.readers.image_words import COMPOSED, COPY
from ukb_infer.imaging.series import MAX_TILT_DEGREES, PER_SLICE, LeftOut, Series, scale_slices
from ukb_infer.imaging.stations.checks import SPACING_TOLERANCE, Notes, Pair, tilt_degrees
from ukb_infer.protocol import NEAR_DUPLICATE_MM, SAME_POSITION_TOLERANCE_MM
from ukb_infer.reasons import Reason

#: A series whose slices are not axial: a localizer, reformatted images, or a tilted station.
NOT_AXIAL = "series that is not axial"
#: Failures that ignored images may explain.
_EXPLAINED = frozenset({Reason.NO_WATER_SERIES, Reason.NO_FAT_SERIES, Reason.STATION_MISSING, Reason.SPLIT_SERIES})


def check_not_only_derived(series: Sequence[Series], left_out: LeftOut) -> None:
    """Refuse an input with only derived images.

    Args:
        series: all that are named water or fat.
        left_out: ignored images of the input.

    Raises:
        ScanError: ``only_derived_images``.
    """
    if not series and left_out:
        raise ScanError(
            Reason.ONLY_DERIVED_IMAGES,
            f"no water and no fat images, only {left_out}; pass the input with the images themselves",
        )


def choose_series(series: Sequence[Series], notes: Notes, left_out: LeftOut) -> list[Series]:
    """Join the parts of split series and ignore other images.

    Args:
        series: all that are named water or fat.
        notes: gains ``series_joined``.
        left_out: counts composed series and those that are not axial.

    Returns:
        The series of stations.

    Raises:
        ScanError: ``split_series`` if parts do not agree.
    """
    chosen = _without(series, [not tilt_degrees(item) <= MAX_TILT_DEGREES for item in series], NOT_AXIAL, left_out)
    chosen = join_parts(chosen, notes)
    chosen = _without(chosen, [COMPOSED in item.header.marks.aside for item in chosen], COMPOSED, left_out)
    return _without(chosen, [_is_composed(item, chosen) for item in chosen], COMPOSED, left_out)


def _without(series: Sequence[Series], is_extra: Sequence[bool], kind: str, left_out: LeftOut) -> list[Series]:
    """Ignore some series, unless no water or fat would remain."""
    kept = [item for item, extra in zip(series, is_extra, strict=True) if not extra]
    if len({item.is_water for item in kept}) < 2:
        return list(series)
    for index, (item, extra) in enumerate(zip(series, is_extra, strict=True)):
        if extra:
            left_out.add(kind, f"{index} {item.header.uid}")
    return kept


def _is_composed(item: Series, series: Sequence[Series]) -> bool:
    """Whether a series spans at least two others of its contrast at different heights."""
    slack = NEAR_DUPLICATE_MM
    inside = [
        other
        for other in series
        if other is not item
        and other.is_water == item.is_water
        and other.top_mm <= item.top_mm + slack
        and other.bottom_mm >= item.bottom_mm - slack
        and other.top_mm - other.bottom_mm < 0.75 * (item.top_mm - item.bottom_mm)
    ]
    # Two parts of an aborted repeat are at one height; stations are more than half their length apart.
    return any(
        abs(a.top_mm - b.top_mm) > max(slack, 0.5 * (a.top_mm - a.bottom_mm)) for a, b in combinations(inside, 2)
    )


# -- parts of one series ----------------------------------------------------------------------------------------------


def join_parts(series: Sequence[Series], notes: Notes) -> list[Series]:
    """Join series that are parts of one: same number and description, and slices that continue or interleave.

    Args:
        series: of water and fat.
        notes: gains ``series_joined``.

    Raises:
        ScanError: ``split_series`` if slices of one time continue or interleave, but the rest differs.
    """
    groups: dict[tuple[object, ...], list[Series]] = defaultdict(list)
    for item in series:
        groups[(item.header.contrast, item.header.number, item.header.description)].append(item)
    joined: list[Series] = []
    for (_, number, _), group in groups.items():
        joined += _join_group(group, notes) if number is not None and len(group) > 1 else group
    if len(joined) < len(series):
        joined.sort(key=lambda item: -item.top_mm)
    _check_no_parts(joined)
    return joined


def _join_group(group: Sequence[Series], notes: Notes) -> list[Series]:
    """Join a whole group, else two at a time, as long as two fit."""
    parts = list(group)
    for size in range(len(parts), 1, -1):
        for some in combinations(parts, size) if len(parts) <= 6 or size in (len(parts), 2) else ():
            if _difference(some) is None and _fit_together(some):
                rest = [item for item in parts if not any(item is part for part in some)]
                label = some[0].header.label
                notes.add(Reason.SERIES_JOINED, f"{label} had {size} SeriesInstanceUIDs; joined")
                return _join_group([*rest, _concatenate(some)], notes)
    return parts


def _difference(parts: Sequence[Series]) -> str | None:
    """Difference that keeps parts from being one series; None if they agree."""
    headers = [part.header for part in parts]
    if len({header.number for header in headers}) > 1:
        return f"SeriesNumber ({' and '.join(str(header.number) for header in headers)})"
    if len({header.description for header in headers}) > 1:
        return "SeriesDescription"
    if len({(header.rows, header.cols) for header in headers}) > 1:
        return "matrix"
    if len({part.header.processing for part in parts}) > 1:
        return "ImageType"
    for name in ("orientation", "pixel_spacing_mm"):
        values = np.array([getattr(header, name) for header in headers], np.float64)
        if not np.allclose(values, values[0], rtol=1e-5, atol=1e-5):
            return name
    in_plane = np.array([part.positions_mm[0, :2] for part in parts])
    if np.abs(in_plane - in_plane[0]).max() > SAME_POSITION_TOLERANCE_MM:
        return "in-plane position"
    return None


def _fit_together(parts: Sequence[Series]) -> bool:
    """Whether no position occurs twice, and all slices are evenly spaced (one may be missing)."""
    z = np.sort(np.concatenate([part.positions_mm[:, 2] for part in parts]))
    if len(z) < 3 or not np.isfinite(z).all():
        return False
    gaps = np.diff(z)
    spacing = float(np.median(gaps))
    if spacing <= 2 * SAME_POSITION_TOLERANCE_MM:
        return False
    steps = np.rint(gaps / spacing)
    even = np.abs(gaps - steps * spacing) <= max(SAME_POSITION_TOLERANCE_MM, SPACING_TOLERANCE * spacing)
    return bool(even.all() and (steps >= 1).all() and steps.sum() - len(gaps) <= 1)


def _concatenate(parts: Sequence[Series]) -> Series:
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in PER_SLICE}
    header = replace(parts[0].header, time_s=max(part.header.time_s for part in parts))
    stored, scaled = scale_slices(
        replace(parts[0], header=header, **joined), [part.header for part in parts for _ in part.positions_mm]
    )
    return replace(stored, findings=(*dict.fromkeys(finding for part in parts for finding in part.findings), *scaled))


def _check_no_parts(series: Sequence[Series]) -> None:
    """Refuse two series of one time whose slices form one station but cannot be joined.

    Raises:
        ScanError: ``split_series``.
    """
    for one, other in combinations(series, 2):
        if one.is_water != other.is_water or one.header.time_s != other.header.time_s:
            continue
        if not np.isfinite(one.header.time_s) or not _fit_together((one, other)):
            continue
        difference = _difference((one, other))
        if difference is not None:
            raise ScanError(
                Reason.SPLIT_SERIES,
                f"the slices of {one.header.label} and {other.header.label} form one station, but the two differ in "
                f"{difference}; export the scan again with one series per contrast and station",
            )


# -- what is said of it -----------------------------------------------------------------------------------------------


def check_processed(pairs: Sequence[Pair], notes: Notes) -> None:
    """Flag stations whose images are named like processed copies.

    Args:
        pairs: of all stations.
        notes: gains ``processed_images``.
    """
    marks: set[str] = set()
    for pair in pairs:
        for item in (pair.water, pair.fat):
            marks.update(item.header.marks.processed)
    if marks:
        notes.add(
            Reason.PROCESSED_IMAGES, f"water or fat are named like processed copies ({', '.join(sorted(marks))}); used"
        )


def note_left_out(left_out: LeftOut, notes: Notes) -> None:
    """Flag that an image named like water or fat was ignored.

    Args:
        left_out: ignored images.
        notes: gains ``extra_images_left_out``.
    """
    if left_out:
        advice = "; to use the copies instead, pass them as an input of their own" if left_out.begins(COPY) else ""
        notes.add(Reason.EXTRA_IMAGES_LEFT_OUT, f"next to the stations: {left_out}; ignored{advice}")


def explain(error: ScanError, left_out: LeftOut) -> ScanError:
    """Return an error that also lists ignored images, if they may be the missing ones.

    Args:
        error: of reading the scan.
        left_out: ignored images.
    """
    if error.reason in _EXPLAINED and left_out.has(NOT_AXIAL):
        return ScanError(
            Reason.NOT_AXIAL,
            f"without the series that are not axial the scan is incomplete ({error.message}); only axial neck-to-knee "
            "slices can be fused",
        )
    if left_out and error.reason in _EXPLAINED:
        return ScanError(error.reason, f"{error.message} (ignored: {left_out})")
    return error
