"""Names of NIfTI files: which are water and fat of stations."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from ukb_infer.errors import ScanError
from ukb_infer.imaging.readers.image_words import COMPOSED, COPY, base, read_marks, words_of
from ukb_infer.imaging.series import CONTRAST_WORDS, UNMARKED, Contrast, LeftOut, Marks
from ukb_infer.reasons import Reason

_SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
#: The number that dcm2niix appends: the series number, perhaps with a letter for repeats.
_NUMBER = re.compile(r"_(\d{1,9})[a-z]?$")
_PHASE_KIND = "in-phase or opposed-phase image"
_PHASE_WORDS = dict.fromkeys(("in", "ip", "inphase"), Contrast.IN_PHASE) | dict.fromkeys(
    ("opp", "op", "oop", "out", "outphase", "outofphase", "opposed", "opposedphase", "oppphase", "opphase"),
    Contrast.OPPOSED_PHASE,
)
_LETTERS = ("w", "f")
_UNDECIDED = "file named after both water and fat"


@dataclass(frozen=True)
class StationFile:
    """The name of one station file and its meaning.

    Attributes:
        name: of the file.
        contrast: water or fat.
        stem: the name without the word for the contrast, lower case; equal for the two files of a station.
        number: the series number that dcm2niix appends, None if there is none.
        marks: words of processed or original copies in it.
    """

    name: str
    contrast: Contrast
    stem: str
    number: int | None
    marks: Marks = UNMARKED


@dataclass
class _Name:
    """A NIfTI file's name split into words."""

    name: str
    words: tuple[str, ...]
    marks: Marks
    places: dict[int, Contrast] = field(default_factory=dict)

    def template(self, place: int, numbers: bool = True) -> tuple[str, ...]:
        """Return the words with a placeholder at one position, so that the two files of a pair agree.

        Args:
            place: index of a word that names a contrast.
            numbers: False replaces words that begin with a digit, too.
        """
        words = list(self.words)
        words[place] = "*" + _rest(words[place], self.places[place])
        return tuple(word if numbers or not word[:1].isdigit() else "#" for word in words)


def is_nifti(name: str) -> bool:
    """Whether a file is NIfTI by its name, and not hidden."""
    return bool(_SUFFIX.search(name)) and not name.startswith(".")


def names_stations(names: Iterable[str]) -> bool:
    """Whether some file of a folder is named like water or fat of a station."""
    parsed = _parse_all(names)
    return any(item.places and item.marks.kind is None for item in parsed)


def names_derived_images(names: Iterable[str]) -> bool:
    """Whether a folder has NIfTI files named like masks, fraction maps or other derived images."""
    return any(_parse(name).marks.kind is not None for name in names if is_nifti(name))


def choose_files(names: Sequence[str], left_out: LeftOut) -> list[StationFile]:
    """Choose the water and fat files of a folder by their names.

    Masks, maps and other derived images are never chosen. If a name has words for both contrasts, the word that differs
    between the files of a pair decides. Unmarked files have priority over copies marked as original (``_orig``), and
    these over processed ones (``_n4``); see ``docs/inputs.md``.

    Args:
        names: of all files of the folder.
        left_out: counts files that are named like water or fat but not chosen.

    Returns:
        Chosen files in the order of their names.

    Raises:
        ScanError: ``ambiguous_series`` if copies have the same rank.
    """
    parsed = _parse_all(names)
    for item in parsed:
        if item.marks.kind is not None:
            left_out.add(item.marks.kind, item.name)
    candidates = [item for item in parsed if item.marks.kind is None and item.places]
    shared = _SharedPlaces(candidates)
    stations = []
    for item in candidates:
        marks = read_marks(item.words, shared(item))
        if not marks.aside:
            stations.append(item)
        elif marks.aside != (_PHASE_KIND,):  # the other two Dixon contrasts are expected next to the stations
            left_out.add(marks.aside[0], item.name)
    if not stations and not any(_PHASE_KIND in item.marks.aside for item in candidates):
        stations = [item for item in candidates if item.marks.aside == (COMPOSED,)]
    return _prefer(_decide(stations, left_out), left_out)


def choose_phase_files(names: Iterable[str], wanted: Collection[Contrast]) -> list[StationFile]:
    """Choose the in-phase and opposed-phase files of a folder by the last word of their names that says so.

    Args:
        names: of all files of the folder.
        wanted: contrasts.
    """
    chosen = []
    for item in map(_parse, sorted(name for name in names if wanted and is_nifti(name))):
        found = [_PHASE_WORDS[base(word)] for word in item.words if base(word) in _PHASE_WORDS]
        if found and found[-1] in wanted and item.marks.kind is None and item.marks.aside == (_PHASE_KIND,):
            stem = _SUFFIX.sub("", item.name)
            number = _NUMBER.search(stem)
            chosen.append(StationFile(item.name, found[-1], "", int(number[1]) if number else None, item.marks))
    return chosen


def _parse_all(names: Iterable[str]) -> list[_Name]:
    """Split the names of a folder's NIfTI files."""
    parsed = [_parse(name) for name in sorted(names) if is_nifti(name)]
    _use_numbered_letters([item for item in parsed if item.marks.kind is None and not item.marks.aside])
    return parsed


def _use_numbered_letters(names: Sequence[_Name]) -> None:
    """Use "w1" and "f1" as contrasts if all files pair only by them ("W1_siteF", "F1_siteF").

    Otherwise such words may be participant codes.
    """
    numbered = [replace(item, places=_numbered_letters(item.words)) for item in names]
    if len({contrast for item in names for contrast in item.places.values()}) > 1:
        return
    varying = _varying_places(numbered, numbers=True)
    if all(len(varying[item.name]) == 1 for item in names):
        for item, other in zip(names, numbered, strict=True):
            item.places = {place: other.places[place] for place in varying[item.name]}


def _numbered_letters(words: Sequence[str]) -> dict[int, Contrast]:
    bare = {place: base(word) for place, word in enumerate(words)}
    return {place: CONTRAST_WORDS[word] for place, word in bare.items() if word in _LETTERS and word != words[place]}


def _parse(name: str) -> _Name:
    """Split a name and find its words for contrasts."""
    words = words_of(_SUFFIX.sub("", name))
    parsed = _Name(name, words, read_marks(words))
    last = len(words) - 1
    for place, word in enumerate(words):
        contrast = _contrast_of_word(word, place == last)
        if contrast is not None:
            parsed.places[place] = contrast
    return parsed


def _contrast_of_word(word: str, is_last: bool) -> Contrast | None:
    """Contrast that a word names: a letter alone (at the end also with a number), or a word containing water or fat."""
    if word in CONTRAST_WORDS:
        return CONTRAST_WORDS[word]
    bare = base(word)
    if bare in CONTRAST_WORDS and (is_last or bare not in _LETTERS):
        return CONTRAST_WORDS[bare]
    found = {contrast for contrast in (Contrast.WATER, Contrast.FAT) if contrast.value in word}
    return found.pop() if len(found) == 1 else None


def _rest(word: str, contrast: Contrast) -> str:
    """The rest of a word after the contrast: "3" of "water3"."""
    if contrast.value in word:
        return word.replace(contrast.value, "", 1)
    return word[len(base(word)) :]


class _SharedPlaces:
    """Positions, from either end, where all names have the same word, such as a site or study."""

    def __init__(self, names: Sequence[_Name]) -> None:
        self.front = _alike([item.words for item in names])
        self.back = _alike([item.words[::-1] for item in names])

    def __call__(self, item: _Name) -> set[int]:
        """Positions of an item's words that all names share."""
        return self.front | {len(item.words) - 1 - place for place in self.back}


def _alike(rows: Sequence[tuple[str, ...]]) -> set[int]:
    if len(rows) < 2:
        return set()
    return {place for place, words in enumerate(zip(*rows, strict=False)) if len(set(words)) == 1}


def _decide(names: Sequence[_Name], left_out: LeftOut) -> list[StationFile]:
    """Find the word of each name that gives its contrast; skip names without one."""
    shared = _SharedPlaces(names)
    varying = [_varying_places(names, numbers) for numbers in (True, False)]
    chosen: list[StationFile] = []
    undecided: list[_Name] = []
    for item in names:
        own = set(item.places) - shared(item)
        for places in (varying[0][item.name], own, varying[1][item.name]):
            contrasts = {item.places[place] for place in places}
            if len(contrasts) == 1:
                chosen.append(_station_file(item, max(places)))
                break
        else:
            undecided.append(item)
    for item in undecided:
        if len(set(item.places.values())) == 1 and not chosen:  # all files are of one contrast
            return [
                _station_file(other, max(other.places)) for other in undecided if len(set(other.places.values())) == 1
            ]
        if len(set(item.places.values())) > 1:
            left_out.add(_UNDECIDED, item.name)
    return chosen


def _varying_places(names: Sequence[_Name], numbers: bool) -> dict[str, set[int]]:
    """Positions by name where another file differs only in the contrast (and numbers, unless these count)."""
    seen: dict[tuple[str, ...], set[Contrast]] = defaultdict(set)
    for item in names:
        for place, contrast in item.places.items():
            seen[item.template(place, numbers)].add(contrast)
    return {item.name: {p for p in item.places if len(seen[item.template(p, numbers)]) > 1} for item in names}


def _station_file(item: _Name, place: int) -> StationFile:
    stem = _SUFFIX.sub("", item.name)
    number = _NUMBER.search(stem)
    marks = Marks(processed=item.marks.processed, original=item.marks.original)
    return StationFile(
        item.name, item.places[place], " ".join(item.template(place)), int(number[1]) if number else None, marks
    )


def _prefer(files: list[StationFile], left_out: LeftOut) -> list[StationFile]:
    """Choose among copies: the files of the lowest rank that has both contrasts.

    Raises:
        ScanError: ``ambiguous_series`` if no rank has both, or several kinds of copies share it.
    """
    groups: dict[str, list[StationFile]] = defaultdict(list)
    for file in files:
        groups[file.marks.text].append(file)
    if len(groups) <= 1:
        return files
    complete = {text: group for text, group in groups.items() if len({file.contrast for file in group}) > 1}
    best = min((group[0].marks.rank for group in complete.values()), default=None)
    wanted = [text for text, group in complete.items() if group[0].marks.rank == best]
    if len(wanted) != 1:
        if not complete and len({file.contrast for file in files}) == 1:
            return files
        found = ", ".join(f"{text or 'unmarked'}: {_contrasts(group)}" for text, group in sorted(groups.items()))
        raise ScanError(
            Reason.AMBIGUOUS_SERIES,
            f"the folder has several copies of the stations, none with priority ({found}); keep one water and one fat "
            "file per station",
        )
    for text, group in groups.items():
        if text != wanted[0]:
            for file in group:
                left_out.add(f"{COPY} {text}" if text else "unmarked file without its counterpart", file.name)
    return groups[wanted[0]]


def _contrasts(group: Sequence[StationFile]) -> str:
    counts = {contrast: sum(file.contrast is contrast for file in group) for contrast in (Contrast.WATER, Contrast.FAT)}
    return " and ".join(f"{count} {contrast}" for contrast, count in counts.items() if count)
