"""Members of a zip or files of a folder, read in memory with limits on every size.

Member names are never used as paths, so path traversal has no effect. Deflated members are inflated by isal (zlib
if isal is missing), others by ``zip_methods``; the length and CRC of every member that is read
are checked. :mod:`zipfile` only reads the directory.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from ukb_infer.errors import ScanError
from ukb_infer.imaging.readers import zip_methods
from ukb_infer.imaging.readers.zip_methods import AES, DEFLATED, STORED
from ukb_infer.reasons import Reason

_inflate: Any
try:
    from isal import isal_zlib as _inflate
except ImportError:  # the platform has no isal wheel: slower, same result
    import zlib as _inflate

#: Most members of a zip, or files of a folder; a UK Biobank scan has 1,329.
MAX_MEMBERS = 10_000
#: Largest member or file, inflated; a UK Biobank slice has 0.1 MB.
MAX_MEMBER_BYTES = 64 * 1024**2
#: Largest zip inside a zip; a UK Biobank scan has 50 to 100 MB.
MAX_NESTED_BYTES = 256 * 1024**2
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
#: Room for a local name and extra field longer than the central directory says.
_SLACK_BYTES = 256
_SPLIT_SIGNATURE = b"PK\x07\x08"
#: First bytes of other archives: (offset, signature, name).
_FORMATS = (
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\xfd7zXZ\x00", "an xz file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (257, b"ustar", "a tar archive"),
)
_JOIN = "join them, unpack the zip and pass the folder"
_DICOM_AT = 128
_LOOK_BYTES = 512
_ENCRYPTED_FLAGS = 0x1 | 0x40 | 0x2000


#: Returns a number of bytes (or fewer at the end) from an offset.
ReadAt = Callable[[int, int], bytes]


class ZipSource:
    """Read-only access to the members of a zip; see :func:`open_zip`.

    Args:
        read_at: reads from the zip.
        size: of the zip, bytes.
        archive: the same zip, for its directory.

    Attributes:
        names: of the members, in the order of the central directory.
        zips: indices of the members named like zips.
    """

    def __init__(self, read_at: ReadAt, size: int, archive: zipfile.ZipFile) -> None:
        self._read_at = read_at
        self._size = size
        self._infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
        self.names = [info.filename for info in self._infos]
        self.zips = [index for index, name in enumerate(self.names) if _is_named_zip(name)]
        self._check_bounds(len(archive.infolist()))

    def _check_bounds(self, count: int) -> None:
        """Refuse encryption and absurd numbers and sizes, as declared in the directory."""
        if count > MAX_MEMBERS:
            raise _too_large(f"the zip has {count} members, expected at most {MAX_MEMBERS}")
        if any(info.flag_bits & _ENCRYPTED_FLAGS or info.compress_type == AES for info in self._infos):
            raise ScanError(Reason.ENCRYPTED_ZIP, "the zip has encrypted members; decrypt it first")
        nested = set(self.zips)
        for index, info in enumerate(self._infos):
            most = MAX_NESTED_BYTES if index in nested else MAX_MEMBER_BYTES
            largest = max(info.file_size, info.compress_size)
            if largest > most:
                raise _too_large(f"a member declares {largest} bytes, expected at most {most}")
        total = sum(info.file_size for info in self._infos)
        if total > MAX_TOTAL_BYTES:
            raise _too_large(f"the members declare {total} bytes, expected at most {MAX_TOTAL_BYTES}")

    @contextmanager
    def open_nested(self, index: int) -> Iterator[ZipSource]:
        """Open a member that is a zip itself, in memory, at most ``MAX_NESTED_BYTES``.

        Raises:
            ScanError: as :func:`open_zip`.
        """
        data = self.read(index)
        with _open_source(lambda size, offset: data[offset : offset + size], len(data), BytesIO(data)) as source:
            yield source

    def peek(self, index: int, size: int) -> bytes:
        """Return the first bytes of a member without checking its CRC.

        Args:
            index: of the member in ``names``.
            size: bytes to return, or somewhat fewer.

        Raises:
            ScanError: ``unreadable_zip``.
        """
        info = self._infos[index]
        if info.compress_type == DEFLATED:
            packed = self._packed(info, min(info.compress_size, size * 2 // 3))  # headers compress to half or less
            try:
                head: bytes = _inflate.decompressobj(_RAW_DEFLATE).decompress(packed, size)
            except _inflate.error:
                raise _unreadable("a member's compressed data are damaged") from None
            return head
        if info.compress_type == STORED:
            return self._packed(info, min(info.compress_size, size))
        return self._read_other(info)[:size]

    def read(self, index: int) -> bytes:
        """Return a whole member, its length and CRC checked.

        Raises:
            ScanError: ``unreadable_zip`` or ``unsupported_compression``.
        """
        info = self._infos[index]
        if info.compress_type == DEFLATED:
            data = _inflate_bounded(self._packed(info, info.compress_size), info.file_size)
        elif info.compress_type == STORED:
            if info.compress_size != info.file_size:
                raise _unreadable("a stored member declares two lengths")
            data = self._packed(info, info.compress_size)
        else:
            data = self._read_other(info)
        if len(data) != info.file_size:
            found = f"{len(data)} bytes" if len(data) < info.file_size else "more"
            raise _unreadable(f"a member should have {info.file_size} bytes and has {found}")
        if _inflate.crc32(data) != info.CRC:
            raise _unreadable("a member fails its checksum (CRC-32)")
        return data

    def verify(self, index: int) -> None:
        """Verify a member's length and CRC.

        Raises:
            ScanError: ``unreadable_zip``.
        """
        self.read(index)

    def _packed(self, info: zipfile.ZipInfo, size: int) -> bytes:
        """Return the first ``size`` bytes of a member as stored, found by its local header."""
        if not 0 <= info.header_offset <= self._size:
            raise _unreadable("a member lies outside the file")
        if size > self._size:  # reading it would allocate as much memory
            raise _unreadable("the file is truncated")
        guess = _LOCAL_HEADER_BYTES + len(info.filename) + len(info.extra) + _SLACK_BYTES
        block = self._read_at(guess + size, info.header_offset)
        if len(block) < _LOCAL_HEADER_BYTES or block[:4] != _LOCAL_SIGNATURE:
            raise _unreadable("a member is not where the directory says")
        start = _LOCAL_HEADER_BYTES + (block[26] | block[27] << 8) + (block[28] | block[29] << 8)
        packed = block[start : start + size]
        if len(packed) < size:
            packed = self._read_at(size, info.header_offset + start)
        if len(packed) < size:
            raise _unreadable("the file is truncated")
        return packed

    def _read_other(self, info: zipfile.ZipInfo) -> bytes:
        """Read a member compressed by a rarer method."""
        try:
            return zip_methods.decompress_rare(
                info.compress_type, self._packed(info, info.compress_size), info.file_size
            )
        except zip_methods.UnsupportedMethodError as error:
            raise ScanError(
                Reason.UNSUPPORTED_COMPRESSION,
                f"a member of the zip is compressed by {error}, expected Deflate, bzip2, LZMA, xz or none; unpack it "
                "and pass the folder",
            ) from None
        except zip_methods.DamagedMemberError as error:
            raise _unreadable(f"a member's compressed data are damaged ({error})") from None


def _is_named_zip(name: str) -> bool:
    """Whether a member is named like a zip; "._x.zip" are macOS metadata."""
    base = name.replace("\\", "/").rpartition("/")[2].lower()
    return base.endswith(".zip") and not base.startswith(".")


_SLICE_SUFFIXES = (".dcm", ".ima")


class FolderSource:
    """The regular files of a folder and its subfolders; links to folders are not followed.

    Args:
        folder: to read.

    Attributes:
        names: relative paths, sorted.

    Raises:
        ScanError: ``too_large`` for more than ``MAX_MEMBERS`` files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names = sorted(_list_files(folder))

    def peek(self, index: int, size: int) -> bytes:
        """Return the first bytes of a file; empty if it is not a regular file.

        Args:
            index: of the file in ``names``.
            size: bytes to return; fewer if the file is shorter.
        """
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

    def verify(self, index: int) -> None:
        """Do nothing: files of a folder have no checksums."""

    def _read(self, index: int, size: int) -> bytes:
        path = self._folder / self.names[index]
        if not path.is_file():  # a device, a pipe or a broken link
            if path.suffix.lower() in _SLICE_SUFFIXES:
                raise ScanError(
                    Reason.INPUT_UNREADABLE,
                    "a file named like DICOM is a broken link, a device or a pipe; replace it by the slice "
                    "or remove it",
                )
            return b""
        with path.open("rb") as file:
            return file.read(size)


#: A container of files.
MemberSource = ZipSource | FolderSource


@contextmanager
def open_zip(path: Path) -> Iterator[ZipSource]:
    """Open a zip and read its central directory, once.

    Raises:
        ScanError: ``unreadable_zip``, ``encrypted_zip`` or ``too_large``.
        OSError: the disk failed, not the zip.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable("not a regular file")
        read_at = partial(os.pread, descriptor)
        with os.fdopen(os.dup(descriptor), "rb") as file, _open_source(read_at, status.st_size, file) as source:
            yield source
    finally:
        os.close(descriptor)


@contextmanager
def _open_source(read_at: ReadAt, size: int, file: Any) -> Iterator[ZipSource]:
    """Read the directory of a zip, once.

    Args:
        read_at: reads from the zip.
        size: of the zip, bytes.
        file: the same zip as a file.

    Raises:
        ScanError: as :func:`open_zip`.
    """
    _check_directory_size(read_at, size)
    with _open_archive(file) as archive:
        source = ZipSource(read_at, size, archive)
    yield source


def _open_archive(file: Any) -> zipfile.ZipFile:
    """Let the standard library read the directory, and translate its errors."""
    try:
        return zipfile.ZipFile(file)
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # EINVAL: a damaged offset made it seek before the start
            raise
        raise _unreadable("its directory is damaged") from None
    except NotImplementedError as error:  # "zip file version 6.4"
        raise ScanError(
            Reason.UNSUPPORTED_COMPRESSION,
            f"the zip needs a newer reader ({error}), expected at most version 6.3; unpack it and pass the folder",
        ) from None
    except (zipfile.BadZipFile, ValueError, OverflowError, struct.error, EOFError) as error:
        raise _unreadable(f"not a zip, or its directory is damaged ({type(error).__name__})") from None


def _check_directory_size(read_at: ReadAt, size: int) -> None:
    """Refuse a missing or too large directory, as declared in the end records."""
    tail_bytes = min(size, _END_BYTES + 0xFFFF + 76)
    tail = read_at(tail_bytes, size - tail_bytes)
    end = tail.rfind(_END_SIGNATURE)
    if end < 0 or end + _END_BYTES > len(tail):
        raise _no_zip(read_at(_LOOK_BYTES, 0))
    disk, first_disk = struct.unpack_from("<HH", tail, end + 4)
    if {disk, first_disk} - {0, 0xFFFF}:
        raise _unreadable(f"it is part {disk + 1} of a zip split over several files", _JOIN)
    declared = struct.unpack_from("<L", tail, end + 12)[0]
    end64 = tail.rfind(_ZIP64_END_SIGNATURE, 0, end)
    if declared == 0xFFFFFFFF and end64 >= 0 and end64 + 56 <= len(tail):
        declared = struct.unpack_from("<Q", tail, end64 + 40)[0]
    if declared > size:
        raise _unreadable("its directory is longer than the file")
    if declared > MAX_DIRECTORY_BYTES:
        raise _too_large(f"its directory has {declared} bytes, expected at most {MAX_DIRECTORY_BYTES}")


def _no_zip(head: bytes) -> ScanError:
    """Describe a file without zip directory, by its first bytes."""
    if head.startswith(_LOCAL_SIGNATURE):
        return _unreadable("it is truncated (no directory at its end)")
    if head.startswith(_SPLIT_SIGNATURE):
        return _unreadable("it is one part of a zip split over several files", _JOIN)
    if not head:
        return _unreadable("it is empty")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"{")):
        return _unreadable("it is a web page or message saved under this name")
    if head[_DICOM_AT : _DICOM_AT + 4] == b"DICM":
        return _unreadable("it is a single DICOM file", "pass the folder with all slices")
    for at, signature, name in _FORMATS:
        if head[at:].startswith(signature):
            return _unreadable(f"it is {name}", "unpack it and pass the folder")
    return _unreadable("it has no directory at its end: not a zip, or truncated")


def _inflate_bounded(packed: bytes, size: int) -> bytes:
    """Inflate raw deflate data of ``size`` bytes, never much more than ``MAX_MEMBER_BYTES``."""
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

    def refuse(error: OSError) -> None:  # files skipped silently would look like a missing station
        raise error

    count = 0
    for where, _, files in os.walk(folder, followlinks=False, onerror=refuse):
        for name in files:
            count += 1
            if count > MAX_MEMBERS:
                raise _too_large(f"the folder has more than {MAX_MEMBERS} files")
            yield os.path.relpath(Path(where) / name, folder)


def _too_large(found: str) -> ScanError:
    return ScanError(Reason.TOO_LARGE, f"{found}; check its origin")


def _unreadable(found: str, advice: str = "download the scan again") -> ScanError:
    return ScanError(Reason.UNREADABLE_ZIP, f"the zip cannot be read: {found}; {advice}")
