"""Folders of NIfTI stations to series: a water and a fat file per station, any orientation."""

from __future__ import annotations

import gzip
import logging
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from ukb_infer.errors import Reason, ScanError
from ukb_infer.imaging.checks import MAX_TILT_DEGREES
from ukb_infer.imaging.series import Budget, Contrast, Series, SeriesHeader, Voxels, check_plausible, check_spacing
from ukb_infer.imaging.zipsource import MAX_MEMBERS

# nibabel reports every repaired header field on stderr; what matters becomes an error or a flag of ours.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

#: Bytes before the voxels: header and extensions. dcm2niix writes 352; more than this is no scan's.
_MAX_OFFSET_BYTES = 1024**2
_HEADER_BYTES = {1: 348, 2: 540}
_SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_BORDER = r"(?=[_\-. ]|[a-z]?$|\d*$)"
_PHASE = re.compile(r"(?:^|[_\-. ])(?:in|opp|ip|op|in_?phase|opp_?phase|opposed_?phase)" + _BORDER, re.IGNORECASE)
_CONTRASTS = (
    (Contrast.WATER, re.compile(r"(?:^|[_\-. ])W" + _BORDER + "|water", re.IGNORECASE)),
    (Contrast.FAT, re.compile(r"(?:^|[_\-. ])F" + _BORDER + "|fat", re.IGNORECASE)),
)
#: The number that dcm2niix appends: the series number, perhaps with a letter for repeats.
_NUMBER = re.compile(r"_(\d{1,9})[a-z]?$")
#: Array axes of a DICOM station in NIfTI's words: rows towards the back, columns towards the left, slices downwards.
_DICOM_AXES = ("P", "L", "I")


@dataclass(frozen=True)
class _File:
    """One station file and what its name tells."""

    path: Path
    contrast: Contrast
    stem: str  #: its name without the contrast; empty where names do not pair
    number: int | None


def nifti_contrast(name: str) -> Contrast | None:
    """Tell the contrast of a NIfTI file by its name; None for in-phase, opposed-phase and foreign files."""
    stem, found = _SUFFIX.subn("", name)
    if not found or name.startswith("."):
        return None
    matches = [contrast for contrast, token in _CONTRASTS if token.search(stem)]
    if len(matches) != 1 or _PHASE.search(stem):
        return None
    return matches[0]


def read_series(folder: Path) -> list[Series]:
    """Read the water and fat files of a folder.

    Args:
        folder: with a water (``*_W*`` or ``*water*``) and a fat (``*_F*`` or ``*fat*``) file per station.

    Returns:
        Series in the convention of DICOM: (slices, rows, cols), positions in LPS mm, slices head first.

    Raises:
        ScanError: ``unreadable_nifti``, ``missing_affine``, ``oblique``, ``implausible_geometry`` or ``too_large``.
    """
    budget = Budget()
    return [_read_file(file, budget) for file in _pair_names(_find_files(folder))]


def _find_files(folder: Path) -> list[_File]:
    """List the water and fat files of a folder by name."""
    files = []
    for count, path in enumerate(sorted(folder.iterdir())):
        if count >= MAX_MEMBERS:
            raise ScanError(
                Reason.TOO_LARGE, f"the folder has more than {MAX_MEMBERS} files; check where it comes from"
            )
        contrast = nifti_contrast(path.name)
        if contrast is not None and path.is_file():
            stem = _SUFFIX.sub("", path.name)
            token = dict(_CONTRASTS)[contrast]
            number = _NUMBER.search(stem)
            files.append(_File(path, contrast, token.sub("", stem).lower(), int(number[1]) if number else None))
    return files


def _pair_names(files: Sequence[_File]) -> list[_File]:
    """Let water and fat pair by name (less the contrast) where all do; else by dcm2niix's numbers and position."""
    stems: dict[str, list[Contrast]] = {}
    for file in files:
        stems.setdefault(file.stem, []).append(file.contrast)
    if all(sorted(contrasts) == [Contrast.FAT, Contrast.WATER] for contrasts in stems.values()):
        return [replace(file, number=None) for file in files]
    return [replace(file, stem="") for file in files]


def _read_file(file: _File, budget: Budget) -> Series:
    """Read one station file."""
    label = f"a {file.contrast} file" if file.number is None else f"the {file.contrast} file {file.number}"
    image = _load(file.path, label, budget)
    affine = _checked_affine(image, label)
    transform = ornt_transform(io_orientation(affine), axcodes2ornt(_DICOM_AXES))
    shape = image.shape[:3]
    affine = affine @ inv_ornt_aff(transform, shape)
    _check_tilt(affine, label)
    raw = _raw_voxels(image, label).reshape(shape)
    voxels = np.ascontiguousarray(apply_orientation(raw, transform).transpose(2, 0, 1))
    return _to_series(file, affine, _zooms(image, transform, affine), voxels, _scaling(image))


def _load(path: Path, label: str, budget: Budget) -> Any:
    """Read a file within bounds and let nibabel parse it.

    Raises:
        ScanError: ``unreadable_nifti``, ``too_large`` or ``implausible_geometry``.
    """
    head = _read_bytes(path, _HEADER_BYTES[2], label)
    try:
        kind = nibabel.Nifti2Image if head[:2] in (b"\x1c\x02", b"\x00\x00") else nibabel.Nifti1Image
        header = kind.header_class(head[: kind.header_class.sizeof_hdr])
        shape = tuple(int(n) for n in header.get_data_shape())
        offset = int(header.get_data_offset())
        dtype = header.get_data_dtype()
    except Exception as error:  # nibabel raises many kinds on damaged headers
        raise _unreadable(label, error) from None
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or not 0 <= offset <= _MAX_OFFSET_BYTES or dtype.kind not in "uif":
        raise ScanError(
            Reason.UNREADABLE_NIFTI, f"{label} has shape {shape}, expected three dimensions of real numbers; {_AGAIN}"
        )
    if min(shape) < 1:
        raise ScanError(Reason.IMPLAUSIBLE_GEOMETRY, f"{label} has shape {shape}; {_AGAIN}")
    smallest, middle, largest = sorted(shape)
    budget.take((smallest, middle, largest), label)
    size = max(offset, _HEADER_BYTES[1]) + math.prod(shape) * int(dtype.itemsize)
    data = _read_bytes(path, size, label)
    if len(data) < size:
        raise ScanError(Reason.UNREADABLE_NIFTI, f"{label} is cut short ({len(data)} of {size} bytes); {_AGAIN}")
    try:
        return kind.from_bytes(data)
    except Exception as error:  # as above
        raise _unreadable(label, error) from None


def _read_bytes(path: Path, size: int, label: str) -> bytes:
    """Return at most the first ``size`` bytes of a plain or gzipped file."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file.read(size)
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as inflated:
                return inflated.read(size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise _unreadable(label, error) from None


def _checked_affine(image: Any, label: str) -> NDArray[np.float64]:
    """Return the affine, voxel index to RAS mm.

    Raises:
        ScanError: ``missing_affine``, ``unreadable_nifti`` or ``implausible_geometry``.
    """
    if not (int(image.header["sform_code"]) or int(image.header["qform_code"])):
        raise ScanError(Reason.MISSING_AFFINE, f"{label} declares no orientation (sform and qform code 0); {_AGAIN}")
    affine = np.asarray(image.affine, np.float64)
    if not np.isfinite(affine).all() or np.abs(affine).max() > 1e6:
        raise ScanError(Reason.IMPLAUSIBLE_GEOMETRY, f"{label} has an affine with absurd entries; {_AGAIN}")
    check_spacing(tuple(np.linalg.norm(affine[:3, :3], axis=0)), label)
    return affine


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


def _raw_voxels(image: Any, label: str) -> NDArray[Any]:
    """Return voxels as stored, before the header's scaling."""
    try:
        return np.asarray(image.dataobj.get_unscaled())
    except Exception as error:  # a damaged header may make nibabel raise anything
        raise _unreadable(label, error) from None


def _scaling(image: Any) -> tuple[float, float]:
    """(slope, intercept) of the header; identity where it says that there is none."""
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    return float(slope), float(intercept)


def _zooms(image: Any, transform: NDArray[Any], affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """(row, col, slice) spacing, mm: the header's pixdim, to the bit of float32, where the affine agrees with it."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    pixdim = np.empty(3)
    pixdim[transform[:, 0].astype(int)] = np.asarray(image.header.get_zooms()[:3], np.float64)
    row, col, between = (
        float(exact) if abs(exact - length) <= 1e-4 * length else float(length)
        for exact, length in zip(pixdim, lengths, strict=True)
    )
    return row, col, between


def _to_series(
    file: _File,
    affine: NDArray[np.float64],
    zooms: tuple[float, float, float],
    voxels: NDArray[Any],
    scaling: tuple[float, float],
) -> Series:
    """Describe a file in the convention of DICOM."""
    slices, rows, cols = voxels.shape
    header = SeriesHeader(
        number=file.number,
        uid=file.stem,
        description="NIfTI",
        contrast=file.contrast,
        rows=rows,
        cols=cols,
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=zooms[:2],
        slope=scaling[0],
        intercept=scaling[1],
    )
    check_plausible(header)
    x, y, z = -affine[0, 3], -affine[1, 3], affine[2, 3]
    positions = np.stack([np.full(slices, x), np.full(slices, y), z - zooms[2] * np.arange(slices)], axis=1)
    return Series(
        header, _compact(voxels), positions, np.arange(1, slices + 1, dtype=np.int64), np.full(slices, header.time_s)
    )


def _compact(voxels: NDArray[Any]) -> Voxels:
    """Return voxels as uint16 where every value fits, else as float32."""
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
