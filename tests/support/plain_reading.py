"""Small stations of noise, and phantom files read back without our reader: zipfile and pydicom alone."""

from __future__ import annotations

import collections
import io
import zipfile
from pathlib import Path

import numpy as np
import pydicom

from ukb_infer.records import Station

CONTRASTS = ("in", "opp", "F", "W")
ROWS, COLS, SLICES, STEP_MM = 14, 12, 10, 4.5
OVERLAP_MM = 9.0


def noise_stations(count: int = 6) -> tuple[Station, ...]:
    """Stations of noise over the whole uint16 range, overlapping by 9 mm; the first has other rows and spacing."""
    rng = np.random.default_rng(5)
    top, stations = 180.37, []
    for k in range(count):
        shape = (ROWS + (4 if k == 0 else 0), COLS, SLICES)
        step = 3.0 if k == 0 else STEP_MM
        water, fat = (rng.integers(0, 65536, shape, dtype=np.uint16) for _ in range(2))
        position = np.array([-101.7 / 3, -99.1 / 7, top], np.float32)
        stations.append(Station(k + 1, water, fat, position, np.array([2.23214293, 2.23214293, step])))
        top -= SLICES * step - OVERLAP_MM
    return tuple(stations)


def members(path: Path) -> dict[str, bytes]:
    """Files of a zip or of a folder, by name."""
    if path.is_dir():
        return {file.name: file.read_bytes() for file in sorted(path.iterdir())}
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def datasets(path: Path, *, force: bool = False) -> list[pydicom.Dataset]:
    """Every slice as pydicom reads it, in the order written."""
    return [
        pydicom.dcmread(io.BytesIO(data), force=force) for name, data in members(path).items() if name.endswith(".dcm")
    ]


def by_series(slices: list[pydicom.Dataset]) -> dict[int, list[pydicom.Dataset]]:
    """Slices by SeriesNumber, head first."""
    found = collections.defaultdict(list)
    for ds in slices:
        found[int(ds.SeriesNumber)].append(ds)
    for series in found.values():
        series.sort(key=lambda ds: -float(ds.ImagePositionPatient[2]))
    return dict(found)


def of(series: dict[int, list[pydicom.Dataset]], station: int, contrast: str) -> list[pydicom.Dataset]:
    """Slices of one contrast of a station, from 1; empty where there are none."""
    return series.get(4 * (station - 1) + CONTRASTS.index(contrast) + 1, [])


def z_mm(slices: list[pydicom.Dataset]) -> np.ndarray:
    """z of every slice, mm, float64."""
    return np.array([float(ds.ImagePositionPatient[2]) for ds in slices])


def volume(slices: list[pydicom.Dataset]) -> np.ndarray:
    """Stored pixels (rows, cols, slices)."""
    return np.stack([ds.pixel_array for ds in slices], axis=-1)
