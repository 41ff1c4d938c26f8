"""Members of a zip or files of a folder, read without writing anything to disk and with every size bounded.

Names of members are never used as paths, so path tricks have no effect. Deflated members are inflated by isal
(zlib where isal is absent) with their CRC checked; members stored in any other way go through :mod:`zipfile`.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ukb_infer.errors import Reason, ScanError

_inflate: Any
try:
    from isal import isal_zlib as _inflate
except ImportError:  # the platform has no isal wheel: slower, same result
    import zlib as _inflate

#: Most members of a zip, or files of a folder; a UK Biobank scan has 1,329.
MAX_MEMBERS = 10_000
#: Largest member or file, inflated; a UK Biobank slice has 0.1 MB.
MAX_MEMBER_BYTES = 64 * 1024**2
#: Largest sum of all members, inflated.
MAX_TOTAL_BYTES = 4 * 1024**3
#: Largest central directory; 10,000 members with long names take 3 MB.
MAX_DIRECTORY_BYTES = 16 * 1024**2

_RAW_DEFLATE = -15
#: Deflate cannot expand by more than this factor, so a short member needs no bounded (slower) inflation.
_MAX_EXPANSION = 1032
_SAFE_COMPRESSED_BYTES = MAX_MEMBER_BYTES // _MAX_EXPANSION
_LOCAL_HEADER_BYTES = 30
_LOCAL_SIGNATURE = b"PK\x03\x04"
_END_SIGNATURE = b"PK\x05\x06"
_END_BYTES = 22
_ZIP64_END_SIGNATURE = b"PK\x06\x06"
#: Room for the local name and extra field where they are longer than the central directory says.
_SLACK_BYTES = 256
_ENCRYPTED_FLAGS = 0x1 | 0x40 | 0x2000


class MemberSource(Protocol):
    """A container of files: a zip or a folder."""

    names: list[str]

    def peek(self, index: int, size: int) -> bytes:
        """Return the first bytes of a member: ``size`` of them or somewhat fewer."""

    def read(self, index: int) -> bytes:
        """Return a whole member."""


class ZipSource:
    """Read-only access to the members of a zip; see :func:`open_zip`.

    Args:
        descriptor: open file descriptor of the zip.
        archive: the same zip, for members that are neither stored nor deflated.

    Attributes:
        names: of the members, in the order of the central directory.
    """

    def __init__(self, descriptor: int, archive: zipfile.ZipFile) -> None:
        self._descriptor = descriptor
        self._archive = archive
        self._size = os.fstat(descriptor).st_size
        self._infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
        self.names = [info.filename for info in self._infos]
        self._check_bounds()

    def _check_bounds(self) -> None:
        """Refuse encryption and absurd numbers and sizes by what the directory declares."""
        count = len(self._archive.infolist())
        if count > MAX_MEMBERS:
            raise _too_large(f"the zip has {count} members, expected at most {MAX_MEMBERS}")
        if any(info.flag_bits & _ENCRYPTED_FLAGS for info in self._infos):
            raise ScanError(Reason.ENCRYPTED_ZIP, "the zip has encrypted members; decrypt it first")
        largest = max((info.file_size for info in self._infos), default=0)
        if largest > MAX_MEMBER_BYTES:
            raise _too_large(f"a member declares {largest} bytes, expected at most {MAX_MEMBER_BYTES}")
        total = sum(info.file_size for info in self._infos)
        if total > MAX_TOTAL_BYTES:
            raise _too_large(f"the members declare {total} bytes, expected at most {MAX_TOTAL_BYTES}")

    def peek(self, index: int, size: int) -> bytes:
        """Return about the first ``size`` bytes of a member without checking its CRC.

        Raises:
            ScanError: ``unreadable_zip``.
        """
        info = self._infos[index]
        if info.compress_type == zipfile.ZIP_DEFLATED:
            packed = self._packed(info, min(info.compress_size, size * 2 // 3))  # headers shrink by a half and more
            try:
                head: bytes = _inflate.decompressobj(_RAW_DEFLATE).decompress(packed, size)
            except _inflate.error:
                raise _unreadable("a member's compressed data are damaged") from None
            return head
        if info.compress_type == zipfile.ZIP_STORED:
            return self._packed(info, min(info.compress_size, size))
        return self._read_other(info)[:size]

    def read(self, index: int) -> bytes:
        """Return a whole member, its length and CRC checked.

        Raises:
            ScanError: ``unreadable_zip``.
        """
        info = self._infos[index]
        if info.compress_type == zipfile.ZIP_DEFLATED:
            data = _inflate_bounded(self._packed(info, info.compress_size), info.file_size)
        elif info.compress_type == zipfile.ZIP_STORED:
            if info.compress_size != info.file_size:
                raise _unreadable("a stored member declares two lengths")
            data = self._packed(info, info.compress_size)
        else:
            data = self._read_other(info)
        if len(data) != info.file_size or _inflate.crc32(data) != info.CRC:
            raise _unreadable("a member fails its checksum")
        return data

    def _packed(self, info: zipfile.ZipInfo, size: int) -> bytes:
        """Return the first ``size`` bytes of a member as stored, found by its local header."""
        if not 0 <= info.header_offset <= self._size:
            raise _unreadable("a member lies outside the file")
        if size > self._size:  # asking the system for it would reserve as much memory
            raise _unreadable("the file is cut short")
        guess = _LOCAL_HEADER_BYTES + len(info.filename) + len(info.extra) + _SLACK_BYTES
        block = os.pread(self._descriptor, guess + size, info.header_offset)
        if len(block) < _LOCAL_HEADER_BYTES or block[:4] != _LOCAL_SIGNATURE:
            raise _unreadable("a member is not where the directory says")
        start = _LOCAL_HEADER_BYTES + (block[26] | block[27] << 8) + (block[28] | block[29] << 8)
        packed = block[start : start + size]
        if len(packed) < size:
            packed = os.pread(self._descriptor, size, info.header_offset + start)
        if len(packed) < size:
            raise _unreadable("the file is cut short")
        return packed

    def _read_other(self, info: zipfile.ZipInfo) -> bytes:
        """Read a member stored by a rarer method (bzip2, lzma) through the standard library."""
        try:
            with self._archive.open(info) as member:
                return member.read(info.file_size + 1)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
            raise _unreadable(f"a member cannot be decompressed ({type(error).__name__})") from None
        except Exception as error:  # each codec has exceptions of its own; those of the disk are not the scan's
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise _unreadable(f"a member cannot be decompressed ({type(error).__name__})") from None


class FolderSource:
    """The regular files of a folder and its subfolders; links to folders are not followed.

    Args:
        folder: to look in.

    Attributes:
        names: relative paths, sorted.

    Raises:
        ScanError: ``too_large`` for more than ``MAX_MEMBERS`` files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names = sorted(_list_files(folder))

    def peek(self, index: int, size: int) -> bytes:
        """Return the first ``size`` bytes of a file; nothing of what is not a regular file."""
        return self._read(index, size)

    def read(self, index: int) -> bytes:
        """Return a whole file.

        Raises:
            ScanError: ``too_large``.
        """
        data = self._read(index, MAX_MEMBER_BYTES + 1)
        if len(data) > MAX_MEMBER_BYTES:
            raise _too_large(f"a file has more than {MAX_MEMBER_BYTES} bytes")
        return data

    def _read(self, index: int, size: int) -> bytes:
        path = self._folder / self.names[index]
        if not path.is_file():  # a device, a pipe or a dangling link
            return b""
        with path.open("rb") as file:
            return file.read(size)


@contextmanager
def open_zip(path: Path) -> Iterator[ZipSource]:
    """Open a zip and read its central directory, once.

    Raises:
        ScanError: ``unreadable_zip``, ``encrypted_zip`` or ``too_large``.
        OSError: the disk, not the zip, is at fault.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unreadable("not a regular file")
        _check_directory_size(descriptor)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            archive = _open_archive(file)
            with archive:
                yield ZipSource(descriptor, archive)
    finally:
        os.close(descriptor)


def _open_archive(file: Any) -> zipfile.ZipFile:
    """Let the standard library read the directory, and translate what it makes of damage."""
    try:
        return zipfile.ZipFile(file)
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # EINVAL: a damaged offset made it seek before the start
            raise
        raise _unreadable("its directory is damaged") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, EOFError) as error:
        raise _unreadable(f"not a zip, or its directory is damaged ({type(error).__name__})") from None


def _check_directory_size(descriptor: int) -> None:
    """Refuse a directory too large to be read into memory, by what the end records declare."""
    size = os.fstat(descriptor).st_size
    tail_bytes = min(size, _END_BYTES + 0xFFFF + 76)
    tail = os.pread(descriptor, tail_bytes, size - tail_bytes)
    end = tail.rfind(_END_SIGNATURE)
    if end < 0 or end + _END_BYTES > len(tail):
        raise _unreadable("it has no directory at its end: not a zip, or cut short")
    declared = struct.unpack_from("<L", tail, end + 12)[0]
    end64 = tail.rfind(_ZIP64_END_SIGNATURE, 0, end)
    if declared == 0xFFFFFFFF and end64 >= 0 and end64 + 56 <= len(tail):
        declared = struct.unpack_from("<Q", tail, end64 + 40)[0]
    if declared > size:
        raise _unreadable("its directory is longer than the file")
    if declared > MAX_DIRECTORY_BYTES:
        raise _too_large(f"its directory has {declared} bytes, expected at most {MAX_DIRECTORY_BYTES}")


def _inflate_bounded(packed: bytes, size: int) -> bytes:
    """Inflate raw deflate data that should give ``size`` bytes, never much more than ``MAX_MEMBER_BYTES``."""
    try:
        if len(packed) <= _SAFE_COMPRESSED_BYTES:
            short: bytes = _inflate.decompress(packed, _RAW_DEFLATE, size + 1)
            return short
        long: bytes = _inflate.decompressobj(_RAW_DEFLATE).decompress(packed, size + 1)
        return long
    except _inflate.error:
        raise _unreadable("a member's compressed data are damaged") from None


def _list_files(folder: Path) -> Iterator[str]:
    """Yield the relative paths of all files below a folder, refusing too many."""
    count = 0
    for where, _, files in os.walk(folder, followlinks=False):
        for name in files:
            count += 1
            if count > MAX_MEMBERS:
                raise _too_large(f"the folder has more than {MAX_MEMBERS} files")
            yield os.path.relpath(Path(where) / name, folder)


def _too_large(found: str) -> ScanError:
    return ScanError(Reason.TOO_LARGE, f"{found}; check where it comes from")


def _unreadable(found: str) -> ScanError:
    return ScanError(Reason.UNREADABLE_ZIP, f"the zip cannot be read: {found}; download the scan again")
