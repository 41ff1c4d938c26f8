"""Atomic writes: a file is either complete or absent."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ukb_infer.errors import RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _sync_folder(folder: Path) -> None:
    """Flush a rename to disk; file systems that cannot open folders are ignored."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path and rename it over ``path`` at the end; on an error the old file stays.

    Args:
        path: final file; its folder exists.

    Yields:
        A temporary file name in the same folder and with the same suffix.
    """
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically.

    Args:
        path: final file; its folder exists.
        data: its content.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically.

    Args:
        path: final file; its folder exists.
        text: its content; line ends stay as given.
    """
    atomic_write_bytes(path, text.encode("utf-8"))


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as ``.npy`` atomically; a full disk is an error with its number, which NumPy's own has not.

    Args:
        path: final file; its folder exists.
        array: to write.
    """
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array)
    atomic_write_bytes(path, buffer.getvalue())


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV table as text, lines ended by a newline only.

    Args:
        header: names of the columns.
        rows: cells.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def write_texts(out: Path, texts: Mapping[str, str]) -> tuple[Path, ...]:
    """Write the files of a command's output folder, which is made if it does not exist.

    Args:
        out: the folder.
        texts: content by file name; empty to know early whether the folder can be written.

    Raises:
        RunError: it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not texts:
            tempfile.TemporaryFile(dir=out).close()
        for name, text in texts.items():
            atomic_write_text(out / name, text)
    except OSError as error:
        raise RunError(f"`out` {out} cannot be written ({error.strerror}); choose another folder") from error
    return tuple(out / name for name in texts)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
