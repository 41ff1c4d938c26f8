"""``run.log``: a log without participants' ids, unless requested."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from ukb_infer.execution import JournalRow
from ukb_infer.records import ScanResult
from ukb_infer.runs.files import LOG, LOG_KEY


class ScanNames:
    """Names of scans for logs: a keyed hash, or the name itself.

    Seven digits are quickly enumerated, so a plain hash would hide nothing; the random key stays in the run folder,
    readable by its owner only.

    Args:
        folder: run folder.
        show: use the real names.
    """

    def __init__(self, folder: Path, *, show: bool) -> None:
        self.show = show
        self._key = b"" if show else _key_of(folder)

    def __call__(self, scan: str) -> str:
        """Name of a scan in logs."""
        if self.show:
            return scan
        return "scan-" + hashlib.blake2b(scan.encode(), key=self._key, digest_size=6).hexdigest()


def _key_of(folder: Path) -> bytes:
    """The run's key, created on first use; without a writable folder a new one per call."""
    path = folder / LOG_KEY
    try:
        with contextlib.suppress(FileExistsError):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
        return path.read_bytes()[:64] or secrets.token_bytes(32)
    except OSError:
        return secrets.token_bytes(32)


class RunLog:
    """Appends lines with timestamps to ``run.log``; write errors never end a run.

    Args:
        folder: run folder.
        show_ids: use real scan names.
    """

    def __init__(self, folder: Path, *, show_ids: bool) -> None:
        self.names = ScanNames(folder, show=show_ids)
        self.show_ids = show_ids
        self._path = folder / LOG
        self._handle: IO[str] | None = None

    def __enter__(self) -> RunLog:
        """Open."""
        with contextlib.suppress(OSError):
            self._handle = self._path.open("a", encoding="utf-8")
        return self

    def write(self, text: str) -> None:
        """Write one line."""
        if self._handle is None:
            return
        with contextlib.suppress(OSError):
            self._handle.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")
            self._handle.flush()

    def failures(self, rows: Iterable[JournalRow]) -> None:
        """Write a line per failed scan: code and meaning; full messages name files and need ``show_ids``."""
        for row in rows:
            if row.result.status == "failed":
                self.write(f"{self.names(row.scan)} failed: {describe(row.result, show_ids=self.show_ids)}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close, logging what ended the run early."""
        if kind is not None:
            self.write(f"ended by {kind.__name__}")
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._handle.close()


def describe(result: ScanResult, *, show_ids: bool) -> str:
    """Describe a failure.

    Args:
        result: of a failed scan.
        show_ids: use its message, which names files; otherwise the meaning of its reasons.
    """
    words = result.message if show_ids else "; ".join(reason.meaning for reason in result.reasons)
    return f"{result.codes}: {words}"
