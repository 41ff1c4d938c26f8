"""DICOM, NIfTI, stations, fusion and projection: NumPy and numba only, no torch.

Names are imported on first use, so that inspecting a path does not load pydicom, nibabel or numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.imaging.readers.projection_file import read_projection
    from ukb_infer.imaging.reading import input_kind, project_path, read_stations, scan_name, stitch_path
    from ukb_infer.imaging.recipes.mimir1.fast import project_stations

__getattr__ = on_first_use(
    __name__,
    {
        "readers.projection_file": "read_projection",
        "reading": "input_kind project_path read_stations scan_name stitch_path",
        "recipes.mimir1.fast": "project_stations",
    },
)
