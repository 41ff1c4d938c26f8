"""What a run has finished, in an embedded database (floor 1).

SQLite with its rollback journal and full synchronization: a transaction is on disk or it is not, also after kill -9 or
a power cut. One writer at a time is ensured by :class:`ukb_infer.execution.lock.RunLock`, so that file systems whose
locks do not work (``locks=False``) are as safe as others.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from ukb_infer.errors import RunError

JOURNAL_NAME = "journal.sqlite"
SCHEMA_VERSION = 2
#: A commit waits this long for somebody who looks at the run (`export` of a biobank takes minutes), s.
WRITER_WAITS_S = 3600.0
READER_WAITS_S = 60.0


@dataclass(frozen=True)
class JournalInput:
    """One scan that the run was asked for.

    Attributes:
        scan: its name, the key of the journal.
        eid, instance, array: parts of its key.
        given: path as the user gave it.
        excluded: left out on the user's wish.
        mine: whether it belongs to this run's shard.
    """

    scan: str
    eid: str
    instance: int | None
    array: int | None
    given: str
    excluded: bool = False
    mine: bool = True


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
        digest: SHA-256 of the input's content, "" where it was not asked for.
        finished: when, seconds since 1970; 0 takes the time of recording.
    """

    scan: str
    fingerprint: str
    status: str
    reasons: str
    message: str
    stations: int
    payload: bytes = b""
    digest: str = ""
    finished: float = 0.0

    @property
    def result(self) -> tuple[str, str, str, int, bytes]:
        """What the tables say of the scan."""
        return self.status, self.reasons, self.message, self.stations, self.payload


_ROW = "scan, fingerprint, status, reasons, message, stations, payload, digest, finished"


class Journal:
    """Journal of one run folder; use as a context manager.

    Args:
        folder: the run folder; exists and is locked by the caller, unless ``read_only``.
        read_only: for looking at a run, also while it is going on.
        locks: False where the file system's locks do not work; the caller's lock is then the only one.

    Raises:
        RunError: the file is no journal of this version.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, locks: bool = True) -> None:
        self.path = folder / JOURNAL_NAME
        if read_only and not self.path.is_file():
            raise RunError(f"{folder} is no run: it holds no {JOURNAL_NAME}")
        options = ["mode=ro" if read_only else "mode=rwc", *([] if locks else ["nolock=1"])]
        uri = f"file:{quote(str(self.path.absolute()))}?{'&'.join(options)}"
        try:
            timeout = READER_WAITS_S if read_only else WRITER_WAITS_S
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)
            if not read_only:
                self._create()
            version = self.get("schema_version")
        except sqlite3.Error as error:
            raise RunError(f"{self.path}: cannot be used as the run's journal ({error})") from error
        if version is None and not read_only:
            self.put("schema_version", SCHEMA_VERSION)
        elif version != SCHEMA_VERSION:
            raise RunError(f"{self.path}: journal version {version}, expected {SCHEMA_VERSION}; use --overwrite")

    def _create(self) -> None:
        self._db.execute("PRAGMA journal_mode=DELETE")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS scans (scan TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, "
            "status TEXT NOT NULL, reasons TEXT NOT NULL, message TEXT NOT NULL, stations INTEGER NOT NULL, "
            "payload BLOB NOT NULL, digest TEXT NOT NULL, finished REAL NOT NULL)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS inputs (position INTEGER PRIMARY KEY, scan TEXT NOT NULL UNIQUE, "
            "eid TEXT NOT NULL, instance INTEGER, array INTEGER, given TEXT NOT NULL, excluded INTEGER NOT NULL, "
            "mine INTEGER NOT NULL)"
        )

    def __enter__(self) -> Journal:
        """Open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or none."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise RunError(
                f"{self.path}: cannot be written ({error}); free space or restore access, then run the same command "
                "again: what is finished is kept"
            ) from error

    # -- the run's own facts -------------------------------------------------------------------------------------------

    def get(self, key: str) -> Any:
        """Value of the run's own facts, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, value: Any) -> None:
        """Keep a fact of the run."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value, sort_keys=True)))

    def set_inputs(self, inputs: Iterable[JournalInput]) -> None:
        """Replace the scans the run is asked for, in the order of the tables."""
        rows = [
            (k, i.scan, i.eid, i.instance, i.array, i.given, int(i.excluded), int(i.mine)) for k, i in enumerate(inputs)
        ]
        with self._transaction():
            self._db.execute("DELETE FROM inputs")
            self._db.executemany("INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def inputs(self) -> Iterator[JournalInput]:
        """Scans the run is asked for, those of other shards included, in the order of the tables."""
        query = "SELECT scan, eid, instance, array, given, excluded, mine FROM inputs ORDER BY position"
        for scan, eid, instance, array, given, excluded, mine in self._db.execute(query):
            yield JournalInput(scan, eid, instance, array, given, bool(excluded), bool(mine))

    # -- results -------------------------------------------------------------------------------------------------------

    def record(self, rows: Iterable[JournalRow]) -> None:
        """Record finished scans in one transaction: all or none."""
        now = time.time()
        values = [
            (r.scan, r.fingerprint, r.status, r.reasons, r.message, r.stations, r.payload, r.digest, r.finished or now)
            for r in rows
        ]
        if not values:
            return
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO scans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def forget(self, scans: Iterable[str]) -> None:
        """Remove finished scans, so that they are worked on again."""
        with self._transaction():
            self._db.executemany("DELETE FROM scans WHERE scan = ?", [(s,) for s in scans])

    def fingerprints(self) -> dict[str, tuple[str, str, str, str]]:
        """Fingerprint, digest, status and reasons of every finished scan."""
        query = "SELECT scan, fingerprint, digest, status, reasons FROM scans"
        return {
            scan: (mark, digest, status, reasons) for scan, mark, digest, status, reasons in self._db.execute(query)
        }

    def row(self, scan: str) -> JournalRow | None:
        """One finished scan, or None."""
        found = self._db.execute(f"SELECT {_ROW} FROM scans WHERE scan = ?", (scan,)).fetchone()
        return None if found is None else JournalRow(*found)

    def results(self) -> Iterator[tuple[JournalInput, JournalRow | None]]:
        """This shard's scans with their results, None where unfinished or excluded, in the order of the tables."""
        names = ", ".join(f"s.{c}" for c in _ROW.split(", "))
        query = (
            f"SELECT i.scan, i.eid, i.instance, i.array, i.given, i.excluded, i.mine, {names} "
            "FROM inputs i LEFT JOIN scans s ON s.scan = i.scan AND i.excluded = 0 WHERE i.mine = 1 ORDER BY i.position"
        )
        for found in self._db.execute(query):
            scan, eid, instance, array, given, excluded, mine = found[:7]
            item = JournalInput(scan, eid, instance, array, given, bool(excluded), bool(mine))
            yield item, None if found[7] is None else JournalRow(*found[7:])

    def last_failures(self, count: int) -> list[JournalRow]:
        """The failures recorded last, newest first."""
        query = f"SELECT {_ROW} FROM scans WHERE status = 'failed' ORDER BY finished DESC, scan LIMIT ?"
        return [JournalRow(*found) for found in self._db.execute(query, (count,))]

    def recent_times(self, count: int) -> list[float]:
        """When the last scans were recorded, newest first."""
        query = "SELECT finished FROM scans ORDER BY finished DESC LIMIT ?"
        return [float(t) for (t,) in self._db.execute(query, (count,))]
