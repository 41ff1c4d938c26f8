"""A zip or folder of DICOM slices to its water and fat series; the headers decide what belongs to what."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import Reason, ScanError
from ukb_infer.imaging import dicom
from ukb_infer.imaging.dicom import Identity
from ukb_infer.imaging.series import Budget, Contrast, Series, SeriesHeader, Voxels
from ukb_infer.imaging.zipsource import MemberSource

#: First bytes of a member that are looked at: enough for short headers, then for those of scanners.
_PEEK_BYTES = (1536, 6144)
#: Numbers of a header may differ by this between the slices of a series: decimal strings are rounded.
_ALIKE = 1e-5
#: How far ahead to look for the same series before taking the members in between for granted (and verifying later).
_STRIDE = 8
#: Voxels that memory is reserved for at a time: a full UK Biobank scan. What is not touched takes no memory.
_ARENA_VOXELS = 26 * 1024**2
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
    if use_fast_path:
        plans = _identify(source, use_fast_path, stride=_STRIDE)
        try:
            return _decode(source, plans, use_fast_path)
        except ScanError:
            pass  # perhaps a member was not what its neighbours made it seem: look at every one
    return _decode(source, _identify(source, use_fast_path, stride=0), use_fast_path)


def _identify(source: MemberSource, use_fast_path: bool, stride: int) -> list[_Plan]:
    """Tell which members form which water and fat series, by their first bytes.

    Args:
        source: the zip or folder.
        use_fast_path: False lets pydicom read every member whole.
        stride: where three members of one series lie so that the last is this far from the others, those in between
            are taken for the same series unseen; decoding verifies that. 0 to look at every member.
    """
    plans: dict[tuple[int | None, str, Contrast], _Plan] = {}
    peeker = _Peeker(source, use_fast_path)
    any_dicom = enhanced = False
    last: _Plan | None = None
    index, next_jump = 0, 0
    while index < len(source.names):
        identity = peeker.identity(index)
        if identity is None:
            _refuse_damaged(source.names[index])
        else:
            any_dicom = True
            enhanced |= identity.enhanced
        plan = _plan_of(identity, plans)
        if plan is not None:
            plan.members.append(index)
            if plan is not last:
                next_jump = index
            elif stride and index >= next_jump and index + stride < len(source.names):
                if _plan_of(peeker.identity(index + stride), plans) is plan:
                    plan.members.extend(range(index + 1, index + stride))
                    index += stride - 1  # the member at the end of the jump comes next
                else:
                    next_jump = index + stride
        last = plan
        index += 1
    if not any_dicom:
        raise ScanError(Reason.NO_DICOM, "no DICOM slice in the input; download the scan again")
    found = [plan for plan in plans.values() if plan.members]
    if enhanced and not found:
        raise dicom.multiframe(2)
    return _merge_uids(found)


def _plan_of(identity: Identity | None, plans: dict[tuple[int | None, str, Contrast], _Plan]) -> _Plan | None:
    """Find or begin the plan of a member's series; None for what is neither water nor fat."""
    if identity is None or (identity.contrast is not Contrast.WATER and identity.contrast is not Contrast.FAT):
        return None
    key = (identity.number, identity.uid, identity.contrast)
    plan = plans.get(key)
    if plan is None:
        plan = plans[key] = _Plan(*key)
    return plan


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


class _Arena:
    """Memory for the voxels of a scan in one piece, so that the system can back it with large pages."""

    def __init__(self) -> None:
        self._budget = Budget()
        self._free = np.empty(0, np.uint16)

    def take(self, shape: tuple[int, int, int], label: str) -> NDArray[np.uint16]:
        """Return room for a series, not initialized.

        Raises:
            ScanError: ``too_large``.
        """
        self._budget.take(shape, label)
        size = math.prod(shape)
        if self._free.size < size:
            self._free = np.empty(max(size, _ARENA_VOXELS), np.uint16)
        taken, self._free = self._free[:size], self._free[size:]
        return taken.reshape(shape)


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

    def add(self, data: bytes, arena: _Arena) -> None:
        """Parse a slice and append it."""
        part = self.parser.parse(data)
        if part.header is not self.header:
            self._check_identity(part.header)
        if self.header is None or self.voxels is None:
            self.header = part.header
            shape = (len(self.plan.members), part.header.rows, part.header.cols)
            self.voxels = arena.take(shape, part.header.label)
        elif part.header is not self.header:
            _check_alike(part.header, self.header)
        if part.pixels.dtype != self.voxels.dtype:
            self.voxels = self.voxels.astype(np.float32)
        self.voxels[len(self.positions)] = part.pixels
        self.positions.append(part.position_mm)
        self.instances.append(part.instance)
        self.times.append(part.header.time_s)

    def _check_identity(self, header: SeriesHeader) -> None:
        """Refuse a slice of another series, which a jump over members may have taken in.

        Raises:
            ScanError: ``geometry_inconsistent``, never seen outside: it makes reading look at every member.
        """
        uid = header.uid if self.plan.uid else ""
        if (header.number, uid, header.contrast) != (self.plan.number, self.plan.uid, self.plan.contrast):
            raise ScanError(Reason.GEOMETRY_INCONSISTENT, f"{header.label} among the slices of another series")

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
    verified: set[int] = set()
    stacks = [_Stack(plan, dicom.SliceParser(use_fast_path, verified)) for plan in plans]
    order = sorted((index, stack) for stack in range(len(stacks)) for index in plans[stack].members)
    arena = _Arena()
    for index, chosen in order:
        stacks[chosen].add(source.read(index), arena)
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
        if not np.allclose(found, expected, rtol=_ALIKE, atol=_ALIKE):
            raise ScanError(
                Reason.GEOMETRY_INCONSISTENT,
                f"slices of {first.label} differ in {name}: {found} and {expected}; download the scan again",
            )
