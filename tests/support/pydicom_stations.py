"""Stations read plainly with pydicom, independent of the package's own readers."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from ukb_infer.records import Station

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
REFERENCE_SCANS = sorted(path.stem for path in REFERENCE.glob("*.zip"))


def read_plainly(path: Path) -> list[Station]:
    """Water and fat of a well-formed 20201 zip, stations head first."""
    series: dict[int, list[Any]] = defaultdict(list)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".dcm"):
                data = pydicom.dcmread(BytesIO(archive.read(name)))
                series[int(data.SeriesNumber)].append(data)
    contrasts: dict[str, dict[int, tuple[Any, ...]]] = {"W": {}, "F": {}}
    for number, slices in series.items():
        contrast = slices[0].SeriesDescription.rsplit("_", 1)[-1]
        if contrast in contrasts:
            contrasts[contrast][(number - 1) // 4] = _stack(slices)
    stations = []
    for k, (voxels, position, spacing) in sorted(contrasts["W"].items(), key=lambda item: -item[1][1][2]):
        stations.append(Station(len(stations) + 1, voxels, contrasts["F"][k][0], position, spacing))
    return stations


def _stack(slices: list[Any]) -> tuple[Any, ...]:
    slices = sorted(slices, key=lambda d: -float(d.ImagePositionPatient[2]))
    positions = np.array([d.ImagePositionPatient for d in slices], np.float32)
    z = positions[:, 2].astype(np.float64)
    in_plane = np.array(slices[0].PixelSpacing, np.float32).astype(np.float64)
    spacing = np.array([*in_plane, (z.max() - z.min()) / (len(slices) - 1)])
    return np.stack([d.pixel_array for d in slices], -1), positions.max(axis=0), spacing
