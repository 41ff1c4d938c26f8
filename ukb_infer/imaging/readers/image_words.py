"""Words in file names, series descriptions and ImageType: what an image is, and what it is not.

Folders of stations contain many images that are named like water or fat but are neither: fraction maps, masks,
corrected copies, reconstructions. Names are split into words (``FatFraction``, ``fat-fraction`` and ``fatfrac`` alike),
and the words are looked up in the tables below. ``docs/inputs.md`` lists them for users.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ukb_infer.imaging.series import CONTRAST_WORDS, Marks

#: Words of images that are never water or fat, by their description in messages.
DERIVED: dict[str, str] = {
    "fraction map": "ff pdff ffrac fatfrac frac fracs fraction fractions percent percentage pct perc ratio fsf",
    "mask": "mask masks msk",
    "segmentation": "seg segs segm dseg aseg probseg segmentation segmentations segmented label labels labelmap lbl "
    "roi rois contour contours annotation annotations parcellation groundtruth gt prediction predictions pred prob "
    "proba probability probabilities logits",
    "parameter map": "map maps mapping r2s r2star t2s t2star t2starmap fieldmap biasfield",
    "localizer": "localizer localizers localiser localisers scout scouts aahscout survey topogram",
    "screenshot": "screenshot screenshots screen screensave snapshot thumbnail thumb preview overlay montage",
    "projection or reformatted image": "mpr mprs mip mips minip reformat reformatted projection projections",
    "difference image": "subtraction subtracted subtract diff difference delta",
    "phase, real or imaginary image": "phase ph pha phasemap real imag imaginary",
    "fat-suppressed image": "sat fatsup suppressed suppression saturated",
    "error or noise map": "residual residuals resid error errors uncertainty variance confidence snr gfactor noise qc",
}
#: Images composed of stations, or of one tissue: not a station, unless every file has the word.
COMPOSED = "composed series"
#: First words of the descriptions of copies of stations.
COPY = "copy named"
SET_ASIDE: dict[str, str] = {
    "in-phase or opposed-phase image": "in opp ip op oop out inphase outphase outofphase opposed opposedphase oppphase "
    "opphase",
    COMPOSED: "composed compose composing composite comp stitched stitch fused fusion merged merge combined wholebody "
    "wb whole full concat concatenated mosaic total joined",
    "image of one tissue": "visceral subcutaneous vat asat muscle liver spleen pancreas kidney kidneys organ organs",
    "reformatted image": "cor coronal sag sagittal loc plan planning",
}
#: Words of copies computed from the scanner's images.
_PROCESSED = (
    "corr corrected correction n4 n4itk bfc bc bias biascorr bcorr norm normed normalized normalised nrm denoised "
    "denoise dn nlm filtered filter filt smooth smoothed blurred sharpened unring degibbs gibbs resampled resample "
    "interpolated interp upsampled downsampled iso isotropic reg registered registration coreg aligned warped warp "
    "transformed rigid affine mni cropped crop padded masked stripped clipped rescaled scaled harmonized harmonised "
    "zscore swapped unswapped swapcorr fixed edited modified processed proc preproc preprocessed postproc recon "
    "reconstructed reconstruction reconstructions superres mean avg average averaged median sum std max min dis2d "
    "dis3d distcorr undistorted copy backup bak old tmp temp flipped rotated reoriented reorient augmented aug "
    "synthetic synth cleaned defaced"
)
#: Words of the scanner's own images, next to processed ones.
_ORIGINAL = "orig original originals raw uncorr uncorrected nd unfiltered unprocessed source native mag magnitude"

_KIND = {word: kind for table in (DERIVED, SET_ASIDE) for kind, words in table.items() for word in words.split()}
_HARD = frozenset(word for words in DERIVED.values() for word in words.split())
PROCESSED, ORIGINAL = frozenset(_PROCESSED.split()), frozenset(_ORIGINAL.split())
_KNOWN = frozenset(_KIND) | PROCESSED | ORIGINAL | frozenset(CONTRAST_WORDS)
_NEGATIONS = frozenset({"un", "non", "not", "no", "without"})

#: A folder with only words of these kinds has no stations; other words make it a folder of a study or scan.
_FOLDER_KINDS = ("fraction map", "mask", "segmentation", "parameter map", "localizer", "screenshot")
_FOLDER_WORDS = frozenset(word for kind in _FOLDER_KINDS for word in DERIVED[kind].split()) | {
    "derivatives",
    "derivative",
    "derived",
}
_FOLDER_FILLERS = frozenset({"image", "images", "files", "nifti", "and", "of", "manual", "automatic", *CONTRAST_WORDS})

_BETWEEN_WORDS = re.compile(r"[^A-Za-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_STAR = re.compile(r"(?<![A-Za-z0-9])([RrTt]2)\s*(?:\*|_?star)", re.IGNORECASE)


@lru_cache(maxsize=4096)
def words_of(text: str) -> tuple[str, ...]:
    """Split a name into lower-case words: at separators, in CamelCase, and where two known words are joined.

    >>> words_of("sub-1_FatFraction_T2*")
    ('sub', '1', 'fat', 'fraction', 't2star')
    >>> words_of("Dixon_noBH_wmask2")
    ('dixon', 'no', 'bh', 'w', 'mask2')
    """
    found: list[str] = []
    for part in _BETWEEN_WORDS.split(_STAR.sub(r"\1star", text)):
        if part:
            pieces = _joined_words(part.lower())
            found += pieces or [
                word for camel in _CAMEL.split(part) for word in _joined_words(camel.lower()) or [camel]
            ]
    return tuple(word.lower() for word in found)


def _joined_words(part: str) -> list[str]:
    """Split ``fatfraction`` or ``wmask``; the part itself if it is a known word, nothing if neither."""
    if base(part) in _KNOWN:
        return [part]
    for at in range(1, len(part)):
        head, tail = part[:at], base(part[at:])
        if (head in CONTRAST_WORDS and tail in _KNOWN) or (at > 1 and head in _HARD and tail in _HARD):
            return [head, part[at:]]
        if head in _HARD and at > 1 and tail in CONTRAST_WORDS and len(tail) > 1:
            return [head, part[at:]]
    return []


def base(word: str) -> str:
    """Return a word without the number at its end, unless the number belongs to it (``n4``, ``dis2d``)."""
    return word if word in _PLAIN else word.rstrip("0123456789") or word


_PLAIN = frozenset(_KIND) | PROCESSED | ORIGINAL


def read_marks(words: Sequence[str], ignored: Iterable[int] = ()) -> Marks:
    """Interpret the words of a name other than the contrast.

    Args:
        words: as :func:`words_of` gives them.
        ignored: positions of words that every candidate shares, which count only if they name a derived image.
    """
    kind: str | None = None
    aside: set[str] = set()
    processed: set[str] = set()
    original: set[str] = set()
    skipped = frozenset(ignored)
    for place, full in enumerate(words):
        word = base(full)
        if word in _HARD:
            kind = kind or _KIND[word]
        elif word in _KIND and place not in skipped:
            aside.add(_KIND[word])
        elif word in ORIGINAL or (word in PROCESSED and place and words[place - 1] in _NEGATIONS):
            original.add(word)
        elif word in PROCESSED:
            processed.add(word)
    return Marks(kind, tuple(sorted(aside)), tuple(sorted(processed)), tuple(sorted(original)))


def is_derived_folder(name: str) -> bool:
    """Whether a folder is named only like masks, maps or other derived images.

    >>> [is_derived_folder(name) for name in ("derivatives", "fat_fraction", "waterMasks", "seg_cohort", "water")]
    [True, True, True, False, False]
    """
    words = [base(word) for word in words_of(name)]
    return bool(_FOLDER_WORDS.intersection(words)) and _FOLDER_WORDS.union(_FOLDER_FILLERS).issuperset(words)
