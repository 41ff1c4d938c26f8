"""Contrasts of the fused body and the names of its files, by BIDS; ``docs/stitch.md`` explains both."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ukb_infer.errors import UsageError
from ukb_infer.text import suggest

if TYPE_CHECKING:
    from ukb_infer.records import ScanKey

#: Brain zips by UK Biobank field: modality, and member with the whole head after correction for gradient distortion.
BRAIN_FIELDS = {"20252": ("t1", "T1/T1.nii.gz"), "20253": ("flair", "T2_FLAIR/T2_FLAIR.nii.gz")}
IMAGE_SUFFIX, SIDECAR_SUFFIX = ".nii.gz", ".json"
_NOT_OF_LABELS = re.compile(r"[^A-Za-z0-9]")


@dataclass(frozen=True)
class FusedContrast:
    """One contrast of the fused body.

    Attributes:
        name: in options.
        label: of the BIDS entity ``rec``.
        of_station: the attribute of ``Station`` that it is fused from; "" for what is computed from fused ones.
        meaning: for the sidecar.
        units: "arbitrary" signal, or "1" for a fraction.
    """

    name: str
    label: str
    of_station: str
    meaning: str
    units: str = "arbitrary"


#: All contrasts by the name that options have for them.
CONTRASTS: dict[str, FusedContrast] = {
    c.name: c
    for c in (
        FusedContrast("water", "water", "water", "Water signal"),
        FusedContrast("fat", "fat", "fat", "Fat signal"),
        FusedContrast("in", "inphase", "in_phase", "In-phase signal"),
        FusedContrast("opposed", "opposedphase", "opposed_phase", "Opposed-phase signal"),
        FusedContrast(
            "fraction", "fatfraction", "", "Fat fraction F/(W+F), in 0-1; 0 where there is no signal; not masked", "1"
        ),
    )
}
DEFAULT_CONTRASTS = ("water", "fat")
#: What was done, the BIDS entity ``desc``: fused, and fused as it was before fat-water swaps were corrected.
PROCESSING = FUSED, UNCORRECTED = "fused", "uncorrected"
#: Spacings by name, beside a number of mm.
SPACING_NAMES = ("native", "recipe")
DEFAULT_SPACING = "native"
#: Isotropic spacings accepted, mm: finer ones would make files of gigabytes, coarser ones lose stations.
SPACING_LIMITS_MM = (0.5, 10.0)


def check_contrasts(names: Sequence[str]) -> tuple[str, ...]:
    """Each contrast once, in the order of :data:`CONTRASTS`.

    Raises:
        UsageError: an unknown one, or none.
    """
    for name in names:
        if name not in CONTRASTS:
            hint = suggest(name, CONTRASTS)
            raise UsageError(f"unknown {name!r}{hint} (choices: {', '.join(CONTRASTS)})", field="contrasts")
    if not names:
        raise UsageError(f"none given, expected some of {', '.join(CONTRASTS)}", field="contrasts")
    return tuple(name for name in CONTRASTS if name in names)


def check_spacing_rule(text: str) -> str:
    """Return a spacing rule in its only form: "native", "recipe", or a number of mm.

    Raises:
        UsageError: it is none of them.

    >>> check_spacing_rule("2.0")
    '2'
    """
    if text in SPACING_NAMES:
        return text
    low, high = SPACING_LIMITS_MM
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        expected = f"native, recipe or {low:g} to {high:g} (mm, isotropic)"
        raise UsageError(field="spacing", got=text, expected=expected)
    return f"{value:g}"


def subject_label(key: ScanKey) -> str:
    """BIDS label of a participant: the eid; for a scan without one its name, which labels may only partly hold.

    Names that lose characters get a hash of the whole name, so that no two scans share files.

    >>> from ukb_infer.records import ScanKey
    >>> subject_label(ScanKey.from_name("0000001_20201_2_0"))
    '0000001'
    >>> subject_label(ScanKey.from_name("phantom7")), subject_label(ScanKey.from_name("eg_20201_abdo"))
    ('phantom7', 'eg20201abdo098948')
    """
    if key.eid:
        return key.eid
    kept = _NOT_OF_LABELS.sub("", key.scan)
    return kept if kept == key.scan else kept + hashlib.sha256(key.scan.encode()).hexdigest()[:6]


def of_water_and_fat(contrast: str) -> bool:
    """Whether a contrast changes where water and fat are exchanged."""
    return CONTRASTS[contrast].of_station in ("", "water", "fat")


def image_path(key: ScanKey, contrast: str, processing: str = FUSED) -> PurePosixPath:
    """Path of a fused image below the run's folder; its sidecar differs in the suffix.

    Args:
        key: of the scan.
        contrast: name in :data:`CONTRASTS`.
        processing: one of :data:`PROCESSING`.

    >>> from ukb_infer.records import ScanKey
    >>> str(image_path(ScanKey.from_name("0000001_20201_2_0"), "water"))
    'sub-0000001/ses-2/anat/sub-0000001_ses-2_acq-dixon_rec-water_desc-fused_T1w.nii.gz'
    """
    place = [f"sub-{subject_label(key)}"] + ([] if key.instance is None else [f"ses-{key.instance}"])
    run = [f"run-{key.array + 1}"] if key.array else []
    entities = [*place, "acq-dixon", f"rec-{CONTRASTS[contrast].label}", *run, f"desc-{processing}", "T1w"]
    return PurePosixPath(*place, "anat", "_".join(entities) + IMAGE_SUFFIX)


def sidecar_path(image: PurePosixPath) -> PurePosixPath:
    """Path of the sidecar of an image."""
    return image.with_name(image.name.removesuffix(IMAGE_SUFFIX) + SIDECAR_SUFFIX)
