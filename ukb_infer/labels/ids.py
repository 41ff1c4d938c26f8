"""Ids of participants and scans: the parser for all lists and tables.

Spreadsheets and R write ids as numbers (``9100001.0``, ``9.100001e+06``), drop leading zeros, and quote
them. Ids are therefore compared as numbers: ``0000001``, ``1`` and ``1.0`` are one participant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ukb_infer.labels.cells import clean, is_missing
from ukb_infer.records import ScanKey

#: ``eid 20201_2_0``, the form of .bulk files.
_BULK = re.compile(r"^(\S+?)[\s,;]+([0-9]+_[0-9]+_[0-9]+)$")
BULK_REST = re.compile(r"^[0-9]+_[0-9]+_[0-9]+$")
_WHOLE = re.compile(r"^\+?([0-9]+)(?:[.,]0*)?$")
_EXPONENT = re.compile(r"^\+?([0-9]+)(?:[.,]([0-9]*))?[eE]([+-]?[0-9]{1,3})$")
_THOUSANDS = re.compile(r"^[0-9]{1,3}(?:(?:[, '_\u00a0\u2009\u202f][0-9]{3})+|(?:\.[0-9]{3}){2,})$")
_NUMBER = re.compile(r"^[+-]?[0-9.,]*[0-9][0-9.,]*(?:[eE][+-]?[0-9]+)?$")
_SUFFIX = re.compile(r"\.(?:zip|npy|nii|nii\.gz|dcm|tar|tar\.gz|tgz|7z)$", re.IGNORECASE)
_OF_SESSION = re.compile(r"^(.+?)_ses(?:sion)?(?:[-_]\w+|[0-9]\w*)$", re.IGNORECASE)
_KEY = re.compile(r"^([0-9]+)_([0-9]+_[0-9]+_[0-9]+)$")


class IdError(ValueError):
    """A cell that is not a valid id; the message says why without showing ids."""


@dataclass(frozen=True)
class NamedId:
    """What a cell names.

    Attributes:
        eid: participant, without leading zeros; "" if a scan is named.
        scan: name of the scan; for a participant the digits as written.
    """

    eid: str
    scan: str


def plain_eid(eid: str) -> str:
    """An eid without leading zeros, for comparison."""
    return eid.lstrip("0") or eid[-1:]


def plain_scan(scan: str) -> str:
    """A scan's name with its eid in the plain form, for comparison; other names stay as they are."""
    if scan.isascii() and scan.isdigit():
        return plain_eid(scan)
    key = _KEY.match(scan)
    return f"{plain_eid(key[1])}_{key[2]}" if key else scan


def participant_of(scan: str) -> str:
    """Participant of a session of a head: ``sub_01`` of ``sub_01_ses_1``; "" for other scans."""
    named = _OF_SESSION.match(scan)
    return named[1] if named else ""


def parse_id(cell: str) -> NamedId | None:
    """What a cell names: a participant (whole number, also as a spreadsheet writes it), a scan, or a path of a scan.

    Args:
        cell: as written in the file.

    Returns:
        The participant or scan; None for a missing value.

    Raises:
        IdError: a number that is not an id, or was rounded.
    """
    text = clean(cell)
    if is_missing(text):
        return None
    bulk = _BULK.match(text)
    if bulk is not None:
        eid = _digits(clean(bulk[1]))
        if eid is not None:
            return NamedId("", f"{eid}_{bulk[2]}")
    digits = _digits(text)
    if digits is not None:
        return NamedId(plain_eid(digits), digits)
    return _from_path(text)


def has_thousands(text: str) -> bool:
    """Whether a clean cell is a number with thousands separators, blanks among them."""
    return _THOUSANDS.match(text) is not None


def _digits(text: str) -> str | None:
    """The digits of an id that may be written as a decimal number; None if it is not a number."""
    whole = _WHOLE.match(text)
    if whole is not None and not has_thousands(text):
        return whole[1]
    exponent = _EXPONENT.match(text)
    if exponent is not None:
        written = exponent[1] + (exponent[2] or "")
        point = len(exponent[1]) + int(exponent[3])
        if point > len(written):
            raise IdError(
                f"an exponent with {len(written)} digits, which may have been rounded; write ids in full (in R: "
                "options(scipen = 99); in spreadsheets: format the column as a number without decimals)"
            )
        if point <= 0 or written[point:].strip("0"):
            raise IdError("a number with decimals, expected an integer")
        return written[:point]
    if has_thousands(text):
        raise IdError("a number with thousands separators; write ids as digits only")
    if _NUMBER.match(text):
        raise IdError("a negative or fractional number, expected an id of digits only")
    return None


def _from_path(text: str) -> NamedId:
    """The scan of a name or path: its last part without extension, or the folder above it that is a scan's."""
    parts = [p for p in re.split(r"[/\\]", text) if p not in ("", ".")]
    stem = _SUFFIX.sub("", parts[-1]) if parts else text
    if stem.isascii() and stem.isdigit():
        return NamedId(plain_eid(stem), stem)
    if ScanKey.from_name(stem).eid == "":
        stem = next((p for p in reversed(parts[:-1]) if ScanKey.from_name(p).eid), stem)
    return NamedId("", stem)
