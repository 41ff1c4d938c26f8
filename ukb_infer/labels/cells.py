"""Cells of tables as spreadsheets, R, Stata and databases write them."""

from __future__ import annotations

import re

#: Spellings of a missing value, in lower case: empty, R, pandas, SQL, Stata and SAS, spreadsheets.
MISSING = frozenset(
    {"", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "nat", "null", "#null!", "none", "nil", "\\n", ".", "-"}
    | {"--", "?", "missing"}
)
_STATA_MISSING = re.compile(r"^\.[a-z_]$")
#: How spreadsheets keep a number as text: ``="0000001"``.
_FORMULA_TEXT = re.compile(r'^="(.*)"$')
#: Blanks that ``str.strip`` keeps: zero-width space and the byte order mark.
_INVISIBLE = "\u200b\ufeff"
_QUOTES = ('""', "''", "“”", "‘’")


def clean(text: str) -> str:
    """A cell without blanks, quotes and the marks that spreadsheets put around text."""
    text = text.strip().strip(_INVISIBLE).strip()
    formula = _FORMULA_TEXT.match(text)
    if formula is not None:
        return formula[1].strip()
    while len(text) >= 2 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    if text.count('"') == 1:  # an unclosed quote
        text = text.strip('"')
    return text.removeprefix("'").strip()


def is_missing(text: str) -> bool:
    """Whether a clean cell means a missing value."""
    return text.lower() in MISSING or _STATA_MISSING.match(text) is not None
