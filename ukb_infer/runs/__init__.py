"""Everything about a run folder: its files, the one writer and the one reader of its tables.

Names are imported on first use: how far a run is can be told without pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.runs.read import Run, RunScan, read_run, read_scans

__getattr__ = on_first_use(__name__, {"read": "Run RunScan read_run read_scans"})
