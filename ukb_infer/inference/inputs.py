"""Find the scans of a run in its inputs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution.journal import JOURNAL_NAME
from ukb_infer.imaging.readers.image_words import is_derived_folder
from ukb_infer.imaging.reading import InputKind, input_kind, scan_name
from ukb_infer.inference.fingerprints import fingerprint
from ukb_infer.labels import IdList, read_id_list
from ukb_infer.labels.ids import plain_eid, plain_scan
from ukb_infer.reasons import Reason
from ukb_infer.records import ScanKey, ScanResult
from ukb_infer.runs.files import SCANS, holds_fused_bodies
from ukb_infer.runs.quality import without_judgement
from ukb_infer.runs.read import read_scans
from ukb_infer.text import shown

_LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".bulk", ".lst")
_SCAN_SUFFIXES = (".zip", ".npy")
#: Scans that a participant may have, for paths that are formed: both imaging visits, and a repetition at each.
_VISITS = ("20201_2_0", "20201_2_1", "20201_3_0", "20201_3_1")
#: Errors of a single file, not of its storage.
OF_THE_FILE = frozenset(
    (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EILSEQ)
)


@dataclass(frozen=True)
class ScanInput:
    """One scan of a run.

    Attributes:
        key: of the scan.
        path: what to read.
        given: the path as the user gave it, for ``scans.csv``.
        kind: of the path; None if missing or unusable.
        problem: reason found before reading, or None.
        known: row of a cached projection in its folder's ``scans.csv``; None if there is none.
    """

    key: ScanKey
    path: Path
    given: str
    kind: InputKind | None
    problem: Reason | None = None
    known: ScanResult | None = None

    @property
    def excluded(self) -> bool:
        """Whether the scan of a cached projection was excluded."""
        return self.known is not None and self.known.status == "excluded"

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the file now; that of the content read is in its result."""
        return fingerprint(self.path)


def resolve_inputs(
    inputs: Sequence[str],
    root: Path | None = None,
    *,
    base: Path = Path(),
    outputs: Sequence[Path] = (),
    say: Callable[[str], None] = lambda _: None,
) -> list[ScanInput]:
    """Find every scan that the inputs name, sorted by key.

    Args:
        inputs: zips, folders, projections, or lists of paths and keys.
        root: folder in which keys and relative paths of lists are looked up; or a pattern of paths with ``{scan}``,
            from which the path of each key is formed, so that no folder is listed.
        base: folder that relative paths start from; ``Path()`` is the folder of the process.
        outputs: folders that the run writes to; they, folders that contain them, and folders of other runs are not
            searched.
        say: receives a message about folders not searched.

    Returns:
        One entry per scan; missing ones, invalid names and unreadable files have a ``problem``.

    Raises:
        UsageError: an input or the root does not exist, or two files have the same key.
        RunError: there are no scans, or the storage failed.
    """
    check_root(root, base)
    own = _OwnFolders(outputs)
    index = _RootIndex(root, base, own, _OwnFolders(outputs, other_runs=False))
    found: list[ScanInput] = []
    for given in inputs:
        path = base / _expand(given)
        if not _exists(path):
            raise UsageError(f"{shown(given)} does not exist or cannot be reached; check the path", field="inputs")
        if is_list(path):
            found.extend(_from_list(path, f"`inputs` {_expand(given)}", index))
        else:
            found.extend(_from_path(path, given, own))
    if own.words:
        say(own.words)
    if not found:
        raise RunError(
            f"no scan in {', '.join(inputs)}: expected 20201 zips, folders of DICOM slices or NIfTI stations, or "
            "projections (.npy); folders named like derived images (derivatives, masks) are not searched"
            f"{'; ' if own.words else ''}{own.words}"
        )
    return keep_unique(found)


def check_root(root: Path | None, base: Path) -> Path | None:
    """The folder or pattern given, if it can be used.

    Args:
        root: a folder, a pattern of paths, or None.
        base: folder that relative paths start from.

    Raises:
        UsageError: no folder, or other names in braces than those of a key.
    """
    if root is not None and is_pattern(root):
        path_of(root, ScanKey.from_name("0000001_20201_2_0"))
    elif root is not None and not (base / root).is_dir():
        raise UsageError(f"`root` {root} is not a folder; check the path")
    return root


def is_list(path: Path) -> bool:
    """Whether a path is a list of scans."""
    return path.is_file() and path.suffix.lower() in _LIST_SUFFIXES


def is_pattern(root: Path | None) -> bool:
    """Whether paths are formed from keys instead of found below a folder."""
    return root is not None and "{" in str(root)


def path_of(root: Path | None, key: ScanKey) -> Path:
    """Path of a scan by a pattern.

    Args:
        root: the pattern.
        key: of the scan.

    Raises:
        UsageError: other names in braces than those of a key.
    """
    parts = {"scan": key.scan, "eid": key.eid, "instance": key.instance, "array": key.array}
    try:
        return _expand(str(root).format_map(parts))
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise UsageError(
            f"`root` {root}: {error} cannot be filled in; expected a folder, or a pattern with {{scan}}, {{eid}}, "
            "{eid:.2} (its first two digits), {instance} or {array}"
        ) from error


def _make_input(path: Path, given: str, kind: InputKind | None, problem: Reason | None = None) -> ScanInput:
    key = ScanKey.from_name(scan_name(path))
    return ScanInput(key, path, shown(given), kind, problem if key.is_safe else Reason.INVALID_SCAN_NAME)


class _OwnFolders:
    """Folders below an input that are not searched, because they belong to this run or another one.

    Args:
        outputs: folders the run writes to; those that do not exist yet are irrelevant.
        other_runs: whether folders of other runs are skipped too.
    """

    def __init__(self, outputs: Sequence[Path], *, other_runs: bool = True) -> None:
        self._outputs = {os.path.realpath(path) for path in outputs}
        self._holders = {str(parent) for path in self._outputs for parent in Path(path).parents}
        self._other_runs = other_runs
        self._left_out: list[str] = []

    def holds(self, path: Path, label: str) -> bool:
        """Whether a folder is an output, contains one, or is the folder of another run.

        Args:
            path: of the folder.
            label: its name in messages.
        """
        real = os.path.realpath(path)
        if real in self._outputs:
            return True
        if real in self._holders or (self._other_runs and _exists(path / JOURNAL_NAME)):
            self._left_out.append(shown(label))
            return True
        return False

    @property
    def words(self) -> str:
        """Message about skipped folders of other runs; "" for none."""
        if not self._left_out:
            return ""
        names = ", ".join(self._left_out[:3]) + (" ..." if len(self._left_out) > 3 else "")
        return (
            f"{len(self._left_out)} folders below the inputs hold results of a run and are not searched ({names}); to "
            "use one, pass it as an input"
        )


def _refuse_storage(error: OSError, label: str) -> None:
    """Raise for storage failures, which hide an unknown number of scans; ignore errors of a single file.

    Raises:
        RunError: the storage failed.
    """
    if error.errno not in OF_THE_FILE:
        raise RunError(
            f"{shown(error.filename or label)}: cannot be read ({error.strerror}); restore access to the storage and "
            "run the same command again"
        ) from error


def _unreadable(path: Path, label: str, error: OSError) -> ScanInput:
    _refuse_storage(error, label)
    return _make_input(path, label, None, Reason.INPUT_UNREADABLE)


def _from_path(path: Path, given: str, own: _OwnFolders) -> Iterator[ScanInput]:
    if _is_projection_folder(path):
        yield from _projections(path, given)
        return
    try:
        if holds_fused_bodies(path):
            raise UsageError(
                f"{shown(given)} holds fused bodies that `stitch` wrote, expected scans or projections; pass the zips "
                "or folders that they were made of",
                field="inputs",
            )
        kind = input_kind(path)
    except OSError as error:
        yield _unreadable(path, given, error)
        return
    if kind is not None:
        yield from _with_known_flags([_make_input(path, given, kind)], path.parent)
    elif path.is_dir():
        yield from _search(path, given, own)
    else:
        raise UsageError(
            f"{shown(given)} is neither a zip, a projection (.npy), a folder nor a list ({', '.join(_LIST_SUFFIXES)})",
            field="inputs",
        )


def _is_projection_folder(path: Path) -> bool:
    """Whether a folder was written by ``project``: its projections are then the scans."""
    return _exists(path / SCANS) and any(path.glob("*.npy"))


def _projections(folder: Path, given: str) -> list[ScanInput]:
    """Every projection of a folder, with the flags in its table."""
    paths = [p for p in sorted(folder.glob("*.npy")) if not p.name.startswith(".")]
    return _with_known_flags([_from_file(p, f"{given.rstrip('/')}/{p.name}") for p in paths], folder)


def _search(folder: Path, given: str, own: _OwnFolders) -> Iterator[ScanInput]:
    """Scans below a folder; every real folder is searched once, so that link loops end.

    Anything that cannot be opened becomes a failed scan, and the search continues.
    """
    seen: set[tuple[int, int]] = set()
    stack = [(folder, given)]
    while stack:
        here, label_here = stack.pop()
        try:
            stat = here.stat()
            with os.scandir(here) as scanned:
                entries = sorted(scanned, key=lambda e: e.name)
        except OSError as error:
            if here == folder:
                raise RunError(
                    f"{shown(given)}: cannot be listed ({error.strerror}); check access to the folder"
                ) from error
            if error.errno != errno.ENOENT:  # removed in the meantime
                yield _unreadable(here, label_here, error)
            continue
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        if _is_projection_folder(here):
            yield from _projections(here, label_here)
            continue
        files: list[ScanInput] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path, label = Path(entry.path), f"{label_here.rstrip('/')}/{entry.name}"
            found = _look_at(entry, path, label, own)
            if found is _TO_BE_SEARCHED:
                stack.append((path, label))
            elif isinstance(found, ScanInput):
                files.append(found)
        yield from _with_known_flags(files, here)


_TO_BE_SEARCHED = object()


def _look_at(entry: os.DirEntry[str], path: Path, label: str, own: _OwnFolders) -> object:
    """The scan that an entry of a folder is, ``_TO_BE_SEARCHED`` for a folder of others, or None."""
    named = entry.name.lower().endswith(_SCAN_SUFFIXES)
    try:
        if not entry.is_dir():
            return _from_file(path, label) if named else None
        if is_derived_folder(entry.name) or own.holds(path, label):  # masks of a scan are not a scan
            return None
        kind = None if _is_projection_folder(path) else input_kind(path)
    except OSError as error:
        nothing = error.errno == errno.ELOOP and not named and not ScanKey.from_name(entry.name).eid
        return None if nothing else _unreadable(path, label, error)
    return _TO_BE_SEARCHED if kind is None else _make_input(path, label, kind)


def _exists(path: Path) -> bool:
    """Whether a path exists; False for circular links and links that cannot be followed."""
    try:
        return path.exists()
    except OSError as error:
        _refuse_storage(error, str(path))
        return False


def _from_file(path: Path, label: str) -> ScanInput:
    """A file named like a scan, whatever it is."""
    try:
        kind = input_kind(path)
    except OSError as error:
        return _unreadable(path, label, error)
    unusable = kind is None and not _exists(path)  # a circular or broken link
    return _make_input(path, label, kind, Reason.INPUT_UNREADABLE if unusable else None)


def _with_known_flags(found: list[ScanInput], folder: Path) -> list[ScanInput]:
    """Add the flags in their folder's ``scans.csv`` to projections."""
    table = folder / SCANS
    if not any(item.kind == "projection" for item in found) or not _exists(table):
        return found
    try:
        read = {row.key.scan: without_judgement(row.result) for row in read_scans(folder)}
        known = {scan: result for scan, result in read.items() if result.status != "failed"}
    except RunError:
        return found
    return [replace(i, known=known.get(i.key.scan)) if i.kind == "projection" else i for i in found]


class _RootIndex:
    """Scans below the root by name and by participant, found on first use; also in the folders of other runs.

    Args:
        root: of the scans; ``base``: folder that relative paths start from.
        own: what is not searched below listed folders; ``below_root``: what is not searched below the root.
    """

    def __init__(self, root: Path | None, base: Path, own: _OwnFolders, below_root: _OwnFolders) -> None:
        self.root, self.base, self.own, self.below_root = root, base, own, below_root
        self._names: dict[str, ScanInput] | None = None
        self._people: dict[str, list[ScanInput]] = {}

    def find(self, scan: str) -> ScanInput | None:
        """The scan of a key, ignoring leading zeros except in a pattern."""
        if is_pattern(self.root):
            return self._formed(scan)
        return self._index().get(plain_scan(scan))

    def _formed(self, scan: str) -> ScanInput | None:
        """The scan whose path is formed from its key, if it exists."""
        key = ScanKey.from_name(scan)
        path = path_of(self.root, key) if key.eid else None
        return _from_file(self.base / path, str(path)) if path and _exists(self.base / path) else None

    def find_participant(self, eid: str) -> list[ScanInput]:
        """All scans of a participant."""
        if is_pattern(self.root):
            return [found for visit in _VISITS if (found := self._formed(f"{eid}_{visit}"))]
        self._index()
        return self._people.get(plain_eid(eid), [])

    def _index(self) -> dict[str, ScanInput]:
        if self.root is None:
            raise UsageError(
                "missing; a list of eids or `eid 20201_2_0` keys needs the folder of the scans", field="root"
            )
        if self._names is None:
            self._names = {}
            for item in _search(self.base / self.root, str(self.root), self.below_root):
                self._names.setdefault(plain_scan(item.key.scan), item)
                if item.key.eid:
                    self._people.setdefault(plain_eid(item.key.eid), []).append(item)
        return self._names


def _from_list(path: Path, where: str, index: _RootIndex) -> Iterator[ScanInput]:
    """Scans named by a list: paths, ``eid 20201_2_0`` keys, or eids for all scans of a participant."""
    for entry in read_id_list(path, where, "input").entries:
        named = entry.named
        if named.eid:
            yield from _from_eid(entry.text, named.scan, path, index)
        elif ScanKey.from_name(named.scan).eid and not is_path(entry.text):
            yield from _from_key(named.scan, index)
        else:
            yield from _from_listed_path(entry.text, path, index)


def is_path(text: str) -> bool:
    """Whether a line of a list is written like a path."""
    return "/" in text or "\\" in text or text.lower().endswith((".zip", ".npy"))


def _from_eid(text: str, eid: str, listing: Path, index: _RootIndex) -> Iterator[ScanInput]:
    """All scans of a participant, or the file or folder of that name."""
    if is_path(text) or place_of(text, listing, index.root, index.base) is not None:
        yield from _from_listed_path(text, listing, index)
    elif found := index.find_participant(eid):
        yield from found
    else:
        yield from _from_key(eid, index)


def _expand(text: str) -> Path:
    """A path with ``~`` expanded if the user is known."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _from_key(scan: str, index: _RootIndex) -> Iterator[ScanInput]:
    found = index.find(scan)
    yield found or ScanInput(ScanKey.from_name(scan), Path(scan), scan, None, Reason.INPUT_MISSING)


def place_of(text: str, listing: Path, root: Path | None, base: Path) -> Path | None:
    """Where a listed path is: as it stands, below the root, here, or next to the list.

    Args:
        text: of the line.
        listing: the list.
        root: a folder, a pattern, or None.
        base: folder that relative paths start from.
    """
    folders = [base / root] if root is not None and not is_pattern(root) else []
    places = [folder / _listed(text) for folder in (*folders, base, listing.parent)]
    return next((p for p in places if _exists(p)), None)


def _listed(text: str) -> Path:
    """A path from a list, whose text is UTF-8 with other bytes kept, whatever the locale."""
    return _expand(os.fsdecode(text.encode("utf-8", "surrogateescape")))


def _from_listed_path(text: str, listing: Path, index: _RootIndex) -> Iterator[ScanInput]:
    """Scans of a line; a line without scan becomes a failed scan."""
    path = place_of(text, listing, index.root, index.base)
    if path is None:
        yield _make_input(_listed(text), text, None, Reason.INPUT_MISSING)
        return
    if not path.is_dir():
        yield from _with_known_flags([_from_file(path, text)], path.parent)
        return
    try:
        found = list(_from_path(path, text, index.own))
    except RunError as error:  # the folder itself cannot be listed
        if not isinstance(error.__cause__, OSError):
            raise
        found = [_unreadable(path, text, error.__cause__)]
    yield from found or [_make_input(path, text, None, Reason.NO_DICOM)]


def keep_unique(found: Iterable[ScanInput]) -> list[ScanInput]:
    """One entry per key, sorted; the same file given twice is fine, two readable files are not.

    Raises:
        UsageError: two files have the same key.
    """
    by_key: dict[tuple[object, ...], ScanInput] = {}
    by_scan: dict[str, ScanInput] = {}
    spare: dict[str, ScanInput] = {}
    for item in found:
        key = item.key
        identity = (key.eid, key.instance, key.array) if key.eid else ("", key.scan)
        other = by_key.get(identity) or by_scan.get(key.scan)
        if other is None:
            by_key[identity] = by_scan[key.scan] = item
        elif os.path.realpath(other.path) == os.path.realpath(item.path):
            continue
        elif item.problem is None and other.problem is None:
            raise UsageError(
                f"two different files are the same scan: {other.given} and {item.given}; pass only one of them "
                "(for projections made from the zips: only the folder of projections)"
            )
        else:
            better, worse = (item, other) if item.problem is None else (other, item)
            del by_scan[other.key.scan]
            by_key[identity] = by_scan[better.key.scan] = better
            if worse.problem is not Reason.INPUT_MISSING:  # listed, and found in another input
                by_its_path = replace(worse.key, scan=worse.given.replace("/", ":"))  # a row of its own
                spare |= {worse.given: replace(worse, key=by_its_path)}
    return sorted((*by_key.values(), *spare.values()), key=lambda item: item.key.sort_key)


# -- exclusions --------------------------------------------------------------------------------------------------------


def read_exclusions(files: Sequence[Path], base: Path = Path()) -> tuple[IdList, ...]:
    """Lists of participants and scans to leave out: withdrawals (``w*.csv``), artefacts, tables with a column of ids.

    Args:
        files: the lists.
        base: folder that relative paths start from.

    Raises:
        UsageError: a file cannot be read, or has a line without id.
    """
    for path in files:
        if not (base / path).is_file():
            raise UsageError(f"{path} is not a file; check the path", field="exclude")
    return tuple(replace(read_id_list(base / path, f"`exclude` {path}"), path=path) for path in files)


def is_excluded(key: ScanKey, exclusions: Sequence[IdList]) -> bool:
    """Whether a scan's eid or name is listed.

    Args:
        key: of the scan.
        exclusions: from :func:`read_exclusions`.
    """
    return any(listed.holds(key) for listed in exclusions)


def describe_exclusions(exclusions: Sequence[IdList], keys: Sequence[ScanKey]) -> tuple[list[str], list[str]]:
    """Describe the effect of each list, without ids.

    Args:
        exclusions: the lists.
        keys: all scans of the inputs.

    Returns:
        Notes, and warnings about lists without matches.
    """
    notes, warnings = [], []
    for listed in exclusions:
        ids, matching, scans = listed.count_matches(keys)
        header = "; its first line was read as a header" if listed.guessed_header else ""
        if not ids:
            warnings.append(f"exclusion list {listed.path}: has no ids, excludes nothing{header}")
        elif not matching:
            warnings.append(
                f"exclusion list {listed.path}: none of its {ids} ids matches any of the {len(keys)} scans; "
                f"check that it belongs to this project{header}"
            )
        else:
            rest = f", {ids - matching} match no scan of the inputs" if matching < ids else ""
            notes.append(f"exclusion list {listed.path}: {matching} of {ids} ids match {scans} scans{rest}{header}")
    return notes, warnings
