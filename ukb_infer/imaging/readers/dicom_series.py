"""Read the water and fat series of a zip or folder of DICOM slices, by their headers."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.imaging.readers import dicom
from ukb_infer.imaging.readers.containers import MemberSource
from ukb_infer.imaging.readers.dicom import Identity
from ukb_infer.imaging.readers.dicom_geometry import frame_finding, location_finding
from ukb_infer.imaging.readers.image_words import is_derived_folder
from ukb_infer.imaging.readers.nifti_names import is_nifti
from ukb_infer.imaging.series import Budget, Contrast, Finding, LeftOut, Series, SeriesHeader, Voxels, scale_slices
from ukb_infer.reasons import Reason

#: Numbers of first bytes that are read: enough for short headers, then for those of scanners.
_PEEK_BYTES = (1536, 6144)
#: Tolerance for numbers in headers of one series: decimal strings are rounded.
_ALIKE = 1e-5
#: How far ahead to look for the same series; members in between are assumed to belong to it and verified later.
_STRIDE = 8
#: Members are ignored by their first bytes, unverified, only if at least this many agree: damaged headers are rare.
_FEWEST_ALIKE = 8
#: Voxels reserved at a time: a full UK Biobank scan. Untouched pages take no memory.
_ARENA_VOXELS = 26 * 1024**2
#: Extensions of DICOM: such a member that is not DICOM is damaged; any other is ignored.
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")


@dataclass
class _Plan:
    """The members of one series, identified by their first bytes."""

    number: int | None
    uid: str
    contrast: Contrast
    members: list[int] = field(default_factory=list)


def read_series(
    source: MemberSource, use_fast_path: bool, left_out: LeftOut, also: Collection[Contrast] = ()
) -> list[Series]:
    """Read the water and fat series of a zip or folder of DICOM slices.

    The first kilobytes of every member give its series and contrast, so in-phase and opposed-phase members are not
    decoded unless requested. Checksums are verified for every decoded member, and for ignored ones that could be
    damaged slices. The manifest is not used.

    Args:
        source: the zip or folder.
        use_fast_path: False sends every slice through pydicom (same result).
        left_out: counts series that are named like water or fat but are neither.
        also: further contrasts to read.

    Returns:
        Series in the order of first appearance, slices in the order of the container.

    Raises:
        ScanError: ``no_dicom``, ``multiframe``, ``unreadable_dicom``, ``too_large`` and those of
            :class:`~ukb_infer.imaging.readers.dicom.SliceParser`.
    """
    wanted = frozenset({Contrast.WATER, Contrast.FAT, *also})
    if use_fast_path:
        found = LeftOut()
        plans = _identify(source, use_fast_path, _STRIDE, found, wanted)
        try:
            series = _decode(source, plans, use_fast_path)
        except ScanError:
            pass  # a member may differ from its neighbours: look at every one
        else:
            left_out.update(found)
            return series
    return _decode(source, _identify(source, use_fast_path, 0, left_out, wanted), use_fast_path)


def _identify(
    source: MemberSource, use_fast_path: bool, stride: int, left_out: LeftOut, wanted: frozenset[Contrast]
) -> list[_Plan]:
    """Assign members to water and fat series, by their first bytes.

    Args:
        source: the zip or folder.
        use_fast_path: False lets pydicom read every member whole.
        stride: if three members of one series are this far apart, those in between are assumed to be of the same
            series; decoding verifies that. 0 looks at every member.
        left_out: counts series that are named like water or fat but are neither.
        wanted: contrasts.
    """
    plans: dict[tuple[int | None, str, Contrast], _Plan] = {}
    peeker = _Peeker(source, use_fast_path)
    ignored: dict[Identity, list[int]] = {}
    any_dicom, enhanced = False, None
    last: _Plan | None = None
    members = _members_of_stations(source.names, left_out)
    at, next_jump = 0, 0
    while at < len(members):
        index = members[at]
        identity = peeker.identity(index)
        if identity is None:
            source.verify(index)
            _refuse_damaged(source.names[index])
        else:
            any_dicom = True
            enhanced = index if identity.enhanced else enhanced
            _count_left_out(identity, left_out)
        plan = _plan_of(identity, plans, wanted)
        if identity is not None and plan is None:
            ignored.setdefault(identity, []).append(index)
        if plan is not None:
            plan.members.append(index)
            if plan is not last:
                next_jump = at
            elif stride and at >= next_jump and at + stride < len(members):
                if _plan_of(peeker.identity(members[at + stride]), plans, wanted) is plan:
                    plan.members.extend(members[at + 1 : at + stride])
                    at += stride - 1  # the member at the end of the jump is next
                else:
                    next_jump = at + stride
        last = plan
        at += 1
    _verify_ignored(source, ignored, plans.values())
    if not any_dicom and not left_out:
        raise _no_dicom(source.names)
    found = [plan for plan in plans.values() if plan.members]
    if enhanced is not None and not found:
        dicom.refuse_multiframe(source.read(enhanced))
    return _merge_uids(found)


def _no_dicom(names: Sequence[str]) -> ScanError:
    """Describe an input without DICOM."""
    nifti = sum(is_nifti(name.replace("\\", "/").rpartition("/")[2]) for name in names)
    found = f"no DICOM slices among the {len(names)} files of the input"
    if nifti:
        return ScanError(
            Reason.NO_DICOM, f"{found}, but {nifti} NIfTI files; put the water and fat of the stations into a folder"
        )
    return ScanError(Reason.NO_DICOM, f"{found}; check that it is a scan of field 20201, or a folder of its slices")


def _members_of_stations(names: list[str], left_out: LeftOut) -> list[int]:
    """Skip members in folders named like masks, maps or other derived images."""
    derived: dict[str, bool] = {}
    members = []
    for index, name in enumerate(names):
        folder = name.replace("\\", "/").rpartition("/")[0]
        if folder not in derived:
            derived[folder] = any(is_derived_folder(part) for part in folder.split("/") if part)
        if derived[folder]:
            left_out.add("folder named like derived images", folder)
        else:
            members.append(index)
    return members


def _verify_ignored(source: MemberSource, ignored: Mapping[Identity, Sequence[int]], plans: Iterable[_Plan]) -> None:
    """Verify the checksums of ignored slices that may be damaged water or fat slices.

    These are members of small series, and of series shared with water or fat. Complete in-phase and opposed-phase
    series are not verified: inflating them would double the time per scan, and they are not used.

    Raises:
        ScanError: ``unreadable_zip``.
    """
    used = {mark for plan in plans for mark in (plan.number, plan.uid) if mark not in (None, "")}
    for identity, members in ignored.items():
        if len(members) < _FEWEST_ALIKE or used.intersection((identity.number, identity.uid)):
            for index in members:
                source.verify(index)


def _count_left_out(identity: Identity, left_out: LeftOut) -> None:
    """Count a series that is named like water or fat and is neither."""
    if identity.contrast in (Contrast.WATER, Contrast.FAT) and identity.marks.kind is not None:
        left_out.add(identity.marks.kind, f"{identity.uid} {identity.number} {identity.contrast}")


def _plan_of(
    identity: Identity | None, plans: dict[tuple[int | None, str, Contrast], _Plan], wanted: frozenset[Contrast]
) -> _Plan | None:
    """Find or create the plan of a member's series; None if its contrast is not wanted."""
    if identity is None or identity.marks.kind is not None:
        return None
    if identity.contrast is None or identity.contrast not in wanted:
        return None
    key = (identity.number, identity.uid, identity.contrast)
    plan = plans.get(key)
    if plan is None:
        plan = plans[key] = _Plan(*key)
    return plan


class _Peeker:
    """Reads just enough first bytes of each member to identify it.

    Args:
        source: the zip or folder.
        use_fast_path: False lets pydicom read every member whole.
    """

    def __init__(self, source: MemberSource, use_fast_path: bool) -> None:
        self._source = source
        self._sizes: tuple[int, ...] = _PEEK_BYTES if use_fast_path else ()
        self._known: dict[tuple[bytes, ...], Identity] = {}

    def identity(self, index: int) -> Identity | None:
        """Identify a member; None if it is not DICOM."""
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
    """Ignore a file that is not DICOM, unless it is named like DICOM.

    Raises:
        ScanError: ``unreadable_dicom``.
    """
    base = name.replace("\\", "/").rpartition("/")[2].lower()
    if base.endswith(_DICOM_SUFFIXES) and not base.startswith("._"):  # "._x.dcm" are macOS metadata
        raise ScanError(Reason.UNREADABLE_DICOM, "a file named like DICOM is not DICOM; copy it again, or remove it")


def _merge_uids(plans: list[_Plan]) -> list[_Plan]:
    """Merge series in which every slice has its own SeriesInstanceUID.

    A number used by two complete series (a repeat under the same number) stays two series.
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
    """One block of memory for the voxels of a scan, so that the system can use large pages."""

    def __init__(self) -> None:
        self._budget = Budget()
        self._free = np.empty(0, np.uint16)

    def take(self, shape: tuple[int, int, int], label: str) -> NDArray[np.uint16]:
        """Return room for a series, not initialized.

        Args:
            shape: (slices, rows, cols).
            label: names the series in the message.

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
    """The slices of one series, as they are read."""

    plan: _Plan
    parser: dicom.SliceParser
    header: SeriesHeader | None = None
    voxels: Voxels | None = None
    positions: list[tuple[float, float, float]] = field(default_factory=list)
    instances: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    locations: list[float] = field(default_factory=list)
    headers: list[SeriesHeader] = field(default_factory=list)
    findings: dict[Finding, None] = field(default_factory=dict)

    def add(self, data: bytes, arena: _Arena) -> None:
        """Parse a slice and append it.

        Args:
            data: the file of the slice.
            arena: provides memory for the voxels at the first slice.
        """
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
        self.locations.append(part.location_mm)
        self.headers.append(part.header)
        if part.findings:
            self.findings.update(dict.fromkeys(part.findings))

    def _check_identity(self, header: SeriesHeader) -> None:
        """Refuse a slice of another series, which a jump may have included.

        Raises:
            ScanError: ``geometry_inconsistent``, caught inside: reading then looks at every member.
        """
        uid = header.uid if self.plan.uid else ""
        if (header.number, uid, header.contrast) != (self.plan.number, self.plan.uid, self.plan.contrast):
            raise ScanError(Reason.GEOMETRY_INCONSISTENT, f"{header.label} among the slices of another series")

    def finish(self) -> Series:
        """Return the series."""
        if self.header is None or self.voxels is None:
            raise RuntimeError("a planned series has at least one member")
        distinct = list({id(header): header for header in self.headers}.values())
        for header in distinct:
            self.findings.update(dict.fromkeys(header.findings))
        series = Series(
            header=replace(self.header, time_s=max(self.times)),
            voxels=self.voxels,
            positions_mm=np.array(self.positions),
            instances=np.array(self.instances, np.int64),
            times_s=np.array(self.times),
        )
        self.findings.update(dict.fromkeys(location_finding(series.positions_mm, np.array(self.locations))))
        self.findings.update(dict.fromkeys(frame_finding(distinct)))
        series, scaled = scale_slices(series, self.headers) if len(distinct) > 1 else (series, ())
        return replace(series, findings=(*self.findings, *scaled))


def _decode(source: MemberSource, plans: list[_Plan], use_fast_path: bool) -> list[Series]:
    """Decode the planned members in the order of the container, hence of the disk."""
    verified: set[int] = set()
    stacks = [_Stack(plan, dicom.SliceParser(use_fast_path, verified)) for plan in plans]
    order = sorted((index, stack) for stack in range(len(stacks)) for index in plans[stack].members)
    arena = _Arena()
    for index, chosen in order:
        stacks[chosen].add(source.read(index), arena)
    return [stack.finish() for stack in stacks]


def _check_alike(header: SeriesHeader, first: SeriesHeader) -> None:
    """Refuse a slice that does not belong to the series of the first slice.

    Raises:
        ScanError: ``several_scans`` or ``geometry_inconsistent``.
    """
    if (header.study_uid, header.patient_id) != (first.study_uid, first.patient_id):
        raise ScanError(Reason.SEVERAL_SCANS, f"{first.label} has slices of more than one examination; separate them")
    if header.scaling.words != first.scaling.words:
        raise ScanError(
            Reason.GEOMETRY_INCONSISTENT,
            f"values of slices of {first.label} cannot be compared: the {first.scaling.words} slope holds for some, "
            f"the {header.scaling.words} slope for others; export them with the same elements",
        )
    for name in ("rows", "cols", "orientation", "pixel_spacing_mm"):
        found, expected = getattr(header, name), getattr(first, name)
        if not np.allclose(found, expected, rtol=_ALIKE, atol=_ALIKE):
            raise ScanError(
                Reason.GEOMETRY_INCONSISTENT,
                f"slices of {first.label} differ in {name}: {found} and {expected}; "
                "export the scan again with one series per contrast and station",
            )
