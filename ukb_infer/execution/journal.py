"""The journal: what a run has finished, in SQLite.

SQLite with its rollback journal and full synchronization: a transaction is either on disk or not, even after kill -9 or
a power cut. One writer at a time is ensured by :class:`ukb_infer.execution.lock.RunLock`, so that file systems whose
locks do not work (``locks=False``) are as safe as others.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ukb_infer.errors import NotARunError, RunError
from ukb_infer.records import Measures, ScanKey, ScanResult
from ukb_infer.storage import from_plain

JOURNAL_NAME = "journal.sqlite"
SCHEMA_VERSION = 3
#: The previous version, without measures: still read, and upgraded by the next run.
_WITHOUT_MEASURES = 2
#: A commit waits this long for readers of the run (`export` of a biobank takes minutes), s.
WRITER_WAITS_S = 3600.0
READER_WAITS_S = 60.0


@dataclass(frozen=True, kw_only=True)
class JournalInput:
    """One input scan of the run.

    Attributes:
        key: of the scan; its name is the key of the journal.
        given: path as the user gave it.
        excluded: left out by an exclusion list.
        mine: belongs to this run's shard.
    """

    key: ScanKey
    given: str
    excluded: bool = False
    mine: bool = True


@dataclass(frozen=True, kw_only=True)
class JournalRow:
    """One finished scan.

    Attributes:
        scan: its name, the key of the journal.
        result: its result.
        payload: result bytes (estimates), empty for a failed scan.
        finished: Unix time, s; 0 for the time of recording.
    """

    scan: str
    result: ScanResult
    payload: bytes = b""
    finished: float = 0.0


_INPUT = "scan, eid, instance, array, given, excluded, mine"
_ROW = "scan, fingerprint, status, reasons, message, stations, payload, digest, finished, measures"


class Journal:
    """Journal of one run folder; use as a context manager.

    Args:
        folder: the run folder; exists and is locked by the caller, unless ``read_only``.
        read_only: for reading a run, also while it is working.
        locks: False where the file system's locks do not work; the caller's lock is then the only one.

    Raises:
        RunError: the file is not a journal of this version.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, locks: bool = True) -> None:
        self.path = folder / JOURNAL_NAME
        if read_only and not self.path.is_file():
            what = f"is not a run: it has no {JOURNAL_NAME}" if folder.is_dir() else "does not exist; check the path"
            raise NotARunError(f"{folder} {what}")
        options = ["mode=ro" if read_only else "mode=rwc", *([] if locks else ["nolock=1"])]
        uri = f"file:{quote(os.fsencode(self.path.absolute()))}?{'&'.join(options)}"
        try:
            timeout = READER_WAITS_S if read_only else WRITER_WAITS_S
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)
            if not read_only:
                self._create()
            version = self.get("schema_version")
            self._has_measures = version != _WITHOUT_MEASURES or not read_only
        except sqlite3.Error as error:
            raise RunError(f"{self.path}: cannot be used as the run's journal ({error})") from error
        if version is None and not read_only:
            self.put("schema_version", SCHEMA_VERSION)
        elif version == _WITHOUT_MEASURES and not read_only:
            self._add_measures()
        elif version not in (SCHEMA_VERSION, _WITHOUT_MEASURES):
            raise RunError(f"{self.path}: journal version {version}, expected {SCHEMA_VERSION}; use `overwrite`")

    def _create(self) -> None:
        self._db.execute("PRAGMA journal_mode=DELETE")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS scans (scan TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, "
            "status TEXT NOT NULL, reasons TEXT NOT NULL, message TEXT NOT NULL, stations INTEGER NOT NULL, "
            "payload BLOB NOT NULL, digest TEXT NOT NULL, finished REAL NOT NULL, measures TEXT NOT NULL DEFAULT '{}')"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS inputs (position INTEGER PRIMARY KEY, scan TEXT NOT NULL UNIQUE, "
            "eid TEXT NOT NULL, instance INTEGER, array INTEGER, given TEXT NOT NULL, excluded INTEGER NOT NULL, "
            "mine INTEGER NOT NULL)"
        )

    def _add_measures(self) -> None:
        with self._transaction():
            self._db.execute("ALTER TABLE scans ADD COLUMN measures TEXT NOT NULL DEFAULT '{}'")
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(SCHEMA_VERSION),))

    def __enter__(self) -> Journal:
        """Open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit all changes or none."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise RunError(
                f"{self.path}: cannot be written ({error}); free space or restore access, then run the same command "
                "again; finished work is kept"
            ) from error

    # -- the run's own facts -------------------------------------------------------------------------------------------

    def get(self, key: str) -> Any:
        """A fact of the run, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, value: Any) -> None:
        """Store a fact of the run.

        Args:
            key: its name; an earlier value is replaced.
            value: JSON-serializable.
        """
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value, sort_keys=True)))

    def set_inputs(self, inputs: Iterable[JournalInput]) -> None:
        """Replace the input scans, in the order of the tables."""
        rows = [
            (k, i.key.scan, i.key.eid, i.key.instance, i.key.array, i.given, int(i.excluded), int(i.mine))
            for k, i in enumerate(inputs)
        ]
        with self._transaction():
            self._db.execute("DELETE FROM inputs")
            self._db.executemany("INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def inputs(self) -> Iterator[JournalInput]:
        """Input scans, including those of other shards, in the order of the tables."""
        for found in self._db.execute(f"SELECT {_INPUT} FROM inputs ORDER BY position"):
            yield _input(found)

    # -- results -------------------------------------------------------------------------------------------------------

    def record(self, rows: Iterable[JournalRow]) -> None:
        """Record finished scans in one transaction: all or none."""
        now = time.time()
        values = [
            (row.scan, r.fingerprint, r.status, r.codes, r.message, r.stations, row.payload, r.digest,
             row.finished or now, json.dumps(dict(r.measures), sort_keys=True))
            for row in rows
            for r in (row.result,)
        ]  # fmt: skip
        if not values:
            return
        with self._transaction():
            self._db.executemany(f"INSERT OR REPLACE INTO scans ({_ROW}) VALUES (?{', ?' * 9})", values)

    def forget(self, scans: Iterable[str]) -> None:
        """Remove finished scans, so that they are processed again."""
        with self._transaction():
            self._db.executemany("DELETE FROM scans WHERE scan = ?", [(s,) for s in scans])

    def finished(self) -> dict[str, ScanResult]:
        """Every finished scan, by name; without measures, which for a biobank would fill gigabytes."""
        return {row.scan: row.result for row in self._rows("", measures=False)}

    def row(self, scan: str) -> JournalRow | None:
        """One finished scan, or None."""
        return next(self._rows("WHERE scan = ?", scan), None)

    def results(self) -> Iterator[tuple[JournalInput, JournalRow | None]]:
        """This shard's scans with their results, None where unfinished or excluded, in the order of the tables."""
        columns = ", ".join(f"i.{c}" for c in _INPUT.split(", "))
        query = (
            f"SELECT {columns}, {self._columns('s.')} "
            "FROM inputs i LEFT JOIN scans s ON s.scan = i.scan AND i.excluded = 0 WHERE i.mine = 1 ORDER BY i.position"
        )
        for found in self._db.execute(query):
            yield _input(found[:7]), None if found[7] is None else self._row(found[7:])

    def measure_names(self) -> list[str]:
        """Names of all measures that a scan of the tables has, sorted.

        Raises:
            RunError: a record is damaged.
        """
        return sorted({name for measures in self._measures("s.measures != '{}'") for name in measures})

    def usable_measures(self) -> Iterator[Measures]:
        """Measures of this shard's usable scans, as they were recorded.

        Raises:
            RunError: a record is damaged.
        """
        return self._measures("s.status IN ('ok', 'flagged')")

    def _measures(self, condition: str) -> Iterator[Measures]:
        if self._has_measures:
            for (text,) in self._db.execute(
                "SELECT s.measures FROM inputs i JOIN scans s ON s.scan = i.scan "
                f"WHERE i.mine = 1 AND i.excluded = 0 AND {condition}"
            ):
                try:
                    yield json.loads(text)
                except ValueError as error:
                    raise self._damaged(error) from error

    def last_failures(self, count: int) -> list[JournalRow]:
        """The latest failures, newest first."""
        return list(self._rows("WHERE status = 'failed' ORDER BY finished DESC, scan LIMIT ?", count))

    def recent_times(self, count: int) -> list[float]:
        """Times at which the latest scans were recorded, newest first."""
        query = "SELECT finished FROM scans ORDER BY finished DESC LIMIT ?"
        return [float(t) for (t,) in self._db.execute(query, (count,))]

    def _columns(self, table: str = "", *, measures: bool = True) -> str:
        """Columns of a row; a journal without measures gives none."""
        names = [f"{table}{c}" for c in _ROW.split(", ")]
        return ", ".join(names if measures and self._has_measures else [*names[:-1], "'{}'"])

    def _rows(self, condition: str, *values: object, measures: bool = True) -> Iterator[JournalRow]:
        for found in self._db.execute(f"SELECT {self._columns(measures=measures)} FROM scans {condition}", values):
            yield self._row(found)

    def _row(self, found: tuple[Any, ...]) -> JournalRow:
        """A row as it was recorded, validated.

        Raises:
            RunError: it was written by a later version, or is damaged.
        """
        scan, mark, status, codes, message, stations, payload, digest, finished, measures = found
        try:
            plain = {
                "status": status, "reasons": [c for c in codes.split(";") if c], "message": message,
                "stations": stations, "measures": json.loads(measures), "fingerprint": mark, "digest": digest,
            }  # fmt: skip
            return JournalRow(scan=scan, result=from_plain(ScanResult, plain), payload=payload, finished=finished)
        except (ValueError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> RunError:
        return RunError(
            f"{self.path}: a record is damaged, or written by a later version of ukb-infer ({error}); update "
            "ukb-infer, or use `overwrite`"
        )


def _input(found: tuple[Any, ...]) -> JournalInput:
    scan, eid, instance, array, given, excluded, mine = found
    return JournalInput(key=ScanKey(eid, instance, array, scan), given=given, excluded=bool(excluded), mine=bool(mine))
