"""The only writer of a run's tables, from the results in the journal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution import Journal, JournalInput
from ukb_infer.reasons import Reason
from ukb_infer.records import ScanKey, ScanResult
from ukb_infer.runs import files
from ukb_infer.runs.columns import Column, OutputSpec, estimate_cells, estimate_columns
from ukb_infer.storage import atomic_path, atomic_write_text

#: Version of the table layout, in ``run.json``.
SCHEMA_VERSION = 1
KEY_COLUMNS = ("eid", "instance", "array", "scan")
#: Columns of ``scans.csv``; every measure adds one.
SCAN_COLUMNS = ("scan", "eid", "instance", "array", "status", "reasons", "message", "stations", "path")
DICTIONARY_COLUMNS = ("column", "meaning", "unit", "field", "target")
#: pandas types of the key columns.
KEY_TYPES: dict[str, Any] = {"eid": "string", "instance": "Int64", "array": "Int64", "scan": "string"}
#: Scans per block of cells.
BLOCK = 1024
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_KEYS = (
    Column("eid", "UK Biobank participant ID as text; empty if the scan's name has none"),
    Column("instance", "visit: 2 first imaging visit, 3 repeat"),
    Column("array", "array index of the field"),
    Column("scan", "name of the input without extension"),
)
_KEPT = "finished scans are kept in the journal"


def safe_cell(text: str) -> str:
    """Escape text that a spreadsheet would read as a formula."""
    return "'" + text if text.startswith(_FORMULA) else text


def plain_cell(text: str) -> str:
    """Inverse of :func:`safe_cell`."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(_FORMULA) else text


def write_tables(folder: Path, journal: Journal) -> list[Path]:
    """Write the tables of all finished scans, each atomically.

    Args:
        folder: the run's own, or another for an export.
        journal: of the run.

    Returns:
        The files.

    Raises:
        RunError: they cannot be written.
    """
    plain = journal.get("output")
    try:
        if plain is None:  # projections have no estimates
            return [_write_scans(folder, journal)]
        spec = OutputSpec.from_journal(plain)
        columns = estimate_columns(spec)
        written = [
            _write_estimates(folder, columns, _estimate_rows(journal, spec)),
            _write_scans(folder, journal),
            _write_dictionary(folder, columns),
        ]
        if spec.parquet:
            written += [
                _write_parquet(folder / files.ESTIMATES_PARQUET, written[0]),
                _write_parquet(folder / files.SCANS_PARQUET, written[1]),
            ]
    except OSError as error:
        raise RunError(
            f"{folder}: the tables cannot be written ({error.strerror}); free space or restore access and run the same "
            f"command again: {_KEPT}"
        ) from error
    return written


def write_facts(out: Path, facts: Mapping[str, Any]) -> Path:
    """Write ``run.json``.

    Args:
        out: folder of the run.
        facts: its content.

    Raises:
        RunError: it cannot be written.
    """
    path = out / files.FACTS
    text = json.dumps({"schema_version": SCHEMA_VERSION} | dict(facts), indent=2, ensure_ascii=False)
    try:
        atomic_write_text(path, text + "\n")
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror}); free space and run the same command again: {_KEPT}"
        ) from error
    return path


def write_missing(out: Path, scans: Iterable[str]) -> Path:
    """Write the list of scans without a result.

    Args:
        out: folder of the run.
        scans: their names.
    """
    atomic_write_text(out / files.MISSING, "scan\n" + "".join(f"{safe_cell(scan)}\n" for scan in scans))
    return out / files.MISSING


# -- scans -------------------------------------------------------------------------------------------------------------


def _write_scans(out: Path, journal: Journal) -> Path:
    path, measures = out / files.SCANS, journal.measure_names()
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, (*SCAN_COLUMNS, *measures), restval="", lineterminator="\n")
        writer.writeheader()
        for item, row in journal.results():
            if item.excluded:
                writer.writerow(_scan_cells(item, ScanResult(status="excluded", reasons=(Reason.EXCLUDED,))))
            elif row is not None:
                writer.writerow(_scan_cells(item, row.result))
    return path


def _scan_cells(item: JournalInput, result: ScanResult) -> dict[str, str]:
    return {
        **dict(zip(KEY_COLUMNS, _key_cells(item.key), strict=True)),
        "status": result.status,
        "reasons": result.codes,
        "message": result.message,
        "stations": str(result.stations) if result.stations else "",
        "path": safe_cell(item.given),
        **{name: repr(float(value)) for name, value in result.measures.items()},
    }


def _key_cells(key: ScanKey) -> list[str]:
    numbers = ("" if number is None else str(number) for number in (key.instance, key.array))
    return [key.eid, *numbers, safe_cell(key.scan)]


# -- estimates ---------------------------------------------------------------------------------------------------------


def _write_estimates(out: Path, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Path:
    """Write row by row, so that memory stays flat."""
    path = out / files.ESTIMATES
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow([*KEY_COLUMNS, *(c.name for c in columns)])
        writer.writerows(rows)
    return path


def _estimate_rows(journal: Journal, spec: OutputSpec) -> Iterator[list[str]]:
    """Cells of every usable scan, in blocks."""
    finished = ((item, row) for item, row in journal.results() if row is not None and row.payload)
    while block := list(islice(finished, BLOCK)):
        values = np.stack([np.frombuffer(row.payload, np.float64) for _, row in block])
        for (item, _), cells in zip(block, estimate_cells(spec, values), strict=True):
            yield [*_key_cells(item.key), *cells]


def _write_dictionary(out: Path, columns: Sequence[Column]) -> Path:
    """Meaning, unit and field of every column of the estimates."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(DICTIONARY_COLUMNS)
    writer.writerows((c.name, c.meaning, c.unit, c.field, c.target) for c in (*_KEYS, *columns))
    atomic_write_text(out / files.DICTIONARY, buffer.getvalue())
    return out / files.DICTIONARY


# -- Parquet -----------------------------------------------------------------------------------------------------------


def _write_parquet(path: Path, table: Path) -> Path:
    """Convert a CSV table to Parquet: text, except for numbers in the key, estimates and measures."""
    require_parquet()
    import pandas as pd

    frame = pd.read_csv(table, dtype=KEY_TYPES, keep_default_na=False, na_values={"instance": [""], "array": [""]})
    for name in frame.columns.difference(list(KEY_TYPES)):
        frame[name] = (
            frame[name].astype(str)
            if name in SCAN_COLUMNS
            else pd.to_numeric(frame[name], errors="coerce").astype("float32")
        )
    with atomic_path(path) as partial:
        frame.to_parquet(partial, index=False)
    return path


def require_parquet() -> None:
    """Check that Parquet can be written.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError('needs pyarrow; pip install "ukb-infer[parquet]"', field="parquet") from error
