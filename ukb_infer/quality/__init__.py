"""Image quality: measures of a scan's stations, and limits that turn them into flags; see ``docs/quality.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.quality.registry import MEASURES, Measure, measure_stations

_HOMES = {"MEASURES": "registry", "Measure": "registry", "measure_stations": "registry"}
__all__ = ["MEASURES", "Measure", "measure_stations"]
__getattr__ = on_first_use(__name__, _HOMES)
