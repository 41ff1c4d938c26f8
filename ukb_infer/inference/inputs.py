"""From what the user names to the scans of a run (floor 4)."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ukb_infer.errors import Reason, RunError, UsageError
from ukb_infer.imaging.reading import InputKind, input_kind, scan_name
from ukb_infer.records import ScanKey
from ukb_infer.storage import sha256_file

_KEY = re.compile(r"^(\d+)[\s,]+(\d+_\d+_\d+)$")
_LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".bulk", ".lst")
#: A list larger than this is refused.
MAX_LIST_BYTES = 1 << 30
SCANS_TABLE = "scans.csv"


@dataclass(frozen=True)
class ScanInput:
    """One scan of a run.

    Attributes:
        key: of the scan.
        path: what to read.
        given: the path as the user gave it, for ``scans.csv``.
        kind: what the path is, None where it is missing or unusable.
        problem: reason code found before reading, or None.
        flags: codes known from the ``scans.csv`` beside a cached projection; None where nothing is known.
        stations: fused stations known from there.
    """

    key: ScanKey
    path: Path
    given: str
    kind: InputKind | None
    problem: Reason | None = None
    flags: tuple[str, ...] | None = None
    stations: int = 0

    @property
    def fingerprint(self) -> str:
        """Size and time of change of the file, or of all files of the folder, to notice that it was replaced."""
        try:
            stats = [p.stat() for p in _files_of(self.path)]
        except OSError:
            return "missing"
        return f"{sum(s.st_size for s in stats)}:{max((s.st_mtime_ns for s in stats), default=0)}:{len(stats)}"


def _files_of(path: Path) -> list[Path]:
    """The file itself, or the files of a scan's folder."""
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def content_digest(path: Path) -> str:
    """SHA-256 of a file's content, or of the names and contents of a folder's files; "" where it cannot be read."""
    try:
        if not path.is_dir():
            return sha256_file(path)
        lines = [f"{file.name} {sha256_file(file)}" for file in _files_of(path)]
    except OSError:
        return ""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def resolve_inputs(inputs: Sequence[str], root: Path | None = None) -> list[ScanInput]:
    """Find every scan that the inputs name, sorted by key.

    Args:
        inputs: zips, folders, projections, or lists of paths and keys.
        root: where keys and relative paths of lists are looked up.

    Returns:
        One entry a scan; missing listed ones and unusable names carry a ``problem``.

    Raises:
        UsageError: an input does not exist, or two files have one key.
        RunError: there is no scan at all.
    """
    index = _RootIndex(root)
    found: list[ScanInput] = []
    for given in inputs:
        path = _expand(given)
        if not path.exists():
            raise UsageError(f"INPUT {given}: does not exist; check the path")
        if path.is_file() and path.suffix.lower() in _LIST_SUFFIXES:
            found.extend(_from_list(path, index))
        else:
            found.extend(_from_path(path, given))
    if not found:
        raise RunError(
            f"no scan in {', '.join(inputs)}: expected 20201 zips, folders of DICOM slices or NIfTI stations, or "
            "projections (.npy)"
        )
    return _unique(found)


def _make_input(path: Path, given: str, kind: InputKind | None) -> ScanInput:
    key = ScanKey.from_name(scan_name(path))
    return ScanInput(key, path, given, kind, None if key.is_safe else Reason.INVALID_SCAN_NAME)


def _from_path(path: Path, given: str) -> Iterator[ScanInput]:
    if _is_projection_folder(path):
        yield from _projections(path, given)
        return
    kind = input_kind(path)
    if kind is not None:
        yield from _with_known_flags([_make_input(path, given, kind)], path.parent)
    elif path.is_dir():
        yield from _search(path, given)
    else:
        raise UsageError(
            f"INPUT {given}: neither a zip, a projection (.npy), a folder nor a list ({', '.join(_LIST_SUFFIXES)})"
        )


def _is_projection_folder(path: Path) -> bool:
    """Whether a folder was written by ``project``: whatever else it holds, its projections are the scans."""
    return (path / SCANS_TABLE).is_file() and any(path.glob("*.npy"))


def _projections(folder: Path, given: str) -> list[ScanInput]:
    """Every projection of a folder, with the flags its table records."""
    found = [_make_input(p, f"{given.rstrip('/')}/{p.name}", input_kind(p)) for p in sorted(folder.glob("*.npy"))]
    return _with_known_flags([item for item in found if not item.path.name.startswith(".")], folder)


def _search(folder: Path, given: str) -> Iterator[ScanInput]:
    """Scans below a folder; every real folder is entered once, so that links cannot go round."""
    seen: set[tuple[int, int]] = set()
    stack = [(folder, given)]
    while stack:
        here, shown = stack.pop()
        stat = here.stat()
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        if _is_projection_folder(here):
            yield from _projections(here, shown)
            continue
        files: list[ScanInput] = []
        try:
            entries = sorted(os.scandir(here), key=lambda e: e.name)
        except OSError as error:
            raise RunError(f"{shown}: cannot be listed ({error.strerror}); check access to the folder") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path, label = Path(entry.path), f"{shown.rstrip('/')}/{entry.name}"
            if entry.is_dir():
                kind = None if _is_projection_folder(path) else _kind_of_folder(path, label)
                if kind is None:
                    stack.append((path, label))
                else:
                    files.append(_make_input(path, label, kind))
            elif entry.name.lower().endswith((".zip", ".npy")):
                files.append(_make_input(path, label, input_kind(path)))
        yield from _with_known_flags(files, here)


def _kind_of_folder(path: Path, shown: str) -> InputKind | None:
    try:
        return input_kind(path)
    except OSError as error:
        raise RunError(f"{shown}: cannot be read ({error.strerror}); check access to the folder") from error


def _with_known_flags(found: list[ScanInput], folder: Path) -> list[ScanInput]:
    """Give projections the flags that ``scans.csv`` of their folder records."""
    table = folder / SCANS_TABLE
    if not table.is_file() or not any(item.kind == "projection" for item in found):
        return found
    known: dict[str, dict[str, str]] = {}
    try:
        with table.open(newline="", encoding="utf-8") as handle:
            for row in csv.DictReader(handle):
                if row.get("status") in ("ok", "flagged"):
                    known[row.get("scan") or ""] = row
    except (OSError, UnicodeDecodeError, csv.Error):
        return found
    result = []
    for item in found:
        row_known = known.get(item.key.scan)
        if item.kind == "projection" and row_known is not None:
            codes = tuple(c for c in (row_known.get("reasons") or "").split(";") if c in set(Reason))
            count = row_known.get("stations") or "0"
            result.append(replace(item, flags=codes, stations=int(count) if count.isdigit() else 0))
        else:
            result.append(item)
    return result


class _RootIndex:
    """Scans below --root by name, found on first use."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._names: dict[str, ScanInput] | None = None

    def find(self, scan: str) -> ScanInput | None:
        if self.root is None:
            raise UsageError("--root: a list with `eid 20201_2_0` keys needs the folder that holds the scans")
        if self._names is None:
            if not self.root.is_dir():
                raise UsageError(f"--root {self.root}: is no folder")
            self._names = {}
            for item in _search(self.root, str(self.root)):
                self._names.setdefault(item.key.scan, item)
        return self._names.get(scan)


def _read_lines(path: Path) -> list[str]:
    if path.stat().st_size > MAX_LIST_BYTES:
        raise UsageError(f"{path}: {path.stat().st_size} bytes is too long for a list")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a list of text ({error})") from error
    if "\0" in text:
        raise UsageError(f"{path}: holds a NUL byte, expected a list of text, one scan a line")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _from_list(path: Path, index: _RootIndex) -> Iterator[ScanInput]:
    """Scans named by a list: a path or an ``eid 20201_2_0`` key a line; a CSV may have a header."""
    for number, line in enumerate(_read_lines(path)):
        cell = line.strip("\"' ")
        key = _KEY.match(cell)
        if key is not None:
            yield _from_key(f"{key[1]}_{key[2]}", index)
            continue
        first = cell.split("\t")[0].split(",")[0].strip("\"' ")
        if number == 0 and first.lower() in {"path", "file", "filename", "scan", "eid", "name", "input"}:
            continue
        if ScanKey.from_name(first).eid:
            yield _from_key(first, index)
        else:
            yield from _from_listed_path(first, path, index)


def _expand(text: str) -> Path:
    """A path with ``~`` replaced where the user is known."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _from_key(scan: str, index: _RootIndex) -> ScanInput:
    found = index.find(scan)
    if found is not None:
        return found
    return ScanInput(ScanKey.from_name(scan), Path(scan), scan, None, Reason.INPUT_MISSING)


def _from_listed_path(text: str, listing: Path, index: _RootIndex) -> Iterator[ScanInput]:
    plain = _expand(text)
    places = (
        [plain] if plain.is_absolute() else [p / plain for p in (index.root, Path(), listing.parent) if p is not None]
    )
    path = next((p for p in places if p.exists()), None)
    if path is None:
        key = ScanKey.from_name(scan_name(plain))
        yield ScanInput(key, plain, text, None, Reason.INPUT_MISSING if key.is_safe else Reason.INVALID_SCAN_NAME)
    else:
        yield from _from_path(path, text)


def _unique(found: Iterable[ScanInput]) -> list[ScanInput]:
    """One entry a key, sorted; the same file named twice is fine, two files are not."""
    by_key: dict[tuple[object, ...], ScanInput] = {}
    by_scan: dict[str, ScanInput] = {}
    for item in found:
        key = item.key
        identity = (key.eid, key.instance, key.array) if key.eid else ("", key.scan)
        other = by_key.get(identity) or by_scan.get(key.scan)
        if other is None:
            by_key[identity] = by_scan[key.scan] = item
        elif not _same_file(other.path, item.path):
            raise UsageError(
                f"two different files are the same scan: {other.given} and {item.given}; give one of them "
                "(or, for projections made from the zips, only the folder of projections)"
            )
    return sorted(by_key.values(), key=lambda item: item.key.sort_key)


def _same_file(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def read_exclusions(files: Sequence[Path]) -> frozenset[str]:
    """Eids and scan names to leave out, from headerless lists (``w*.csv``) or tables whose first column counts.

    Raises:
        UsageError: a file cannot be read.
    """
    names: set[str] = set()
    for path in files:
        if not path.is_file():
            raise UsageError(f"--exclude {path}: is no file")
        for line in _read_lines(path):
            key = _KEY.match(line)
            first = re.split(r"[,\t; ]", line)[0].strip("\"' ")
            names.add(f"{key[1]}_{key[2]}" if key else first.removesuffix(".zip"))
    return frozenset(names)


def is_excluded(key: ScanKey, exclusions: frozenset[str]) -> bool:
    """Whether a scan's eid or name is listed."""
    return key.scan in exclusions or (key.eid != "" and key.eid in exclusions)
