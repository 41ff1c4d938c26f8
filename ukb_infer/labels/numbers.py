"""Cells to numbers: missing values, special codes, decimal commas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.labels.cells import clean, is_missing

Float64 = NDArray[np.float64]

#: Words for 0 and 1 in exported tables.
_WORDS = {
    "female": 0.0, "f": 0.0, "woman": 0.0, "no": 0.0, "n": 0.0, "false": 0.0,
    "male": 1.0, "m": 1.0, "man": 1.0, "yes": 1.0, "y": 1.0, "true": 1.0, "t": 1.0,
}  # fmt: skip
#: UK Biobank's special codes in words, as the platform's exporter and ukbtools write them.
SPECIAL_CODES = frozenset(
    {"do not know", "prefer not to answer", "none of the above", "not known", "unknown", "unsure"}
)
#: Error values of spreadsheets.
_ERRORS = frozenset({"#div/0!", "#num!", "#value!", "#ref!", "#name?"})
_NOT_FINITE = re.compile(r"^[+-]?(?:inf|infinity|nan)$", re.IGNORECASE)
_POINT = re.compile(r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?$", re.IGNORECASE)
_PLAIN = re.compile(r"^[-0-9.]*$")
_COMMA = re.compile(r"^[+-]?[0-9]*,[0-9]+(?:e[+-]?[0-9]+)?$", re.IGNORECASE)
_COMMA_THREE = re.compile(r"^[+-]?[0-9]{1,3},[0-9]{3}$")


class NumberError(ValueError):
    """A cell that is not a number: ``row`` from 0, the message says why."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class Numbers:
    """Numbers of a column.

    Attributes:
        values: (rows,) NaN where missing, infinities kept.
        codes: (rows,) special codes in words.
        not_finite: (rows,) infinities, written NaN and failed calculations.
    """

    values: Float64
    codes: NDArray[np.bool_]
    not_finite: NDArray[np.bool_]


def read_numbers(cells: Sequence[Any], *, decimal_comma: bool = False, binary: bool = False) -> Numbers:
    """Numbers of a column.

    Args:
        cells: text of a CSV file, or values of a Parquet or Stata file.
        decimal_comma: cells are separated by semicolons, so a comma is a decimal comma.
        binary: the column holds 0 and 1, or words like Female and Male.

    Raises:
        NumberError: text, or an ambiguous comma.
    """
    plain = _plain_numbers(cells)
    if plain is not None:
        nothing = np.zeros(len(cells), bool)
        return Numbers(plain, nothing, nothing)
    texts = [None if _is_numeric(c) else "" if c is None or c is pd.NA or c is pd.NaT else clean(str(c)) for c in cells]
    comma = _find_decimal_commas(texts, decimal_comma=decimal_comma)
    values = np.full(len(cells), np.nan)
    codes, not_finite = np.zeros(len(cells), bool), np.zeros(len(cells), bool)
    for row, (cell, text) in enumerate(zip(cells, texts, strict=True)):
        if text is None:
            values[row] = float(cell)
            not_finite[row] = np.isinf(values[row])
        elif _NOT_FINITE.match(text) or text.lower() in _ERRORS:
            not_finite[row] = True
        elif text.lower() in SPECIAL_CODES:
            codes[row] = True
        elif not is_missing(text):
            values[row] = _number(row, text, comma=comma, binary=binary)
    return Numbers(values, codes, not_finite)


def _plain_numbers(cells: Sequence[Any]) -> Float64 | None:
    """Numbers of a column with only digits, points and empty cells, as most are; else None."""
    try:
        if _PLAIN.match("".join(cells)):
            return np.array([float(c) if c else np.nan for c in cells], np.float64)
    except (TypeError, ValueError):
        pass
    return None


def _is_numeric(cell: Any) -> bool:
    return isinstance(cell, (int, float, np.integer, np.floating, np.bool_))


def _number(row: int, text: str, *, comma: bool, binary: bool) -> float:
    if binary and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _POINT.match(text):
        return float(text)
    if comma and _COMMA.match(text):
        return float(text.replace(",", "."))
    raise NumberError(row, f"{text[:30]!r} is not a number")


def _find_decimal_commas(texts: Sequence[str | None], *, decimal_comma: bool) -> bool:
    """Whether commas in a column are decimal commas.

    Raises:
        NumberError: they may be thousands separators, or are mixed with decimal points.
    """
    commas = [(row, t) for row, t in enumerate(texts) if t is not None and "," in t and t[-1].isdigit()]
    if not commas:
        return False
    for row, text in commas:
        if not _COMMA.match(text):
            raise NumberError(row, f"{text[:30]!r} is not a number; write numbers with a point and without separators")
    if not decimal_comma and all(_COMMA_THREE.match(t) for _, t in commas):
        raise NumberError(
            commas[0][0],
            f"{commas[0][1]!r} may have a decimal comma or a thousands separator; write numbers with a point",
        )
    mixed = next((r for r, t in enumerate(texts) if t is not None and "." in t and _POINT.match(t)), None)
    if mixed is not None:
        raise NumberError(mixed, "a decimal point, but other rows have a decimal comma; write all with a point")
    return True
