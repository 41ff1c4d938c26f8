"""Checks and repairs between reading and fusion.

Every failure is a :class:`~ukb_infer.errors.ScanError` with a reason code; every repair adds a flag and a sentence to
:class:`Notes`. Stations are numbered from 1, head first, in all messages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.imaging.series import MAX_TILT_DEGREES, Finding, Series, Voxels, check_positions, check_spacing, scale
from ukb_infer.protocol import NEAR_DUPLICATE_MM, PROTOCOL, SAME_POSITION_TOLERANCE_MM
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, Station

#: Largest gap between slices, relative to their thickness, that SpacingBetweenSlices may mean.
LARGEST_GAP = 0.5
#: Direction cosines may differ from length 1 by this; they are decimal strings.
UNIT_TOLERANCE = 0.01
#: Relative tolerance for even slice spacing (decimal strings are rounded).
SPACING_TOLERANCE = 0.05
#: Most end slices that may be cropped from one contrast: the overlap that fusion blends.
MAX_CROPPED_SLICES = 8
#: A repeat with a smaller share of the slices of its station was aborted and is not used.
COMPLETE_REPEAT = 0.9
#: Water and fat match if their z ranges share at least this part of the shorter one.
SHARED_RANGE = 0.5
#: Series of one acquisition have consecutive numbers: in, opp, F, W.
SERIES_PER_STATION = 4


@dataclass
class Notes:
    """Flags raised while reading a scan, one sentence per finding."""

    _found: dict[Reason, list[str]] = field(default_factory=dict)

    def add(self, reason: Reason, sentence: str) -> None:
        """Raise a flag.

        Args:
            reason: the flag.
            sentence: what was found, and what was done.
        """
        self._found.setdefault(reason, []).append(sentence)

    @property
    def flags(self) -> tuple[Reason, ...]:
        """Every flag once, in the order of discovery."""
        return tuple(self._found)

    @property
    def messages(self) -> tuple[str, ...]:
        """One text per flag."""
        return tuple("; ".join(sentences) for sentences in self._found.values())


@dataclass(frozen=True)
class Pair:
    """Water and fat of one acquisition of one station."""

    water: Series
    fat: Series

    @property
    def position_mm(self) -> NDArray[np.float64]:
        """(3,) element-wise maximum over the water slices."""
        position: NDArray[np.float64] = self.water.positions_mm.max(axis=0)
        return position

    @property
    def slices(self) -> int:
        """Slices of the longer contrast."""
        return max(len(self.water.positions_mm), len(self.fat.positions_mm))

    @property
    def age_key(self) -> tuple[float, int]:
        """Sorts repeats, the newest last: by SeriesTime, then by number."""
        time = max(self.water.header.time_s, self.fat.header.time_s)
        return time, -1 if self.water.header.number is None else self.water.header.number

    @property
    def rank(self) -> int:
        """Preference among copies: 0 unmarked, 1 marked as original, 2 marked as processed."""
        return max(self.water.header.marks.rank, self.fat.header.marks.rank)


# -- the scan -------------------------------------------------------------------------------------------------------


def check_one_scan(series: Sequence[Series]) -> None:
    """Refuse series of more than one examination or participant.

    Raises:
        ScanError: ``several_scans``.
    """
    for what, values in (
        ("examinations (StudyInstanceUID)", {item.header.study_uid for item in series}),
        ("participants (PatientID)", {item.header.patient_id for item in series}),
    ):
        known = values - {""}
        if len(known) > 1:
            raise ScanError(
                Reason.SEVERAL_SCANS,
                f"series of {len(known)} {what} in one input, expected 1; pass one examination per input",
            )


def check_contrasts(series: Sequence[Series]) -> None:
    """Refuse a scan without water or fat.

    Raises:
        ScanError: ``no_water_series`` or ``no_fat_series``.
    """
    water = sum(item.is_water for item in series)
    for count, reason, name in (
        (water, Reason.NO_WATER_SERIES, "water (_W)"),
        (len(series) - water, Reason.NO_FAT_SERIES, "fat (_F)"),
    ):
        if count == 0:
            raise ScanError(reason, f"no {name} series among {len(series)} water and fat series; {_LOOK}")


def check_axial(series: Sequence[Series]) -> None:
    """Refuse slices that are tilted by more than ``MAX_TILT_DEGREES`` from axial, or flipped.

    Raises:
        ScanError: ``not_axial``, or ``implausible_geometry`` for directions that are not unit vectors.
    """
    for item in series:
        tilt = tilt_degrees(item)
        if not tilt <= MAX_TILT_DEGREES:
            raise ScanError(
                Reason.NOT_AXIAL,
                f"{item.header.label} is tilted by {tilt:.1f} degrees from axial, expected at most "
                f"{MAX_TILT_DEGREES:g}; only axial neck-to-knee slices can be fused",
            )
        lengths = np.linalg.norm(np.reshape(item.header.orientation, (2, 3)), axis=1)
        if not (np.abs(lengths - 1.0) <= UNIT_TOLERANCE).all():
            raise ScanError(
                Reason.IMPLAUSIBLE_GEOMETRY,
                f"{item.header.label} has directions of lengths {lengths[0]:g} and {lengths[1]:g} in "
                f"ImageOrientationPatient, expected 1; {_EXPORT}",
            )


def tilt_degrees(item: Series) -> float:
    """Angle between a series' slices and axial ones, degrees; nan for directions without length."""
    row, col = np.array(item.header.orientation[:3]), np.array(item.header.orientation[3:])
    return float(np.max([_angle(row, (1.0, 0.0, 0.0)), _angle(col, (0.0, 1.0, 0.0))]))


def _angle(vector: NDArray[np.float64], axis: tuple[float, float, float]) -> float:
    """Angle between a direction and an axis, degrees; nan for a direction without length."""
    cross = np.linalg.norm(np.cross(vector, axis))
    dot = float(np.dot(vector, axis))
    if not (cross or dot):
        return math.nan
    return math.degrees(math.atan2(float(cross), dot))


# -- water and fat --------------------------------------------------------------------------------------------------


def pair_contrasts(series: Sequence[Series], notes: Notes) -> list[Pair]:
    """Find the fat series that was acquired with each water series.

    If z ranges agree, the series with the nearest number is chosen, then the nearest in time and position, because
    repeats of a station have other numbers. Remaining series pair within their group of four numbers, to be reported
    as a mismatch.

    Args:
        series: all water and fat series.
        notes: gains ``duplicate_station`` for half a repeat.

    Returns:
        Pairs, head first.

    Raises:
        ScanError: ``no_water_series`` or ``no_fat_series``, naming the station.
    """
    waters = [item for item in series if item.is_water]
    fats = [item for item in series if not item.is_water]
    candidates = [(w, f) for w in range(len(waters)) for f in range(len(fats))]
    together = [(w, f) for w, f in candidates if _shared_range(waters[w], fats[f]) >= SHARED_RANGE]
    acquired = [(w, f) for w, f in candidates if _same_acquisition(waters[w], fats[f])]
    partner: dict[int, int] = {}
    for allowed in (together, acquired):
        for w, f in sorted(allowed, key=lambda pair: _distance(waters[pair[0]], fats[pair[1]])):
            if w not in partner and f not in partner.values():
                partner[w] = f
    pairs = sorted((Pair(waters[w], fats[f]) for w, f in partner.items()), key=lambda pair: -pair.water.top_mm)
    single = [item for w, item in enumerate(waters) if w not in partner]
    single += [item for f, item in enumerate(fats) if f not in partner.values()]
    for item in single:
        _judge_single(item, pairs, single, notes)
    return pairs


def _judge_single(item: Series, pairs: Sequence[Pair], single: Sequence[Series], notes: Notes) -> None:
    """Ignore half a repeat of a complete station; refuse a station without one contrast."""
    if any(abs(pair.water.top_mm - item.top_mm) <= NEAR_DUPLICATE_MM for pair in pairs):
        notes.add(Reason.DUPLICATE_STATION, f"{item.header.label} has no partner and repeats a station; not used")
        return
    tops = sorted([pair.water.top_mm for pair in pairs] + [other.top_mm for other in single], reverse=True)
    number = 1 + tops.index(item.top_mm)
    missing, reason = ("fat", Reason.NO_FAT_SERIES) if item.is_water else ("water", Reason.NO_WATER_SERIES)
    raise ScanError(reason, f"station {number} has no {missing} series ({item.header.label} is alone); {_LOOK}")


def _shared_range(one: Series, other: Series) -> float:
    """Shared part of two z ranges, relative to the shorter one."""
    shared = min(one.top_mm, other.top_mm) - max(one.bottom_mm, other.bottom_mm)
    shorter = min(one.top_mm - one.bottom_mm, other.top_mm - other.bottom_mm)
    return shared / shorter if shorter > 0 else float(shared >= 0)


def nearest_series(water: Series, series: Sequence[Series]) -> Series | None:
    """Return the series that was acquired with a water series, by number, time and position; None where there is none.

    Args:
        water: of a station.
        series: of one other contrast.
    """
    together = [item for item in series if _shared_range(water, item) >= SHARED_RANGE]
    return min(together, key=lambda item: _distance(water, item), default=None)


def _same_acquisition(water: Series, fat: Series) -> bool:
    """Whether the numbers of two series are in one group of four, or their NIfTI files share a name."""
    w, f = water.header.number, fat.header.number
    if w is None or f is None:
        return _same_name(water, fat)
    return (w - 1) // SERIES_PER_STATION == (f - 1) // SERIES_PER_STATION


def _same_name(water: Series, fat: Series) -> bool:
    """Whether the two are NIfTI files that share a name (DICOM series never share a uid)."""
    return water.header.uid == fat.header.uid != ""


def _distance(water: Series, fat: Series) -> tuple[bool, float, float, float]:
    """Sort key of how likely two series are one acquisition: processing, numbers, seconds, mm."""
    w, f = water.header.number, fat.header.number
    numbers = math.inf if w is None or f is None else float(abs(w - f))
    seconds = abs(water.header.time_s - fat.header.time_s)
    position = float(np.abs(water.positions_mm.max(axis=0) - fat.positions_mm.max(axis=0)).max())
    one, other = water.header, fat.header
    processed = (one.marks, one.processing) != (other.marks, other.processing)
    return processed, 0.0 if _same_name(water, fat) else numbers, math.inf if math.isnan(seconds) else seconds, position


# -- stations -------------------------------------------------------------------------------------------------------


def drop_repeats(pairs: Sequence[Pair], notes: Notes) -> list[Pair]:
    """Keep the newest of stations repeated at the same z (within 5 mm).

    An aborted repeat (fewer than 90 % of the slices) does not replace a complete one. Among copies of one acquisition
    unmarked ones have priority, then those marked as original.

    Args:
        pairs: in any order.
        notes: gains ``duplicate_station``, ``near_duplicate_station`` or ``extra_images_left_out``.

    Returns:
        Pairs, head first.

    Raises:
        ScanError: ``ambiguous_series`` if the newest of several different images is unknown.
    """
    kept: list[Pair] = []
    ordered = sorted(pairs, key=lambda pair: pair.water.top_mm, reverse=True)
    for group in _groups_of_repeats(ordered):
        longest = max(pair.slices for pair in group)
        complete = [pair for pair in group if pair.slices >= COMPLETE_REPEAT * longest]
        best = min(pair.rank for pair in complete)
        preferred = [pair for pair in complete if pair.rank == best]
        newest = max(preferred, key=lambda pair: pair.age_key)
        _check_newest(len(kept) + 1, newest, preferred)
        kept.append(newest)
        for pair in group:
            if pair is not newest:
                _note_repeat(len(kept), pair, newest, notes)
    return kept


def _groups_of_repeats(ordered: Sequence[Pair]) -> list[list[Pair]]:
    """Group pairs, sorted by z, within ``NEAR_DUPLICATE_MM`` of the first of their group."""
    groups: list[list[Pair]] = []
    for pair in ordered:
        if groups and groups[-1][0].water.top_mm - pair.water.top_mm <= NEAR_DUPLICATE_MM:
            groups[-1].append(pair)
        else:
            groups.append([pair])
    return groups


def _check_newest(number: int, newest: Pair, pairs: Sequence[Pair]) -> None:
    """Refuse to choose between different images if the newest is unknown.

    Raises:
        ScanError: ``ambiguous_series``.
    """
    for pair in pairs:
        if pair is newest or _is_newer(newest, pair):
            continue
        if not (_same_voxels(newest.water, pair.water) and _same_voxels(newest.fat, pair.fat)):
            found = set(newest.water.header.processing) ^ set(pair.water.header.processing)
            differ = f"; their ImageType differs in {', '.join(sorted(found))}" if found else ""
            raise ScanError(
                Reason.AMBIGUOUS_SERIES,
                f"station {number} has several different images of water and fat, and neither a time nor a series "
                f"number shows which is newest{differ}; keep one of them in the input",
            )


def _is_newer(one: Pair, other: Pair) -> bool:
    """Whether a pair is newer by time or, for the same processing, by series number."""
    times = [max(pair.water.header.time_s, pair.fat.header.time_s) for pair in (one, other)]
    if np.isfinite(times).all() and times[0] != times[1]:
        return times[0] > times[1]
    numbers = [pair.water.header.number for pair in (one, other)]
    alike = one.water.header.processing == other.water.header.processing
    return alike and numbers[0] is not None and numbers[1] is not None and numbers[0] > numbers[1]


def _same_voxels(one: Series, other: Series) -> bool:
    """Whether two series have identical slices."""
    order, other_order = _order(one), _order(other)
    scalings = [item.header.scaling.numbers for item in (one, other)]
    return one.voxels.shape == other.voxels.shape and bool(
        scalings[0] == scalings[1]
        and np.array_equal(one.voxels[order], other.voxels[other_order])
        and np.array_equal(one.positions_mm[order], other.positions_mm[other_order])
    )


def _order(item: Series) -> NDArray[np.intp]:
    return np.argsort(item.positions_mm[:, 2], kind="stable")


def _note_repeat(number: int, pair: Pair, newest: Pair, notes: Notes) -> None:
    if pair.rank != newest.rank:
        marks = pair.water.header.marks.text or pair.fat.header.marks.text
        notes.add(Reason.EXTRA_IMAGES_LEFT_OUT, f"station {number} has a copy marked {marks}; not used")
        return
    offset = float(np.abs(pair.position_mm - newest.position_mm).max())
    if offset <= SAME_POSITION_TOLERANCE_MM:
        notes.add(Reason.DUPLICATE_STATION, f"station {number} was acquired again at the same position; newest used")
    else:
        notes.add(
            Reason.NEAR_DUPLICATE_STATION, f"station {number} was acquired again {offset:.1f} mm away; newest used"
        )


def build_station(number: int, pair: Pair, notes: Notes) -> Station:
    """Check and repair one pair of series, and make it a station.

    Args:
        number: of the station, from 1.
        pair: its water and fat series.
        notes: gains a flag for each repair.

    Raises:
        ScanError: ``slice_missing``, ``geometry_inconsistent``, ``implausible_geometry``, ``water_fat_mismatch``,
            ``empty_image``, ``non_finite_values`` or ``station_too_short``.
    """
    water, fat = (repair_slices(number, item, notes) for item in (pair.water, pair.fat))
    water, fat = crop_to_common_matrix(number, water, fat, notes)
    water, fat = crop_to_common_slices(number, water, fat, notes)
    check_same_position(number, water, fat)
    water, fat = apply_rescale(number, water, fat, notes)
    check_values(number, water)
    check_values(number, fat)
    return _to_station(number, water, fat)


def repair_slices(number: int, series: Series, notes: Notes) -> Series:
    """Order the slices head first, drop repeated ones, and interpolate a single missing interior one.

    Args:
        number: of the station.
        series: as read.
        notes: gains ``slice_duplicate`` and ``slice_interpolated``.

    Returns:
        The series with evenly spaced slices by descending z.

    Raises:
        ScanError: ``implausible_geometry``, ``geometry_inconsistent``, ``slice_missing`` or ``station_too_short``.
    """
    check_positions(series.positions_mm, f"{series.header.label} (station {number})")
    series = _drop_repeated_slices(number, _head_first(series), notes)
    if len(series.positions_mm) < 2:
        raise ScanError(
            Reason.STATION_TOO_SHORT, f"{series.header.label} (station {number}) has a single slice; {_LOOK}"
        )
    _check_in_plane_positions(number, series)
    gaps = -np.diff(series.positions_mm[:, 2])
    spacing = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    steps = np.rint(gaps / spacing)
    if (np.abs(gaps - steps * spacing) > max(SAME_POSITION_TOLERANCE_MM, SPACING_TOLERANCE * spacing)).any():
        raise ScanError(
            Reason.GEOMETRY_INCONSISTENT,
            f"slices of {series.header.label} (station {number}) are {gaps.min():.2f} to {gaps.max():.2f} mm apart, "
            f"expected multiples of {spacing:.2f} mm; {_SEPARATE}",
        )
    missing = int(steps.sum()) - len(gaps)
    if missing > 1:
        raise ScanError(
            Reason.SLICE_MISSING,
            f"{missing} interior slices of {series.header.label} (station {number}) are missing, "
            f"at most 1 can be interpolated; {_LOOK_ALL}",
        )
    return _interpolate_slice(number, series, int(np.argmax(steps)), notes) if missing else series


def _head_first(series: Series) -> Series:
    """Order slices by descending z, and repeated ones with the newest first."""
    order = np.lexsort((series.instances, -series.times_s, -series.positions_mm[:, 2]))
    return series if (order == np.arange(len(order))).all() else series.take(order)


def _drop_repeated_slices(number: int, series: Series, notes: Notes) -> Series:
    """Keep the newest of slices at the same z; of equally new ones that with the lowest InstanceNumber."""
    z = series.positions_mm[:, 2]
    new_place = np.append(True, -np.diff(z) > SAME_POSITION_TOLERANCE_MM)
    if new_place.all():
        return series
    place = np.cumsum(new_place)
    order = np.lexsort((series.instances, -series.times_s, place))
    first = order[np.append(True, np.diff(place[order]) > 0)]
    notes.add(
        Reason.SLICE_DUPLICATE,
        f"{len(z) - len(first)} slices of {series.header.label} (station {number}) occur twice; newest used",
    )
    return series.take(first)


def _check_in_plane_positions(number: int, series: Series) -> None:
    """Refuse slices that are not stacked along the slice normal.

    Raises:
        ScanError: ``geometry_inconsistent``.
    """
    normal = np.cross(series.header.orientation[:3], series.header.orientation[3:])
    offset = series.positions_mm - series.positions_mm[0]
    drift = offset[:, :2] - offset[:, 2:] * (normal[:2] / normal[2])
    found = float(np.abs(drift).max())
    if found > SAME_POSITION_TOLERANCE_MM:
        raise ScanError(
            Reason.GEOMETRY_INCONSISTENT,
            f"slices of {series.header.label} (station {number}) are shifted in plane by up to {found:.1f} mm, "
            f"expected at most {SAME_POSITION_TOLERANCE_MM:g}; {_SEPARATE}",
        )


def _interpolate_slice(number: int, series: Series, after: int, notes: Notes) -> Series:
    """Fill the gap after a slice with the mean of its neighbours, at its true position.

    16-bit voxels stay 16-bit: halves are rounded to even.
    """
    upper, lower = series.voxels[after].astype(np.float64), series.voxels[after + 1].astype(np.float64)
    middle = (upper + lower) / 2.0
    filled = np.rint(middle) if series.voxels.dtype == np.uint16 else middle
    parts = [series.voxels[: after + 1], filled[np.newaxis].astype(series.voxels.dtype), series.voxels[after + 1 :]]
    notes.add(
        Reason.SLICE_INTERPOLATED,
        f"slice {after + 2} of {series.header.label} (station {number}) was missing and interpolated",
    )
    position = (series.positions_mm[after] + series.positions_mm[after + 1]) / 2.0
    at = after + 1
    return replace(
        series,
        voxels=cast(Voxels, np.concatenate(parts)),
        positions_mm=np.insert(series.positions_mm, at, position, axis=0),
        instances=np.insert(series.instances, at, 0),
        times_s=np.insert(series.times_s, at, series.times_s[after]),
    )


def crop_to_common_matrix(number: int, water: Series, fat: Series, notes: Notes) -> tuple[Series, Series]:
    """Crop water and fat to the rows and columns both have, from index 0.

    Args:
        number: of the station, from 1.
        water: (slices, rows, cols) voxels.
        fat: likewise.
        notes: gains ``size_mismatch``.
    """
    sizes = [item.voxels.shape[1:] for item in (water, fat)]
    if sizes[0] == sizes[1]:
        return water, fat
    rows, cols = min(sizes[0][0], sizes[1][0]), min(sizes[0][1], sizes[1][1])
    notes.add(
        Reason.SIZE_MISMATCH,
        f"water is {sizes[0][0]} x {sizes[0][1]} and fat {sizes[1][0]} x {sizes[1][1]} at station {number}; "
        f"cropped to {rows} x {cols}",
    )
    return _crop_matrix(water, rows, cols), _crop_matrix(fat, rows, cols)


def _crop_matrix(series: Series, rows: int, cols: int) -> Series:
    return replace(series, voxels=cast(Voxels, np.ascontiguousarray(series.voxels[:, :rows, :cols])))


def crop_to_common_slices(number: int, water: Series, fat: Series, notes: Notes) -> tuple[Series, Series]:
    """Crop end slices that one contrast lacks.

    Only if one z range contains the other: two shifted contrasts are a mismatch.

    Args:
        number: of the station, from 1.
        water: slices head first.
        fat: likewise.
        notes: gains ``end_slices_cropped``.

    Raises:
        ScanError: ``slice_missing`` if more than ``MAX_CROPPED_SLICES`` are missing.
    """
    if len(water.positions_mm) == len(fat.positions_mm):
        return water, fat
    longer, shorter = (water, fat) if len(water.positions_mm) > len(fat.positions_mm) else (fat, water)
    n = len(shorter.positions_mm)
    excess = len(longer.positions_mm) - n
    start = int(np.argmin(np.abs(longer.positions_mm[:, 2] - shorter.positions_mm[0, 2])))
    start = min(start, excess)  # if the shorter one extends lower, the position check will refuse it
    if excess > MAX_CROPPED_SLICES:
        raise ScanError(
            Reason.SLICE_MISSING,
            f"{shorter.header.label} (station {number}) lacks {excess} end slices that {longer.header.label} has, "
            f"at most {MAX_CROPPED_SLICES} can be cropped; {_LOOK_ALL}",
        )
    cropped = longer.take(slice(start, start + n))
    notes.add(
        Reason.END_SLICES_CROPPED,
        f"{shorter.header.label} lacks {excess} end slices at station {number}; both were cropped to {n} slices",
    )
    return (cropped, shorter) if longer is water else (shorter, cropped)


def check_same_position(number: int, water: Series, fat: Series) -> None:
    """Refuse water and fat that are not on one grid.

    Args:
        number: of the station, from 1.
        water: slices head first.
        fat: as many slices, rows and columns.

    Raises:
        ScanError: ``water_fat_mismatch``.
    """
    offset = float(np.abs(water.positions_mm - fat.positions_mm).max())
    if offset > SAME_POSITION_TOLERANCE_MM:
        raise ScanError(
            Reason.WATER_FAT_MISMATCH,
            f"water and fat differ by {offset:.1f} mm at station {number} "
            f"(tolerance {SAME_POSITION_TOLERANCE_MM:g} mm); {_TOGETHER}",
        )
    spacings = np.array([water.header.pixel_spacing_mm, fat.header.pixel_spacing_mm])
    extent = float((np.abs(spacings[0] - spacings[1]) * water.voxels.shape[1:]).max())
    if extent > SAME_POSITION_TOLERANCE_MM:
        raise ScanError(
            Reason.WATER_FAT_MISMATCH,
            f"water and fat have pixel spacings of {spacings[0]} and {spacings[1]} mm at station {number}; {_TOGETHER}",
        )


def apply_rescale(number: int, water: Series, fat: Series, notes: Notes) -> tuple[Series, Series]:
    """Apply the slopes and intercepts of water and fat.

    Args:
        number: of the station, from 1.
        water: stored values.
        fat: likewise.
        notes: gains ``rescale_applied``.

    Raises:
        ScanError: ``non_finite_values`` if they are not finite, ``water_fat_mismatch`` if they give values of different
            kinds.
    """
    kinds = [item.header.scaling.words for item in (water, fat)]
    if kinds[0] != kinds[1]:
        raise ScanError(
            Reason.WATER_FAT_MISMATCH,
            f"values of water and fat are not comparable at station {number}: water has a {kinds[0]} slope, fat a "
            f"{kinds[1]} slope, expected one kind; export both with the same elements",
        )
    scales = [item.header.scaling.numbers for item in (water, fat)]
    if not np.isfinite(scales).all():
        raise ScanError(Reason.NON_FINITE_VALUES, f"the rescale slope of station {number} is not finite; {_EXPORT}")
    if scales == [(1.0, 0.0)] * 2:
        return water, fat
    (slope, intercept), (fat_slope, fat_intercept) = scales
    what = f"{kinds[0]} slope {slope:g} and intercept {intercept:g} were applied to"
    if scales[0] == scales[1]:
        notes.add(Reason.RESCALE_APPLIED, f"{what} station {number}")
    else:
        notes.add(
            Reason.RESCALE_APPLIED,
            f"{what} the water of station {number}, {kinds[1]} slope {fat_slope:g} and intercept "
            f"{fat_intercept:g} to its fat",
        )
    return scale(water), scale(fat)


def note_findings(pairs: Sequence[Pair], notes: Notes) -> None:
    """Flag the findings of the stations' files, naming the stations.

    Args:
        pairs: of all stations, head first.
        notes: gains the flag of each finding.
    """
    found: dict[Finding, list[int]] = {}
    for number, pair in enumerate(pairs, start=1):
        for finding in dict.fromkeys((*pair.water.findings, *pair.fat.findings)):
            found.setdefault(finding, []).append(number)
    for finding, numbers in found.items():
        which = "all stations" if len(numbers) == len(pairs) else f"station {', '.join(map(str, numbers))}"
        notes.add(finding.reason, f"{which}: {finding.sentence}")


def note_stated_geometry(pairs: Sequence[Pair], notes: Notes) -> None:
    """Flag slice spacings and frames of reference that contradict the positions.

    Args:
        pairs: of all stations, head first.
        notes: gains ``geometry_disagrees``.
    """
    numbers = [n for n, pair in enumerate(pairs, start=1) if not all(map(_has_stated_spacing, (pair.water, pair.fat)))]
    if numbers:
        notes.add(
            Reason.GEOMETRY_DISAGREES,
            f"station {', '.join(map(str, numbers))}: SpacingBetweenSlices contradicts the positions of the slices, "
            "which were used",
        )
    frames = {item.header.frame_uid for pair in pairs for item in (pair.water, pair.fat)} - {""}
    if len(frames) > 1:
        notes.add(
            Reason.GEOMETRY_DISAGREES,
            f"positions refer to {len(frames)} frames of reference (FrameOfReferenceUID); treated as one",
        )


def _has_stated_spacing(item: Series) -> bool:
    """Whether slice positions match SpacingBetweenSlices, from centre to centre or, in old files, from edge to edge.

    A gap between edges must be small, or else a series without every other slice would match.
    """
    stated = abs(item.header.stated_spacing_mm or 0.0)
    gaps = np.diff(np.sort(item.positions_mm[:, 2]))
    gaps = gaps[gaps > SAME_POSITION_TOLERANCE_MM]
    if stated == 0 or not gaps.size:
        return True
    spacing = float(np.median(gaps))
    allowed = max(SAME_POSITION_TOLERANCE_MM, SPACING_TOLERANCE * spacing)
    thickness = item.header.thickness_mm
    is_gap = stated <= LARGEST_GAP * thickness and abs(spacing - stated - thickness) <= allowed
    return is_gap or abs(spacing - stated) <= allowed


def check_values(number: int, series: Series) -> None:
    """Refuse NaN, infinity and constant images.

    Args:
        number: of the station, from 1.
        series: its water or fat.

    Raises:
        ScanError: ``non_finite_values`` or ``empty_image``.
    """
    voxels: Voxels = series.voxels
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise ScanError(
            Reason.NON_FINITE_VALUES,
            f"{series.header.label} (station {number}) has NaN or infinite voxels; convert again",
        )
    first, middle = voxels.flat[0], voxels[len(voxels) // 2]
    if (middle == first).all() and (voxels == first).all():
        raise ScanError(
            Reason.EMPTY_IMAGE,
            f"every voxel of {series.header.label} (station {number}) is {first:g}; look at the image",
        )


def _to_station(number: int, water: Series, fat: Series) -> Station:
    """Make a station of matching series; positions and pixel spacing are rounded to float32 as in the recipe."""
    positions = water.positions_mm.astype(np.float32)
    z = positions[:, 2].astype(np.float64)
    in_plane = np.array(water.header.pixel_spacing_mm, np.float32).astype(np.float64)
    spacing = np.array([*in_plane, (z.max() - z.min()) / (len(z) - 1)])
    check_spacing(tuple(spacing), f"station {number}")
    return Station(
        number=number,
        water=water.voxels.transpose(1, 2, 0),
        fat=fat.voxels.transpose(1, 2, 0),
        position_mm=positions.max(axis=0),
        spacing_mm=spacing,
        acquired=water.header.acquired,
    )


# -- the number of stations -----------------------------------------------------------------------------------------


def check_station_count(
    stations: Sequence[Station], pairs: Sequence[Pair], options: ReadingOptions, notes: Notes
) -> None:
    """Compare the number of stations with the protocol's.

    Args:
        stations: head first.
        pairs: their series.
        options: how many are expected, and whether fewer are allowed.
        notes: gains ``station_missing`` or ``station_extra``.

    Raises:
        ScanError: ``station_missing``.
    """
    expected, found = options.expected_stations, len(stations)
    if expected == 0 or found == expected:
        return
    if found > expected:
        notes.add(Reason.STATION_EXTRA, f"{found} stations, expected {expected}")
        return
    message = f"{found} stations, expected {expected}: {_which_is_missing(stations, pairs, expected)}"
    if not options.allow_missing_stations:
        raise ScanError(Reason.STATION_MISSING, f"{message}; {Reason.STATION_MISSING.advice}")
    notes.add(Reason.STATION_MISSING, message)


def _which_is_missing(stations: Sequence[Station], pairs: Sequence[Pair], expected: int) -> str:
    """Say which station seems to be missing: by a gap in z, by series numbers, or by the protocol's slice spacings."""
    for upper, lower in pairwise(stations):
        bottom = float(upper.position_mm[2]) - upper.spacing_mm[2] * (upper.shape[2] - 1)
        gap = bottom - float(lower.position_mm[2])
        if gap > 0:
            return f"station {lower.number} seems to be missing (a gap of {gap:.0f} mm below station {upper.number})"
    for candidates in (_missing_by_number(pairs, expected), _missing_by_spacing(stations, expected)):
        if candidates:
            which = ", ".join(str(number) for number in candidates)
            return f"station {which} seems to be missing"
    return "the first or the last seems to be missing (there is no gap between the others)"


def _missing_by_number(pairs: Sequence[Pair], expected: int) -> list[int]:
    """Stations whose group of four series numbers is absent; empty if the numbers do not follow the protocol."""
    numbers = [pair.water.header.number for pair in pairs]
    groups = [0 if number is None else (number - 1) // SERIES_PER_STATION + 1 for number in numbers]
    if groups != sorted(set(groups)) or not set(groups) <= set(range(1, expected + 1)):
        return []
    return sorted(set(range(1, expected + 1)) - set(groups))


def _missing_by_spacing(stations: Sequence[Station], expected: int) -> list[int]:
    """Stations missing from the protocol's sequence of slice spacings, if that is unambiguous."""
    protocol = [station.slice_spacing_mm for station in PROTOCOL]
    if expected != len(protocol) or len(stations) != expected - 1:
        return []
    found = np.array([station.spacing_mm[2] for station in stations])
    fits = []
    for left_out in range(expected):
        ratio = found / np.array([value for index, value in enumerate(protocol) if index != left_out])
        if np.ptp(ratio) < SPACING_TOLERANCE * ratio.mean():
            fits.append(left_out + 1)
    return fits if len(fits) == 1 else []


#: Advice; downloading again helps only if checksums show a damaged download.
_EXPORT = "export the scan again"
_SEPARATE = "export the scan again with one series per contrast and station"
_TOGETHER = "keep only water and fat of one acquisition in the input"
_LOOK_ALL = "check the export or the unpacking of the scan"
_LOOK = "check the export or the unpacking of the scan"
