"""Meaning of the stored values of a DICOM slice: bits and sign, photometric interpretation, padding, scaling.

``docs/stored-values.md`` lists the elements of the standard and how each is handled. Cases the fast path does not know
are handled here on data read by pydicom, so that both readers agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from ukb_infer.errors import ScanError
from ukb_infer.imaging.series import Finding, Scaling
from ukb_infer.reasons import Reason

#: Integer types by size in bytes; larger ones are not MR pixels.
_BYTES = {8: 1, 16: 2, 32: 4}
#: Values of elements with which pixels are plain MR signal.
_SIGNAL: dict[str, frozenset[str]] = {
    "PhotometricInterpretation": frozenset({"", "MONOCHROME2"}),
    "ComplexImageComponent": frozenset({"", "MAGNITUDE"}),
    "PixelIntensityRelationship": frozenset({"", "LIN"}),
    "RescaleType": frozenset({"", "US", "NORMALIZED"}),  # US: unspecified; Philips writes "normalized"
}
#: Other defined terms (DICOM PS3.3); anything else could be a name or an id and is not shown.
_TERMS = (
    "MONOCHROME1 RGB ARGB HSV CMYK XYB YBR_FULL YBR_FULL_422 YBR_PARTIAL_420 YBR_PARTIAL_422 YBR_ICT YBR_RCT "
    "PHASE REAL IMAGINARY MIXED LOG DISP OD HU MGML Z_EFF ED EDW HU_MOD PCT"
)
_SHOWN = frozenset(_TERMS.split()) | {"PALETTE COLOR"}
#: UCUM codes of a real-world value that is signal: no unit, or an arbitrary one.
_SIGNAL_UNITS = frozenset({"", "1", "[arb'U]", "{arb'U}", "{arbitrary unit}", "{signal intensity}", "{counts}"})
#: Lossy transfer syntaxes; files in the last three may declare themselves lossless (LossyImageCompression 00).
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 53, 55, 59, 61, 63))
_PERHAPS_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in (81, 91, 93, 112, 203))
#: Overlay planes: even groups 6000 to 601E.
OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
_PHILIPS_CREATOR = "Philips MR Imaging DD 001"
_PHILIPS_GROUP, _PHILIPS_SCALE_SLOPE = 0x2005, 0x0E


@dataclass(frozen=True)
class PixelForm:
    """How one pixel is stored (DICOM PS3.5 8.1.1).

    Attributes:
        allocated: bits of a word: 8, 16 or 32.
        stored: bits of the value.
        high: number of the highest of these bits, from 0.
        signed: whether the value is a two's complement number.
    """

    allocated: int
    stored: int
    high: int
    signed: bool

    @classmethod
    def of(cls, short: Mapping[str, int]) -> PixelForm:
        """Build from elements as numbers, -1 if absent: then all bits are the value, unsigned.

        Raises:
            ScanError: ``unreadable_dicom`` if they are contradictory.
        """
        allocated = short["BitsAllocated"]
        stored = allocated if short["BitsStored"] < 0 else short["BitsStored"]
        high = stored - 1 if short["HighBit"] < 0 else short["HighBit"]
        if allocated not in _BYTES or not 1 <= stored <= high + 1 <= allocated:
            raise ScanError(
                Reason.UNREADABLE_DICOM,
                f"a slice has BitsAllocated {allocated}, BitsStored {stored} and HighBit {high}, expected 8, 16 or 32 "
                "bits with the stored ones inside; export the scan again",
            )
        if short["PixelRepresentation"] not in (-1, 0, 1):
            raise ScanError(
                Reason.UNREADABLE_DICOM,
                f"a slice has PixelRepresentation {short['PixelRepresentation']}, expected 0 or 1; "
                "export the scan again",
            )
        return cls(allocated, stored, high, short["PixelRepresentation"] == 1)

    @property
    def shift(self) -> int:
        """Unused bits below the value."""
        return self.high + 1 - self.stored

    @property
    def largest(self) -> int:
        """The largest value of an unsigned pixel."""
        return (1 << self.stored) - 1

    @property
    def word(self) -> str:
        """NumPy's name of the unsigned word, without byte order."""
        return f"u{_BYTES[self.allocated]}"


# -- what the header says ---------------------------------------------------------------------------------------------


def unsupported(found: str) -> ScanError:
    """Return the error for pixels that are not plain MR signal."""
    return ScanError(
        Reason.UNSUPPORTED_PIXELS,
        f"a water or fat slice has {found}, expected plain grey values; export the scanner's own magnitude images",
    )


def check_signal(text: Mapping[str, str], short: Mapping[str, int]) -> None:
    """Refuse colours, inverted grey values, parts of complex numbers and units other than signal.

    Args:
        text: elements by keyword, empty if absent.
        short: elements of 16 bits by keyword, -1 if absent.

    Raises:
        ScanError: ``unsupported_pixels``.
    """
    samples = short["SamplesPerPixel"]
    if samples not in (-1, 1):
        raise unsupported(f"{samples} samples per pixel (SamplesPerPixel)")
    for keyword, expected in _SIGNAL.items():
        value = text[keyword].upper()
        if value not in expected:
            raise unsupported(f"{keyword} {value if value in _SHOWN else '(another value)'}")
    if text["PixelIntensityRelationshipSign"] == "-1":
        raise unsupported("PixelIntensityRelationshipSign -1")


def unused_rescale(rescale: Scaling, used: Scaling) -> tuple[Finding, ...]:
    """Report a rescale slope that was not used because another scaling of 1 has priority.

    Args:
        rescale: from RescaleSlope and RescaleIntercept.
        used: the scaling that was used instead.
    """
    if rescale.numbers == (1.0, 0.0) or used.numbers != (1.0, 0.0):
        return ()
    return (Finding(Reason.RESCALE_APPLIED, f"a {used.words} slope of 1 was used instead of the rescale slope"),)


def rescaling(text: Mapping[str, str]) -> Scaling:
    """Read the linear modality transformation.

    Raises:
        ScanError: ``unsupported_pixels`` for a slope of 0.
        ValueError: not a number.
    """
    slope, intercept = float(text["RescaleSlope"] or 1.0), float(text["RescaleIntercept"] or 0.0)
    if slope == 0:
        raise unsupported("RescaleSlope 0")
    return Scaling(slope, intercept)


def value_findings(text: Mapping[str, str]) -> tuple[Finding, ...]:
    """Report irreversible changes to the values that the header mentions."""
    found = []
    lossy, syntax = text["LossyImageCompression"], text["TransferSyntaxUID"]
    if lossy == "01" or syntax in _LOSSY or (syntax in _PERHAPS_LOSSY and lossy != "00"):
        found.append(Finding(Reason.LOSSY_COMPRESSION, "the pixels went through lossy compression"))
    if text["BurnedInAnnotation"].upper() == "YES":
        found.append(
            Finding(
                Reason.BURNED_IN_ANNOTATION,
                "according to the header, text is drawn into the pixels; it was not removed",
            )
        )
    return tuple(found)


def check_dataset(dataset: pydicom.Dataset, form: PixelForm) -> None:
    """Refuse anything that changes the values other than slope and intercept.

    Args:
        dataset: all elements of a slice.
        form: which bits are the value.

    Raises:
        ScanError: ``unsupported_pixels``.
    """
    for keyword in ("FloatPixelData", "DoubleFloatPixelData"):
        if keyword in dataset:
            raise unsupported(keyword)
    if dataset.get("ModalityLUTSequence"):
        raise unsupported("a Modality LUT (ModalityLUTSequence)")
    if dataset.get("RedPaletteColorLookupTableDescriptor"):
        raise unsupported("a colour palette (RedPaletteColorLookupTableDescriptor)")
    for group in OVERLAY_GROUPS:
        element = dataset.get((group, 0x0102))
        bit = int(element.value or 0) if element is not None else 0
        if bit and form.shift <= bit <= form.high and (group, 0x3000) not in dataset:
            raise unsupported(
                f"an overlay in bit {bit} of the pixels, whose value is in bits {form.shift} to {form.high}"
            )


def mapping_of(dataset: pydicom.Dataset, rescale: Scaling) -> Scaling:
    """Choose the scaling: a real-world value mapping, else Philips's scale slope, else the rescale slope.

    Args:
        dataset: all elements of a slice.
        rescale: from RescaleSlope and RescaleIntercept.

    Raises:
        ScanError: ``unsupported_pixels``.
    """
    items = dataset.get("RealWorldValueMappingSequence")
    if items:
        return _real_world(items)
    scale = _philips_scale_slope(dataset)
    if scale is None:
        return rescale
    if not (math.isfinite(scale) and scale > 0):
        raise unsupported(f"a Philips scale slope of {scale:g}")
    # FP = (SV * RS + RI) / (RS * SS): Chenevert et al., Transl Oncol 7, 2014
    return Scaling(1.0 / scale, rescale.intercept / (rescale.slope * scale), "Philips scale")


def _real_world(items: Any) -> Scaling:
    """Read the one linear real-world value mapping of a slice."""
    if len(items) != 1:
        raise unsupported(f"{len(items)} real-world value mappings")
    item = items[0]
    if "RealWorldValueSlope" not in item or "RealWorldValueIntercept" not in item:
        raise unsupported("a real-world value mapping that is a table")
    units = item.get("MeasurementUnitsCodeSequence")
    if units and str(units[0].get("CodeValue", "")) not in _SIGNAL_UNITS:
        raise unsupported("real-world values in a unit (MeasurementUnitsCodeSequence)")
    slope, intercept = float(item.RealWorldValueSlope), float(item.RealWorldValueIntercept)
    if slope == 0:
        raise unsupported("RealWorldValueSlope 0")
    return Scaling(slope, intercept, "real-world value")


def _philips_scale_slope(dataset: pydicom.Dataset) -> float | None:
    try:
        block = dataset.private_block(_PHILIPS_GROUP, _PHILIPS_CREATOR)
        return float(block[_PHILIPS_SCALE_SLOPE].value)
    except (KeyError, TypeError):  # no such block or element, or an empty one
        return None


def check_mapped(dataset: pydicom.Dataset, values: NDArray[Any]) -> None:
    """Refuse values outside the range of the real-world value mapping.

    Args:
        dataset: all elements of a slice.
        values: (rows, cols) as stored, not scaled.

    Raises:
        ScanError: ``unsupported_pixels``.
    """
    for item in dataset.get("RealWorldValueMappingSequence") or ():
        for start, end in (
            ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped"),
            ("DoubleFloatRealWorldValueFirstValueMapped", "DoubleFloatRealWorldValueLastValueMapped"),
        ):
            if start not in item or end not in item:
                continue
            first, last, low, high = (
                float(v) for v in (item[start].value, item[end].value, values.min(), values.max())
            )
            if not (first <= low and high <= last):
                raise unsupported(
                    f"values from {low:g} to {high:g}, of which only {first:g} to {last:g} have a real-world value"
                )


# -- the pixels -------------------------------------------------------------------------------------------------------

#: Messages of the findings.
UNUSED_BITS = Finding(Reason.UNUSED_BITS_MASKED, "bits outside BitsStored were set and were masked")
PADDED = Finding(Reason.PADDING_REPLACED, "pixels with the padding value were set to 0")


def stored_values(words: NDArray[Any], form: PixelForm) -> tuple[NDArray[Any], bool]:
    """Extract the values from the stored words.

    Unused bits may contain anything (PS3.5 8.1.1): overlays, or no sign extension.

    Args:
        words: unsigned words, as stored; not changed.
        form: which bits are the value.

    Returns:
        The values, and whether unused bits had anything but zeros or the sign.

    Raises:
        ScanError: ``unsupported_pixels`` if bits below the value are set: HighBit may be wrong.
    """
    if form.shift and (words & ((1 << form.shift) - 1)).any():
        raise unsupported(
            f"bits set below the value, which is in bits {form.shift} to {form.high} according to "
            f"HighBit {form.high} and BitsStored {form.stored}"
        )
    values = words >> form.shift if form.shift else words
    if form.stored == form.allocated:
        return (values.view(f"i{words.dtype.itemsize}") if form.signed else values), False
    if not form.signed:
        if values.max() <= form.largest:
            return values, False
        return values & form.largest, True
    sign = 1 << (form.stored - 1)
    extended = ((values.astype(np.int64) & form.largest) ^ sign) - sign
    above = values.astype(np.int64) >> form.stored
    ones = (1 << (form.allocated - form.shift - form.stored)) - 1
    odd = (above != 0) & ((above != ones) | (extended >= 0))
    return extended, bool(odd.any())


def replace_padding(
    dataset: pydicom.Dataset, words: NDArray[Any], values: NDArray[Any], form: PixelForm, scaling: Scaling
) -> tuple[NDArray[Any], bool]:
    """Set pixels with the padding value, or in its range, to no signal.

    Args:
        dataset: with PixelPaddingValue, and perhaps PixelPaddingRangeLimit.
        words: unsigned words as stored.
        values: extracted from the words.
        form: how they are stored.
        scaling: applied later; the result is 0 after it.

    Returns:
        The values, and whether any changed.
    """
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return values, False
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted(_as_stored(int(v), form) for v in (value, value if limit in (None, "") else limit))
    padded = (values >= low) & (values <= high)
    if low == high and not form.signed and low > form.largest:  # may extend into the unused bits
        padded = words == low
    nothing = -scaling.intercept / scaling.slope if scaling.intercept else 0.0
    if not padded.any() or (values[padded] == nothing).all():
        return values, False
    if nothing == 0.0:
        return np.where(padded, values.dtype.type(0), values), True
    return np.where(padded, np.float64(nothing), values), True


def _as_stored(value: int, form: PixelForm) -> int:
    """Read a padding value like the pixels, since its sign may be lost in the file."""
    value %= 1 << form.allocated
    return value - (1 << form.allocated) if form.signed and value >> (form.allocated - 1) else value
