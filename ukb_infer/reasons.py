"""Reason codes: why a scan failed or is flagged.

Every scan that cannot be used, or only with care, has codes of :class:`Reason`. The table in
``docs/reasons.md`` is generated from this module, and anomalies of phantoms have
the same names.
"""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What a reason means for the scan that carries it."""

    FAILURE = "failure"  #: the scan is not used
    FLAG = "flag"  #: the scan is used and flagged; ``strict`` turns this into a failure
    QUALITY = "quality flag"  #: the scan is used and flagged, by limits on its measures of quality
    FAILURE_OR_FLAG = "failure or flag"  #: a failure unless an option allows it, then a flag
    TOLERATED = "tolerated"  #: changes nothing in the result and is not reported
    APPEARANCE = "appearance"  #: found in the image; the scan is used and flagged


_F, _G, _Q, _FG = Kind.FAILURE, Kind.FLAG, Kind.QUALITY, Kind.FAILURE_OR_FLAG
_T, _A = Kind.TOLERATED, Kind.APPEARANCE


class Reason(StrEnum):
    """Why a scan failed or is flagged; the value is the code in the tables.

    Attributes:
        kind: what it means for the scan that carries it.
        meaning: what was found.
        advice: what the user can do.
    """

    kind: Kind
    meaning: str
    advice: str

    def __new__(cls, code: str, kind: Kind = Kind.FAILURE, meaning: str = "", advice: str = "") -> Reason:
        """Make a member; ``Reason(code)`` looks it up."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.kind, member.meaning, member.advice = kind, meaning, advice
        return member

    # fmt: off
    # -- the container
    INPUT_MISSING = ("input_missing", _F, "a listed path or key does not exist",
        "check the path, or the list and its root")
    INPUT_UNREADABLE = ("input_unreadable", _F,
        "a file or folder of the scan cannot be opened, or is a broken link",
        "fix the permissions or the link, then run the same command again")
    INPUT_CHANGED = ("input_changed", _F,
        "a file of the scan changed while it was read, twice",
        "wait until it is complete, then run the same command again")
    INVALID_SCAN_NAME = ("invalid_scan_name", _F,
        "the scan's name has characters outside A-Z a-z 0-9 . _ -, or is too long", "rename the file")
    UNREADABLE_ZIP = ("unreadable_zip", _F, "not a zip, truncated, or a member fails its checksum",
        "download the scan again; unpack other archives")
    ENCRYPTED_ZIP = ("encrypted_zip", _F, "the zip is encrypted", "decrypt it first")
    UNSUPPORTED_COMPRESSION = ("unsupported_compression", _F,
        "a zip member uses an unsupported compression method (Deflate64, Zstandard, PPMd, …)",
        "unpack it, for example with 7-Zip, and pass the folder")
    SEVERAL_ZIPS = ("several_zips", _F, "the zip contains several zips, or nested zips",
        "unpack it and pass the folder")
    TOO_LARGE = ("too_large", _F, "more members or bytes than a neck-to-knee scan can have",
        "check the origin of the file")
    UNREADABLE_DICOM = ("unreadable_dicom", _F, "a DICOM file cannot be parsed or lacks a required element",
        "copy or export the scan again")
    UNSUPPORTED_TRANSFER_SYNTAX = ("unsupported_transfer_syntax", _F,
        "the pixel data use a compression that no installed decoder reads",
        "install ukb-infer[codecs], or convert to explicit VR")
    MULTIFRAME = ("multiframe", _F, "enhanced (multi-frame) MR", "export classic single-slice DICOM")
    SEVERAL_SCANS = ("several_scans", _F, "slices of more than one examination in one input",
        "pass one examination per input")
    # -- series and stations
    NO_DICOM = ("no_dicom", _F, "no DICOM slices in the input",
        "check that it is a scan of field 20201, or a folder of its slices")
    NO_WATER_SERIES = ("no_water_series", _F, "no water series, in the scan or at a station",
        "check the export or the unpacking of the scan")
    NO_FAT_SERIES = ("no_fat_series", _F, "no fat series, in the scan or at a station",
        "check the export or the unpacking of the scan")
    CONTRAST_MISSING = ("contrast_missing", _F,
        "a requested in-phase or opposed-phase series is missing or on another grid than water and fat, or a session "
        "of a head lacks a contrast that the module needs",
        "leave the contrast out, or check the export or the unpacking of the scan")
    ONLY_DERIVED_IMAGES = ("only_derived_images", _F,
        "only fraction maps, masks, objects without pixels or other derived images; neither water nor fat",
        "pass the folder or zip with the water and fat images")
    AMBIGUOUS_SERIES = ("ambiguous_series", _F,
        "several images could be the water or fat of a station, and nothing decides between them",
        "keep one water and one fat series per station in the input")
    SPLIT_SERIES = ("split_series", _F,
        "the slices of a station are spread over series that differ in more than their UID",
        "export the scan again with one series per contrast and station")
    SERIES_JOINED = ("series_joined", _G,
        "the slices of a series had more than one SeriesInstanceUID and were joined", "none needed")
    EXTRA_IMAGES_LEFT_OUT = ("extra_images_left_out", _G,
        "an image named like water or fat was ignored: a fraction map, a mask, a copy, a composed series",
        "none needed; to use copies instead of the stations, pass them as an input of their own")
    PROCESSED_IMAGES = ("processed_images", _G,
        "water or fat images are named like processed copies, and there are no others",
        "pass the scanner's own images, on which the networks were trained")
    STATION_MISSING = ("station_missing", _FG, "fewer stations than expected",
        "set the number of expected stations, or allow missing stations")
    STATION_EXTRA = ("station_extra", _G, "more stations than expected", "look at the projection")
    STATION_TOO_SHORT = ("station_too_short", _F, "a station is shorter than its two overlaps",
        "check that these are the stations of one neck-to-knee scan")
    STATIONS_DO_NOT_OVERLAP = ("stations_do_not_overlap", _F, "a gap between consecutive stations",
        "look for a missing station")
    DUPLICATE_STATION = ("duplicate_station", _G, "a station is repeated at the same position; the newest was used",
        "none needed")
    NEAR_DUPLICATE_STATION = ("near_duplicate_station", _G, "a station is repeated within 5 mm; the newest was used",
        "look at the projection")
    WATER_FAT_MISMATCH = ("water_fat_mismatch", _F, "water and fat of a station are at different positions",
        "keep only water and fat of one acquisition in the input")
    SIZE_MISMATCH = ("size_mismatch", _G, "water and fat differ in size; both were cropped to the common size",
        "look at the projection")
    # -- slices and geometry
    SLICE_MISSING = ("slice_missing", _F, "more slices of a series are missing than can be interpolated",
        "check the export or the unpacking of the scan")
    SLICE_INTERPOLATED = ("slice_interpolated", _G, "one interior slice of a series was missing and was interpolated",
        "look at the projection")
    SLICE_DUPLICATE = ("slice_duplicate", _G, "a slice occurs twice in a series; the newest was used", "none needed")
    END_SLICES_CROPPED = ("end_slices_cropped", _G,
        "one contrast lacks end slices; both were cropped to the shared slices", "look at the projection")
    GEOMETRY_INCONSISTENT = ("geometry_inconsistent", _F,
        "slices of one series differ in size, spacing, orientation or in-plane position; the sform and qform of a "
        "NIfTI file differ and neither has priority",
        "export the scan again with one series per contrast and station; convert NIfTI again with dcm2niix")
    GEOMETRY_DISAGREES = ("geometry_disagrees", _G,
        "redundant header elements contradict the geometry that was used",
        "look at the projection; docs/stored-values.md says which element is used")
    PATIENT_NOT_SUPINE = ("patient_not_supine", _G,
        "according to the header, the participant was not lying on the back",
        "look at the projection: the table is removed behind the back")
    NOT_AXIAL = ("not_axial", _F, "slices are not axial", "only axial 20201 slices can be fused")
    OBLIQUE = ("oblique", _F, "the affine is tilted by more than 1 degree", "resample to an axial grid")
    IMPLAUSIBLE_GEOMETRY = ("implausible_geometry", _F, "implausible spacing, matrix or position",
        "check that it is the expected kind of scan, and its header")
    MISSING_AFFINE = ("missing_affine", _F, "the NIfTI header has no orientation", "convert again with dcm2niix")
    NOT_LABELS = ("not_labels", _F, "a mask holds fractions, or other numbers than the labels of the task",
        "save whole numbers, 1 for the first label")
    SEVERAL_VOLUMES = ("several_volumes", _F, "a NIfTI file of a head holds more than one volume",
        "take out the one that is meant, for example the b = 1000 image of a diffusion series")
    UNREADABLE_NIFTI = ("unreadable_nifti", _F, "a NIfTI file cannot be read", "convert again with dcm2niix")
    # -- values
    EMPTY_IMAGE = ("empty_image", _F, "a contrast, or the projection, is constant or all zero", "look at the images")
    NON_FINITE_VALUES = ("non_finite_values", _F, "NaN or infinite voxels", "convert again")
    UNSUPPORTED_PIXELS = ("unsupported_pixels", _F,
        "values that are not plain MR signal: colour, inverted or complex images, tables, other units, labels",
        "export the scanner's own magnitude images")
    RESCALE_APPLIED = ("rescale_applied", _G,
        "a slope or intercept in the file (rescale, real-world value, Philips scale) was applied",
        "check the origin: UK Biobank's files have none")
    UNUSED_BITS_MASKED = ("unused_bits_masked", _G,
        "bits outside the stored value were set and were masked",
        "look at the projection: they are overlays, or BitsStored is wrong")
    PADDING_REPLACED = ("padding_replaced", _G, "pixels with the header's padding value were set to 0",
        "look at the projection")
    LOSSY_COMPRESSION = ("lossy_compression", _G, "the pixels went through lossy compression",
        "export the scan again without it")
    BURNED_IN_ANNOTATION = ("burned_in_annotation", _G, "according to the header, text is drawn into the pixels",
        "look at the projection")
    BAD_PROJECTION = ("bad_projection", _F, "a .npy that is not a projection of the recipe", "project the scan again")
    QUALITY_UNKNOWN = ("quality_unknown", _G,
        "a cached projection without a row in scans.csv: the scan's flags are unknown", "project the scan again")
    # -- heads: volumes of brain MRI
    REORIENTED = ("reoriented", _G, "the volume is not stored from left, back and bottom (RAS); its axes were turned",
        "none needed, unless the picture shows the head turned or mirrored")
    TILTED = ("tilted", _G, "the axes of a volume are tilted by more than 20 degrees; the nearest axes were used",
        "look at the picture")
    HEAD_CUT = ("head_cut", _G, "the head is larger than the box of voxels that the network sees; its rim was cut",
        "none needed where little is cut")
    NOT_ALIGNED = ("not_aligned", _G, "a contrast lies elsewhere than the others of its session",
        "register the contrasts of the session, or check the file's affine")
    MASK_ELSEWHERE = ("mask_elsewhere", _F, "an outline to learn from lies outside its image",
        "save it in the space of the images")
    PARTICIPANTS_MISSING = ("participants_missing", _G,
        "the data set has no participants.tsv, or none of its rows is the participant's",
        "add it, if age, sex or site are wanted")
    # -- the estimates and the run
    MEAN_OUTSIDE_LIMITS = ("mean_outside_limits", _G, "an estimated mean lies outside the target's physical limits",
        "treat the row with care")
    IMPLAUSIBLE_ESTIMATES = ("implausible_estimates", _G,
        "estimates of the scan contradict each other, for example a total and its parts",
        "look at the projection; leave the scan out of an analysis unless it looks right")
    OUT_OF_DISTRIBUTION = ("out_of_distribution", _G, "the scan is unlike those that the module knows",
        "look at the projection; leave the scan out of an analysis unless it looks right")
    NON_FINITE_ESTIMATE = ("non_finite_estimate", _F, "the network returned NaN or infinity", "try precision fp32")
    WORKER_DIED = ("worker_died", _F, "the worker process died on this scan", "check memory; run the command again")
    TIMED_OUT = ("timed_out", _F, "reading and projecting took too long", "check the storage; run the command again")
    STORAGE_FAILED = ("storage_failed", _F, "the storage failed while reading or writing",
        "restore access to the storage; run the command again")
    INTERNAL_ERROR = ("internal_error", _F, "an unexpected error in ukb_infer", "report it with the message")
    EXCLUDED = ("excluded", _T, "in an exclusion list", "none needed")
    # -- tolerated variants of the files
    MANIFEST_MISSPELLED = ("manifest_misspelled", _T, "manifest.cvs instead of manifest.csv", "none needed")
    MANIFEST_MISSING = ("manifest_missing", _T, "no manifest", "none needed")
    MANIFEST_CRLF = ("manifest_crlf", _T, "manifest with CRLF line ends", "none needed")
    MANIFEST_NO_NEWLINE = ("manifest_no_newline", _T, "manifest without a final newline", "none needed")
    MANIFEST_WRONG = ("manifest_wrong", _T, "manifest that names the wrong series for its files", "none needed")
    IMPLICIT_VR = ("implicit_vr", _T, "implicit VR little endian", "none needed")
    NO_PREAMBLE = ("no_preamble", _T, "no DICOM preamble", "none needed")
    MISLABELLED_TRANSFER_SYNTAX = ("mislabelled_transfer_syntax", _T,
        "the meta header names a different VR than the data use", "none needed")
    COMPRESSED_TRANSFER_SYNTAX = ("compressed_transfer_syntax", _T, "compressed pixel data that pydicom decodes",
        "none needed")
    # -- what measures of quality find, by limits that `--quality` sets
    LOW_SIGNAL_TO_NOISE = ("low_signal_to_noise", _Q, "the body is hardly brighter than the noise",
        "look at the projection; keep with care")
    SATURATED = ("saturated", _Q, "values are clipped at the end of the range", "look at the images")
    EMPTY_SLICES = ("empty_slices", _Q, "slices of a station hold no signal", "look at the images; drop the scan")
    SEAM_MISMATCH = ("seam_mismatch", _Q,
        "two stations disagree where they overlap: the participant moved, or one is swapped or distorted",
        "look at the projection")
    FOLDING = ("folding", _Q, "the ends of a station alias onto each other", "look at the projection")
    MOTION = ("motion", _Q, "ghosts along the phase direction, as by motion", "look at the projection")
    METAL = ("metal", _Q, "a signal void within the body, as by metal", "look at the projection")
    KNEE_MISSING = ("knee_missing", _Q, "the field ends above the knee joint, or shortly below",
        "drop targets of thighs and legs; keep the others")
    SHOULDER_MISSING = ("shoulder_missing", _Q, "the field starts below a shoulder",
        "drop targets of arms; keep the others")
    TRUNK_CUT = ("trunk_cut", _Q, "the trunk reaches the edge of the field", "look at the projection")
    SURFACE_NOT_FAT = ("surface_not_fat", _Q,
        "the outer 5 mm of a station are not fat, as after a fat-water swap", "look at the projection")
    ASYMMETRIC = ("asymmetric", _Q, "left and right differ, as after a swap in one leg", "look at the projection")
    OFF_CENTRE = ("off_centre", _Q, "the participant lay far from the middle", "look at the projection")
    OTHER_PROTOCOL = ("other_protocol", _Q, "echo times, field strength or spacing are not the protocol's",
        "keep apart from scans of the protocol")
    LONG_PAUSE = ("long_pause", _Q, "much time passed between two stations",
        "look at the projection: the participant may have been moved")
    # -- what only the picture shows, by `--swaps`
    FAT_WATER_SWAP = ("fat_water_swap", _A,
        "water and fat swapped in a whole station, in both legs of one, or in a region",
        "look at the projection; `--swaps correct` puts right what leaves no doubt")
    FAT_WATER_SWAP_LEG = ("fat_water_swap_leg", _A, "water and fat swapped in one leg",
        "look at the projection; `--swaps correct` puts right what leaves no doubt")
    # fmt: on


def reason_table() -> str:
    """The table of all codes as Markdown, for ``docs/reasons.md``."""
    lines = [
        "# Reason codes",
        "",
        "Generated from `ukb_infer/reasons.py` by `scripts/make_reason_table.py`. `ukb-infer phantom --anomaly` takes",
        "the same names.",
        "",
        "| kind | what it means for the scan |",
        "|---|---|",
        "| failure | it is not used |",
        "| flag | it is used and flagged; `--strict` makes it a failure |",
        "| quality flag | it is used and flagged, by [limits](quality.md) on its measures; `--strict` and "
        "`--require-quality` make it a failure |",
        "| failure or flag | a failure unless an option allows it, then a flag |",
        "| tolerated | not a problem; nothing is reported |",
        "| appearance | found in the image alone: it is used and flagged (swaps: unless `--swaps ignore`); "
        "`--strict` makes it a failure |",
        "",
        "| code | kind | meaning | what to do |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{r.value}` | {r.kind.value} | {r.meaning} | {r.advice} |" for r in Reason]
    return "\n".join(lines) + "\n"
