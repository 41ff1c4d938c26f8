"""A scan's path to checked stations, and on to its projection.

``read_stations`` is the flow: find out what the input is, read its series, check, repair and flag, and hand over
stations ready for fusion.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import Reason, ScanError
from ukb_infer.geometry import PROJECTION_SHAPE
from ukb_infer.imaging import checks, dicom, dicom_series, nifti
from ukb_infer.imaging.series import Series
from ukb_infer.imaging.zipsource import FolderSource, open_zip
from ukb_infer.records import Projection, ReadingOptions, ScanKey, Stations

InputKind = Literal["zip", "dicom", "nifti", "projection"]

#: Files of a folder that are looked at to tell whether it holds DICOM.
_MAX_LOOKS = 16
_LOOK_BYTES = 256
_MAX_PROJECTION_BYTES = 1024**2
_EXTENSIONS = (".zip", ".npy")


def read_stations(path: Path, options: ReadingOptions, *, use_fast_path: bool = True) -> Stations:
    """Read, check and repair the stations of a scan.

    Args:
        path: a 20201 zip, a folder of DICOM slices or a folder of NIfTI stations.
        options: the number of stations expected, and whether fewer are allowed.
        use_fast_path: False sends every DICOM slice through pydicom (same result, slower).

    Returns:
        Stations, numbered from 1, head first, with the flags of everything that was repaired.

    Raises:
        ScanError: the scan cannot be used; its reason says why.
        OSError: the disk or mount failed, which says nothing about the scan.
    """
    notes = checks.Notes()
    series = _read_series(path, use_fast_path)
    checks.check_one_scan(series)
    checks.check_contrasts(series)
    checks.check_axial(series)
    pairs = checks.drop_repeats(checks.pair_contrasts(series, notes), notes)
    stations = tuple(checks.build_station(number, pair, notes) for number, pair in enumerate(pairs, start=1))
    checks.check_station_count(stations, pairs, options, notes)
    return Stations(stations, notes.flags, notes.messages)


def _read_series(path: Path, use_fast_path: bool) -> list[Series]:
    """Read the water and fat series of any kind of input."""
    kind = input_kind(path)
    if kind == "zip":
        with open_zip(path) as source:
            return dicom_series.read_series(source, use_fast_path)
    if kind == "dicom":
        return dicom_series.read_series(FolderSource(path), use_fast_path)
    if kind == "nifti":
        return nifti.read_series(path)
    if not path.exists():
        raise ScanError(Reason.INPUT_MISSING, "the input does not exist; check the list and --root")
    raise ScanError(
        Reason.NO_DICOM, "neither a zip nor a folder of DICOM slices or NIfTI stations; check what was given as input"
    )


def input_kind(path: Path) -> InputKind | None:
    """Tell what a path is, from its name and, for folders, the first bytes of a few files.

    Returns:
        "zip", "projection" (a .npy), "dicom" or "nifti" (folders), or None. A folder whose subfolders hold the
        series of one examination is "dicom"; a folder of scans is None.
    """
    if path.is_file():
        suffix = path.suffix.lower()
        return "zip" if suffix == ".zip" else "projection" if suffix == ".npy" else None
    if not path.is_dir():
        return None
    files, folders = _list(path)
    if any(_is_dicom(path / name) for name in files[:_MAX_LOOKS]):
        return "dicom"
    if any(nifti.nifti_contrast(name) for name in files):
        return "nifti"
    if any(name.lower().endswith(".dcm") for name in files) or _is_split_by_series(path, folders):
        return "dicom"
    return None


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the visible files and subfolders of a folder, sorted; DICOM-like names first."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    files = [entry.name for entry in visible if _is_regular(entry)]
    folders = [entry.name for entry in visible if entry.is_dir(follow_symlinks=False)]
    return sorted(files, key=lambda name: (not name.lower().endswith((".dcm", ".ima")), name)), sorted(folders)


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return dicom.looks_like_dicom(file.read(_LOOK_BYTES))
    except PermissionError:
        return False


def _is_split_by_series(folder: Path, folders: list[str]) -> bool:
    """Whether the first two subfolders that hold DICOM files directly hold slices of the same examination."""
    studies = []
    for name in folders[:_MAX_LOOKS]:
        files, _ = _list(folder / name)
        if files and _is_dicom(folder / name / files[0]):
            studies.append(dicom.study_of(folder / name / files[0]))
        if len(studies) == 2:
            return studies[0] != "" and studies[0] == studies[1]
    return False


def project_path(path: Path, options: ReadingOptions) -> Projection:
    """Read a scan and project it.

    Args:
        path: a zip, a folder of DICOM slices or NIfTI stations, or the .npy of an earlier projection.
        options: how it is read; ``strict`` turns the first flag into a failure.

    Returns:
        The projection with its flags; one from a .npy carries ``quality_unknown``.

    Raises:
        ScanError: the scan cannot be used, or was flagged and ``strict`` is set.
    """
    from ukb_infer.imaging.projection import project_stations

    key = ScanKey.from_name(scan_name(path))
    if input_kind(path) == "projection":
        flags, messages = (Reason.QUALITY_UNKNOWN,), ("a cached projection: nothing is known of its scan",)
        _apply_strict(options, flags, messages)
        return Projection(read_projection(path), flags, messages, 0, key)
    scan = read_stations(path, options)
    _apply_strict(options, scan.flags, scan.messages)
    return Projection(project_stations(scan.stations), scan.flags, scan.messages, len(scan.stations), key)


def _apply_strict(options: ReadingOptions, flags: tuple[Reason, ...], messages: tuple[str, ...]) -> None:
    """Turn the first flag into a failure where the options say so."""
    if options.strict and flags:
        raise ScanError(flags[0], f"{messages[0]} (a failure because of --strict)")


def scan_name(path: Path) -> str:
    """Name a scan: the last part of its path without .zip or .npy."""
    name = path.name or path.resolve().name
    return name[: -len(".zip")] if name.lower().endswith(_EXTENSIONS) else name


def read_projection(path: Path) -> NDArray[np.uint8]:
    """Read a cached projection, executing nothing and reading no more than it can have.

    Returns:
        (3, 256, 256) uint8.

    Raises:
        ScanError: ``bad_projection``, ``empty_image`` for a constant one, or ``input_missing``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PROJECTION_BYTES)
    except FileNotFoundError:
        raise ScanError(Reason.INPUT_MISSING, "the projection does not exist; check the list and --root") from None
    image = _parse_projection(data)
    if (image == image.flat[0]).all():
        raise ScanError(Reason.EMPTY_IMAGE, f"every pixel of the projection is {image.flat[0]}; project the scan again")
    return image


def _parse_projection(data: bytes) -> NDArray[np.uint8]:
    """Parse the .npy format by hand-checked header: nothing is allocated before its shape and type are known."""
    file = BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read_header[version](file)
    except Exception as error:  # NumPy raises many kinds on damaged headers
        raise _bad_projection(f"not a .npy ({type(error).__name__})") from None
    if shape != PROJECTION_SHAPE or dtype != np.dtype(np.uint8):
        raise _bad_projection(f"{dtype} {shape}")
    pixels = np.frombuffer(data, np.uint8, offset=file.tell())
    if pixels.size != np.prod(PROJECTION_SHAPE):
        raise _bad_projection(f"{pixels.size} bytes of pixels")
    return pixels.reshape(shape, order="F" if fortran else "C").copy(order="C")


def _bad_projection(found: str) -> ScanError:
    return ScanError(
        Reason.BAD_PROJECTION,
        f"a cached projection is {found}, expected uint8 {PROJECTION_SHAPE}; project the scan again",
    )
