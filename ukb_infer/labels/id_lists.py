"""Lists of participants and scans: withdrawals, artefacts, subjects to work on.

Every line names one participant or scan. The column of ids is found by its header or by the cells; row numbers, as
pandas and R write them in front, are ignored. An ambiguous list is refused, because keeping a withdrawn participant is
worse than an error.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from ukb_infer.errors import UsageError
from ukb_infer.labels.cells import clean, is_missing
from ukb_infer.labels.columns import key_of
from ukb_infer.labels.ids import BULK_REST, IdError, NamedId, has_thousands, parse_id, plain_eid, plain_scan
from ukb_infer.labels.text_files import read_text
from ukb_infer.records import ScanKey

#: A list larger than this is refused.
MAX_LIST_BYTES = 1 << 30
#: Digits from which an integer is an id in any column; UK Biobank's have seven.
_ID_DIGITS = 6
_PATH_HEADERS = frozenset(
    {"path", "file", "filename", "file_name", "filepath", "file_path", "name", "input", "zip", "image"}
)
_SEPARATORS = ("\t", ";", ",", "|")
_SEPARATOR_LINE = re.compile(r"^\s*sep=([,;|\t])\s*$", re.IGNORECASE)
#: Names that R gives to unnamed columns.
_R_HEADER = re.compile(r"^[VXx][0-9]+$")
Purpose = Literal["exclude", "input"]
#: Column and words of a list of ratings, as the report exports it; of such a list only the excluded scans count.
RATING, RATINGS = "rating", frozenset({"use", "exclude", "unsure", ""})
_DATE = re.compile(r"^(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])$")
_SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """A line of a list: its number, its cell as written, and what the cell names."""

    line: int
    text: str
    named: NamedId


@dataclass(frozen=True)
class IdList:
    """A list that was read.

    Attributes:
        path: of the file.
        entries: one per line with an id.
        guessed_header: whether the first line was read as a header although it has no known name.
    """

    path: Path
    entries: tuple[Entry, ...]
    guessed_header: bool = False

    @cached_property
    def eids(self) -> frozenset[str]:
        """Participants, in the plain form."""
        return frozenset(eid for e in self.entries for eid in _people_named(e.named))

    @cached_property
    def scans(self) -> frozenset[str]:
        """Scans, in the plain form; for participants their digits, since a scan may have that name."""
        return frozenset(plain_scan(e.named.scan) for e in self.entries)

    def holds(self, key: ScanKey) -> bool:
        """Whether a scan, or its participant, is listed."""
        return plain_scan(key.scan) in self.scans or not self.eids.isdisjoint(_people_of(key))

    def count_matches(self, keys: Sequence[ScanKey]) -> tuple[int, int, int]:
        """(ids and scans that are listed, those of them that match one of ``keys``, keys that match)."""
        there = {plain_scan(k.scan) for k in keys}
        people = {eid for k in keys for eid in _people_of(k)}
        listed = {(plain_scan(e.named.scan), *_people_named(e.named)) for e in self.entries}
        matching = sum(scan in there or not people.isdisjoint(eids) for scan, *eids in listed)
        return len(listed), matching, sum(self.holds(k) for k in keys)


def _people_of(key: ScanKey) -> list[str]:
    """Eids in a scan's name: its own, or in a name of another form every number that is long enough."""
    if key.eid:
        return [plain_eid(key.eid)]
    return [plain_eid(digits) for digits in re.findall(r"[0-9]+", key.scan) if len(digits) >= _ID_DIGITS]


def _people_named(named: NamedId) -> list[str]:
    """Participants that a cell names; a UK Biobank key names only a scan, any other name with an eid both."""
    if named.eid:
        return [named.eid]
    key = ScanKey.from_name(named.scan)
    return [] if key.eid else _people_of(key)


@dataclass(frozen=True)
class _Row:
    line: int
    cells: tuple[str, ...]


def read_id_list(path: Path, where: str, purpose: Purpose = "exclude") -> IdList:
    """Read a list.

    Args:
        path: text with one participant, ``eid 20201_2_0`` key, scan or path per line, alone or as a table column
            (commas, semicolons, tabs, blanks); UTF-8 or UTF-16; lines that begin with # are skipped.
        where: begins the messages, e.g. ``exclude``.
        purpose: of an exclusion list with columns for participant and scan the first is used, and every line must
            be an id or a scan name, but of ratings (a column ``rating`` with use, exclude, unsure) only lines with
            exclude count; of an input list the scan's column is used, and a line may be any path.

    Raises:
        UsageError: unreadable; a line without an id; a rounded id; an ambiguous column of ids.
    """
    rows = _rows(read_text(path, where, MAX_LIST_BYTES))
    body, column, guessed = _choose_column(rows, where, purpose)
    if purpose == "exclude" and len(body) < len(rows):
        body = _rated_exclude(rows[0], body, where)
    entries: list[Entry] = []
    problems: dict[str, list[int]] = {}
    for row in body:
        try:
            entries.append(_entry(row, column, purpose))
        except IdError as problem:
            problems.setdefault(str(problem), []).append(row.line)
    if problems:
        raise UsageError(f"{where}: " + "; ".join(f"{_lines(at)}: {what}" for what, at in problems.items()))
    return IdList(path, tuple(entries), guessed)


def _rated_exclude(header: _Row, body: list[_Row], where: str) -> list[_Row]:
    """The lines with rating exclude, if these are ratings; else all."""
    names = [clean(cell).lower() for cell in header.cells]
    if RATING not in names or not body:
        return body
    ratings = [clean(_cell(row, names.index(RATING))).lower() for row in body]
    if not RATINGS.issuperset(ratings):
        return body
    if not any(ratings):
        raise UsageError(
            f"{where}: its column rating is empty, so nothing says what to exclude; write exclude, or remove it"
        )
    return [row for row, rating in zip(body, ratings, strict=True) if rating == "exclude"]


def _lines(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return f"line{'s' if len(numbers) > 1 else ''} {shown}{more}"


def _entry(row: _Row, column: int, purpose: Purpose) -> Entry:
    text = row.cells[column] if column < len(row.cells) else ""
    named = parse_id(text)
    if named is None:
        raise IdError("names neither participant nor scan; complete or remove it")
    beside = clean(row.cells[column + 1]) if column + 1 < len(row.cells) else ""
    if named.eid and BULK_REST.match(beside):  # eid,20201_2_0
        named = NamedId("", f"{named.scan}_{beside}")
    if purpose == "exclude" and not ScanKey.from_name(named.scan).is_safe:
        raise IdError("is not an id, key or scan name; begin remarks with #, or put them into their own column")
    return Entry(row.line, clean(text), named)


# -- rows and cells ----------------------------------------------------------------------------------------------------


def _rows(text: str) -> list[_Row]:
    """Cells of the lines; empty lines and comments are skipped."""
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    separator = None
    if lines and (stated := _SEPARATOR_LINE.match(lines[0][1].strip())):  # a spreadsheet's separator line
        separator, lines = stated[1], lines[1:]
    separator = separator or _separator([line for _, line in lines])
    rows = [_Row(n, tuple(_split(line, separator))) for n, line in lines]
    return [row for row in rows if not all(cell.strip() in ("", '""') for cell in row.cells)]


def _separator(lines: Sequence[str]) -> str:
    """Separator of most lines; blanks only if they give a column of ids; "" for one column."""
    counts = {separator: sum(separator in line for line in lines) for separator in _SEPARATORS}
    if any(counts.values()):
        return max(counts, key=lambda separator: counts[separator])
    if any("/" in line or "\\" in line for line in lines):  # folder names have blanks
        return ""
    if any(has_thousands(clean(line)) for line in lines):  # refused as a whole
        return ""
    body = [_split(line, " ") for line in (lines[1:] or lines)]
    tables = [cells for cells in body if len(cells) > 1 and not BULK_REST.match(cells[1])]
    width = min((len(cells) for cells in body), default=0)
    return " " if tables and any(all(_is_number(c[k]) for c in body) for k in range(width)) else ""


def _split(line: str, separator: str) -> list[str]:
    """Cells of a line; unclosed quotes are part of the text."""
    if not separator:
        return [line]
    if separator == " ":
        line = " ".join(line.split())
    try:
        return next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True))
    except (csv.Error, StopIteration):
        return line.replace('"', "").split(separator)


# -- which column ------------------------------------------------------------------------------------------------------


def _tried(cell: str) -> tuple[NamedId | None, bool]:
    """What a cell names, and whether it would be an id but for a problem."""
    try:
        return parse_id(cell), False
    except IdError:
        return None, True


def _is_number(cell: str) -> bool:
    """Whether a cell is a participant's number, possibly a faulty one."""
    named, faulty = _tried(cell)
    return faulty or (named is not None and named.eid != "")


def _names_scan(cell: str) -> bool:
    """Whether a cell names a UK Biobank participant or scan rather than being arbitrary text."""
    named, faulty = _tried(cell)
    return faulty or (named is not None and (named.eid != "" or ScanKey.from_name(named.scan).eid != ""))


def _is_sure(cell: str) -> bool:
    """Whether a cell is an id whatever its column: a scan's key, or enough digits that are not a date."""
    named, faulty = _tried(cell)
    if faulty:  # too long for anything but an id, or a rounded id
        return sum(c.isdigit() for c in cell) >= _ID_DIGITS or "e" in cell.lower()
    if named is None or not _names_scan(cell):
        return False
    return not named.eid or (len(named.scan) >= _ID_DIGITS and not _DATE.match(named.scan))


def _participant(cell: str) -> str:
    """Participant named by a cell, by number or scan key; "" for none."""
    named, _ = _tried(cell)
    return "" if named is None else named.eid or plain_eid(ScanKey.from_name(named.scan).eid)


def _choose_column(rows: list[_Row], where: str, purpose: Purpose) -> tuple[list[_Row], int, bool]:
    """The rows below a header, the column that names participants or scans, and whether the header was guessed."""
    if not rows:
        return [], 0, False
    known = _known_header(rows[0], where, purpose)
    if known is not None:
        body = rows[1:]
        # R's write.table writes row names without a header cell.
        shifted = bool(body) and all(len(row.cells) == len(rows[0].cells) + 1 for row in body)
        return body, known + shifted, False
    body = rows[1:] or rows
    columns = {k: [_cell(row, k) for row in body] for k in range(max(len(row.cells) for row in body))}
    candidates = [k for k, cells in columns.items() if all(_names_scan(c) for c in cells)]
    column = _best(candidates, columns, rows, where)
    guessed = len(rows) > 1 and bool(candidates) and _may_be_header(rows[0], column)
    return (body if guessed else rows), column, guessed


def _may_be_header(row: _Row, column: int) -> bool:
    """Whether a line above a column of ids is its header: words without digits, or R's V1."""
    if _names_scan(_cell(row, column)):
        return False
    return all(not re.search(r"[0-9]", c) or _R_HEADER.match(c) for c in map(clean, row.cells))


def _cell(row: _Row, column: int) -> str:
    return row.cells[column] if column < len(row.cells) else ""


def _best(candidates: list[int], columns: dict[int, list[str]], rows: list[_Row], where: str) -> int:
    """The column of ids if no header names it."""
    first = {k: _cell(rows[0], k) for k in candidates}
    numbered = [k for k in candidates if _counts_up(columns[k]) or _counts_up([first[k], *columns[k]])]
    rest = [k for k in candidates if k not in numbered]
    sure = [k for k in rest if all(_is_sure(c) for c in columns[k])]
    people = {tuple(_participant(c) for c in columns[k]) for k in sure}
    if len(people) > 1:
        raise UsageError(
            f"{where}: {len(sure)} columns hold different ids; write one per line, or add a header line "
            "that names the column to use eid or scan"
        )
    others = any(not all(is_missing(clean(c)) for c in cells) for k, cells in columns.items() if k not in numbered)
    if (numbered and sure) or (sure and rest[0] == sure[0]):
        return sure[0]
    if (numbered and others) or (sure and rest):
        raise UsageError(
            f"{where}: it is unclear which column holds the ids (line {rows[0].line} has {len(rows[0].cells)} cells); "
            "add a header line that names it eid or scan, or keep only that column"
        )
    return rest[0] if rest else 0


def _counts_up(cells: Sequence[str]) -> bool:
    """Whether cells are row numbers: 0, 1, 2 ... or 1, 2, 3 ..., without leading zeros."""
    plain = [clean(c) for c in cells]
    return any(plain == [str(k + start) for k in range(len(plain))] for start in (0, 1))


def _known_header(row: _Row, where: str, purpose: Purpose) -> int | None:
    """Column that a header line names, or None if it is not a header."""
    if any(_is_sure(c) for c in row.cells):  # eid: 9100001
        return None
    names = [clean(c).lstrip("#") for c in row.cells]
    eids = [k for k, name in enumerate(names) if key_of(name) == "eid"]
    exact = [k for k in eids if names[k].strip().lower() == "eid"]
    scans = [k for k, name in enumerate(names) if key_of(name) == "scan" or name.strip().lower() in _PATH_HEADERS]
    if len(eids) > 1 and len(exact) != 1:
        raise UsageError(
            f"{where}: columns {', '.join(names[k] for k in eids)} all name participants; keep one, of this project"
        )
    eids = exact or eids
    if purpose == "input" and scans:
        return scans[0]
    return min([*eids[:1], *scans[:1]], default=None)
