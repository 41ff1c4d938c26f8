"""A zip or folder of DICOM slices to its water and fat series; the headers decide what belongs to what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ukb_infer.errors import Reason, ScanError
from ukb_infer.imaging import dicom
from ukb_infer.imaging.dicom import Identity
from ukb_infer.imaging.series import Budget, Contrast, Series, SeriesHeader, Voxels
from ukb_infer.imaging.zipsource import MemberSource

#: First bytes of a member that are looked at: enough for short headers, then for those of scanners.
_PEEK_BYTES = (1536, 6144)
#: Names that claim to be DICOM: a member so named that is not DICOM is damage, any other is junk to be ignored.
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")


@dataclass
class _Plan:
    """The members of one series, as their first bytes identify them."""

    number: int | None
    uid: str
    contrast: Contrast
    members: list[int] = field(default_factory=list)


def read_series(source: MemberSource, use_fast_path: bool = True) -> list[Series]:
    """Read the water and fat series of a zip or folder of DICOM slices; headers decide what belongs to them.

    The first kilobytes of every member tell its series and contrast, so in-phase and opposed-phase members are not
    decoded. No manifest is consulted: nothing in it can change the result.

    Args:
        source: the zip or folder.
        use_fast_path: False sends every slice through pydicom (same result).

    Returns:
        Series in the order of first appearance, slices in the order of the container.

    Raises:
        ScanError: ``no_dicom``, ``multiframe``, ``unreadable_dicom``, ``too_large`` and those of
            :class:`~ukb_infer.imaging.dicom.SliceParser`.
    """
    plans = _identify(source, use_fast_path)
    return _decode(source, plans, use_fast_path)


def _identify(source: MemberSource, use_fast_path: bool) -> list[_Plan]:
    """Tell which members form which water and fat series, by their first bytes."""
    plans: dict[tuple[int | None, str, Contrast], _Plan] = {}
    peeker = _Peeker(source, use_fast_path)
    any_dicom = enhanced = False
    for index in range(len(source.names)):
        identity = peeker.identity(index)
        if identity is None:
            _refuse_damaged(source.names[index])
            continue
        any_dicom = True
        enhanced |= identity.enhanced
        if identity.contrast is Contrast.WATER or identity.contrast is Contrast.FAT:
            key = (identity.number, identity.uid, identity.contrast)
            plan = plans.get(key)
            if plan is None:
                plan = plans[key] = _Plan(*key)
            plan.members.append(index)
    if not any_dicom:
        raise ScanError(Reason.NO_DICOM, "no DICOM slice in the input; download the scan again")
    if enhanced and not plans:
        raise dicom.multiframe(2)
    return _merge_uids(list(plans.values()))


class _Peeker:
    """Looks at as few first bytes of each member as suffice to identify it.

    Args:
        source: the zip or folder.
        use_fast_path: False lets pydicom read every member whole.
    """

    def __init__(self, source: MemberSource, use_fast_path: bool) -> None:
        self._source = source
        self._sizes: tuple[int, ...] = _PEEK_BYTES if use_fast_path else ()
        self._known: dict[tuple[bytes, ...], Identity] = {}

    def identity(self, index: int) -> Identity | None:
        """Identify a member; None where it is not DICOM."""
        for size in self._sizes:
            head = self._source.peek(index, size)
            if not dicom.looks_like_dicom(head):
                return None
            identity = dicom.peek_identity(head, self._known)
            if identity is not None:
                self._sizes = _PEEK_BYTES[_PEEK_BYTES.index(size) :]
                return identity
        data = self._source.read(index)
        return dicom.full_identity(data) if dicom.looks_like_dicom(data) else None


def _refuse_damaged(name: str) -> None:
    """Ignore what is not DICOM, unless its name says that it should be.

    Raises:
        ScanError: ``unreadable_dicom``.
    """
    base = name.replace("\\", "/").rpartition("/")[2].lower()
    if base.endswith(_DICOM_SUFFIXES) and not base.startswith("._"):  # "._x.dcm" is what macOS leaves in zips
        raise ScanError(
            Reason.UNREADABLE_DICOM, "a file named as DICOM does not begin like one; download the scan again"
        )


def _merge_uids(plans: list[_Plan]) -> list[_Plan]:
    """Undo the splitting of series whose slices were each given a SeriesInstanceUID of their own.

    A number used by two whole series (a repeat under the same number) stays two series.
    """
    groups: dict[tuple[int | None, Contrast], list[_Plan]] = {}
    for plan in plans:
        groups.setdefault((plan.number, plan.contrast), []).append(plan)
    merged: list[_Plan] = []
    for (number, contrast), group in groups.items():
        members = sorted(index for plan in group for index in plan.members)
        if number is not None and 2 * len(group) > len(members):
            merged.append(_Plan(number, "", contrast, members))
        else:
            merged.extend(group)
    return merged


@dataclass
class _Stack:
    """The slices of one series as they come in."""

    plan: _Plan
    parser: dicom.SliceParser
    header: SeriesHeader | None = None
    voxels: Voxels | None = None
    positions: list[tuple[float, float, float]] = field(default_factory=list)
    instances: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, data: bytes, budget: Budget) -> None:
        """Parse a slice and append it."""
        part = self.parser.parse(data)
        if self.header is None or self.voxels is None:
            self.header = part.header
            shape = (len(self.plan.members), part.header.rows, part.header.cols)
            budget.take(shape, part.header.label)
            self.voxels = np.empty(shape, part.pixels.dtype)
        elif part.header is not self.header:
            _check_alike(part.header, self.header)
        if part.pixels.dtype != self.voxels.dtype:
            self.voxels = self.voxels.astype(np.float32)
        self.voxels[len(self.positions)] = part.pixels
        self.positions.append(part.position_mm)
        self.instances.append(part.instance)
        self.times.append(part.header.time_s)

    def finish(self) -> Series:
        """Return the series."""
        if self.header is None or self.voxels is None:
            raise RuntimeError("a planned series has at least one member")
        header = replace(self.header, time_s=max(self.times))
        return Series(
            header, self.voxels, np.array(self.positions), np.array(self.instances, np.int64), np.array(self.times)
        )


def _decode(source: MemberSource, plans: list[_Plan], use_fast_path: bool) -> list[Series]:
    """Decode the planned members in the order of the container, which is that of the disk."""
    stacks = [_Stack(plan, dicom.SliceParser(use_fast_path)) for plan in plans]
    order = sorted((index, stack) for stack in range(len(stacks)) for index in plans[stack].members)
    budget = Budget()
    for index, chosen in order:
        stacks[chosen].add(source.read(index), budget)
    return [stack.finish() for stack in stacks]


def _check_alike(header: SeriesHeader, first: SeriesHeader) -> None:
    """Refuse a slice that does not belong to the series of the first.

    Raises:
        ScanError: ``several_scans`` or ``geometry_inconsistent``.
    """
    if (header.study_uid, header.patient_id) != (first.study_uid, first.patient_id):
        raise ScanError(Reason.SEVERAL_SCANS, f"{first.label} has slices of more than one examination; separate them")
    for name in ("rows", "cols", "orientation", "pixel_spacing_mm", "slope", "intercept"):
        found, expected = getattr(header, name), getattr(first, name)
        if found != expected:
            raise ScanError(
                Reason.GEOMETRY_INCONSISTENT,
                f"slices of {first.label} differ in {name}: {found} and {expected}; download the scan again",
            )
