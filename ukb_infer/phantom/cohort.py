"""A folder of synthetic scans with their true values."""

from __future__ import annotations

import csv
import io
import multiprocessing
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ukb_infer.errors import UsageError
from ukb_infer.phantom.anomalies import ANOMALIES, check_format
from ukb_infer.phantom.masks import Project, organ_masks
from ukb_infer.phantom.population import sample_subject
from ukb_infer.phantom.sampling import Size, render
from ukb_infer.phantom.true_values import truths
from ukb_infer.phantom.writers import Format, write_scan
from ukb_infer.protocol import PROTOCOLS, UK_BIOBANK
from ukb_infer.reasons import Reason
from ukb_infer.storage import atomic_write_text
from ukb_infer.targets import TARGETS
from ukb_infer.text import suggest

TRUTH_NAME, ANOMALY_NAME = "truth.csv", "anomalies.csv"
#: Folder of the projected organs.
MASKS = "masks"
_Work = TypeVar("_Work")
_Done = TypeVar("_Done")
_OUR_NAME = re.compile(r"0\d{6}_20201_2_0")


@dataclass(frozen=True)
class _Job:
    out: Path
    seed: int
    index: int
    format: Format
    size: Size
    anomaly: Reason | None
    site: str
    project: Project | None


def scan_name(index: int) -> str:
    """Name of a synthetic scan; its id starts with 0, unlike any participant's."""
    return f"{index:07d}_20201_2_0"


def _write_one(job: _Job) -> tuple[int, dict[str, float]]:
    subject = sample_subject(job.seed, job.index)
    effects = frozenset({job.anomaly}) if job.anomaly is not None and ANOMALIES[job.anomaly].effect else frozenset()
    protocol = PROTOCOLS[job.site]
    stations = render(subject, job.size, effects, protocol).stations
    write_scan(stations, job.out, scan_name(job.index), job.format, job.anomaly, job.seed + job.index, protocol)
    if job.project is not None:
        masks = organ_masks(subject, job.project, job.size, protocol)
        np.savez_compressed(job.out / MASKS / f"{scan_name(job.index)}.npz", **masks)  # type: ignore[arg-type]
    return job.index, truths(subject)


def _truth_table(values: dict[int, dict[str, float]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["scan", "eid", "instance", "array", *TARGETS])
    for index in sorted(values):
        writer.writerow([scan_name(index), f"{index:07d}", 2, 0, *(repr(float(values[index][t])) for t in TARGETS)])
    return buffer.getvalue()


def write_cohort(
    out: Path,
    count: int,
    seed: int,
    format: Format = "zip",
    size: Size = "full",
    anomalies: Sequence[Reason] = (),
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    *,
    overwrite: bool = False,
    site: str = "ukb",
    masks: Project | None = None,
) -> Path:
    """Write synthetic scans and ``truth.csv``.

    Args:
        out: folder; created.
        count: scans, named ``0000001_20201_2_0`` and up.
        seed: of the population; the same seed gives the same scans.
        format: zip, dicom or nifti.
        size: ``full`` (the protocol's matrix) or ``small``.
        anomalies: given to the first scans, one each; the others have none.
        workers: processes; the files do not depend on them.
        progress: called with (written, count).
        overwrite: remove an earlier cohort first: its tables and the scans that its ``truth.csv`` names.
        site: name in :data:`~ukb_infer.protocol.PROTOCOLS`; the same people are scanned at each.
        masks: a recipe's function from stations to projection; the projected region of each organ is then written to
            ``masks/SCAN.npz``, (rows, cols) bool by name.

    Returns:
        Path of ``truth.csv``: scan, eid, instance, array and the 72 targets in registry units.

    Raises:
        UsageError: contradictory arguments, or the folder has a cohort.
    """
    _check(out, count, seed, format, size, anomalies, workers, overwrite)
    _check_site(site, anomalies)
    if masks is not None and anomalies:
        raise UsageError("`masks` cannot be combined with `anomalies`, which may move the body in the picture")
    out.mkdir(parents=True, exist_ok=True)
    _remove_earlier(out)
    if masks is not None:
        (out / MASKS).mkdir(exist_ok=True)
    chosen = {k + 1: anomaly for k, anomaly in enumerate(anomalies)}
    jobs = [_Job(out, seed, index, format, size, chosen.get(index), site, masks) for index in range(1, count + 1)]
    values: dict[int, dict[str, float]] = {}
    report = progress or (lambda *_: None)
    report(0, count)
    for index, truth in run_jobs(_write_one, jobs, workers):
        values[index] = truth
        report(len(values), count)
    if anomalies:
        lines = [f"{scan_name(k)},{a.value}\n" for k, a in chosen.items()]
        atomic_write_text(out / ANOMALY_NAME, "scan,anomaly\n" + "".join(lines))
    path = out / TRUTH_NAME
    atomic_write_text(path, _truth_table(values))
    return path


def _remove_earlier(out: Path) -> None:
    """Remove an earlier cohort, its table last, so that no scan is left without truth or in two formats."""
    table = out / TRUTH_NAME
    if not table.exists():
        return
    with table.open(newline="", encoding="utf-8") as file:
        names = [row.get("scan") or "" for row in csv.DictReader(file)]
    for name in filter(_OUR_NAME.fullmatch, names):
        (out / f"{name}.zip").unlink(missing_ok=True)
        shutil.rmtree(out / name, ignore_errors=True)
        (out / MASKS / f"{name}.npz").unlink(missing_ok=True)
    (out / ANOMALY_NAME).unlink(missing_ok=True)
    table.unlink()


def run_jobs(function: Callable[[_Work], _Done], jobs: Sequence[_Work], workers: int) -> Iterator[_Done]:
    """Do all jobs, in processes if there are several workers; results come as they are done.

    Args:
        function: importable at top level.
        jobs: each must pickle.
        workers: processes; 1 works in this one.
    """
    if workers <= 1 or len(jobs) == 1:
        yield from map(function, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs))) as pool:
        yield from pool.imap_unordered(function, jobs)


def one_site(sites: Sequence[str]) -> str:
    """The only site of a cohort of bodies, UK Biobank's by default.

    Raises:
        UsageError: several.
    """
    if len(sites) > 1:
        raise UsageError(field="sites", got=", ".join(sites), expected="one site of bodies; write a folder for each")
    return sites[0] if sites else UK_BIOBANK.name


def describe_bodies() -> str:
    """One line per site of bodies, for people."""
    lines = []
    for site in PROTOCOLS.values():
        station = max(site.stations, key=lambda s: s.rows)
        lines.append(
            f"{site.name}: {site.field_tesla:g} T, {len(site.stations)} stations of up to {station.rows} x "
            f"{station.cols} x {max(s.slices for s in site.stations)}, {site.in_plane_spacing_mm:.3g} mm, echoes at "
            f"{' and '.join(f'{t:g}' for t in site.echo_times_ms)} ms"
        )
    return "\n".join(lines)


def _check_site(site: str, anomalies: Sequence[Reason]) -> None:
    """Refuse unknown sites, and defects elsewhere than in UK Biobank's six stations."""
    if site not in PROTOCOLS:
        raise UsageError(f"unknown {site!r}{suggest(site, PROTOCOLS)} (choices: {', '.join(PROTOCOLS)})", field="sites")
    if anomalies and site != UK_BIOBANK.name:
        raise UsageError(field="anomalies", got=anomalies[0].value, expected=f"none at site {site}")


def _check(
    out: Path, count: int, seed: int, format: str, size: str, anomalies: Sequence[Reason], workers: int, overwrite: bool
) -> None:
    if not 1 <= count <= 999_999:
        raise UsageError(field="count", got=count, expected="1 to 999999")
    if workers < 1:
        raise UsageError(field="workers", got=workers, expected="1 or more")
    if seed < 0:
        raise UsageError(field="seed", got=seed, expected="0 or more")
    if format not in ("zip", "dicom", "nifti"):
        raise UsageError(field="format", got=format, expected="zip, dicom or nifti")
    if size not in ("full", "small"):
        raise UsageError(field="size", got=size, expected="full or small")
    if len(anomalies) > count:
        raise UsageError(f"{len(anomalies)} `anomalies` need a `count` of at least {len(anomalies)}, got {count}")
    for anomaly in anomalies:
        check_format(anomaly, format)
    if (out / TRUTH_NAME).exists() and not overwrite:
        raise UsageError(f"`out` {out} already contains a {TRUTH_NAME}; choose another folder or use `overwrite`")
    if out.exists() and not out.is_dir():
        raise UsageError(f"`out` {out} is a file, expected a folder")
