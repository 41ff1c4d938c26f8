"""Tables keyed by participant or scan, as UK Biobank's tools, Stata, R and spreadsheets write them."""

from __future__ import annotations

import csv
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ukb_infer.errors import UsageError
from ukb_infer.labels.cells import clean
from ukb_infer.labels.columns import is_row_number, key_of
from ukb_infer.labels.text_files import encoding_of

_SEPARATORS = (",", "\t", ";", "|")
_TABS = (".tsv", ".tab")
#: Lines above the header that may be comments or a spreadsheet's ``sep=;``.
_MOST_LINES_ABOVE = 100
_CONVERT = (
    "save the table as CSV in UTF-8, cells separated by commas or tabs, numbers with a decimal point, cells with "
    "commas in double quotes"
)


@dataclass(frozen=True)
class Table:
    """A table as read.

    Attributes:
        frame: text of CSV files, values of Parquet and Stata files; its index counts rows from 0.
        first_row: number of the first row below the header in the file, for messages.
        decimal_comma: cells are separated by semicolons, so a comma in a number is a decimal comma.
    """

    frame: pd.DataFrame
    first_row: int = 2
    decimal_comma: bool = False

    def row_number(self, place: int) -> int:
        """Row number in the file of a row of the frame, which has no empty rows."""
        return self.first_row + int(self.frame.index[place])


@dataclass(frozen=True)
class _Form:
    """Format of a text table: encoding, separator, lines above the header, columns."""

    encoding: str
    separator: str
    above: int
    header: tuple[str, ...]


def names_row(column: str) -> bool:
    """Whether a column identifies the rows."""
    return key_of(column) in ("eid", "scan")


def read_table(path: Path, where: str, is_key: Callable[[str], object] = names_row) -> Table:
    """Read a table.

    Args:
        path: CSV with commas, semicolons, tabs, ``|`` or blanks; Parquet; Stata's .dta.
        where: begins the messages, e.g. ``labels``.
        is_key: whether a column identifies the rows; used to find the separator.

    Returns:
        The table, with column names without quotes, and without row numbers that R wrote without a header.

    Raises:
        UsageError: unreadable, not text, rows of different length, or a repeated column; says how to convert it.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return Table(_named(pd.read_parquet(path).astype(object)))
        if suffix == ".dta":
            return Table(_named(_read_stata(path)))
        form = _find_form(path, where, is_key)
        twice = [name for name, count in Counter(form.header).items() if count > 1 and not is_row_number(name)]
        if twice:
            raise UsageError(f"{where}: the column {twice[0]!r} occurs twice; keep one")
        frame = _read_text_table(path, where, form)
    except ImportError as error:
        raise UsageError(f'{where}: Parquet needs pyarrow: pip install "ukb-infer[parquet]"') from error
    except UnicodeError as error:
        raise UsageError(
            f"{where}: is not UTF-8 text ({error}); save it as `CSV UTF-8`, or convert it: "
            "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
        ) from error
    except (OSError, ValueError, KeyError, IndexError, struct.error, csv.Error, pd.errors.ParserError) as error:
        text = " ".join(str(error).split())[:200]
        raise UsageError(f"{where}: cannot be read as {suffix or 'a CSV'} table ({text}); {_CONVERT}") from error
    return Table(frame, form.above + 2, form.separator == ";")


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns with text as names; an index with a name is a column."""
    frame = frame.reset_index(drop=frame.index.name is None)
    frame.columns = [clean(str(c)) for c in frame.columns]
    return frame


def _read_stata(path: Path) -> pd.DataFrame:
    """A .dta file; with value labels if they distinguish all values."""
    try:
        frame = pd.read_stata(path, convert_categoricals=True, convert_dates=False)
    except ValueError as error:
        if "categor" not in str(error) and "label" not in str(error):
            raise
        frame = pd.read_stata(path, convert_categoricals=False, convert_dates=False)
    return frame.astype(object)


def _find_form(path: Path, where: str, is_key: Callable[[str], object]) -> _Form:
    """Format of a text table, from the lines up to its header."""
    encoding = encoding_of(path, where)
    with path.open(encoding=encoding, newline="") as handle:
        for above, line in zip(range(_MOST_LINES_ABOVE), handle, strict=False):
            text = line.strip()
            comment = text.startswith("#") and not _keyed(text.lstrip("#"), is_key)
            if text and not comment and not text.lower().startswith("sep="):
                cells = _keyed(text, is_key) or (",", _cells(text, "\t" if path.suffix.lower() in _TABS else ","))
                return _Form(encoding, cells[0], above, tuple(clean(c) for c in cells[1]))
    raise UsageError(f"{where}: has no header line; expected column names, then one row per participant or scan")


def _keyed(line: str, is_key: Callable[[str], object]) -> tuple[str, list[str]] | None:
    """The separator that gives the header a key column, and the cells; of several the one with most cells.

    Blanks are the last choice, because titles contain blanks.
    """
    for separators in (_SEPARATORS, (" ",)):
        tried = [(separator, _cells(line, separator)) for separator in separators]
        found = [pair for pair in tried if len(pair[1]) > 1 and any(is_key(clean(c)) for c in pair[1])]
        if found:
            return max(found, key=lambda pair: len(pair[1]))
    return (",", [line]) if is_key(clean(line)) else None


def _cells(line: str, separator: str) -> list[str]:
    line = " ".join(line.split()) if separator == " " else line
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _read_text_table(path: Path, where: str, form: _Form) -> pd.DataFrame:
    frame = _parse(path, form)
    if not isinstance(frame.index, pd.RangeIndex):  # rows have one more cell than the header
        frame = frame[(frame.fillna("") != "").any(axis=1)]
        numbers = [clean(str(n)) for n in frame.index]
        if numbers == [str(k + 1) for k in range(len(frame))]:  # row names of R's write.table
            frame = frame.reset_index(drop=True)
        elif frame.iloc[:, -1].fillna("").eq("").all():  # a separator at the end of every row
            frame = frame.reset_index().iloc[:, :-1]
        else:
            raise UsageError(
                f"{where}: rows have more cells than the header ({len(form.header)}), perhaps because of decimal "
                f"commas; {_CONVERT}"
            )
    frame = frame.fillna("")
    frame.columns = pd.Index(form.header)
    first_blank = frame.iloc[:, 0].str.strip() == ""
    empty = frame[first_blank].apply(lambda row: "".join(row).strip() == "", axis=1)
    return frame.drop(index=[k for k, is_empty in empty.items() if is_empty]) if first_blank.any() else frame


def _parse(path: Path, form: _Form) -> pd.DataFrame:
    separator = r"\s+" if form.separator == " " else form.separator
    frame: pd.DataFrame = pd.read_csv(
        path, sep=separator, skiprows=form.above, dtype=str, keep_default_na=False, encoding=form.encoding,
        skipinitialspace=True, skip_blank_lines=False,
    )  # fmt: skip
    return frame
