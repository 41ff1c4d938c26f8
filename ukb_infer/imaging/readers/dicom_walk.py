"""A small compiled parser of plain explicit-VR little-endian DICOM: used by the fast path.

It accepts only what it knows; everything else is reported as unusual and left to pydicom.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.compiling import compiled

_PIXEL_DATA = 0x7FE00010
_UNKNOWN, _SHORT, _LONG = 0, 1, 2


def _make_forms() -> NDArray[np.uint8]:
    """Table of value representations by their two letters: length of two bytes, or two reserved bytes and four."""
    forms = np.zeros((26, 26), np.uint8)
    for form, names in (
        (_SHORT, "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"),
        (_LONG, "OB OD OF OL OV OW SQ SV UC UN UR UT UV"),
    ):
        for name in names.split():
            forms[ord(name[0]) - 65, ord(name[1]) - 65] = form
    return forms


_FORMS = _make_forms()

#: Status of a walk: reached the pixel data; unusual element; data ended first.
WALKED, UNUSUAL, CUT = 0, 1, 2
#: Returned as length of a sequence that ends with a delimiter.
UNDEFINED = -2


#: The same length as stored in the file.
_NO_LENGTH = 0xFFFFFFFF


@compiled
def _short_at(buffer: NDArray[np.uint8], at: Any) -> Any:
    """Return the unsigned 16-bit little-endian number at an offset."""
    return np.int64(buffer[at]) | np.int64(buffer[at + 1]) << 8


@compiled
def _long_at(buffer: NDArray[np.uint8], at: Any) -> Any:
    """Return the unsigned 32-bit little-endian number at an offset."""
    return _short_at(buffer, at) | _short_at(buffer, at + 2) << 16


@compiled
def _inside_sequence(element: Any, length: Any, depth: Any) -> Any:
    """Return (bytes to skip, depth after it) of an item or delimiter; depth -1 if there can be none."""
    if depth > 0 and element == 0xE000:
        return (np.int64(0), depth + 1) if length == _NO_LENGTH else (length, depth)
    if depth > 0 and (element == 0xE00D or element == 0xE0DD):
        return np.int64(0), depth - 1
    return np.int64(0), np.int64(-1)


@compiled
def walk(
    buffer: NDArray[np.uint8],
    start: int,
    tags: NDArray[np.int64],
    representations: NDArray[np.int64],
    found: NDArray[np.int64],
) -> Any:
    """Walk the elements of explicit-VR little-endian data up to the pixel data.

    Args:
        buffer: the file.
        start: offset of the first element.
        tags: wanted tags, ascending.
        representations: the value representation each must have, two letters as one big-endian number.
        found: (tags, 2) filled with (offset, length); length -1 if absent, ``UNDEFINED`` for sequences without one.

    Returns:
        (status, offset of the pixel data, their length, a hash of the tags and representations up to them).
    """
    size = buffer.size
    found[:, :] = -1
    at, wanted, last, depth, structure = np.int64(start), 0, np.int64(-1), np.int64(0), np.int64(0)
    while at + 8 <= size:
        group, element = _short_at(buffer, at), _short_at(buffer, at + 2)
        if group == 0xFFFE:
            skipped, depth = _inside_sequence(element, _long_at(buffer, at + 4), depth)
            if depth < 0:
                return UNUSUAL, 0, 0, 0
            at += 8 + skipped
            continue
        tag, first, second = group << 16 | element, np.int64(buffer[at + 4]), np.int64(buffer[at + 5])
        if first < 65 or first > 90 or second < 65 or second > 90:
            return UNUSUAL, 0, 0, 0
        structure = structure * 16777619 ^ (tag << 16 | first << 8 | second)
        form = _FORMS[first - 65, second - 65]
        if form == _LONG and at + 12 > size:
            return CUT, 0, 0, 0
        length = _long_at(buffer, at + 8) if form == _LONG else _short_at(buffer, at + 6)
        at += 12 if form == _LONG else 8
        is_open = length == _NO_LENGTH
        if form == _UNKNOWN or (is_open and not (first == 83 and second == 81)):  # only SQ: not encapsulated, not UN
            return UNUSUAL, 0, 0, 0
        if depth == 0:
            if tag <= last:
                return UNUSUAL, 0, 0, 0
            last = tag
            while wanted < tags.size and tags[wanted] < tag:
                wanted += 1
            if wanted < tags.size and tags[wanted] == tag:
                if representations[wanted] != (first << 8 | second):
                    return UNUSUAL, 0, 0, 0
                if is_open or at + length <= size:
                    found[wanted, 0], found[wanted, 1] = at, UNDEFINED if is_open else length
            if tag == _PIXEL_DATA and not is_open:
                return WALKED, at, length, structure
        if is_open:
            depth += 1
        else:
            at += length
    return CUT, 0, 0, 0


@compiled
def alike(
    buffer: NDArray[np.uint8],
    found: NDArray[np.int64],
    other: NDArray[np.uint8],
    other_found: NDArray[np.int64],
    varying: NDArray[np.bool_],
) -> Any:
    """Whether two walked files have identical bytes in every element that a series shares.

    Args:
        buffer: one file.
        found: (tags, 2) of it, filled by :func:`walk`.
        other: the other file.
        other_found: (tags, 2) of the other.
        varying: (tags,) whether an element may differ between slices of a series.
    """
    for row in range(varying.size):
        if varying[row]:
            continue
        length = found[row, 1]
        if length != other_found[row, 1]:
            return False
        for byte in range(length):
            if buffer[found[row, 0] + byte] != other[other_found[row, 0] + byte]:
                return False
    return True
