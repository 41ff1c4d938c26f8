"""The tables of a run: estimates, scans, dictionary (floor 4)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ukb_infer.errors import RunError, UsageError
from ukb_infer.records import ScanKey
from ukb_infer.storage import atomic_path, atomic_write_text

#: Version of the tables' layout, in ``run.json``.
SCHEMA_VERSION = 1
KEY_COLUMNS = ("eid", "instance", "array", "scan")
SCAN_COLUMNS = ("scan", "eid", "instance", "array", "status", "reasons", "message", "stations", "path")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Column:
    """A column of ``estimates.csv`` and its line in ``dictionary.csv``."""

    name: str
    meaning: str
    unit: str = ""
    field: str = ""
    target: str = ""


def safe_cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return "'" + text if text.startswith(_FORMULA) else text


def format_float32(value: float) -> str:
    """Shortest decimal that gives back the same float32; empty for NaN."""
    return "" if np.isnan(value) else str(np.float32(value))


def _key_cells(key: ScanKey) -> list[str]:
    return [
        key.eid,
        "" if key.instance is None else str(key.instance),
        "" if key.array is None else str(key.array),
        key.scan,
    ]


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, str]]) -> str:
    """A table as CSV text with line feeds."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def write_scans(out: Path, rows: Iterable[dict[str, str]]) -> Path:
    """Write ``scans.csv`` row by row."""
    path = out / "scans.csv"
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, SCAN_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_estimates(out: Path, columns: Sequence[Column], rows: Iterable[tuple[ScanKey, Sequence[str]]]) -> Path:
    """Write ``estimates.csv`` row by row, so that memory does not grow with the biobank."""
    path = out / "estimates.csv"
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow([*KEY_COLUMNS, *(c.name for c in columns)])
        for key, cells in rows:
            writer.writerow([*_key_cells(key)[:3], safe_cell(key.scan), *cells])
    return path


def write_dictionary(out: Path, columns: Sequence[Column]) -> Path:
    """Write ``dictionary.csv``: meaning, unit and field of every column of the estimates."""
    keys = [
        Column("eid", "UK Biobank participant ID as text; empty where the scan's name has none"),
        Column("instance", "visit: 2 first imaging visit, 3 repeat"),
        Column("array", "array index of the field"),
        Column("scan", "name of the input without extension"),
    ]
    rows = [
        {"column": c.name, "meaning": c.meaning, "unit": c.unit, "field": c.field, "target": c.target}
        for c in (*keys, *columns)
    ]
    path = out / "dictionary.csv"
    atomic_write_text(path, csv_text(("column", "meaning", "unit", "field", "target"), rows))
    return path


def write_run_json(out: Path, facts: dict[str, Any]) -> Path:
    """Write ``run.json``."""
    path = out / "run.json"
    try:
        _write_json(path, facts)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror}); free space and run the same command again: what is "
            "finished is kept in the journal"
        ) from error
    return path


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    text = json.dumps({"schema_version": SCHEMA_VERSION} | facts, indent=2, ensure_ascii=False)
    atomic_write_text(path, text + "\n")


def write_parquet(path: Path) -> Path:
    """Write a CSV table of the run again as Parquet.

    Raises:
        UsageError: pyarrow is not installed.
    """
    require_parquet()
    target = path.with_suffix(".parquet")
    frame = pd.read_csv(path, dtype=_DTYPES, keep_default_na=False, na_values={"instance": [""], "array": [""]})
    for name in frame.columns.difference(list(_DTYPES)):
        frame[name] = (
            pd.to_numeric(frame[name], errors="coerce").astype("float32")
            if path.stem == "estimates"
            else frame[name].astype(str)
        )
    with atomic_path(target) as partial:
        frame.to_parquet(partial, index=False)
    return target


def require_parquet() -> None:
    """Raise UsageError where pyarrow is missing."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError('--parquet needs pyarrow: pip install "ukb-infer[parquet]"') from error


_DTYPES: dict[str, Any] = {"eid": "string", "instance": "Int64", "array": "Int64", "scan": "string"}


def read_estimates(
    run: str | Path, *, long: bool = False, columns: Literal["target", "field"] = "target"
) -> pd.DataFrame:
    """Read the estimates of a run into pandas.

    Args:
        run: folder written by ``predict``.
        long: one row per scan and target: eid, instance, array, scan, target, unit, mean, sd, lower, upper, level.
        columns: ``target`` keeps the columns of ``estimates.csv``, indexed by eid (text) and instance; ``field`` gives
            one row an eid with the means in columns like ``est_p21002_i2`` (``est_age_i2`` for a target without field);
            of several arrays the highest counts.

    Returns:
        The frame.

    Raises:
        RunError: the folder has no estimates, or tables of another version.
        UsageError: ``long`` together with ``columns="field"``.
    """
    folder = Path(run)
    facts = _read_run_json(folder)
    if long and columns == "field":
        raise UsageError('read_estimates: long=True and columns="field" exclude each other')
    if columns not in ("target", "field"):
        raise UsageError(f'read_estimates: columns is {columns!r}, expected "target" or "field"')
    frame = pd.read_csv(folder / "estimates.csv", dtype=_DTYPES, keep_default_na=False, na_values=[""])
    frame["eid"] = frame["eid"].fillna("")
    if long:
        return _long(frame, facts)
    if columns == "field":
        return _by_field(frame, facts)
    return frame.set_index(["eid", "instance"]).sort_index()


def _read_run_json(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.is_file() or not (folder / "estimates.csv").is_file():
        raise RunError(f"{folder}: holds no estimates; expected a folder written by `ukb-infer predict`")
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: is damaged ({error}); run the same `ukb-infer predict` command again") from error
    if facts.get("schema_version") != SCHEMA_VERSION:
        raise RunError(f"{path}: tables of version {facts.get('schema_version')}, this version reads {SCHEMA_VERSION}")
    return facts


def _long(frame: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    name = facts["level_name"]
    parts = []
    for target in facts["targets"]:
        part = frame[list(KEY_COLUMNS)].copy()
        part["target"], part["unit"] = target["name"], target["unit"]
        for short, column in (("mean", "mean"), ("sd", "sd"), ("lower", f"{name}_lower"), ("upper", f"{name}_upper")):
            part[short] = frame[f"{target['name']}_{column}"]
        part["level"] = facts["level"]
        parts.append(part)
    if not parts:
        return frame[list(KEY_COLUMNS)]
    return pd.concat(parts, ignore_index=True).sort_values([*KEY_COLUMNS, "target"], ignore_index=True)


def _by_field(frame: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    names = {t["name"]: f"est_p{t['field']}" if t["field"] else f"est_{t['name']}" for t in facts["targets"]}
    latest = frame[frame["instance"].notna() & (frame["eid"] != "")]
    latest = latest.sort_values(["eid", "instance", "array"]).drop_duplicates(["eid", "instance"], keep="last")
    pieces = {}
    for instance, group in latest.groupby("instance"):
        group = group.set_index("eid")
        for target, name in names.items():
            pieces[f"{name}_i{instance}"] = group[f"{target}_mean"]
    result = pd.DataFrame(pieces)
    result.index = result.index.astype("string")
    result.index.name = "eid"
    return result.sort_index()
