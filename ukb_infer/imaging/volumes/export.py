"""What leaves the program for others: fused bodies as NIfTI with sidecars, and projections as PNG."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer._version import __version__
from ukb_infer.imaging.recipe import Recipe, form_of
from ukb_infer.imaging.volumes.names import CONTRASTS, FUSED, UNCORRECTED, image_path, of_water_and_fat, sidecar_path
from ukb_infer.imaging.volumes.nifti import Storage, choose_storage, write_nifti
from ukb_infer.imaging.volumes.stitch import Stitch
from ukb_infer.storage import atomic_path, atomic_write_text

GENERATOR = {"Name": "ukb-infer", "Version": __version__}


def write_stitch(stitch: Stitch, contrasts: Sequence[str], folder: Path) -> list[Path]:
    """Write each contrast as a 3D NIfTI, then its sidecar; where it was kept, also what it was before it was corrected.

    Args:
        stitch: of the scan.
        contrasts: names in ``CONTRASTS``.
        folder: of the run.

    Returns:
        The images.
    """
    written = _write(stitch, contrasts, folder, FUSED)
    if stitch.uncorrected is not None:
        written += _write(
            stitch.uncorrected, [name for name in contrasts if of_water_and_fat(name)], folder, UNCORRECTED
        )
    return written


def _write(stitch: Stitch, contrasts: Sequence[str], folder: Path, processing: str) -> list[Path]:
    written = []
    for name in contrasts:
        image = image_path(stitch.key, name, processing)
        storage = choose_storage(stitch.largest(name))
        path, sidecar = folder / image, folder / sidecar_path(image)
        found = write_nifti(path, stitch.planes(name), stitch.grid.shape, stitch.grid.affine, storage)
        atomic_write_text(sidecar, json.dumps(describe(stitch, name, found), indent=2) + "\n")
        written.append(path)
    return written


def describe(stitch: Stitch, contrast: str, storage: Storage) -> dict[str, Any]:
    """What the sidecar of a contrast says; ``docs/stitch.md`` lists the keys.

    Args:
        stitch: of the scan.
        contrast: name in ``CONTRASTS``.
        storage: as written.
    """
    grid, meaning = stitch.grid, CONTRASTS[contrast]
    return {
        "Description": f"{meaning.meaning} of a neck-to-knee Dixon scan, its stations fused",
        "GeneratedBy": [GENERATOR],
        "ScanName": stitch.key.scan,
        "Contrast": contrast,
        "Units": meaning.units,
        "SpacingRule": stitch.rule,
        "SpacingMm": list(grid.spacing_mm),
        "Affine": grid.affine.tolist(),
        "Orientation": "RAS",
        "Storage": {
            "DataType": storage.dtype,
            "Slope": storage.slope,
            "LargestRounding": storage.largest_rounding,
            "Lossless": storage.largest_rounding == 0.0,
        },
        "Stations": _describe_stations(stitch),
        "Seams": _describe_seams(stitch, contrast),
        "Swaps": None if stitch.scan.swaps is None else [dict(swap) for swap in stitch.scan.swaps],
        "Flags": [flag.value for flag in stitch.scan.flags],
    }


def _describe_stations(stitch: Stitch) -> list[dict[str, Any]]:
    """Each station, head first: its own voxels, and the slices of the file that it gives something to."""
    grid = stitch.grid
    return [
        {
            "Number": station.number,
            "Shape": list(station.shape),
            "SpacingMm": [float(v) for v in station.spacing_mm],
            "FirstVoxelMm": [float(v) for v in station.position_mm],
            "Resampled": grid.boxes.needs_resampling(k),
            "Slices": _file_range(stitch, first, end),
        }
        for k, (station, (first, end)) in enumerate(zip(stitch.scan.stations, grid.kept, strict=True))
    ]


def _describe_seams(stitch: Stitch, contrast: str) -> list[dict[str, Any]]:
    """Each seam, head first: slices of the file, feet first, and the gains of these; a fraction has none."""
    grid = stitch.grid
    source = CONTRASTS[contrast].of_station
    fuser = stitch.fusers[source] if source else None
    stations = stitch.scan.stations
    return [
        {
            "Upper": stations[k].number,
            "Lower": stations[k + 1].number,
            "AcquiredOverlapMm": float(grid.boxes.end[k, 2] - grid.boxes.start[k + 1, 2]) * grid.spacing_mm[2],
            "Slices": _file_range(stitch, grid.kept[k + 1][0], grid.kept[k][1]),
            "UpperWeights": [float(w) for w in grid.fades[k][len(grid.fades[k]) - trim.overlap_below :][::-1]],
            "Gains": None if fuser is None else [float(g) for g in fuser.gains[k][::-1]],
            "LowerOverUpper": None if fuser is None else fuser.steps[k],
        }
        for k, trim in enumerate(grid.trims[:-1])
    ]


def _file_range(stitch: Stitch, first: int, end: int) -> list[int]:
    """[first, end) of the file for slices counted head first, as far as they were not cut off."""
    low, high = stitch.grid.file_slice(end - 1), stitch.grid.file_slice(first) + 1
    return [max(0, low), min(stitch.grid.shape[2], high)]


def dataset_description() -> str:
    """What a BIDS derivative dataset says of itself, JSON."""
    plain = {
        "Name": "Fused neck-to-knee Dixon MRI", "BIDSVersion": "1.9.0", "DatasetType": "derivative",
        "GeneratedBy": [GENERATOR],
    }  # fmt: skip
    return json.dumps(plain, indent=2) + "\n"


def save_png(image: NDArray[Any], path: Path, recipe: Recipe) -> None:
    """Write a projection as a grey picture, its channels side by side.

    Args:
        image: (channels, rows, cols).
        path: of the PNG, written atomically; its folder is created if missing.
        recipe: of the projection.

    Raises:
        ValueError: the array is not a projection of the recipe.
    """
    from PIL import Image

    if not recipe.fits(image.dtype, image.shape):
        raise ValueError(f"a projection of {recipe.name} is {recipe.form}, got {form_of(image.dtype, image.shape)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        Image.fromarray(np.concatenate(list(image), axis=1)).save(partial, format="PNG", optimize=False)
