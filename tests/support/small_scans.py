"""Small DICOM and NIfTI scans built slice by slice, so that a test can spoil exactly one thing."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from ukb_infer.errors import ScanError
from ukb_infer.records import Station, Stations

ROWS, COLS, SLICES = 20, 32, 9  # 32 is the space character: a parser that strips it reads no columns
SPACING = 5.0
STEP = SPACING * (SLICES - 3)  # stations share two slices
IN_PLANE = 2.23214293
CONTRASTS = ("in", "opp", "F", "W")
UID = "1.2.826.0.1.3680043.10.1337"

Edit = Callable[[list[Dataset]], object]


def picture(station: int, contrast: str, index: int) -> np.ndarray:
    """Values that tell where they belong: (ROWS, COLS) uint16."""
    rows, cols = np.mgrid[:ROWS, :COLS]
    base = {"in": 10, "opp": 20, "F": 300, "W": 700}[contrast]
    return (base + 40 * station + 3 * index + rows + 2 * cols).astype(np.uint16)


def make_slices(stations: int = 6, contrasts: Iterable[str] = CONTRASTS) -> list[Dataset]:
    """All slices of a scan in the order of the scanner."""
    slices = []
    for station in range(stations):
        for order, contrast in enumerate(CONTRASTS):
            if contrast in contrasts:
                number = 4 * station + order + 1
                slices += [make_slice(station, contrast, number, index) for index in range(SLICES)]
    return slices


def make_slice(station: int, contrast: str, number: int, index: int) -> Dataset:
    """One slice; ``station`` from 0."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = f"{UID}.1.{number}.{index + 1}"
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.ImageType = ["DERIVED", "PRIMARY", "DIXON"]
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = f"{UID}.1.{number}.{index + 1}"
    ds.SeriesTime = f"13{station:02d}27.142500"
    ds.Modality = "MR"
    ds.SeriesDescription = f"Dixon_BH_17s_{contrast}"
    ds.PatientID = "0000001"
    ds.SliceThickness = f"{SPACING:g}"
    ds.StudyInstanceUID = f"{UID}.1"
    ds.SeriesInstanceUID = f"{UID}.1.{number}"
    ds.SeriesNumber = number
    ds.InstanceNumber = index + 1
    ds.ImagePositionPatient = [-30.5, -22.25, 400.0 - STEP * station - SPACING * index]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = ROWS, COLS
    ds.PixelSpacing = [f"{IN_PLANE}", f"{IN_PLANE}"]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = picture(station, contrast, index).tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def encode(ds: Dataset, **how: object) -> bytes:
    """A DICOM file."""
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True, **how)
    return file.getvalue()


def write_zip(
    path: Path,
    slices: Iterable[Dataset | bytes],
    extra: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """A zip of slices, and of any other members."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for index, item in enumerate(slices):
            archive.writestr(f"{UID}.{index}.dcm", item if isinstance(item, bytes) else encode(item))
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return path


def select(slices: Iterable[Dataset], station: int, contrast: str) -> list[Dataset]:
    """Slices of one series; ``station`` from 1, as messages number them."""
    number = 4 * (station - 1) + CONTRASTS.index(contrast) + 1
    return [ds for ds in slices if ds.SeriesNumber == number]


def write_nifti_stations(
    folder: Path, stations: Iterable[Station], name: str = "station{}_{}.nii.gz", axes: str = "LPS"
) -> Path:
    """A folder of NIfTI stations, stored with array axes towards ``axes`` (nibabel's letters)."""
    folder.mkdir(parents=True, exist_ok=True)
    for station in stations:
        for letter, voxels in (("W", station.water), ("F", station.fat)):
            image = nibabel.Nifti1Image(np.asarray(voxels), station_affine(station))
            ornt = nibabel.orientations.ornt_transform(
                nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes)
            )
            nibabel.save(image.as_reoriented(ornt), folder / name.format(station.number, letter))
    return folder


def station_affine(station: Station) -> np.ndarray:
    """(4, 4), from (row, col, slice) to RAS mm: rows go back, columns go left, slices go down."""
    row, col, between = station.spacing_mm
    x, y, z = (float(value) for value in station.position_mm)
    return np.array([[0, -col, 0, -x], [-row, 0, 0, -y], [0, 0, -between, z], [0, 0, 0, 1]])


def same(one: Stations, other: Stations, tolerance_mm: float = 0.0) -> bool:
    """Whether two readings agree in every voxel, and in geometry to within a tolerance."""
    return len(one.stations) == len(other.stations) and all(
        np.array_equal(a.water, b.water)
        and np.array_equal(a.fat, b.fat)
        and np.abs(a.position_mm - b.position_mm).max() <= tolerance_mm
        and np.abs(a.spacing_mm - b.spacing_mm).max() <= tolerance_mm
        for a, b in zip(one.stations, other.stations, strict=True)
    )


def outcome(read: Callable[[], Stations]) -> str:
    """The reason code of a failure, or the flags of a success, for comparing two routes."""
    try:
        found = read()
    except ScanError as error:
        return f"{error.reason}: {error.message}"
    return ",".join(found.flags)
