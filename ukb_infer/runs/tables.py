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
from ukb_infer.quality.registry import describe, in_order, is_text
from ukb_infer.records import ScanKey, ScanResult
from ukb_infer.runs import files
from ukb_infer.runs.columns import Column, OutputSpec, estimate_cells, estimate_columns
from ukb_infer.runs.quality import JudgedScan, judged_scans, run_judge
from ukb_infer.storage import atomic_path, atomic_write_text
from ukb_infer.targets import TARGETS

#: Version of the table layout, in ``run.json``.
SCHEMA_VERSION = 1
KEY_COLUMNS = ("eid", "instance", "array", "scan")
#: Columns of ``scans.csv``.
SCAN_COLUMNS = ("scan", "eid", "instance", "array", "status", "reasons", "message", "stations", "path")
#: Columns of a scan's quality before its measures: the gravest level of its flags, their codes, what they affect.
QUALITY_COLUMNS = ("level", "flags", "affected")
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
_QUALITY = (
    Column("level", "gravest level of the scan's quality flags: unusable, targets (some of them affected) or note"),
    Column("flags", "codes of its quality flags, joined by ;"),
    Column("affected", "targets that they affect, joined by ;"),
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
    spec = None if plain is None else OutputSpec.from_journal(plain)
    measures, judge = in_order(journal.measure_names()), run_judge(journal)
    try:
        written = [_write_scans(folder, judged_scans(journal, judge))]
        if measures:
            written.append(_write_quality(folder, judged_scans(journal, judge), measures, spec))
        columns = _measure_columns(measures)
        if spec is not None:  # projections have no estimates
            estimates = estimate_columns(spec)
            written.insert(0, _write_estimates(folder, estimates, _estimate_rows(judged_scans(journal, judge), spec)))
            columns = [*estimates, *columns]
        if columns:
            written.append(_write_dictionary(folder, columns))
        if spec is not None and spec.parquet:
            written += [_write_parquet(folder, table) for table in written if table.name in files.PARQUET]
        if folder == journal.path.parent:  # what an earlier call wrote and this one does not would be outdated
            others = (files.QUALITY, *files.PARQUET.values(), *files.DERIVED)
            for path in {folder / name for name in others}.difference(written):
                path.unlink(missing_ok=True)
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


def _write_scans(out: Path, scans: Iterable[JudgedScan]) -> Path:
    rows = (_scan_cells(scan.item, scan.result) for scan in scans)
    return _write_table(out / files.SCANS, SCAN_COLUMNS, rows)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> Path:
    """Row by row, so that memory does not grow with the biobank."""
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _scan_cells(item: JournalInput, result: ScanResult) -> dict[str, str]:
    return {
        **dict(zip(KEY_COLUMNS, _key_cells(item.key), strict=True)),
        "status": result.status,
        "reasons": result.codes,
        "message": result.message,
        "stations": str(result.stations) if result.stations else "",
        "path": safe_cell(item.given),
    }


def _key_cells(key: ScanKey) -> list[str]:
    numbers = ("" if number is None else str(number) for number in (key.instance, key.array))
    return [key.eid, *numbers, safe_cell(key.scan)]


# -- quality -----------------------------------------------------------------------------------------------------------


def _write_quality(out: Path, scans: Iterable[JudgedScan], measures: Sequence[str], spec: OutputSpec | None) -> Path:
    """One row a scan. Flags may affect the targets of the run, or all that are known where it has none."""
    targets = list(TARGETS) if spec is None else [target.name for target in spec.targets]
    rows = (_quality_cells(scan, targets) for scan in scans)
    return _write_table(out / files.QUALITY, (*KEY_COLUMNS, *QUALITY_COLUMNS, *measures), rows)


def _quality_cells(scan: JudgedScan, targets: Sequence[str]) -> dict[str, str]:
    limits = [flag.limit for flag in scan.flags]
    values = (scan.level, ";".join(f.reason.value for f in scan.flags))
    affected = ";".join(name for name in targets if any(limit.touches(name) for limit in limits))
    return {
        **dict(zip(KEY_COLUMNS, _key_cells(scan.item.key), strict=True)),
        **dict(zip(QUALITY_COLUMNS, (*values, affected), strict=True)),
        **{k: safe_cell(v) if isinstance(v, str) else repr(float(v)) for k, v in scan.result.measures.items()},
    }


def _measure_columns(measures: Sequence[str]) -> list[Column]:
    """Lines of the dictionary of the table of quality."""
    return [*_QUALITY, *(Column(name, *describe(name)) for name in measures)] if measures else []


# -- estimates ---------------------------------------------------------------------------------------------------------


def _write_estimates(out: Path, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Path:
    """Write row by row, so that memory stays flat."""
    path = out / files.ESTIMATES
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow([*KEY_COLUMNS, *(c.name for c in columns)])
        writer.writerows(rows)
    return path


def _estimate_rows(scans: Iterable[JudgedScan], spec: OutputSpec) -> Iterator[list[str]]:
    """Cells of every usable scan, in blocks."""
    finished = (scan for scan in scans if scan.payload)
    while block := list(islice(finished, BLOCK)):
        values = np.stack([np.frombuffer(scan.payload, np.float64) for scan in block])
        for scan, cells in zip(block, estimate_cells(spec, values), strict=True):
            yield [*_key_cells(scan.item.key), *cells]


def _write_dictionary(out: Path, columns: Sequence[Column]) -> Path:
    """Meaning, unit and field of every column of the estimates and of quality."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(DICTIONARY_COLUMNS)
    writer.writerows((c.name, c.meaning, c.unit, c.field, c.target) for c in (*_KEYS, *columns))
    atomic_write_text(out / files.DICTIONARY, buffer.getvalue())
    return out / files.DICTIONARY


# -- Parquet -----------------------------------------------------------------------------------------------------------


def _write_parquet(folder: Path, table: Path) -> Path:
    """Convert a CSV table to Parquet: text, except for numbers in the key, estimates and measures."""
    require_parquet()
    import pandas as pd

    with table.open(newline="", encoding="utf-8") as handle:
        header = next(csv.reader(handle))
    names = (n for n in header if n in SCAN_COLUMNS + QUALITY_COLUMNS or is_text(n) or n.endswith("_set"))
    words = dict.fromkeys(names, "string")  # a version of 1.10 is not 1.1, nor is the set 0;1 a number
    types = words | KEY_TYPES
    frame = pd.read_csv(table, dtype=types, keep_default_na=False, na_values={"instance": [""], "array": [""]})
    for name in frame.columns.difference(list(KEY_TYPES)):
        numbers = None if name in words else pd.to_numeric(frame[name].replace("", "nan"), errors="coerce")
        if numbers is not None and table.name == files.QUALITY and (numbers.isna() & (frame[name] != "")).any():
            numbers = None  # a measure in words that the registry does not know
        frame[name] = frame[name].astype(str) if numbers is None else numbers.astype("float32")
    path = folder / files.PARQUET[table.name]
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
