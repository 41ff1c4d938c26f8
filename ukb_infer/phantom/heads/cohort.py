"""Folders of synthetic heads in the layouts of FOMO60K, of its few-shot tasks, and of UK Biobank's brain zips."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.phantom.cohort import run_jobs
from ukb_infer.phantom.heads.population import (
    AGE_RANGE,
    INFARCT_SHARE,
    POLYMICROGYRIA_SHARE,
    Disease,
    Head,
    sample_head,
)
from ukb_infer.phantom.heads.scanner import Scan, Size, scan_head
from ukb_infer.phantom.heads.sites import SITES, get_site
from ukb_infer.storage import atomic_write_text

#: Layouts by the name that options have for them, with the ages of their participants.
LAYOUTS: dict[str, tuple[float, float]] = {
    "fomo60k": AGE_RANGE, "infarct": (35.0, 88.0), "meningioma": (30.0, 85.0), "brain-age": AGE_RANGE,
    "ukb": (45.0, 82.0), "trigeminal": (30.0, 80.0), "polymicrogyria": (20.0, 60.0),
}  # fmt: skip
#: Layouts that share the numbers of heads with each other; those added since have numbers of their own, far above.
_FIRST_LAYOUTS, _FAR = 5, 10**9
#: Contrasts of a task; others have one of those that show blood too.
_CONTRASTS = {"brain-age": ("t1", "t2"), "trigeminal": ("t2",), "polymicrogyria": ("t1",)}
#: Tasks that are outlined.
_OUTLINED = ("meningioma", "trigeminal")
#: Sites by default: all but UK Biobank's and those kept for the studies.
DEFAULT_SITES = tuple(name for name in SITES if name not in ("ukb", "site_f", "site_g"))
COHORT_NAME, TRUTH_NAME, PARTICIPANTS_NAME, MAPPING_NAME = "heads.json", "truth.csv", "participants.tsv", "mapping.tsv"
#: Zips of UK Biobank: field, name of the members, contrast.
_ZIPS = (("20252", "T1", "t1"), ("20253", "T2_FLAIR", "flair"))
#: Clinical pool: share with each disease, with a second visit, with a repeated sequence, with each contrast.
_POOL = {"infarct": 0.15, "meningioma": 0.15}
_SECOND_VISIT, _REPEATED = 0.25, 0.1
_POOL_SHARES = {"t1": 0.9, "t2": 0.7, "flair": 0.8, "dwi": 0.6, "adc": 0.5, "t2s": 0.35, "swi": 0.35, "pd": 0.2}
_PEOPLE = ("participant_id", "age", "age_group", "sex", "site", "group")


@dataclass(frozen=True)
class _Job:
    out: Path
    layout: str
    seed: int
    index: int
    site: str
    size: Size


@dataclass(frozen=True)
class _Done:
    """What one participant adds to the tables."""

    person: dict[str, str]
    mapping: list[dict[str, str]]
    truth: list[dict[str, str]]


def write_heads(
    out: Path,
    layout: str,
    count: int,
    seed: int,
    *,
    sites: Sequence[str] = (),
    size: Size = "full",
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write synthetic heads, their tables and what is true of them.

    Args:
        out: folder; created.
        layout: of :data:`LAYOUTS`.
        count: participants, ``sub_0001`` and up (of ``ukb`` 0000001 and up).
        seed: of the cohort; no two layouts share a head.
        sites: names of :data:`SITES`, in turn; () for :data:`DEFAULT_SITES`.
        size: ``full``, or ``small`` with voxels of at least 3.5 mm.
        workers: processes; the files do not depend on them.
        progress: called with (written, count).
        overwrite: remove an earlier cohort of heads first.

    Returns:
        Path of ``truth.csv``: participant, session, site, age, sex, disease, volumes of lesion and inner skull in ml.

    Raises:
        UsageError: contradictory arguments, or the folder holds something else.
    """
    chosen = _check(layout, count, seed, sites, size, workers)
    _prepare(out, overwrite)
    facts = {"layout": layout, "count": count, "seed": seed, "sites": chosen, "size": size}
    _write_facts(out, facts, _entries(layout, count, chosen))  # a cohort that is interrupted can be replaced
    jobs = [_Job(out, layout, seed, index, chosen[(index - 1) % len(chosen)], size) for index in range(1, count + 1)]
    report, done = progress or (lambda *_: None), []
    report(0, count)
    for found in run_jobs(_write_one, jobs, workers):
        done.append(found)
        report(len(done), count)
    done.sort(key=lambda item: item.person["participant_id"])
    _write_tables(out, layout, done)
    path = out / TRUTH_NAME
    atomic_write_text(path, _table([row for item in done for row in item.truth], ","))
    _write_facts(out, facts, sorted(entry.name for entry in out.iterdir() if entry.name != COHORT_NAME))
    return path


def _entries(layout: str, count: int, sites: Sequence[str]) -> list[str]:
    """Files and folders that a cohort may have."""
    if layout == "fomo60k":
        return [*dict.fromkeys(map(dataset_name, sites)), MAPPING_NAME, TRUTH_NAME]
    tables = [PARTICIPANTS_NAME, TRUTH_NAME]
    if layout == "ukb":
        return [f"{k:07d}_{field}_2_0.zip" for k in range(1, count + 1) for field, *_ in _ZIPS] + tables
    return ["preprocessed", "labels", *tables]


def _write_facts(out: Path, facts: dict[str, Any], entries: Sequence[str]) -> None:
    atomic_write_text(out / COHORT_NAME, json.dumps(facts | {"entries": entries}, indent=1) + "\n")


def check_heads(format: str, anomalies: Sequence[str]) -> None:
    """Refuse options that only bodies have.

    Args:
        format: of bodies; ``zip`` by default.
        anomalies: of bodies.

    Raises:
        UsageError: what contradicts.
    """
    if anomalies or format != "zip":
        field, got = ("anomalies", ", ".join(anomalies)) if anomalies else ("format", format)
        raise UsageError(field=field, got=got, expected="none with `heads`: only bodies have it")


def _check(layout: str, count: int, seed: int, sites: Sequence[str], size: str, workers: int) -> list[str]:
    """Names of the sites.

    Raises:
        UsageError: what contradicts.
    """
    if layout not in LAYOUTS:
        raise UsageError(field="heads", got=layout, expected=", ".join(LAYOUTS))
    if not 1 <= count <= 9999:
        raise UsageError(field="count", got=count, expected="1 to 9999 heads")
    if seed < 0 or workers < 1:
        field, got, expected = ("seed", seed, "0 or more") if seed < 0 else ("workers", workers, "1 or more")
        raise UsageError(field=field, got=got, expected=expected)
    if size not in ("full", "small"):
        raise UsageError(field="size", got=size, expected="full or small")
    chosen = [get_site(name).name for name in sites] or (["ukb"] if layout == "ukb" else list(DEFAULT_SITES))
    wanted = () if "ukb" not in chosen or layout in ("ukb", "fomo60k") else _contrasts_of(layout, "swi")
    missing = [name for name in wanted if name not in SITES["ukb"].sequences]
    if missing:
        what = "diffusion" if "dwi" in missing else missing[0]
        raise UsageError(
            field="sites", got="ukb", expected=f"another: ukb scans no {what} ({', '.join(DEFAULT_SITES)})"
        )
    return chosen


def _contrasts_of(layout: str, blood: str) -> tuple[str, ...]:
    """Contrasts of a case of a task; ``blood`` is t2s or swi."""
    return _CONTRASTS.get(layout, ("flair", "dwi", "adc", blood))


def _number(layout: str, seed: int) -> int:
    """Number of a cohort, so that no two layouts or seeds share a head."""
    place = list(LAYOUTS).index(layout)
    if place < _FIRST_LAYOUTS:
        return seed * _FIRST_LAYOUTS + place
    return _FAR * place + seed


def _prepare(out: Path, overwrite: bool) -> None:
    """Make the folder, removing an earlier cohort of heads.

    Raises:
        UsageError: it is a file, or holds something.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"`out` {out} is a file, expected a folder")
    if out.is_dir() and any(out.iterdir()):
        marker = out / COHORT_NAME
        if not (overwrite and marker.is_file()):
            hint = "use `overwrite`" if marker.is_file() else "nothing that is no cohort of heads is removed"
            raise UsageError(f"`out` {out} is not empty; choose another folder ({hint})")
        for name in json.loads(marker.read_text(encoding="utf-8"))["entries"]:
            place = out / Path(name).name
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        marker.unlink()
    out.mkdir(parents=True, exist_ok=True)


# -- one participant -------------------------------------------------------------------------------------------------


def _write_one(job: _Job) -> _Done:
    rng = np.random.default_rng(np.random.SeedSequence([job.seed, job.index, list(LAYOUTS).index(job.layout), 99]))
    disease = _disease_of(job.layout, rng)
    head = sample_head(
        _number(job.layout, job.seed), job.index, disease, LAYOUTS[job.layout], nerves=job.layout == "trigeminal"
    )
    eid = f"{job.index:07d}" if job.layout == "ukb" else f"sub_{job.index:04d}"
    write = {"fomo60k": _write_pool, "ukb": _write_zips}.get(job.layout, _write_task)
    mapping, truth = write(job, head, eid, rng)
    person = {
        "participant_id": eid, "age": f"{head.age_years:.1f}", "age_group": _age_group(head.age_years),
        "sex": "M" if head.male else "F", "site": job.site, "group": disease,
    }  # fmt: skip
    return _Done(person, mapping, truth)


def _disease_of(layout: str, rng: np.random.Generator) -> Disease:
    draw = float(rng.random())
    if layout == "infarct":
        return "infarct" if draw < INFARCT_SHARE else "none"
    if layout == "polymicrogyria":
        return "polymicrogyria" if draw < POLYMICROGYRIA_SHARE else "none"
    if layout == "meningioma":
        return "meningioma"
    if layout == "fomo60k" and draw < sum(_POOL.values()):
        return "infarct" if draw < _POOL["infarct"] else "meningioma"
    return "none"


def _age_group(age_years: float) -> str:
    """Group for judging fairness."""
    return "under 45" if age_years < 45 else "45 to 65" if age_years < 65 else "over 65"


def _write_pool(
    job: _Job, head: Head, eid: str, rng: np.random.Generator
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """One or two visits with the contrasts that happened to be scanned."""
    dataset, available = dataset_name(job.site), get_site(job.site).sequences
    mapping, truth = [], []
    for session in range(1, 2 + int(rng.random() < _SECOND_VISIT)):
        drawn = [name for name in available if rng.random() < _POOL_SHARES[name]]
        names = drawn if len(drawn) > 1 else list(available)[:3]
        scan = scan_head(head, get_site(job.site), names, job.size, session)
        files = {name: scan.images[name] for name in names}
        if rng.random() < _REPEATED:
            again = scan_head(head, get_site(job.site), names[:1], job.size, session)
            files[f"{names[0]}_2"] = again.images[names[0]]
        folder = Path(dataset, eid, f"ses_{session}")
        for stem, image in files.items():
            save_image(job.out / folder / f"{stem}.nii.gz", image, scan.affine)
            mapping.append(
                {"dataset": dataset, "participant_id": eid, "session_id": f"ses_{session}",
                 "filename": f"{stem}.nii.gz", "sequence": stem.split("_")[0]}
            )  # fmt: skip
        truth.append(_true_values(job, head, eid, f"ses_{session}", scan))
    return mapping, truth


def _write_task(
    job: _Job, head: Head, eid: str, rng: np.random.Generator
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """One visit and its label in the finetuning layout."""
    blood = "swi" if rng.random() < 0.5 else "t2s"
    names = _contrasts_of(job.layout, blood)
    scan = scan_head(head, get_site(job.site), names, job.size)
    for name in names:
        stem = "dwi_b1000" if name == "dwi" else name
        save_image(job.out / "preprocessed" / eid / "ses_1" / f"{stem}.nii.gz", scan.images[name], scan.affine)
    label = job.out / "labels" / eid / "ses_1"
    label.mkdir(parents=True, exist_ok=True)
    if job.layout in _OUTLINED:
        save_image(label / "seg.nii.gz", scan.mask, scan.affine)
    else:
        text = f"{head.age_years:.2f}" if job.layout == "brain-age" else f"{int(head.disease != 'none')}"
        (label / "label.txt").write_text(text + "\n")
    return [], [_true_values(job, head, eid, "ses_1", scan)]


def _write_zips(
    job: _Job, head: Head, eid: str, rng: np.random.Generator
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Two zips as UK Biobank gives them: the whole head and the brain alone."""
    scan = scan_head(head, get_site(job.site), ("t1", "flair"), job.size)
    for field, stem, name in _ZIPS:
        with zipfile.ZipFile(job.out / f"{eid}_{field}_2_0.zip", "w") as archive:
            whole = scan.images[name]
            for member, image in ((stem, whole), (f"{stem}_brain", np.where(scan.brain > 0, whole, 0))):
                archive.writestr(zipfile.ZipInfo(f"{stem}/{member}.nii.gz"), pack_image(image, scan.affine))
    return [], [_true_values(job, head, eid, "ses-2", scan)]


def dataset_name(site: str) -> str:
    """Folder of a site in the layout of FOMO60K, e.g. ``PT001_site_a``."""
    return f"PT{list(SITES).index(site) + 1:03d}_{site}"


def pack_image(image: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    """A gzipped NIfTI-1 file in scanner coordinates.

    Args:
        image: (X, Y, Z).
        affine: (4, 4) voxel to RAS mm.
    """
    made = nibabel.Nifti1Image(image, affine)
    made.set_sform(affine, 1)
    made.set_qform(affine, 1)
    made.header.set_xyzt_units("mm")
    packed: bytes = isal_zlib.compress(made.to_bytes(), 1, wbits=31)
    return packed


def save_image(path: Path, image: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write :func:`pack_image`, making the folder.

    Args:
        path: of the ``.nii.gz``.
        image: (X, Y, Z).
        affine: (4, 4) voxel to RAS mm.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack_image(image, affine))


# -- tables ----------------------------------------------------------------------------------------------------------


def _true_values(job: _Job, head: Head, eid: str, session: str, scan: Scan) -> dict[str, str]:
    voxel_ml = abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000.0
    return {
        "participant": eid, "session": session, "site": job.site, "age": f"{head.age_years:.4f}",
        "sex": "M" if head.male else "F", "disease": head.disease,
        "lesion_ml": f"{voxel_ml * int((scan.mask > 0).sum()):.3f}",
        "inner_skull_ml": f"{voxel_ml * int(scan.brain.sum()):.1f}",
    }  # fmt: skip


def _write_tables(out: Path, layout: str, done: Sequence[_Done]) -> None:
    """``participants.tsv``, and of the pool one per data set with ``mapping.tsv``."""
    if layout != "fomo60k":
        atomic_write_text(out / PARTICIPANTS_NAME, _table([item.person for item in done], "\t", _PEOPLE))
        return
    for dataset in sorted({dataset_name(item.person["site"]) for item in done}):
        people = [item.person for item in done if dataset_name(item.person["site"]) == dataset]
        atomic_write_text(out / dataset / PARTICIPANTS_NAME, _table(people, "\t", _PEOPLE))
    atomic_write_text(out / MAPPING_NAME, _table([row for item in done for row in item.mapping], "\t"))


def _table(rows: Sequence[dict[str, str]], separator: str, columns: Sequence[str] = ()) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns or list(rows[0]), delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
