"""Scans of heads: which sessions the inputs hold, and from a session to the box of voxels that networks see."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import RunError, ScanError, UsageError
from ukb_infer.imaging.datasets.names import MODALITIES, SKIPPED_FOLDERS, is_session, kind_folder, name_of
from ukb_infer.imaging.volumes.names import BRAIN_FIELDS
from ukb_infer.imaging.volumes.read import brain_field
from ukb_infer.inference.inputs import (
    ScanInput,
    check_root,
    is_list,
    is_path,
    is_pattern,
    keep_unique,
    path_of,
    place_of,
)
from ukb_infer.inference.work import Outcome, finished
from ukb_infer.labels import read_id_list
from ukb_infer.labels.ids import NamedId, participant_of, plain_eid, plain_scan
from ukb_infer.modules.manifest import VolumeInput
from ukb_infer.modules.volumes import read_session
from ukb_infer.reasons import Reason
from ukb_infer.records import ScanKey
from ukb_infer.runs.files import holds_run
from ukb_infer.text import shown

if TYPE_CHECKING:
    from ukb_infer.imaging.volumes.preprocess import Grid


@dataclass(frozen=True)
class SessionFinder:
    """Finds sessions with images that a module can use.

    Attributes:
        modalities: of every channel, those of which the first is read.
    """

    modalities: tuple[tuple[str, ...], ...]

    def __call__(
        self, inputs: Sequence[str], root: Path | None = None, *, base: Path = Path(),
        outputs: Sequence[Path] = (), say: Callable[[str], None] = lambda _: None,
    ) -> list[ScanInput]:  # fmt: skip
        """Find every session that the inputs name, sorted by key.

        Args:
            inputs: session folders, brain zips of UK Biobank, folders of them, or lists of paths, participants, names
                of scans, or keys of zips.
            root: folder in which lists look up names and relative paths; or a pattern of paths with ``{scan}``.
            base: folder that relative paths start from.
            outputs: folders that the run writes to, which are not searched.
            say: not used.

        Raises:
            UsageError: an input does not exist, or is neither; two sessions have the same name.
            RunError: there are no sessions.
        """
        del say
        wanted = {name for group in self.modalities for name in group}
        own, found = {os.path.realpath(path) for path in outputs}, list[ScanInput]()
        listed = ListedHeads(check_root(root, base), base, partial(_found_at, wanted=wanted, own=own))
        for given in inputs:
            path = base / Path(given).expanduser()
            if not path.exists():
                raise UsageError(f"{shown(given)} does not exist or cannot be reached; check the path", field="inputs")
            if is_list(path):
                found += listed.read(path, given)
            elif path.is_file() and not brain_field(path):
                fields = " or ".join(BRAIN_FIELDS)
                expected = f"a session folder with NIfTI files, a zip of field {fields}, a folder of those, or a list"
                raise UsageError(field="inputs", got=given, expected=expected)
            else:
                found += _found_at(path, given, wanted, own)
        if not found:
            channels = ", ".join(" or ".join(group) for group in self.modalities)
            raise RunError(
                f"no session in {', '.join(inputs)}: expected folders with NIfTI files named like {channels} "
                f"(of {', '.join(MODALITIES)}), or zips of field {' or '.join(BRAIN_FIELDS)}"
            )
        return keep_unique(found)


def _found_at(path: Path, given: str, wanted: set[str], own: set[str]) -> list[ScanInput]:
    """Scans at or below a path."""
    return [_scan(place, path, given) for place in dict.fromkeys(_sessions(path, wanted, own))]


@dataclass
class ListedHeads:
    """Scans that lists name.

    Attributes:
        root: of names and relative paths; a pattern of paths, or None.
        base: folder that relative paths start from.
        at: scans at or below a path, which was given like this.
    """

    root: Path | None
    base: Path
    at: Callable[[Path, str], list[ScanInput]]

    def read(self, listing: Path, given: str) -> Iterator[ScanInput]:
        """Scans of every line; one that names none becomes a failed scan.

        Args:
            listing: the list.
            given: its path as the user gave it.

        Raises:
            UsageError: an unreadable list, or names without a root.
        """
        for entry in read_id_list(listing, f"`inputs` {given}", "input").entries:
            path = place_of(entry.text, listing, self.root, self.base)
            found = self.at(path, entry.text) if path is not None else self._named(entry.text, entry.named)
            key = ScanKey.from_name(entry.named.scan)
            problem = Reason.INPUT_MISSING if key.is_safe else Reason.INVALID_SCAN_NAME
            yield from found or [ScanInput(key, Path(entry.text), shown(entry.text), None, problem)]

    def _named(self, text: str, named: NamedId) -> list[ScanInput]:
        """Scans of a name: a participant, a scan, or a key of one of its zips."""
        if is_path(text):
            return []
        if self.root is None:
            raise UsageError("missing; a list of participants or scans needs the folder of the heads", field="root")
        key = ScanKey.from_name(named.scan)
        if is_pattern(self.root):
            zips = (
                [f"{named.scan}_{field}_{visit}_0" for visit in (2, 3) for field in BRAIN_FIELDS] if named.eid else []
            )
            formed = [self.base / path_of(self.root, ScanKey.from_name(name)) for name in zips or [named.scan]]
            found = [scan for path in formed if path.exists() for scan in self.at(path, str(path))]
            return list({scan.key: scan for scan in found}.values())
        if key.eid:
            return self._by_name.get((plain_eid(key.eid), key.instance, key.array), [])
        return self._by_name.get(plain_eid(named.eid) if named.eid else plain_scan(named.scan), [])

    @cached_property
    def _by_name(self) -> dict[object, list[ScanInput]]:
        """Scans below the root by name, by participant, and by participant and visit."""
        found: dict[object, list[ScanInput]] = {}
        assert self.root is not None
        for scan in self.at(self.base / self.root, str(self.root)):
            key, person = scan.key, participant_of(scan.key.scan)
            visit = [plain_eid(key.eid), (plain_eid(key.eid), key.instance, key.array)] if key.eid else []
            for name in dict.fromkeys((plain_scan(key.scan), *visit, *([plain_eid(person)] if person else []))):
                found.setdefault(name, []).append(scan)
        return found


def _sessions(path: Path, wanted: set[str], own: set[str]) -> Iterator[Path]:
    """Session folders and brain zips at or below a path."""
    if path.is_file():
        if brain_field(path):
            yield _first_zip(path, wanted)
        return
    for where, folders, files in os.walk(path):
        here = Path(where)
        folders[:] = sorted(
            f for f in folders
            if f.lower() not in SKIPPED_FOLDERS and not f.startswith(".")
            and os.path.realpath(here / f) not in own and not holds_run(here / f)
        )  # fmt: skip
        for file in sorted(files):
            if (field := brain_field(Path(file))) and BRAIN_FIELDS[field][0] in wanted:
                yield _first_zip(here / file, wanted)
            elif _modality(here, file) in wanted:
                yield here.parent if kind_folder(here.name) else here


def _first_zip(path: Path, wanted: set[str]) -> Path:
    """The zip that stands for a visit: of its zips with a wanted contrast the first by field."""
    return next(iter(_zips(path, wanted).values()), path)


def _zips(path: Path, wanted: set[str]) -> dict[str, Path]:
    """Brain zips of one visit by modality."""
    eid, _, instance, array = path.stem.split("_")
    zips = {name: path.with_name(f"{eid}_{field}_{instance}_{array}.zip") for field, (name, _) in BRAIN_FIELDS.items()}
    return {name: zip_ for name, zip_ in zips.items() if name in wanted and zip_.is_file()}


def _modality(folder: Path, file: str) -> str:
    """Modality of a NIfTI file; "" for other files."""
    if ".nii" not in file.lower():
        return ""
    named = name_of(PurePath("dataset", folder.parent.name or "x", folder.name or "x", file), "")
    return "" if named is None else named.modality


def _scan(place: Path, given_path: Path, given: str) -> ScanInput:
    name = place.stem if place.is_file() else session_name(place)
    below = place.relative_to(given_path).as_posix() if place.is_relative_to(given_path) else ""
    key = ScanKey.from_name(name)
    label = shown(f"{given.rstrip('/')}/{below}" if below not in ("", ".") else given)
    return ScanInput(key, place, label, "volumes", None if key.is_safe else Reason.INVALID_SCAN_NAME)


def session_name(folder: Path) -> str:
    """Name of a session's scan: ``<participant>_<session>``, or the folder's own where it names no session."""
    folder = folder.absolute()
    return f"{folder.parent.name}_{folder.name}" if is_session(folder.name) else folder.name


def session_images(path: Path, modalities: Sequence[Sequence[str]]) -> dict[str, Path]:
    """Images of a session by modality; of several files of one the first by name.

    Args:
        path: of a session folder or brain zip.
        modalities: of every channel; others are left out.
    """
    wanted = {name for group in modalities for name in group}
    if path.is_file():
        return _zips(path, wanted)
    found: dict[str, Path] = {}
    folders = [path, *sorted(f for f in path.iterdir() if kind_folder(f.name) and f.is_dir())]
    for folder in folders:
        for file in sorted(folder.iterdir()):
            name = _modality(folder, file.name)
            if name in wanted:
                found.setdefault(name, file)
    return found


@dataclass(frozen=True)
class VolumeJob:
    """One session to preprocess.

    Attributes:
        scan: what to read.
        read: how, by the module.
        strict: every flag is a failure.
        digest: also compute the SHA-256 of the input.
    """

    scan: ScanInput
    read: VolumeInput
    strict: bool = False
    digest: bool = False

    def make(self) -> Any:
        """Read and preprocess the session."""
        return read_session(session_images(self.scan.path, self.read.modalities), self.read)

    def keep(self, made: tuple[NDArray[np.float32], Grid, list[Reason]]) -> Outcome:
        """Nothing is written."""
        image, grid, flags = made
        if self.strict and flags:
            raise ScanError(flags[0], f"{flags[0].meaning} (strict: a flag is a failure)")
        return finished(flags, [flag.meaning for flag in flags], 0, image=image, grid=grid)


def native_mask(probabilities: NDArray[np.float32], grid: Grid) -> NDArray[np.uint8]:
    """The most probable label of every voxel of the session's first image.

    Args:
        probabilities: (labels, x, y, z) on the box, the background first.
        grid: of the session.
    """
    from ukb_infer.imaging.volumes.preprocess import to_native

    foreground = to_native(probabilities[1:], grid, 1)
    best = foreground.argmax(axis=0)
    rest = 1.0 - foreground.sum(axis=0)
    is_label = np.take_along_axis(foreground, best[None], axis=0)[0] > rest
    return np.where(is_label, best + 1, 0).astype(np.uint8)


def write_mask(probabilities: NDArray[np.float32], grid: Grid, path: Path) -> None:
    """Write the mask of a session with shape and affine of its first image.

    Args:
        probabilities: (labels, x, y, z) on the box, the background first.
        grid: of the session.
        path: of the ``.nii.gz``.
    """
    from ukb_infer.imaging.volumes.preprocess import save_mask

    save_mask(native_mask(probabilities, grid), grid, path)
