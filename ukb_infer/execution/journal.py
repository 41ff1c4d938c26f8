"""What a run has finished, in an embedded database (floor 1).

SQLite with its rollback journal and full synchronization: a transaction is on disk or it is not, also after kill -9 or
a power cut. One writer at a time is ensured by :class:`ukb_infer.execution.lock.RunLock`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ukb_infer.errors import RunError

JOURNAL_NAME = "journal.sqlite"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class JournalRow:
    """One finished scan.

    Attributes:
        scan: its name, the key of the journal.
        fingerprint: of the input file when it was read.
        status: ok, flagged or failed.
        reasons: codes joined by ``;``.
        message: for people.
        stations: fused stations, 0 where unknown.
        payload: result bytes (estimates), empty for a failed scan.
    """

    scan: str
    fingerprint: str
    status: str
    reasons: str
    message: str
    stations: int
    payload: bytes = b""


class Journal:
    """Journal of one run folder; use as a context manager.

    Args:
        folder: the run folder; exists and is locked by the caller.

    Raises:
        RunError: the file is no journal of this version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_NAME
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, timeout=30.0)
            self._db.execute("PRAGMA journal_mode=DELETE")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS scans (scan TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, "
                "status TEXT NOT NULL, reasons TEXT NOT NULL, message TEXT NOT NULL, stations INTEGER NOT NULL, "
                "payload BLOB NOT NULL)"
            )
        except sqlite3.Error as error:
            raise RunError(f"{self.path}: cannot be used as the run's journal ({error})") from error
        version = self.get("schema_version")
        if version is None:
            self.put("schema_version", SCHEMA_VERSION)
        elif version != SCHEMA_VERSION:
            raise RunError(f"{self.path}: journal version {version}, expected {SCHEMA_VERSION}; use --overwrite")

    def __enter__(self) -> Journal:
        """Open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self._db.close()

    def get(self, key: str) -> Any:
        """Value of the run's own facts, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, value: Any) -> None:
        """Keep a fact of the run."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value, sort_keys=True)))

    def record(self, rows: Iterable[JournalRow]) -> None:
        """Record finished scans in one transaction: all or none."""
        values = [(r.scan, r.fingerprint, r.status, r.reasons, r.message, r.stations, r.payload) for r in rows]
        if not values:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO scans VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise RunError(
                f"{self.path}: cannot be written ({error}); free space or restore access, then run the same command "
                "again: what is finished is kept"
            ) from error

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of every finished scan."""
        return dict(self._db.execute("SELECT scan, fingerprint FROM scans"))

    def row(self, scan: str) -> JournalRow | None:
        """One finished scan, or None."""
        found = self._db.execute("SELECT * FROM scans WHERE scan = ?", (scan,)).fetchone()
        return None if found is None else JournalRow(*found)
