"""Write scans as UK Biobank's zips, folders of DICOM slices, or folders of NIfTI stations."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pydicom
from isal import isal_zlib
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from ukb_infer.errors import UsageError
from ukb_infer.phantom.plan import ScanPlan, SeriesPlan, make_plan
from ukb_infer.protocol import UK_BIOBANK, Protocol
from ukb_infer.reasons import Reason
from ukb_infer.records import ScanKey, Station

Format = Literal["zip", "dicom", "nifti"]

_ROOT = "1.2.826.0.1.3680043.10.1337"
_ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
#: A private transfer syntax that no decoder knows.
_UNKNOWN_SYNTAX = f"{_ROOT}.99.1"
#: Width of InstanceNumber and of each coordinate (DS allows 16), so that slices of a series differ only in values.
_NUMBER_WIDTH, _COORDINATE_WIDTH = 8, 16
#: Date in every file and table: fixed, so that the same phantom gives the same bytes.
_DATE, _MANIFEST_DATE = "20161120", "Nov 20, 2016"
_ZIP_TIME = (2016, 11, 20, 10, 0, 0)


def _owner(scan: str) -> str:
    """UID components of a scan: of its key, or a hash if the name has another form; never looks like an eid."""
    key = ScanKey.from_name(scan)
    if key.eid and len(key.eid) <= 10:
        return f"{int(key.eid) + 10**10}.{key.instance}.{key.array}"
    return str(10**15 + int.from_bytes(hashlib.sha256(scan.encode()).digest()[:6], "little"))


def _uid(plan: ScanPlan, series: SeriesPlan, number: int = 0) -> str:
    """UID of a slice (number from 1) or of a series (0); all of the same length within a series."""
    return f"{_ROOT}.{_owner(plan.scan)}.{series.study}.{100 + series.number}" + (f".{1000 + number}" if number else "")


def _dataset(plan: ScanPlan, series: SeriesPlan) -> Dataset:
    """Elements of a series, with fixed-width values where slices differ."""
    rows, cols = series.slices[0].pixels.shape
    ds = Dataset()
    ds.SOPClassUID = _ENHANCED_MR if series.encoding == "multiframe" else MRImageStorage
    ds.SOPInstanceUID = _uid(plan, series, 1)
    ds.SpecificCharacterSet = "ISO_IR 100"
    contrast = {"F": "FAT", "W": "WATER"}.get(series.contrast, series.contrast.upper())
    ds.ImageType = ["DERIVED", "PRIMARY", "M", "DIXON", contrast]
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = _DATE
    ds.StudyTime, ds.SeriesTime, ds.AcquisitionTime, ds.ContentTime = "100000", series.time, series.time, series.time
    ds.Modality = "MR"
    ds.StudyDescription, ds.SeriesDescription = "Synthetic_Imaging", series.description
    ds.AccessionNumber = ds.ReferringPhysicianName = ds.PatientBirthDate = ds.PositionReferenceIndicator = ""
    ds.PatientName = ds.PatientID = ScanKey.from_name(plan.scan).eid or plan.scan
    ds.PatientSex, ds.StudyID, ds.AcquisitionNumber = "O", "1", 1
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "GR", "SP", "PFP", "3D"
    ds.SequenceName, ds.ProtocolName = "*fl3d2", series.description.rsplit("_", 1)[0]
    ds.EchoTrainLength, ds.PatientPosition = 2, "HFS"
    ds.SliceThickness, ds.SpacingBetweenSlices = str(series.slice_spacing_mm), str(series.slice_spacing_mm)
    ds.StudyInstanceUID = _uid(plan, series).rsplit(".", 1)[0]
    ds.SeriesInstanceUID = _uid(plan, series)
    ds.SeriesNumber, ds.InstanceNumber = series.number, "1".rjust(_NUMBER_WIDTH, "0")
    ds.ImagePositionPatient = ["1".rjust(_COORDINATE_WIDTH, "0")] * 3
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
    return {"implicit": str(ImplicitVRLittleEndian), "undecodable": _UNKNOWN_SYNTAX}.get(
        series.encoding, str(ExplicitVRLittleEndian)
    )


@dataclass(frozen=True)
class _Template:
    """Bytes of a slice up to its pixels, and the offsets of values that differ between slices of a series."""

    data: bytes
    uid_at: tuple[int, ...]
    number_at: int
    position_at: int

    def fill(self, uid: str, number: int, position_mm: tuple[float, float, float]) -> bytes:
        """Insert a slice's own values; leading spaces are allowed in IS and DS.

        Args:
            uid: SOPInstanceUID.
            number: InstanceNumber.
            position_mm: ImagePositionPatient, (x, y, z).
        """
        data = bytearray(self.data)
        position = "\\".join(_decimal(v).rjust(_COORDINATE_WIDTH) for v in position_mm)
        places = [(at, uid) for at in self.uid_at]
        places += [(self.number_at, str(number).rjust(_NUMBER_WIDTH)), (self.position_at, position)]
        for at, text in places:
            data[at : at + len(text)] = text.encode("ascii")
        return bytes(data)


def _template(plan: ScanPlan, series: SeriesPlan) -> _Template:
    """Write one slice per series with pydicom, and locate what differs between slices."""
    ds = _dataset(plan, series)
    implicit = series.encoding in ("implicit", "mislabelled")
    ds.PixelData = bytes(2 * ds.Rows * ds.Columns)
    ds["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    body = buffer.getvalue()[: -len(ds.PixelData)]
    head = _file_head(ds.SOPClassUID, ds.SOPInstanceUID, series)
    raw = pydicom.filereader.read_dataset(io.BytesIO(buffer.getvalue()), implicit, True)
    uid_at, number_at, position_at = (
        len(head) + raw.get_item(keyword).value_tell
        for keyword in ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient")
    )
    uids = (head.index(ds.SOPInstanceUID.encode()), uid_at) if head else (uid_at,)
    return _Template(head + body, uids, number_at, position_at)


def _file_head(sop_class: str, sop_instance: str, series: SeriesPlan) -> bytes:
    """Preamble and file meta information, if the encoding has them."""
    if series.encoding == "bare":
        return b""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, sop_instance
    meta.TransferSyntaxUID = _syntax(series)
    meta.ImplementationClassUID, meta.ImplementationVersionName = f"{_ROOT}.1", "UKB_INFER_1"
    buffer = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(buffer, meta, enforce_standard=True)
    return (b"" if series.encoding == "no_preamble" else bytes(128) + b"DICM") + buffer.getvalue()


def _slice_files(plan: ScanPlan, series: SeriesPlan) -> Iterator[tuple[str, bytes]]:
    """File name and bytes of every slice."""
    template = _template(plan, series)
    for number, item in enumerate(series.slices, start=1):
        uid = _uid(plan, series, number)
        data = template.fill(uid, number, item.position_mm) + np.ascontiguousarray(item.pixels, "<u2").tobytes()
        if series.encoding == "rle":
            data = _compress(data)
        elif series.encoding == "cut_short":
            data = data[: len(template.data) + item.pixels.nbytes // 2]
        yield f"{uid}.dcm", data


def _decimal(value: float) -> str:
    """Decimal string of a coordinate in mm: nine decimals within the 16 characters of DS reproduce a float32."""
    return f"{value:.9f}"[:_COORDINATE_WIDTH].rstrip("0").rstrip(".")


def _compress(data: bytes) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def _manifest(plan: ScanPlan) -> tuple[str, bytes] | None:
    """Name and bytes of the manifest; dates with a comma are unquoted, as in UK Biobank's."""
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
    """Write a zip atomically; the same plan gives the same bytes."""
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


def _write_nifti_folder(stations: Sequence[Station], folder: Path, anomaly: Reason | None) -> None:
    for station in stations:
        for contrast, volume in (("W", station.water), ("F", station.fat)):
            data = np.ascontiguousarray(volume.transpose(1, 0, 2)[::-1, ::-1, ::-1])
            affine = station.affine
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


def _check_scan(stations: Sequence[Station], scan: str, format: str) -> None:
    if format not in ("zip", "dicom", "nifti"):
        raise UsageError(field="format", got=format, expected="zip, dicom or nifti")
    if not ScanKey.from_name(scan).is_safe:
        raise UsageError(field="scan", got=scan, expected="a name with only the characters A-Z a-z 0-9 . _ -")
    if not stations:
        raise UsageError("got none, expected at least one", field="stations")
    for number, station in enumerate(stations, start=1):
        if station.water.dtype != np.uint16 or station.fat.dtype != np.uint16 or station.fat.shape != station.shape:
            raise UsageError(
                f"stations: station {number} has water {station.water.dtype} {station.water.shape} and fat "
                f"{station.fat.dtype} {station.fat.shape}, expected uint16 of one shape"
            )


def write_scan(
    stations: Sequence[Station],
    folder: Path,
    scan: str,
    format: Format = "zip",
    anomaly: Reason | None = None,
    seed: int = 0,
    protocol: Protocol = UK_BIOBANK,
) -> Path:
    """Write one scan atomically; the same arguments give the same bytes.

    Args:
        stations: head first; water and fat (rows, cols, slices) uint16.
        folder: created if missing.
        scan: its name.
        format: ``zip`` (``<scan>.zip``), ``dicom`` or ``nifti`` (folder ``<scan>``, replaced if it exists).
        anomaly: a defect of the files, from :data:`ukb_infer.phantom.anomalies.ANOMALIES`. Those of the image
            (``effect``) are drawn by ``render`` and change nothing here.
        seed: chooses among variants of the anomaly.
        protocol: of the site, for the headers.

    Returns:
        The zip or folder.

    Raises:
        UsageError: stations that are not uint16, an unsafe name, or an anomaly that is impossible for this scan or
            format; nothing is written.
    """
    from ukb_infer.phantom.anomalies import alter_nifti_stations, apply_to_plan

    _check_scan(stations, scan, format)
    if format == "nifti":
        written = alter_nifti_stations(list(stations), anomaly, seed)
        return _write_folder(folder / scan, lambda partial: _write_nifti_folder(written, partial, anomaly))
    plan = make_plan(stations, scan, protocol)
    apply_to_plan(plan, anomaly, format, seed)
    if format == "dicom":
        return _write_folder(folder / scan, lambda partial: _write_dicom_folder(plan, partial))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{scan}.zip"
    _write_zip(plan, target)
    return target


def _write_folder(target: Path, write: Callable[[Path], None]) -> Path:
    """Fill a hidden folder and rename it at the end."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
