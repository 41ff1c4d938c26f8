"""Tables with one row per scan or participant that are derived from estimates."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ukb_infer.errors import RunError, UsageError
from ukb_infer.storage import atomic_path

_SUFFIXES = (".csv", ".tsv", ".parquet")


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """Write CSV, TSV or Parquet, by the file's ending; returns the path.

    Args:
        path: of the file; its folder is made.
        table: rows.

    Raises:
        UsageError: another ending.
        RunError: it cannot be written.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(field="out", got=str(path), expected=f"a file that ends in {', '.join(_SUFFIXES)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            if path.suffix.lower() == ".parquet":
                table.to_parquet(partial, index=False)
            else:
                separator = "\t" if path.suffix.lower() == ".tsv" else ","
                table.to_csv(partial, sep=separator, index=False, float_format="%.6g", lineterminator="\n")
    except ImportError as error:
        raise UsageError(f'`out` {path}: Parquet needs pyarrow; pip install "ukb-infer[parquet]"') from error
    except OSError as error:
        raise RunError(f"`out` {path} cannot be written ({error.strerror}); choose another") from error
    return path
