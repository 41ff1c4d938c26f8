"""Write scans as UK Biobank's zips, folders of DICOM slices, or folders of NIfTI stations (floor 1)."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pydicom
from isal import isal_zlib
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from ukb_infer.errors import Reason, UsageError
from ukb_infer.phantom.plan import ScanPlan, SeriesPlan, make_plan
from ukb_infer.records import ScanKey, Station

Format = Literal["zip", "dicom", "nifti"]

_ROOT = "1.2.826.0.1.3680043.10.1337"
_ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
#: A private transfer syntax that no decoder knows.
_UNKNOWN_SYNTAX = f"{_ROOT}.99.1"
_UID_MARK, _POSITION_MARK, _NUMBER_MARK = (
    "9.9.9.9.9.9.9.9",
    "0000000000000.11\\0000000000000.22\\0000000000000.33",
    "00000077",
)
#: Date in every file and table: fixed, so that the same phantom gives the same bytes.
_DATE, _MANIFEST_DATE = "20161120", "Nov 20, 2016"
_ZIP_TIME = (2016, 11, 20, 10, 0, 0)


def _uid(plan: ScanPlan, series: SeriesPlan, number: int = 0) -> str:
    """UID of a slice (number from 1) or of a series (0); all of one length within a series."""
    key = ScanKey.from_name(plan.scan)
    digits = "".join(c for c in plan.scan if c.isdigit())[:20].lstrip("0") or "1"
    owner = f"{int(key.eid or 0) + 10**7}.{key.instance or 0}" if key.eid else f"8{digits}"
    return f"{_ROOT}.{owner}.{series.study}.{100 + series.number}" + (f".{1000 + number}" if number else "")


def _dataset(plan: ScanPlan, series: SeriesPlan) -> Dataset:
    """Elements that all slices of a series share, with marks where slices differ."""
    rows, cols = series.slices[0].pixels.shape
    ds = Dataset()
    ds.SOPClassUID = _ENHANCED_MR if series.encoding == "multiframe" else MRImageStorage
    ds.SOPInstanceUID = _UID_MARK
    ds.ImageType = [
        "DERIVED",
        "PRIMARY",
        "M",
        "DIXON",
        {"F": "FAT", "W": "WATER"}.get(series.contrast, series.contrast.upper()),
    ]
    ds.StudyDate = ds.SeriesDate = _DATE
    ds.StudyTime, ds.SeriesTime = "100000", series.time
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "MR", "SYNTHETIC", "ukb_infer phantom"
    ds.StudyDescription, ds.SeriesDescription = "Synthetic_Imaging", series.description
    ds.PatientName = ds.PatientID = ScanKey.from_name(plan.scan).eid or plan.scan
    ds.SliceThickness, ds.SpacingBetweenSlices = str(series.slice_spacing_mm), str(series.slice_spacing_mm)
    ds.StudyInstanceUID = _uid(plan, series).rsplit(".", 1)[0]
    ds.SeriesInstanceUID = _uid(plan, series)
    ds.SeriesNumber, ds.InstanceNumber = series.number, _NUMBER_MARK
    ds.ImagePositionPatient = _POSITION_MARK.split("\\")
    ds.ImageOrientationPatient = [f"{v:.8g}" for v in series.orientation]
    ds.FrameOfReferenceUID = f"{ds.StudyInstanceUID}.1"
    ds.ImageComments = "Synthetic phantom made by a computer; no person was scanned"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.PixelSpacing = rows, cols, list(series.pixel_spacing_mm)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    for keyword, value in series.extra.items():
        setattr(ds, keyword, value)
    return ds


def _syntax(series: SeriesPlan) -> str:
    return {
        "implicit": str(ImplicitVRLittleEndian),
        "undecodable": _UNKNOWN_SYNTAX,
    }.get(series.encoding, str(ExplicitVRLittleEndian))


def _template(plan: ScanPlan, series: SeriesPlan) -> bytes:
    """Bytes of a slice up to its pixel data's value, with marks."""
    ds = _dataset(plan, series)
    implicit = series.encoding in ("implicit", "mislabelled")
    ds.PixelData = bytes(2 * ds.Rows * ds.Columns)
    ds["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = _UID_MARK
    ds.file_meta.TransferSyntaxUID = _syntax(series)
    ds.file_meta.ImplementationClassUID = f"{_ROOT}.1"
    body = io.BytesIO()
    pydicom.dcmwrite(body, _without_meta(ds), implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    if series.encoding != "no_preamble":
        pydicom.filewriter.write_file_meta_info(buffer, ds.file_meta, enforce_standard=True)
        head = bytes(128) + b"DICM" + buffer.getvalue()
    else:
        head = b""
    whole = head + body.getvalue()
    return whole[: len(whole) - 2 * ds.Rows * ds.Columns]


def _without_meta(ds: Dataset) -> Dataset:
    copy = Dataset()
    copy.update(ds)
    return copy


def _fit(text: str, length: int) -> bytes:
    """Text padded on the left to a length (leading spaces are allowed in DS and IS)."""
    return text.rjust(length).encode("ascii")


def _slice_files(plan: ScanPlan, series: SeriesPlan) -> Iterator[tuple[str, bytes]]:
    """File name and bytes of every slice."""
    template = _template(plan, series)
    uid_mark = _UID_MARK.encode() + b"\0" if len(_UID_MARK) % 2 else _UID_MARK.encode()
    for number, item in enumerate(series.slices, start=1):
        uid = _uid(plan, series, number)
        position = b"\\".join(_fit(_decimal(v), 16) for v in item.position_mm)
        data = template.replace(_POSITION_MARK.encode(), position).replace(_NUMBER_MARK.encode(), _fit(str(number), 8))
        data = _replace_uid(data, uid_mark, uid, implicit=series.encoding in ("implicit", "mislabelled"))
        data += np.ascontiguousarray(item.pixels, "<u2").tobytes()
        if series.encoding == "rle":
            data = _compress(data)
        elif series.encoding == "garbage":
            data = data[: int(0.6 * len(data))]
        yield f"{uid}.dcm", data


def _replace_uid(data: bytes, mark: bytes, uid: str, *, implicit: bool) -> bytes:
    """Put the slice's UID in place of both marks, fixing the lengths before them."""
    value = uid.encode() + (b"\0" if len(uid) % 2 else b"")
    meta_old, meta_new = (
        b"UI" + len(mark).to_bytes(2, "little") + mark,
        b"UI" + len(value).to_bytes(2, "little") + value,
    )
    grown = data.count(meta_old) and data[:132].endswith(b"DICM")
    data = data.replace(meta_old, meta_new)
    if implicit:
        old = len(mark).to_bytes(4, "little") + mark
        data = data.replace(old, len(value).to_bytes(4, "little") + value)
    if grown:
        length = int.from_bytes(data[140:144], "little") + len(value) - len(mark)
        data = data[:140] + length.to_bytes(4, "little") + data[144:]
    return data


def _decimal(value: float) -> str:
    """Decimal string of a position, at most 16 characters; float32 values come back exactly."""
    if float(np.float32(value)) == value:
        return str(np.float32(value))
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _compress(data: bytes) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def _manifest(plan: ScanPlan) -> tuple[str, bytes] | None:
    """Name and bytes of the manifest; dates with a comma stand unquoted, as in UK Biobank's."""
    if plan.manifest == "missing":
        return None
    header = (
        "filename,patientid,patientname,studyid,studydate,studydescription,seriesnumber,series discription,"
        "instancenumber,modality,manufacturer"
    )
    owner = ScanKey.from_name(plan.scan).eid or plan.scan
    lines = [header]
    for series in plan.series:
        said = series.description
        if plan.manifest == "wrong":
            said = said.rsplit("_", 1)[0] + {"in": "_W", "opp": "_F", "F": "_opp", "W": "_in"}[series.contrast]
        for number in range(1, len(series.slices) + 1):
            lines.append(
                f"{_uid(plan, series, number)}.dcm,{owner},{owner},1,{_MANIFEST_DATE},Synthetic_Imaging,"
                f"{series.number},{said},{number},MR,SYNTHETIC"
            )
    end = "\r\n" if plan.manifest == "crlf" else "\n"
    text = end.join(lines) + ("" if plan.manifest == "no_newline" else end)
    return ("manifest.cvs" if plan.manifest == "misspelled" else "manifest.csv"), text.encode()


def _members(plan: ScanPlan) -> Iterator[tuple[str, bytes]]:
    for series in plan.series:
        yield from _slice_files(plan, series)
    manifest = _manifest(plan)
    if manifest is not None:
        yield manifest


class _IsalCompressor:
    """Deflate by isal, for zipfile: several times faster than zlib at its lowest level."""

    def __init__(self) -> None:
        self._compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -15)

    def compress(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        return self._compressor.flush()


def _write_zip(plan: ScanPlan, path: Path) -> None:
    """Write a zip whole or not at all; the same plan gives the same bytes."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, data in _members(plan):
                info = zipfile.ZipInfo(name, _ZIP_TIME)
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w") as member:
                    member._compressor = _IsalCompressor()  # type: ignore[attr-defined]
                    member.write(data)
        if plan.container == "truncated":
            data = partial.read_bytes()
            partial.write_bytes(data[: int(0.6 * len(data))])
        elif plan.container == "encrypted":
            _mark_encrypted(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _mark_encrypted(path: Path) -> None:
    """Set the encryption bit of every member, in both its headers."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 4)
    path.write_bytes(bytes(data))


def _write_dicom_folder(plan: ScanPlan, folder: Path) -> None:
    for name, data in _members(plan):
        (folder / name).write_bytes(data)


def station_affine(station: Station) -> np.ndarray:
    """RAS affine of a station's array turned to (x to the right, y to the front, z up): (4, 4) float64."""
    rows, cols, slices = station.shape
    row, col, step = (float(v) for v in station.spacing_mm)
    x, y, z = (float(v) for v in station.position_mm)
    affine = np.diag([col, row, step, 1.0])
    affine[:3, 3] = (-(x + (cols - 1) * col), -(y + (rows - 1) * row), z - (slices - 1) * step)
    return affine


def _write_nifti_folder(stations: Sequence[Station], folder: Path, anomaly: Reason | None) -> None:
    for station in stations:
        for contrast, volume in (("W", station.water), ("F", station.fat)):
            data = np.ascontiguousarray(volume.transpose(1, 0, 2)[::-1, ::-1, ::-1])
            affine = station_affine(station)
            first = station.number == 1
            if anomaly is Reason.NON_FINITE_VALUES and first:
                data = data.astype(np.float32)
                data[data.shape[0] // 2, data.shape[1] // 2] = np.nan
            if anomaly is Reason.OBLIQUE:
                angle = np.deg2rad(8.0)
                turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
                affine[:3, :3] = turn @ affine[:3, :3]
            image = nib.Nifti1Image(data, affine)
            code = 0 if anomaly is Reason.MISSING_AFFINE else 1
            image.set_sform(affine if code else None, code)
            image.set_qform(affine if code else None, code)
            image.header.set_xyzt_units("mm")
            path = folder / f"station{station.number}_{contrast}.nii.gz"
            raw = isal_zlib.compress(image.to_bytes(), 1, wbits=31)
            if anomaly is Reason.UNREADABLE_NIFTI and first:
                raw = raw[: len(raw) // 2]
            path.write_bytes(raw)


def write_scan(
    stations: Sequence[Station],
    folder: Path,
    scan: str,
    format: Format = "zip",
    anomaly: Reason | None = None,
    seed: int = 0,
) -> Path:
    """Write one scan.

    Args:
        stations: head first, uint16.
        folder: where; created.
        scan: its name.
        format: ``zip`` (``<scan>.zip``), ``dicom`` or ``nifti`` (folder ``<scan>``).
        anomaly: a defect of the files, from :data:`ukb_infer.phantom.anomalies.ANOMALIES`.
        seed: chooses among variants of the anomaly.

    Returns:
        The zip or folder.

    Raises:
        UsageError: the anomaly cannot be written in this format.
    """
    from ukb_infer.phantom.anomalies import alter_nifti_stations, apply_to_plan

    folder.mkdir(parents=True, exist_ok=True)
    if format == "nifti":
        stations = alter_nifti_stations(list(stations), anomaly, seed)
        target, partial = folder / scan, folder / f".{scan}.partial"
    else:
        plan = make_plan(stations, scan)
        apply_to_plan(plan, anomaly, format, seed)
        if format == "zip":
            target = folder / f"{scan}.zip"
            _write_zip(plan, target)
            return target
        if format != "dicom":
            raise UsageError(f"--format: got {format!r}, expected zip, dicom or nifti")
        target, partial = folder / scan, folder / f".{scan}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    if format == "nifti":
        _write_nifti_folder(stations, partial, anomaly)
    else:
        _write_dicom_folder(plan, partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    return target
