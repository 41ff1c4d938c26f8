"""Columns of a page as small integers: quantized, deflated, written in 85 printable characters.

A page of a biobank has millions of numbers. A drawn number needs no more steps than an eye can tell apart, or than its
own standard deviation makes meaningful; the exact ones stay in the run's tables. ``page/src/store.js`` reads this.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Codes = NDArray[np.uint8] | NDArray[np.uint16]

#: Most codes of a number; 0 is a missing one.
MOST_CODES = 65_535
#: Printable characters that mean nothing in HTML, JavaScript or CSS strings.
ALPHABET = "".join(chr(c) for c in range(35, 127) if chr(c) not in "&'<>\\`/")[:85]
_PLACES = 85 ** np.arange(4, -1, -1, dtype=np.uint64)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A column of the page.

    Attributes:
        facts: what the page says of it and needs to read it: kind, bits, lowest value and step or words.
        data: deflated codes or text.
        size: of the data before it was deflated, bytes.
        codes: (N,) of numbers and words; None for text.
    """

    facts: dict[str, Any]
    data: bytes
    size: int
    codes: Codes | None = None


def pack_numbers(values: Float64, *, step: float | None = None, relative: bool = False) -> Packed:
    """Pack numbers; code 0 is a missing one, code c stands for ``low + (c - 1) * step``.

    Args:
        values: (N,), NaN where missing.
        step: largest error is half of it; None for as fine as 16 bits allow.
        relative: the logarithm is quantized, so that ``step`` is relative; for values above 0, others become missing.
    """
    finite = np.isfinite(values) & (values > 0) if relative else np.isfinite(values)
    scaled = np.full(values.shape, np.nan)
    scaled[finite] = np.log(values[finite]) if relative else values[finite]
    low, high = (float(scaled[finite].min()), float(scaled[finite].max())) if finite.any() else (0.0, 0.0)
    finest = (high - low) / (MOST_CODES - 1)
    step = max(finest, step or 0.0) or 1.0
    codes = np.zeros(values.shape, np.uint16)
    codes[finite] = np.rint((scaled[finite] - low) / step).astype(np.uint16) + 1
    facts = {"kind": "number", "low": low, "step": step} | ({"log": True} if relative else {})
    return _packed_codes(codes, facts)


def pack_words(words: Sequence[str]) -> Packed:
    """Pack words of which there are few; the most frequent one gets the smallest code.

    Args:
        words: (N,).
    """
    known, places, counts = np.unique(np.array(words, object).astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    codes = rank[places].astype(np.uint16 if order.size < MOST_CODES else np.uint32)
    return _packed_codes(codes, {"kind": "words", "words": known[order].tolist()})


def pack_text(lines: Sequence[str]) -> Packed:
    """Pack text of which every row has its own.

    Args:
        lines: (N,); line breaks become blanks.
    """
    data = "\n".join(" ".join(line.split("\n")) for line in lines).encode()
    return Packed(facts={"kind": "text"}, data=zlib.compress(data, 6), size=len(data))


def _packed_codes(codes: NDArray[Any], facts: dict[str, Any]) -> Packed:
    """Codes in as few bytes as they need, all low bytes before all high ones, which are nearly alike."""
    width = 1 if codes.max(initial=0) < 256 else 2 if codes.max() <= MOST_CODES else 4
    narrow = np.ascontiguousarray(codes.astype(f"<u{width}"))
    planes = narrow.view(np.uint8).reshape(-1, width).T.tobytes()
    return Packed(facts={**facts, "bytes": width}, data=_deflate(planes), size=len(planes), codes=narrow)


def _deflate(data: bytes) -> bytes:
    """The shortest of three ways: noise has no repetitions to look for, and looking for them costs 5 %."""
    ways = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY)
    makers = (zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, way) for way in ways)
    return min((maker.compress(data) + maker.flush() for maker in makers), key=len)


def encode(data: bytes) -> str:
    """Bytes as text: 4 bytes in 5 characters of :data:`ALPHABET`; the end is filled up with zeros."""
    filled = np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint64)
    digits = (filled[:, None] // _PLACES) % 85
    return np.frombuffer(ALPHABET.encode(), np.uint8)[digits.astype(np.uint8)].tobytes().decode("ascii")


def decode(text: str, size: int) -> bytes:
    """Inverse of :func:`encode`.

    Args:
        text: as encoded.
        size: bytes to return.
    """
    places = np.zeros(128, np.uint64)
    places[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(85)
    digits = places[np.frombuffer(text.encode("ascii"), np.uint8)].reshape(-1, 5)
    data: bytes = (digits * _PLACES).sum(axis=1).astype(">u4").tobytes()
    return data[:size]
