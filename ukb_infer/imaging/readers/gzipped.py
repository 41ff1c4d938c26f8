"""Plain or gzipped files, read with size limits and with gzip's checksums verified.

Every member of a gzip file ends with its CRC-32 and length. Readers that stop at the last byte they need (nibabel among
them) never check these, so that flipped bits count as voxels. :meth:`Contents.finish` reads to the end.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

_reader: Any = gzip.GzipFile
_inflate_errors: tuple[Any, ...] = (zlib.error,)
try:  # isal inflates twice as fast as zlib, which compensates for the checksum
    from isal import igzip, isal_zlib
except ImportError:  # the platform has no isal wheel: slower, same result
    pass
else:
    _reader = igzip.IGzipFile
    _inflate_errors = (zlib.error, isal_zlib.error)

_MAGIC = b"\x1f\x8b"
#: Most bytes inflated after the last needed one to reach the trailer; tools pad less.
_MAX_REST_BYTES = 64 * 1024**2
_CHUNK_BYTES = 1024**2


class DamagedGzipError(ValueError):
    """A gzip file is truncated or fails its checksum; the text says which, after the name of the file."""


class Contents:
    """The content of a file, inflated if gzipped; see :func:`open_contents`.

    Args:
        file: open for reading.
        gzipped: whether it is a gzip file by its first bytes.
    """

    def __init__(self, file: Any, gzipped: bool) -> None:
        self._file = _reader(fileobj=file) if gzipped else file
        self._gzipped = gzipped

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or fewer at the end.

        Raises:
            DamagedGzipError: the file is truncated or damaged.
        """
        try:
            data: bytes = self._file.read(size)
        except EOFError:
            raise DamagedGzipError("is truncated, or has other bytes after its gzip data") from None
        except gzip.BadGzipFile as error:
            raise DamagedGzipError(_what_is_wrong(str(error))) from None
        except _inflate_errors:
            raise DamagedGzipError("has damaged gzip data") from None
        return data

    def finish(self) -> bool:
        """Read to the end, so that every checksum and length is verified.

        Returns:
            Whether the end was reached within ``_MAX_REST_BYTES``.

        Raises:
            DamagedGzipError: the file is truncated or damaged.
        """
        if not self._gzipped:
            return True
        return any(not self.read(_CHUNK_BYTES) for _ in range(_MAX_REST_BYTES // _CHUNK_BYTES))


def _what_is_wrong(text: str) -> str:
    """Translate the error of a library."""
    if "CRC" in text:
        return "fails the checksum of its gzip data (CRC-32)"
    if "length" in text:
        return "does not have the length that its gzip data declare"
    return "has other bytes after its gzip data"


@contextmanager
def open_contents(path: Path) -> Iterator[Contents]:
    """Open a plain or gzipped file, distinguished by its first bytes."""
    with path.open("rb") as file:
        gzipped = file.read(len(_MAGIC)) == _MAGIC
        file.seek(0)
        yield Contents(file, gzipped)


def contents_of(data: bytes) -> Contents:
    """The content of a file held in memory, inflated if gzipped."""
    return Contents(BytesIO(data), data.startswith(_MAGIC))
