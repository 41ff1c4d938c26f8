"""Read folders of NIfTI stations: a water and a fat file per station, any orientation."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.imaging.readers.containers import MAX_MEMBERS
from ukb_infer.imaging.readers.gzipped import Contents, DamagedGzipError, open_contents
from ukb_infer.imaging.readers.image_words import is_derived_folder
from ukb_infer.imaging.readers.nifti_header import NiftiFields, choose_affine, read_fields
from ukb_infer.imaging.readers.nifti_names import StationFile, choose_files, choose_phase_files, is_nifti
from ukb_infer.imaging.series import (
    MAX_TILT_DEGREES,
    Budget,
    Contrast,
    LeftOut,
    Scaling,
    Series,
    SeriesHeader,
    Voxels,
    check_plausible,
    check_spacing,
)
from ukb_infer.reasons import Reason

# nibabel reports every repaired header field on stderr; what matters becomes our own error or flag.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

#: Size of the longer of the two headers.
_HEADER_BYTES = 540
#: Largest label map, at two bytes per voxel: a body at 0.75 mm.
_LABEL_MAP_BYTES = 1024**3
#: Smallest volume spanned by an affine's three directions: 1 at right angles; about 1 for tilts of a degree.
_LEAST_VOLUME = 0.9
#: Array axes of a DICOM station in NIfTI terms: rows towards the back, columns towards the left, slices downwards.
_DICOM_AXES = ("P", "L", "I")


def read_series(folder: Path, left_out: LeftOut, also: Collection[Contrast] = ()) -> list[Series]:
    """Read the water and fat files of a folder.

    Args:
        folder: with a water (``*_W*`` or ``*water*``) and a fat (``*_F*`` or ``*fat*``) file per station.
        left_out: counts files that are named like water or fat but are neither.
        also: further contrasts to read: in-phase (``*_in*``), opposed-phase (``*_opp*``).

    Returns:
        Series in the convention of DICOM: (slices, rows, cols), positions in LPS mm, slices head first.

    Raises:
        ScanError: ``unreadable_nifti``, ``unsupported_pixels``, ``missing_affine``, ``geometry_inconsistent``,
            ``oblique``, ``implausible_geometry``, ``too_large`` or ``ambiguous_series``.
    """
    budget = Budget()
    names = _list_names(folder)
    if is_derived_folder(folder.name):
        for name in names:
            left_out.add("file in a folder named like derived images", name)
        return []
    files = [*_pair_names(choose_files(names, left_out)), *choose_phase_files(names, also)]
    return [_read_file(folder, file, budget) for file in files]


def read_label_map(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read a label map, in any orientation and at most as many voxels as a fused body can have.

    Args:
        path: of a ``.nii`` or ``.nii.gz``.

    Returns:
        (i, j, k) values with the header's scaling applied, and their affine to RAS mm, (4, 4).

    Raises:
        ScanError: ``unreadable_nifti``, ``missing_affine``, ``geometry_inconsistent`` or ``too_large``.
    """
    label = "the label map"
    with open_contents(path) as contents:
        image, fields = load_image(contents, label, Budget(_LABEL_MAP_BYTES), signal=False)
    shape = image.shape[:3]
    affine, _ = choose_affine(fields, image.header, shape)
    _check_affine(affine, label)
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    values = raw_voxels(image, label).reshape(shape)
    return (values if (slope, intercept) == (1.0, 0.0) else values * slope + intercept), affine


def _list_names(folder: Path) -> list[str]:
    """Return the names of a folder's files, at most as many as a scan can have."""
    names = []
    for count, path in enumerate(folder.iterdir()):
        if count >= MAX_MEMBERS:
            raise ScanError(Reason.TOO_LARGE, f"the folder has more than {MAX_MEMBERS} files; check its origin")
        if is_nifti(path.name) and path.is_file():
            names.append(path.name)
    return names


def _pair_names(files: Sequence[StationFile]) -> list[StationFile]:
    """Pair water and fat by name (without the contrast) if all match; else by dcm2niix's numbers and position."""
    stems: dict[str, list[Contrast]] = {}
    for file in files:
        stems.setdefault(file.stem, []).append(file.contrast)
    if all(sorted(contrasts) == [Contrast.FAT, Contrast.WATER] for contrasts in stems.values()):
        return [replace(file, number=None) for file in files]
    return [replace(file, stem="") for file in files]


def _read_file(folder: Path, file: StationFile, budget: Budget) -> Series:
    """Read one station file."""
    label = f"a {file.contrast} file" if file.number is None else f"the {file.contrast} file {file.number}"
    with open_contents(folder / file.name) as contents:
        image, fields = load_image(contents, label, budget)
    shape = image.shape[:3]
    affine, findings = choose_affine(fields, image.header, shape)
    _check_affine(affine, label)
    transform = ornt_transform(io_orientation(affine), axcodes2ornt(_DICOM_AXES))
    affine = affine @ inv_ornt_aff(transform, shape)
    _check_tilt(affine, label)
    raw = raw_voxels(image, label).reshape(shape)
    voxels = np.ascontiguousarray(apply_orientation(raw, transform).transpose(2, 0, 1))
    scaling = Scaling(float(image.dataobj.slope), float(image.dataobj.inter))  # 1 and 0 where the header has none
    series = _to_series(file, affine, _zooms(fields, transform, affine), voxels, scaling)
    return replace(series, findings=tuple(findings))


def load_image(
    contents: Contents, label: str, budget: Budget, *, signal: bool = True, several: Reason = Reason.UNREADABLE_NIFTI
) -> tuple[Any, NiftiFields]:
    """Read a file with size limits and verified gzip checksum, and parse it with nibabel.

    Args:
        contents: of the file.
        label: names the file in messages.
        budget: of the voxels that may be read.
        signal: False for files whose intent may say that they are no signal.
        several: code of a file with more than one volume.

    Raises:
        ScanError: ``unreadable_nifti``, ``unsupported_pixels``, ``too_large``, ``implausible_geometry`` or ``several``.
    """
    try:
        head = contents.read(_HEADER_BYTES)
        try:
            fields = read_fields(head, label, signal=signal)
            kind, size = _plan(head, fields, label, budget, several)
        except ScanError:
            contents.finish()  # reports a damaged header
            raise
        data = head[:size] + contents.read(max(size - len(head), 0))
        ended = contents.finish()
    except DamagedGzipError as error:
        raise ScanError(Reason.UNREADABLE_NIFTI, f"{label} {error}; {_COPY}") from None
    if len(data) < size:
        raise ScanError(Reason.UNREADABLE_NIFTI, f"{label} is truncated ({len(data)} of {size} bytes); {_COPY}")
    if not ended:
        raise ScanError(Reason.UNREADABLE_NIFTI, f"{label} has far more than its {size} bytes; {_AGAIN}")
    try:
        return kind.from_bytes(data), fields
    except Exception as error:  # nibabel raises many kinds on damaged headers
        raise _unreadable(label, error) from None


def _plan(head: bytes, fields: NiftiFields, label: str, budget: Budget, several: Reason) -> tuple[Any, int]:
    """Return nibabel's class for a file and the length of header and voxels, counted in the budget.

    Raises:
        ScanError: as :func:`load_image`.
    """
    kind = nibabel.Nifti2Image if fields.version == 2 else nibabel.Nifti1Image
    try:
        header = kind.header_class(head[: kind.header_class.sizeof_hdr])
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = header.get_data_dtype()
    except Exception as error:  # nibabel raises many kinds on damaged headers
        raise _unreadable(label, error) from None
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        reason = several if len(shape) > 3 else Reason.UNREADABLE_NIFTI
        advice = _AGAIN if reason is Reason.UNREADABLE_NIFTI else reason.advice
        raise ScanError(reason, f"{label} has shape {shape}, expected three dimensions; {advice}")
    if min(shape) < 1:
        raise ScanError(Reason.IMPLAUSIBLE_GEOMETRY, f"{label} has shape {shape}; {_AGAIN}")
    smallest, middle, largest = sorted(shape)
    budget.take((smallest, middle, largest), label)
    return kind, fields.offset_bytes() + math.prod(shape) * int(dtype.itemsize)


def _check_affine(affine: NDArray[np.float64], label: str) -> None:
    """Refuse an affine with absurd entries or a flat one.

    Raises:
        ScanError: ``implausible_geometry``.
    """
    if not np.isfinite(affine).all() or np.abs(affine).max() > 1e6:
        raise ScanError(Reason.IMPLAUSIBLE_GEOMETRY, f"{label} has an affine with absurd entries; {_AGAIN}")
    check_spacing(tuple(np.linalg.norm(affine[:3, :3], axis=0)), label)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if not abs(np.linalg.det(directions)) >= _LEAST_VOLUME:
        raise ScanError(
            Reason.IMPLAUSIBLE_GEOMETRY, f"{label} has an affine whose axes are not at right angles; {_AGAIN}"
        )


def _check_tilt(affine: NDArray[np.float64], label: str) -> None:
    """Refuse an affine, already in the axes of DICOM, tilted by more than ``MAX_TILT_DEGREES``.

    Raises:
        ScanError: ``oblique``.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    along = np.array([-directions[1, 0], -directions[0, 1], -directions[2, 2]])
    tilt = math.degrees(math.acos(float(np.clip(along.min(), -1.0, 1.0))))
    if not tilt <= MAX_TILT_DEGREES:
        raise ScanError(
            Reason.OBLIQUE,
            f"{label} is tilted by {tilt:.1f} degrees, expected at most {MAX_TILT_DEGREES:g}; resample it",
        )


def raw_voxels(image: Any, label: str) -> NDArray[Any]:
    """Return stored voxels, before the header's scaling.

    Args:
        image: of nibabel.
        label: names the file in messages.
    """
    try:
        return np.asarray(image.dataobj.get_unscaled())
    except Exception as error:  # a damaged header may make nibabel raise anything
        raise _unreadable(label, error) from None


def _zooms(fields: NiftiFields, transform: NDArray[Any], affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """(row, col, slice) spacing, mm: the header's exact float32 pixdim if it agrees with the affine."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    pixdim = np.empty(3)
    pixdim[transform[:, 0].astype(int)] = fields.pixdim_mm
    row, col, between = (
        float(exact) if abs(exact - length) <= 1e-4 * length else float(length)
        for exact, length in zip(pixdim, lengths, strict=True)
    )
    return row, col, between


def _to_series(
    file: StationFile, affine: NDArray[np.float64], zooms: tuple[float, float, float], voxels: NDArray[Any],
    scaling: Scaling,
) -> Series:  # fmt: skip
    """Convert a file to DICOM conventions."""
    slices, rows, cols = voxels.shape
    header = SeriesHeader(
        number=file.number, uid=file.stem, description="NIfTI", contrast=file.contrast, rows=rows, cols=cols,
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), pixel_spacing_mm=zooms[:2], scaling=scaling, marks=file.marks,
    )  # fmt: skip
    check_plausible(header)
    x, y, z = -affine[0, 3], -affine[1, 3], affine[2, 3]
    positions = np.stack([np.full(slices, x), np.full(slices, y), z - zooms[2] * np.arange(slices)], axis=1)
    return Series(
        header, _compact(voxels), positions, np.arange(1, slices + 1, dtype=np.int64), np.full(slices, header.time_s)
    )


def _compact(voxels: NDArray[Any]) -> Voxels:
    """Return voxels as uint16 if every value fits, else as float32."""
    if voxels.dtype == np.uint16:
        return voxels.astype(np.uint16, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        if voxels.min() >= 0 and voxels.max() <= np.iinfo(np.uint16).max:
            whole = voxels.astype(np.uint16)
            if voxels.dtype.kind in "iu" or (whole == voxels).all():
                return whole
        return voxels.astype(np.float32)


def _unreadable(label: str, error: Exception) -> ScanError:
    return ScanError(Reason.UNREADABLE_NIFTI, f"{label} cannot be read ({type(error).__name__}); {_AGAIN}")


_AGAIN = "convert again with dcm2niix"
_COPY = "copy it again from its source, or convert it again"
