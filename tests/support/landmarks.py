"""Tiny random phantoms with a landmark in either thigh, and where three programs say that the landmarks are."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import dcm2niix
import nibabel
import numpy as np
import SimpleITK

from ukb_infer.imaging.reading import stitch_path
from ukb_infer.imaging.volumes.export import write_stitch
from ukb_infer.phantom import write_scan
from ukb_infer.records import ReadingOptions, Station

#: The two landmarks: the contrast that shows it, its series of a station's four, and its side.
LANDMARKS = {"left": ("fat", 3), "right": ("water", 4)}
_SPACINGS = ("native", "native", "recipe", "2.5", "4", "7")


@dataclass(frozen=True)
class LandmarkPhantom:
    """A scan whose last station holds the thighs.

    Attributes:
        stations: head first.
        places: by side, LPS mm.
        spacing: to stitch with.
        route: format of the scan that is stitched.
    """

    stations: list[Station]
    places: dict[str, np.ndarray]
    spacing: str
    route: str


def make_phantom(seed: int) -> LandmarkPhantom:
    """Random matrices, spacings, offsets and overlaps; one landmark in either thigh, at another height and depth."""
    rng = np.random.default_rng(seed)
    in_plane = rng.uniform(4.0, 9.0, 2).astype(np.float32) if rng.random() < 0.5 else np.full(2, rng.uniform(4.0, 9.0))
    jitter, top = rng.uniform(-20.0, 20.0, 2), rng.uniform(-600.0, 600.0)
    geometry, z = [], top
    for _ in range(int(rng.integers(1, 5))):
        rows, cols, slices = (int(n) for n in rng.integers((30, 32, 12), (44, 46, 18)))
        between = float(np.round(rng.uniform(4.0, 9.0), 3))
        x, y = (float(-(n - 1) / 2 * mm + j) for n, mm, j in zip((cols, rows), in_plane[::-1], jitter, strict=True))
        geometry.append(((rows, cols, slices), np.array([x, y, z], np.float32), np.array([*in_plane, between])))
        z -= (slices - 1) * between - rng.uniform(1.0, 2.0) * between
    shape, first, spacing = geometry[-1]
    places = {}
    for side, sign in (("left", 1), ("right", -1)):
        x = sign * rng.uniform(0.2, 0.28) * shape[1] * spacing[1] + jitter[0]
        y = rng.uniform(-0.12, 0.12) * shape[0] * spacing[0] + jitter[1]
        places[side] = np.array([x, y, first[2] - rng.uniform(0.4, 0.65) * (shape[2] - 1) * spacing[2]])
    stations = [_draw(number, *parts, jitter, places, rng) for number, parts in enumerate(geometry, start=1)]
    return LandmarkPhantom(stations, places, str(rng.choice(_SPACINGS)), str(rng.choice(["zip", "dicom", "nifti"])))


def _draw(
    number: int, shape: tuple[int, int, int], first: np.ndarray, spacing: np.ndarray, centre: np.ndarray,
    places: dict[str, np.ndarray], rng: np.random.Generator,
) -> Station:  # fmt: skip
    """One station of two thighs with noise, and the landmarks where they reach into it."""
    rows, cols, slices = shape
    y = (first[1] + np.arange(rows) * spacing[0])[:, None, None]
    x = (first[0] + np.arange(cols) * spacing[1])[None, :, None]
    z = (first[2] - np.arange(slices) * spacing[2])[None, None, :]
    side = 0.25 * cols * spacing[1]
    thighs = np.hypot((np.abs(x - centre[0]) - side) / side, (y - centre[1]) / (0.3 * rows * spacing[0])) < 1
    voxels = {name: 20 + 180 * thighs + rng.normal(0, 4, shape) for name in ("water", "fat")}
    for which, (contrast, _) in LANDMARKS.items():
        distance = ((x - places[which][0]) ** 2, (y - places[which][1]) ** 2, (z - places[which][2]) ** 2)
        voxels[contrast] += 1500 * np.exp(-0.5 * sum(distance) / (1.1 * spacing.max()) ** 2)
    water, fat = (np.clip(v, 0, None).astype(np.uint16) for v in voxels.values())
    return Station(number, water, fat, first, spacing)


def centre_of(values: np.ndarray) -> np.ndarray:
    """Index of the bright spot of an image, in the order of its axes."""
    weight = np.clip(values - 0.5 * values.max(), 0, None)
    return np.array([(np.moveaxis(weight, axis, 0).sum(axis=(1, 2)) @ np.arange(n)) for axis, n in
                     enumerate(values.shape)]) / weight.sum()  # fmt: skip


def errors_of(seed: int, folder: Path) -> list[str]:
    """Stitch a phantom and compare its landmarks, as nibabel, SimpleITK and dcm2niix place them, with the truth.

    dcm2niix converts the DICOM station itself, by its own reading of the headers. A landmark is in its place where it
    is at most half the largest voxel of station and volume off, and on its side of the body.

    Args:
        seed: of the phantom.
        folder: for files, empty.

    Returns:
        A sentence for every disagreement; none where all is right.
    """
    phantom = make_phantom(seed)
    source = write_scan(phantom.stations, folder / "scan", f"phantom{seed}", phantom.route)  # type: ignore[arg-type]
    made = stitch_path(source, ReadingOptions(expected_stations=0), ("water", "fat"), phantom.spacing)
    paths = dict(zip(("water", "fat"), write_stitch(made, ("water", "fat"), folder / "out"), strict=True))
    stations = _convert(phantom, seed, folder)
    largest = max(*made.grid.spacing_mm, *phantom.stations[-1].spacing_mm)
    midline = -(phantom.places["left"][0] + phantom.places["right"][0]) / 2
    errors = []
    for side, (contrast, _) in LANDMARKS.items():
        image = nibabel.load(paths[contrast])
        if not (np.array_equal(image.get_sform(), image.get_qform()) and image.ndim == 3):
            errors.append(f"{seed}: sform and qform of {contrast} differ")
        found = {
            "nibabel": _world(image),
            "qform": nibabel.affines.apply_affine(image.get_qform(), centre_of(np.asarray(image.dataobj))),
            "SimpleITK": _world_of_itk(paths[contrast]),
            "dcm2niix": _world(nibabel.load(stations[side])),
        }
        truth = phantom.places[side] * (-1, -1, 1)
        for program, place in found.items():
            off = float(np.abs(place - truth).max())
            is_left = bool(place[0] < midline)
            if off > largest / 2 or is_left != (side == "left"):
                where = "left" if is_left else "right"
                errors.append(f"{seed}: {program} places the {side} landmark {off:.1f} mm off, on the {where}")
    return errors


def _world(image: nibabel.Nifti1Image) -> np.ndarray:
    """RAS mm of an image's bright spot."""
    return nibabel.affines.apply_affine(image.affine, centre_of(np.asarray(image.dataobj)))


def _world_of_itk(path: Path) -> np.ndarray:
    """The same by SimpleITK, whose arrays are (z, y, x) and whose coordinates are LPS."""
    image = SimpleITK.ReadImage(str(path))
    index = centre_of(SimpleITK.GetArrayFromImage(image))[::-1]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(tuple(map(float, index)))) * (-1, -1, 1)


def _convert(phantom: LandmarkPhantom, seed: int, folder: Path) -> dict[str, Path]:
    """The last station as dcm2niix converts it, by the side of the landmark that it shows."""
    scan = write_scan(phantom.stations, folder / "dicom", f"phantom{seed}", "dicom")
    out = folder / "converted"
    out.mkdir()
    command = [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "%s", "-o", str(out), str(scan)]
    subprocess.run(command, check=True, capture_output=True)
    last = 4 * (len(phantom.stations) - 1)
    return {side: out / f"{last + order}.nii" for side, (_, order) in LANDMARKS.items()}
