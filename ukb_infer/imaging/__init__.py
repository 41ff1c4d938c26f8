"""DICOM, NIfTI, stations, fusion and projection (floor 2): NumPy and numba only, no torch.

Names are imported on first use, so that looking at a path does not load pydicom, nibabel or numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ukb_infer.imaging.projection import project_stations as project_stations
    from ukb_infer.imaging.reading import input_kind as input_kind
    from ukb_infer.imaging.reading import project_path as project_path
    from ukb_infer.imaging.reading import read_projection as read_projection
    from ukb_infer.imaging.reading import read_stations as read_stations
    from ukb_infer.imaging.reading import scan_name as scan_name

_HOME = {
    "input_kind": "reading",
    "project_path": "reading",
    "read_projection": "reading",
    "read_stations": "reading",
    "scan_name": "reading",
    "project_stations": "projection",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
