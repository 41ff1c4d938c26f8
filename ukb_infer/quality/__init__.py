"""Image quality: measures of a scan's stations, and limits that turn them into flags; see ``docs/quality.md``.

Names are imported on first use: tables are read and written without numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.quality.registry import MEASURES, Measure, find_and_treat, inspect_scan, measure_stations

__getattr__ = on_first_use(__name__, {"registry": "MEASURES Measure find_and_treat inspect_scan measure_stations"})
