"""Exceptions and the one list of reason codes (floor 0).

Every scan that cannot be used, or can be used with care, carries codes of :class:`Reason`. The table in
``docs/reasons.md`` is generated from this module, and the names that ``ukb-infer phantom --anomaly`` takes
are the same codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a reason means for the scan that carries it."""

    FAILURE = "failure"  #: the scan is not used
    FLAG = "flag"  #: the scan is used and flagged; ``--strict`` turns this into a failure
    FAILURE_OR_FLAG = "failure or flag"  #: a failure unless an option allows it, then a flag
    TOLERATED = "tolerated"  #: changes nothing in the result and is not reported
    APPEARANCE = "appearance"  #: in the picture only; `phantom` can make it, reading does not look for it


class Reason(StrEnum):
    """Why a scan failed or is flagged; the value is what the tables say."""

    # -- the container
    INPUT_MISSING = "input_missing"
    INVALID_SCAN_NAME = "invalid_scan_name"
    UNREADABLE_ZIP = "unreadable_zip"
    ENCRYPTED_ZIP = "encrypted_zip"
    TOO_LARGE = "too_large"
    UNREADABLE_DICOM = "unreadable_dicom"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    MULTIFRAME = "multiframe"
    SEVERAL_SCANS = "several_scans"
    # -- series and stations
    NO_DICOM = "no_dicom"
    NO_WATER_SERIES = "no_water_series"
    NO_FAT_SERIES = "no_fat_series"
    STATION_MISSING = "station_missing"
    STATION_EXTRA = "station_extra"
    STATION_TOO_SHORT = "station_too_short"
    STATIONS_DO_NOT_OVERLAP = "stations_do_not_overlap"
    DUPLICATE_STATION = "duplicate_station"
    NEAR_DUPLICATE_STATION = "near_duplicate_station"
    WATER_FAT_MISMATCH = "water_fat_mismatch"
    SIZE_MISMATCH = "size_mismatch"
    # -- slices and geometry
    SLICE_MISSING = "slice_missing"
    SLICE_INTERPOLATED = "slice_interpolated"
    SLICE_DUPLICATE = "slice_duplicate"
    END_SLICES_CROPPED = "end_slices_cropped"
    GEOMETRY_INCONSISTENT = "geometry_inconsistent"
    NOT_AXIAL = "not_axial"
    OBLIQUE = "oblique"
    IMPLAUSIBLE_GEOMETRY = "implausible_geometry"
    MISSING_AFFINE = "missing_affine"
    UNREADABLE_NIFTI = "unreadable_nifti"
    # -- values
    EMPTY_IMAGE = "empty_image"
    NON_FINITE_VALUES = "non_finite_values"
    RESCALE_APPLIED = "rescale_applied"
    BAD_PROJECTION = "bad_projection"
    QUALITY_UNKNOWN = "quality_unknown"
    # -- the estimates and the run
    MEAN_OUTSIDE_LIMITS = "mean_outside_limits"
    NON_FINITE_ESTIMATE = "non_finite_estimate"
    WORKER_DIED = "worker_died"
    TIMED_OUT = "timed_out"
    STORAGE_FAILED = "storage_failed"
    INTERNAL_ERROR = "internal_error"
    EXCLUDED = "excluded"
    # -- tolerated variants of the files
    MANIFEST_MISSPELLED = "manifest_misspelled"
    MANIFEST_MISSING = "manifest_missing"
    MANIFEST_CRLF = "manifest_crlf"
    MANIFEST_NO_NEWLINE = "manifest_no_newline"
    MANIFEST_WRONG = "manifest_wrong"
    IMPLICIT_VR = "implicit_vr"
    NO_PREAMBLE = "no_preamble"
    MISLABELLED_TRANSFER_SYNTAX = "mislabelled_transfer_syntax"
    COMPRESSED_TRANSFER_SYNTAX = "compressed_transfer_syntax"
    # -- what only the picture shows
    FAT_WATER_SWAP = "fat_water_swap"
    FAT_WATER_SWAP_LEG = "fat_water_swap_leg"
    KNEE_MISSING = "knee_missing"
    SHOULDER_MISSING = "shoulder_missing"
    FOLDING = "folding"
    METAL = "metal"
    MOTION = "motion"


@dataclass(frozen=True)
class ReasonInfo:
    """What a code means and what a user can do about it."""

    kind: Kind
    meaning: str
    advice: str


_F, _G, _FG, _T, _A = Kind.FAILURE, Kind.FLAG, Kind.FAILURE_OR_FLAG, Kind.TOLERATED, Kind.APPEARANCE
_DOWNLOAD = "download the scan again"

REASONS: dict[Reason, ReasonInfo] = {
    Reason.INPUT_MISSING: ReasonInfo(_F, "a listed path or key does not exist", "check the list and --root"),
    Reason.INVALID_SCAN_NAME: ReasonInfo(
        _F, "the scan's name has characters outside A-Z a-z 0-9 . _ -", "rename the file"
    ),
    Reason.UNREADABLE_ZIP: ReasonInfo(_F, "not a zip, cut short, or a member fails its checksum", _DOWNLOAD),
    Reason.ENCRYPTED_ZIP: ReasonInfo(_F, "the zip is encrypted", "decrypt it first"),
    Reason.TOO_LARGE: ReasonInfo(
        _F, "more members or bytes than a neck-to-knee scan can have", "check where the file comes from"
    ),
    Reason.UNREADABLE_DICOM: ReasonInfo(_F, "a DICOM file cannot be parsed or lacks a needed element", _DOWNLOAD),
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: ReasonInfo(
        _F,
        "the pixel data use a compression that no installed decoder reads",
        "install pylibjpeg or convert to explicit VR",
    ),
    Reason.MULTIFRAME: ReasonInfo(_F, "enhanced (multi-frame) MR", "export classic single-slice DICOM"),
    Reason.SEVERAL_SCANS: ReasonInfo(_F, "slices of more than one examination in one input", "separate them"),
    Reason.NO_DICOM: ReasonInfo(_F, "no DICOM slice in the input", _DOWNLOAD),
    Reason.NO_WATER_SERIES: ReasonInfo(_F, "no water series, in the scan or at a station", _DOWNLOAD),
    Reason.NO_FAT_SERIES: ReasonInfo(_F, "no fat series, in the scan or at a station", _DOWNLOAD),
    Reason.STATION_MISSING: ReasonInfo(
        _FG, "fewer stations than expected", "set --expected-stations, or accept with --allow-missing-stations"
    ),
    Reason.STATION_EXTRA: ReasonInfo(_G, "more stations than expected", "look at the projection"),
    Reason.STATION_TOO_SHORT: ReasonInfo(_F, "a station is shorter than its two overlaps", _DOWNLOAD),
    Reason.STATIONS_DO_NOT_OVERLAP: ReasonInfo(_F, "a gap between consecutive stations", "look for a missing station"),
    Reason.DUPLICATE_STATION: ReasonInfo(
        _G, "a station repeated at the same position; the newest was used", "none needed"
    ),
    Reason.NEAR_DUPLICATE_STATION: ReasonInfo(
        _G, "a station repeated within 5 mm; the newest was used", "look at the projection"
    ),
    Reason.WATER_FAT_MISMATCH: ReasonInfo(_F, "water and fat of a station lie at different positions", _DOWNLOAD),
    Reason.SIZE_MISMATCH: ReasonInfo(
        _G, "water and fat differ in size; both were cropped to the common size", _DOWNLOAD
    ),
    Reason.SLICE_MISSING: ReasonInfo(_F, "more slices of a series are missing than can be interpolated", _DOWNLOAD),
    Reason.SLICE_INTERPOLATED: ReasonInfo(
        _G, "one interior slice of a series was missing and was interpolated", "look at the projection"
    ),
    Reason.SLICE_DUPLICATE: ReasonInfo(_G, "a slice occurs twice in a series; the newest was used", "none needed"),
    Reason.END_SLICES_CROPPED: ReasonInfo(
        _G, "one contrast lacks end slices; both were cropped to what they share", "look at the projection"
    ),
    Reason.GEOMETRY_INCONSISTENT: ReasonInfo(
        _F, "slices of one series differ in size, spacing, orientation or in-plane position", _DOWNLOAD
    ),
    Reason.NOT_AXIAL: ReasonInfo(_F, "slices are not axial", "only axial 20201 slices can be fused"),
    Reason.OBLIQUE: ReasonInfo(_F, "the affine is tilted by more than 1 degree", "resample to an axial grid"),
    Reason.IMPLAUSIBLE_GEOMETRY: ReasonInfo(_F, "spacing, matrix or position out of any plausible range", _DOWNLOAD),
    Reason.MISSING_AFFINE: ReasonInfo(_F, "the NIfTI header declares no orientation", "convert again with dcm2niix"),
    Reason.UNREADABLE_NIFTI: ReasonInfo(_F, "a NIfTI file cannot be read", "convert again with dcm2niix"),
    Reason.EMPTY_IMAGE: ReasonInfo(_F, "a contrast, or the projection, is constant or all zero", _DOWNLOAD),
    Reason.NON_FINITE_VALUES: ReasonInfo(_F, "NaN or infinite voxels", "convert again"),
    Reason.RESCALE_APPLIED: ReasonInfo(
        _G, "a RescaleSlope or RescaleIntercept was applied", "UK Biobank has none: check"
    ),
    Reason.BAD_PROJECTION: ReasonInfo(_F, "a .npy that is not uint8 (3, 256, 256)", "project the scan again"),
    Reason.QUALITY_UNKNOWN: ReasonInfo(
        _G,
        "a cached projection without its record in scans.csv: nothing is known of the scan",
        "project the scan again",
    ),
    Reason.MEAN_OUTSIDE_LIMITS: ReasonInfo(
        _G, "an estimated mean lies outside the target's physical limits", "treat the row with care"
    ),
    Reason.NON_FINITE_ESTIMATE: ReasonInfo(_F, "the network returned NaN or infinity", "try --precision fp32"),
    Reason.WORKER_DIED: ReasonInfo(_F, "the worker process died on this scan", "check memory; run the command again"),
    Reason.TIMED_OUT: ReasonInfo(
        _F, "reading and projecting took too long", "check the storage; run the command again"
    ),
    Reason.STORAGE_FAILED: ReasonInfo(
        _F, "the storage failed while reading or writing", "restore access to the storage; run the command again"
    ),
    Reason.INTERNAL_ERROR: ReasonInfo(_F, "an unexpected error in ukb_infer", "report it with the message"),
    Reason.EXCLUDED: ReasonInfo(_T, "named by an --exclude list", "none needed"),
    Reason.MANIFEST_MISSPELLED: ReasonInfo(_T, "manifest.cvs instead of manifest.csv", "none needed"),
    Reason.MANIFEST_MISSING: ReasonInfo(_T, "no manifest", "none needed"),
    Reason.MANIFEST_CRLF: ReasonInfo(_T, "manifest with CRLF line ends", "none needed"),
    Reason.MANIFEST_NO_NEWLINE: ReasonInfo(_T, "manifest without a final newline", "none needed"),
    Reason.MANIFEST_WRONG: ReasonInfo(_T, "manifest that names the wrong series for its files", "none needed"),
    Reason.IMPLICIT_VR: ReasonInfo(_T, "implicit VR little endian", "none needed"),
    Reason.NO_PREAMBLE: ReasonInfo(_T, "no DICOM preamble", "none needed"),
    Reason.MISLABELLED_TRANSFER_SYNTAX: ReasonInfo(
        _T, "the meta header names another VR than the data use", "none needed"
    ),
    Reason.COMPRESSED_TRANSFER_SYNTAX: ReasonInfo(_T, "compressed pixel data that pydicom decodes", "none needed"),
    Reason.FAT_WATER_SWAP: ReasonInfo(_A, "water and fat exchanged in a whole station", "look at the projection"),
    Reason.FAT_WATER_SWAP_LEG: ReasonInfo(_A, "water and fat exchanged in one leg", "look at the projection"),
    Reason.KNEE_MISSING: ReasonInfo(_A, "the scan ends above the knee joint", "look at the projection"),
    Reason.SHOULDER_MISSING: ReasonInfo(_A, "the scan starts below a shoulder", "look at the projection"),
    Reason.FOLDING: ReasonInfo(_A, "strong folding at the ends of a station", "look at the projection"),
    Reason.METAL: ReasonInfo(_A, "signal void and distortion by metal", "look at the projection"),
    Reason.MOTION: ReasonInfo(_A, "ghosting by motion", "look at the projection"),
}
if set(REASONS) != set(Reason):
    raise RuntimeError("every reason code needs an entry in REASONS")


def reason_table() -> str:
    """The table of all codes as Markdown, for ``docs/reasons.md``."""
    lines = [
        "# Reason codes",
        "",
        "Made from `ukb_infer/errors.py` by `scripts/make_reason_table.py`. The names that",
        "`ukb-infer phantom --anomaly` takes are the same codes.",
        "",
        "| kind | what it means for the scan |",
        "|---|---|",
        "| failure | it is not used |",
        "| flag | it is used and flagged; `--strict` makes it a failure |",
        "| failure or flag | a failure unless an option allows it, then a flag |",
        "| tolerated | changes nothing in the result and is not reported as a problem |",
        "| appearance | only in the picture: `phantom` can make it, this version does not detect it |",
        "",
        "| code | kind | meaning | what to do |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{r.value}` | {i.kind.value} | {i.meaning} | {i.advice} |" for r, i in REASONS.items()]
    return "\n".join(lines) + "\n"


class UkbInferError(Exception):
    """Base of every error that ukb_infer raises on purpose."""


class UsageError(UkbInferError):
    """Arguments or configuration contradict each other (exit code 2)."""


class RunError(UkbInferError):
    """The run itself cannot be done: no inputs, unusable output folder (exit code 1)."""


class ModuleError(RunError):
    """A module cannot be found, read, verified or imported; stops the run (exit code 1)."""


class ScanError(UkbInferError):
    """One scan cannot be used; the run goes on.

    Args:
        reason: the code that goes into ``scans.csv``.
        message: what was found, what was expected and what to do; names stations from 1, never an eid.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason.value}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[ScanError], tuple[Reason, str]]:
        """Pickle across processes."""
        return type(self), (self.reason, self.message)
