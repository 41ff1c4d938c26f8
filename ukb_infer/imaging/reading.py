"""A scan's path to checked stations, and on to its projection.

``read_stations`` determines the kind of input, reads its series, checks, repairs and flags them, and returns stations
ready for fusion.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ukb_infer.errors import ScanError
from ukb_infer.imaging.readers import dicom, dicom_series, nifti, nifti_names
from ukb_infer.imaging.readers.containers import FolderSource, ZipSource, open_zip
from ukb_infer.imaging.readers.projection_file import read_projection
from ukb_infer.imaging.recipes import DEFAULT_RECIPE, get_recipe
from ukb_infer.imaging.series import Contrast, LeftOut, Series
from ukb_infer.imaging.stations import checks
from ukb_infer.imaging.stations import choice as series_choice
from ukb_infer.imaging.stations.phases import PHASES, attach_phases
from ukb_infer.imaging.volumes.names import (
    CONTRASTS,
    DEFAULT_CONTRASTS,
    DEFAULT_SPACING,
    check_spacing_rule,
    of_water_and_fat,
)
from ukb_infer.imaging.volumes.names import check_contrasts as check_contrast_names
from ukb_infer.imaging.volumes.stitch import Stitch, make_stitch
from ukb_infer.reasons import Reason
from ukb_infer.records import Measures, Projection, ReadingOptions, ScanKey, Stations
from ukb_infer.text import shown

InputKind = Literal["zip", "dicom", "nifti", "projection", "volumes"]
#: What looks at a scan between checks and fusion: it may flag or correct stations, and measures their quality.
Inspect = Callable[[Stations], tuple[Stations, Measures]]

#: Files of a folder that are checked for DICOM.
_MAX_LOOKS = 16
_LOOK_BYTES = 256
_EXTENSIONS = (".zip", ".npy")


def read_stations(
    path: Path, options: ReadingOptions, *, use_fast_path: bool = True, also: Collection[Contrast] = ()
) -> Stations:
    """Read, check and repair the stations of a scan.

    Args:
        path: a 20201 zip, a folder of DICOM slices or a folder of NIfTI stations.
        options: the number of stations expected, and whether fewer are allowed.
        use_fast_path: False sends every DICOM slice through pydicom (same result, slower).
        also: in-phase and opposed-phase, which are read only where they are named here.

    Returns:
        Stations, numbered from 1, head first, with the flags of everything that was repaired.

    Raises:
        ScanError: the scan cannot be used; its reason says why.
        OSError: the disk or mount failed, not the scan.
    """
    notes, left_out = checks.Notes(), LeftOut()
    try:
        return _check_series(_read_series(path, use_fast_path, left_out, also), options, notes, left_out, also)
    except ScanError as error:
        raise series_choice.explain(error, left_out) from None


def _check_series(
    read: list[Series], options: ReadingOptions, notes: checks.Notes, left_out: LeftOut, also: Collection[Contrast]
) -> Stations:
    """From series as read to stations ready for fusion."""
    phases = [item for item in read if item.header.contrast in also]
    series = [item for item in read if item.header.contrast not in also]
    series_choice.check_not_only_derived(series, left_out)
    checks.check_one_scan(series)
    checks.check_contrasts(series)
    series = series_choice.choose_series(series, notes, left_out)
    checks.check_contrasts(series)
    checks.check_axial(series)
    pairs = checks.drop_repeats(checks.pair_contrasts(series, notes), notes)
    series_choice.check_processed(pairs, notes)
    stations = tuple(checks.build_station(number, pair, notes) for number, pair in enumerate(pairs, start=1))
    checks.note_findings(pairs, notes)
    checks.note_stated_geometry(pairs, notes)
    checks.check_station_count(stations, pairs, options, notes)
    series_choice.note_left_out(left_out, notes)
    stations = attach_phases(stations, pairs, phases, also, notes)
    return Stations(stations, notes.flags, notes.messages)


def _read_series(path: Path, use_fast_path: bool, left_out: LeftOut, also: Collection[Contrast]) -> list[Series]:
    """Read the water and fat series of any kind of input, and those of further contrasts."""
    kind = input_kind(path)
    if kind == "zip":
        with open_zip(path) as source, _scan_of(source, left_out) as scan:
            return dicom_series.read_series(scan, use_fast_path, left_out, also)
    if kind == "dicom":
        return dicom_series.read_series(FolderSource(path), use_fast_path, left_out, also)
    if kind == "nifti":
        return nifti.read_series(path, left_out, also)
    if not path.exists():
        raise ScanError(Reason.INPUT_MISSING, f"the input does not exist; {Reason.INPUT_MISSING.advice}")
    raise ScanError(Reason.NO_DICOM, "neither a zip nor a folder of DICOM slices or NIfTI stations; check the input")


@contextmanager
def _scan_of(source: ZipSource, left_out: LeftOut) -> Iterator[ZipSource]:
    """Open the only zip inside a zip without slices; the zip itself if there is none.

    Raises:
        ScanError: ``several_zips``, and those of ``open_zip``.
    """
    if not source.zips:
        yield source
        return
    others = sorted(set(range(len(source.names))) - set(source.zips))
    if any(dicom.looks_like_dicom(source.peek(index, _LOOK_BYTES)) for index in others):
        for index in source.zips:
            left_out.add("zip next to the slices", source.names[index])
        yield source
        return
    if len(source.zips) > 1:
        raise ScanError(
            Reason.SEVERAL_ZIPS,
            f"the zip contains {len(source.zips)} zips and no slices, expected one scan; unpack it and pass the folder",
        )
    with source.open_nested(source.zips[0]) as nested:
        if nested.zips:
            raise ScanError(
                Reason.SEVERAL_ZIPS,
                f"the zip inside the zip contains {len(nested.zips)} zips, expected slices; unpack it and pass the "
                "folder",
            )
        yield nested


def input_kind(path: Path) -> InputKind | None:
    """Kind of a path, from its name and, for folders, the first bytes of a few files.

    Returns:
        "zip", "projection" (a .npy), "dicom" or "nifti" (folders), or None. A folder whose subfolders are the
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
    if nifti_names.names_stations(files) or (not folders and nifti_names.names_derived_images(files)):
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
    """Whether the first two subfolders with DICOM files have slices of the same examination."""
    studies = []
    for name in folders[:_MAX_LOOKS]:
        try:
            files, _ = _list(folder / name)
        except PermissionError:  # says nothing about the others
            continue
        if files and _is_dicom(folder / name / files[0]):
            studies.append(dicom.study_of(folder / name / files[0]))
        if len(studies) == 2:
            return studies[0] != "" and studies[0] == studies[1]
    return False


def project_path(
    path: Path,
    options: ReadingOptions,
    recipe: str = DEFAULT_RECIPE,
    inspect: Inspect | None = None,
    *,
    keep_uncorrected: bool = False,
) -> Projection:
    """Read a scan and project it.

    Args:
        path: a zip, a folder of DICOM slices or NIfTI stations, or the .npy of an earlier projection.
        options: how it is read; ``strict`` turns the first flag into a failure.
        recipe: name of the recipe to use, or required of the .npy.
        inspect: looks for swaps and measures the quality of the stations; None to skip it.
        keep_uncorrected: also project a scan as it was before it was corrected.

    Returns:
        The projection with its flags and measures; one from a .npy is flagged ``quality_unknown``.

    Raises:
        ScanError: the scan cannot be used, or was flagged and ``strict`` is set.
        UsageError: no such recipe.
    """
    chosen = get_recipe(recipe)
    key = ScanKey.from_name(scan_name(path))
    if input_kind(path) == "projection":
        flags, messages = (Reason.QUALITY_UNKNOWN,), ("a cached projection without information about its scan",)
        _apply_strict(options, flags, messages)
        return Projection(read_projection(path, chosen), flags, messages, 0, key)
    read = read_stations(path, options)
    _apply_strict(options, read.flags, read.messages)
    scan, measures = (read, {}) if inspect is None else inspect(read)
    _apply_strict(options, scan.flags, scan.messages)
    before = _before(scan, read) if keep_uncorrected else None
    return Projection(
        chosen.project(scan.stations), scan.flags, scan.messages, len(scan.stations), key, measures,
        None if before is None else chosen.project(before.stations),
    )  # fmt: skip


def _before(scan: Stations, read: Stations) -> Stations | None:
    """A scan as if its swaps had only been flagged; None if none was corrected.

    Args:
        scan: as corrected.
        read: as it was read.
    """
    if all(new is old for new, old in zip(scan.stations, read.stations, strict=True)):
        return None
    flagged = tuple({**swap, "Action": "flagged"} for swap in scan.swaps or ())
    return replace(scan, stations=read.stations, swaps=flagged)


def stitch_path(
    path: Path,
    options: ReadingOptions,
    contrasts: Sequence[str] = DEFAULT_CONTRASTS,
    spacing: str = DEFAULT_SPACING,
    inspect: Inspect | None = None,
    *,
    keep_uncorrected: bool = False,
) -> Stitch:
    """Read a scan and lay it out for fusion.

    Args:
        path: a zip, or a folder of DICOM slices or NIfTI stations.
        options: how it is read; ``strict`` turns the first flag into a failure.
        contrasts: names in ``ukb_infer.imaging.volumes.names.CONTRASTS``; only these are read.
        spacing: native, recipe or a number of mm.
        inspect: looks for swaps and measures the quality of the stations; None to skip it.
        keep_uncorrected: also lay out a scan as it was before it was corrected.

    Raises:
        ScanError: the scan cannot be used or fused, or was flagged and ``strict`` is set.
        UsageError: no such contrast or spacing.
    """
    names, rule = check_contrast_names(contrasts), check_spacing_rule(spacing)
    if input_kind(path) == "projection":
        raise ScanError(Reason.NO_DICOM, "a projection holds no stations to stitch; give the zip or folder it is of")
    read = read_stations(path, options, also=[c for c in PHASES if any(CONTRASTS[n].of_station == c for n in names)])
    _apply_strict(options, read.flags, read.messages)
    scan, measures = (read, {}) if inspect is None else inspect(read)
    _apply_strict(options, scan.flags, scan.messages)
    key, before = ScanKey.from_name(scan_name(path)), _before(scan, read) if keep_uncorrected else None
    changed = [name for name in names if of_water_and_fat(name)]
    aside = None if before is None or not changed else make_stitch(before, key, changed, rule)
    return replace(make_stitch(scan, key, names, rule), measures=measures, uncorrected=aside)


def _apply_strict(options: ReadingOptions, flags: tuple[Reason, ...], messages: tuple[str, ...]) -> None:
    """Turn the first flag into a failure if the options say so."""
    if options.strict and flags:
        raise ScanError(flags[0], f"{messages[0]} (strict: a flag is a failure)")


def scan_name(path: Path) -> str:
    """Name a scan: the last part of its path without .zip or .npy."""
    name = shown(path.name or path.absolute().name)
    return name[: -len(".zip")] if name.lower().endswith(_EXTENSIONS) else name
