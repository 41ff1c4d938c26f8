"""What a DICOM object is, by its header: water or fat of a station, or another image."""

from __future__ import annotations

from functools import lru_cache

from ukb_infer.imaging.readers.image_words import COMPOSED, DERIVED, read_marks, words_of
from ukb_infer.imaging.series import IMAGE_TYPE_CONTRASTS, Contrast, Marks, contrast_of

_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
#: Multi-frame MR: checked with the frames.
_MR_MULTIFRAME = frozenset({f"{_MR_IMAGE}.1", f"{_MR_IMAGE}.3", f"{_MR_IMAGE}.4"})
#: Prefix of all standard classes; those not listed above contain no MR slices.
_STANDARD = "1.2.840.10008."
#: Prefix of all storage classes of DICOM PS3.4 annex B.
_STORAGE = f"{_STANDARD}5.1.4.1.1."
#: Private classes of scanner vendors for raw data, spectra and protocols next to their MR images, from their DICOM
#: conformance statements: Siemens CSA non-image, Philips, GE. Other unknown classes are judged by the rest of the
#: header, because some anonymizers replace every UID.
_PRIVATE = ("1.3.12.2.1107.5.9.", "1.3.46.670589.", "1.2.840.113619.4.")
#: Descriptions of classes for messages; all others are "object of another storage class".
_CLASSES = (
    ("7", "secondary capture"),
    ("11.", "object without pixels (presentation state)"),
    ("30", "parametric map"),
    ("66.4", "segmentation"),
    ("66.5", "segmentation"),
    ("66", "object without pixels (raw data or registration)"),
    ("67", "object without pixels (value mapping)"),
    ("88.59", "object without pixels (key images)"),
    ("88.", "object without pixels (report)"),
    ("104", "object without pixels (document)"),
    ("481.3", "object without pixels (structure set)"),
)
_MODALITIES = {
    "SEG": "segmentation",
    "PR": "object without pixels (presentation state)",
    "KO": "object without pixels (key images)",
    "SR": "object without pixels (report)",
    "DOC": "object without pixels (document)",
    "REG": "object without pixels (raw data or registration)",
    "RTSTRUCT": "object without pixels (structure set)",
}
#: Values of ImageType of images that are not the magnitude of water or fat.
_TYPES = dict.fromkeys("PRI", "phase, real or imaginary image") | {"SUB": "difference image", "ADC": "parameter map"}
_LOCALIZER = frozenset(DERIVED["localizer"].split())
_COMPOSED_TYPES = ("COMP_", "COMPOSED", "COMPOSE")
_PROCESSED_TYPES = frozenset({"resampled", "reformatted", "filtered", "processed"})


@lru_cache(maxsize=4096)
def role_of(
    image_type: str, sop_class: str, modality: str, description: str, protocol: str
) -> tuple[Contrast | None, Marks]:
    """Determine the contrast of a DICOM object, and what else its header says.

    Args:
        image_type: ImageType, values joined by backslashes.
        sop_class: SOPClassUID, empty if absent.
        modality: Modality, empty where absent.
        description: SeriesDescription.
        protocol: ProtocolName; it names the acquisition, so it only identifies localizers.

    Returns:
        The contrast by name, and marks; if ``marks.kind`` is set, it is not water or fat of a station.
    """
    values = tuple(value.strip() for value in image_type.split("\\"))
    contrast = contrast_of(description, values)
    words = read_marks(words_of(description))
    kind = _class_kind(sop_class, modality) or words.kind or _type_kind(values)
    if kind is None and _LOCALIZER.intersection(words_of(protocol)):
        kind = "localizer"
    composed = COMPOSED in words.aside or any(value.upper().startswith(_COMPOSED_TYPES) for value in values)
    typed = {word for value in values for word in words_of(value)}
    processed = sorted({*words.processed, *(typed & _PROCESSED_TYPES)})
    original = sorted({*words.original, *(typed & {"nd"})})
    return contrast, Marks(kind, (COMPOSED,) if composed else (), tuple(processed), tuple(original))


def processing_of(image_type: str) -> tuple[str, ...]:
    """Return the values of ImageType except the contrast and the order of creation, sorted."""
    values = {value.strip().upper() for value in image_type.split("\\")}
    return tuple(sorted(values - set(IMAGE_TYPE_CONTRASTS) - {""}))


def _class_kind(sop_class: str, modality: str) -> str | None:
    """Description of an object that is not MR; None for MR images and unknown classes."""
    if sop_class.startswith(_STANDARD) and sop_class != _MR_IMAGE and sop_class not in _MR_MULTIFRAME:
        rest = sop_class.removeprefix(_STORAGE)
        return next((kind for start, kind in _CLASSES if rest.startswith(start)), "object of another storage class")
    if sop_class.startswith(_PRIVATE):
        return "object of a private storage class"
    if modality.upper() in ("", "MR"):
        return None
    return _MODALITIES.get(modality.upper(), "object of another modality")


def _type_kind(values: tuple[str, ...]) -> str | None:
    """What ImageType says that an image is, where that is not a magnitude image."""
    for value in values:
        if value.upper() in IMAGE_TYPE_CONTRASTS:
            continue
        kind = _TYPES.get(value.upper()) or read_marks(words_of(value)).kind
        if kind is not None:
            return kind
    return None
