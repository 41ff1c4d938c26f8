"""What paths say: data set, participant, session and contrast of an image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from ukb_infer.imaging.volumes.names import BRAIN_FIELDS

#: Contrasts of a head, in the order in which messages list them.
MODALITIES = ("t1", "t2", "flair", "dwi", "adc", "t2s", "swi", "pd", "t1c")
#: Modality of the projections of bodies.
PROJECTION = "projection"
#: Other names of the contrasts: those of BIDS and of common tools.
_SYNONYMS = {
    "t1w": "t1", "mprage": "t1", "t1_brain": "t1", "t2w": "t2", "t2_flair": "flair", "dwi_b1000": "dwi",
    "b1000": "dwi", "trace": "dwi", "t2star": "t2s", "t2starw": "t2s", "t2_star": "t2s", "gre": "t2s", "pdw": "pd",
    "t1ce": "t1c", "t1gd": "t1c", "t1_ce": "t1c", "t1post": "t1c",
}  # fmt: skip
_IMAGE = re.compile(r"\.nii(\.gz)?$|\.npy$", re.IGNORECASE)
_REPEAT = re.compile(r"_\d+$")
_SESSION = re.compile(r"ses(sion)?[-_]?\w+$", re.IGNORECASE)
_BRAIN_ZIP = re.compile(rf"(\d+)_({'|'.join(BRAIN_FIELDS)})_(\d+)_\d+\.zip$")
_SCAN = re.compile(r"(\d+)_\d+_(\d+)_\d+$")
#: Folders of BIDS between session and file.
_KINDS = ("anat", "dwi", "swi", "perf", "fmap", "func")
#: Folders that hold other things than images to learn from.
SKIPPED_FOLDERS = ("labels", "derivatives", "sourcedata", "masks")
#: What ``stitch`` writes are bodies, in a T1-weighted contrast, but no heads.
_BODY = "acq-dixon"
_SKIPPED_WORDS = ("mask", "seg", "dseg", "label", "labels", "lesion")


@dataclass(frozen=True, kw_only=True)
class ImageName:
    """What a path says of an image; ``session`` is "" where nothing names one."""

    dataset: str
    participant: str
    session: str
    modality: str


def name_of(path: PurePath, root: str) -> ImageName | None:
    """Data set, participant, session and modality of an image.

    Args:
        path: relative to the folder that is indexed.
        root: name of that folder, the data set where no folder names one.

    Returns:
        None for files that are no images to learn from: masks, tables, other archives, fused bodies.

    >>> name_of(PurePath("PT001_IXI/sub_0001/ses_1/t2_2.nii.gz"), "FOMO60K").modality
    't2'
    >>> name_of(PurePath("sub-0001/ses-2/anat/sub-0001_ses-2_FLAIR.nii.gz"), "bids").session
    'ses-2'
    >>> name_of(PurePath("preprocessed/sub_0007/ses_1/dwi_b1000.nii.gz"), "task1").participant
    'sub_0007'
    """
    folders = list(path.parts[:-1])
    if any(folder.lower() in SKIPPED_FOLDERS or folder.startswith(".") for folder in folders):
        return None
    brain = _BRAIN_ZIP.search(path.name)
    if brain:
        return ImageName(
            dataset=root, participant=brain[1], session=f"ses-{brain[3]}", modality=BRAIN_FIELDS[brain[2]][0]
        )
    if not _IMAGE.search(path.name) or path.name.startswith("."):
        return None
    stem = _IMAGE.sub("", path.name)
    if path.suffix.lower() == ".npy":
        scan = _SCAN.match(stem)
        eid, session = (scan[1], f"ses-{scan[2]}") if scan else (stem, "")
        return ImageName(dataset=root, participant=eid, session=session, modality=PROJECTION)
    if _BODY in stem.lower() or any(word in _SKIPPED_WORDS for word in re.split(r"[-_.]", stem.lower())):
        return None
    return _from_folders(folders, stem, root)


def _from_folders(folders: list[str], stem: str, root: str) -> ImageName:
    """Read the folders above a NIfTI file."""
    if folders and folders[-1].lower() in _KINDS:
        folders = folders[:-1]
    session = ""
    below_subject = len(folders) >= 2 and folders[-2].lower().startswith("sub")
    if len(folders) >= 3 or below_subject or (folders and _SESSION.match(folders[-1])):
        session = folders.pop()
    participant = folders.pop() if folders else stem.split("_")[0]
    dataset = folders[-1] if folders and folders[-1].lower() != "preprocessed" else root
    return ImageName(dataset=dataset, participant=participant, session=session, modality=modality_of(stem))


def is_session(folder: str) -> bool:
    """Whether a folder's name is that of a session, like ``ses-2``."""
    return _SESSION.match(folder) is not None


def kind_folder(name: str) -> bool:
    """Whether a folder stands between session and files, as BIDS has them: ``anat``, ``dwi`` ..."""
    return name.lower() in _KINDS


def modality_of(stem: str) -> str:
    """Modality by a file's name without suffix; unknown ones keep their lower-case name.

    >>> [modality_of(n) for n in ("T1", "flair_3", "sub-01_ce-gadolinium_T1w", "sub-01_T2starw", "CT", "t2_flair")]
    ['t1', 'flair', 't1c', 't2s', 'ct', 'flair']
    """
    name = stem.lower()
    entities = name.split("_")
    if any("-" in entity for entity in entities):  # BIDS: key-value pairs, then the suffix
        contrast = any(entity.startswith("ce-") for entity in entities)
        name = entities[-1] if not contrast or "t1" not in entities[-1] else "t1c"
    for known in (name, _REPEAT.sub("", name)):
        if known in MODALITIES or known in _SYNONYMS:
            return _SYNONYMS.get(known, known)
    return _REPEAT.sub("", name)
