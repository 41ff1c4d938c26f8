"""Plain or gzipped files, read within bounds; what gzip offers to check is checked before the content is used.

Every member of a gzip file ends with the CRC-32 and the length of what it holds. Readers that stop at the last byte
they want (nibabel among them) never get there, so that flipped bits pass for voxels. :meth:`Contents.finish` reads on.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_reader: Any = gzip.GzipFile
_inflate_errors: tuple[Any, ...] = (zlib.error,)
try:  # isal inflates at twice zlib's speed, which pays for the checksum
    from isal import igzip, isal_zlib
except ImportError:  # the platform has no isal wheel: slower, same result
    pass
else:
    _reader = igzip.IGzipFile
    _inflate_errors = (zlib.error, isal_zlib.error)

_MAGIC = b"\x1f\x8b"
#: Most bytes inflated after the last wanted one to reach the trailer; tools pad by less.
_MAX_REST_BYTES = 64 * 1024**2
_CHUNK_BYTES = 1024**2


class DamagedGzipError(ValueError):
    """A gzip file is cut short or fails its checksum; the text says which, after the name of the file."""


class Contents:
    """What a file holds, inflated where it is gzipped; see :func:`open_contents`.

    Args:
        file: open for reading.
        gzipped: whether it begins like a gzip file.
    """

    def __init__(self, file: Any, gzipped: bool) -> None:
        self._file = _reader(fileobj=file) if gzipped else file
        self._gzipped = gzipped

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or fewer at the end.

        Raises:
            DamagedGzipError: the file is cut short or damaged.
        """
        try:
            data: bytes = self._file.read(size)
        except EOFError:
            raise DamagedGzipError("is cut short, or has other bytes after its gzip data") from None
        except gzip.BadGzipFile as error:
            raise DamagedGzipError(_what_is_wrong(str(error))) from None
        except _inflate_errors:
            raise DamagedGzipError("has damaged gzip data") from None
        return data

    def finish(self) -> bool:
        """Read on to the end, so that every checksum and length has been compared.

        Returns:
            Whether the end was reached within ``_MAX_REST_BYTES``.

        Raises:
            DamagedGzipError: the file is cut short or damaged.
        """
        if not self._gzipped:
            return True
        return any(not self.read(_CHUNK_BYTES) for _ in range(_MAX_REST_BYTES // _CHUNK_BYTES))


def _what_is_wrong(text: str) -> str:
    """Say what a library found wrong with a gzip file."""
    if "CRC" in text:
        return "fails the checksum of its gzip data (CRC-32)"
    if "length" in text:
        return "does not have the length that its gzip data declare"
    return "has other bytes after its gzip data"


@contextmanager
def open_contents(path: Path) -> Iterator[Contents]:
    """Open a plain or gzipped file; its first bytes tell which, not its name."""
    with path.open("rb") as file:
        gzipped = file.read(len(_MAGIC)) == _MAGIC
        file.seek(0)
        yield Contents(file, gzipped)
