"""DICOM, NIfTI, stations, fusion and projection: NumPy and numba only, no torch.

Names are imported on first use, so that looking at a path does not load pydicom, nibabel or numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.imaging.readers.projection_file import read_projection as read_projection
    from ukb_infer.imaging.reading import input_kind as input_kind
    from ukb_infer.imaging.reading import project_path as project_path
    from ukb_infer.imaging.reading import read_stations as read_stations
    from ukb_infer.imaging.reading import scan_name as scan_name
    from ukb_infer.imaging.reading import stitch_path as stitch_path
    from ukb_infer.imaging.recipes.mimir1.fast import project_stations as project_stations

_HOME = {
    "input_kind": "reading",
    "project_path": "reading",
    "read_projection": "readers.projection_file",
    "read_stations": "reading",
    "scan_name": "reading",
    "stitch_path": "reading",
    "project_stations": "recipes.mimir1.fast",
}
__all__ = sorted(_HOME)
__getattr__ = on_first_use(__name__, _HOME)
