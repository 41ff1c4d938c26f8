"""Rarer compressions of zip members: bzip2, LZMA and xz with the standard library and size limits.

:mod:`zipfile` would inflate the first two without limit. Numbers of methods: PKWARE's APPNOTE.TXT, section 4.4.5.
"""

from __future__ import annotations

from typing import Any

STORED, DEFLATED = 0, 8
_BZIP2, _LZMA, _XZ = 12, 14, 95
#: Unsupported methods, for messages. Python 3.11 to 3.13 cannot read them, and no further package is used.
_NAMES = {
    1: "Shrink", 6: "Implode", 9: "Deflate64", 16: "IBM CMPSC", 18: "IBM TERSE", 19: "IBM LZ77", 20: "Zstandard",
    93: "Zstandard", 94: "MP3", 96: "JPEG", 97: "WavPack", 98: "PPMd", 99: "AES encryption",
}  # fmt: skip
AES = 99
#: Largest dictionary, bytes; a member of a scan is smaller than this.
_MAX_DICTIONARY_BYTES = 64 * 1024**2
_LZMA_HEADER_BYTES = 9


class UnsupportedMethodError(ValueError):
    """A member uses an unsupported compression method; the text names it."""


class DamagedMemberError(ValueError):
    """A member cannot be decompressed."""


def method_name(method: int) -> str:
    """Name a method of compression, for messages.

    >>> method_name(9), method_name(77)
    ('Deflate64 (method 9)', 'method 77')
    """
    return f"{_NAMES[method]} (method {method})" if method in _NAMES else f"method {method}"


def decompress_rare(method: int, packed: bytes, size: int) -> bytes:
    """Decompress a member that is neither stored nor deflated.

    Args:
        method: number of the compression.
        packed: the whole member as stored.
        size: bytes it should give.

    Returns:
        At most ``size`` + 1 bytes.

    Raises:
        UnsupportedMethodError: the method is not supported.
        DamagedMemberError: the data are damaged.
    """
    if method not in (_BZIP2, _LZMA, _XZ):
        raise UnsupportedMethodError(method_name(method))
    try:
        data: bytes = _decompressor(method, packed[:_LZMA_HEADER_BYTES], size).decompress(
            packed[_LZMA_HEADER_BYTES:] if method == _LZMA else packed, size + 1
        )
    except ImportError:  # Python built without the library
        raise UnsupportedMethodError(f"method {method}, for which this Python was built without a library") from None
    except Exception as error:  # OSError, EOFError, ValueError, LZMAError: each library has its own
        raise DamagedMemberError(type(error).__name__) from None
    return data


def _decompressor(method: int, head: bytes, size: int) -> Any:
    """Make a decompressor of a known method.

    Args:
        method: number of the compression.
        head: the first bytes of the member; for LZMA, version, length and properties of the stream.
        size: bytes it should give; no match can reach farther back, so that the dictionary need not be larger.
    """
    if method == _BZIP2:
        import bz2

        return bz2.BZ2Decompressor()
    import lzma

    if method == _XZ:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * _MAX_DICTIONARY_BYTES)
    if len(head) < _LZMA_HEADER_BYTES or head[2:4] != b"\x05\x00" or head[4] >= 9 * 5 * 5:
        raise ValueError("no properties of LZMA")
    declared = int.from_bytes(head[5:9], "little")
    properties = {
        "id": lzma.FILTER_LZMA1,
        "lc": head[4] % 9,
        "lp": head[4] // 9 % 5,
        "pb": head[4] // 45,
        "dict_size": max(4096, min(declared, size, _MAX_DICTIONARY_BYTES)),
    }
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[properties])
