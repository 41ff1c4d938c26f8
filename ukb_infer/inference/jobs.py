"""The job that reads a scan as the modules of a run want it."""

from __future__ import annotations

from dataclasses import replace

from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.volumes import VolumeJob
from ukb_infer.inference.work import Job, ScanJob
from ukb_infer.modules.manifest import ModuleManifest, VolumeInput
from ukb_infer.runs.files import UNCORRECTED_FOLDER


def make_job(config: PredictConfig, scan: ScanInput, manifest: ModuleManifest) -> ScanJob:
    """Job that projects and, on request, caches a scan, reads a cached projection, or preprocesses volumes.

    Args:
        config: of the run.
        scan: to read.
        manifest: of one of its modules, which all take the same.
    """
    if isinstance(manifest.input, VolumeInput):
        return VolumeJob(scan, manifest.input, config.reading.strict, config.verify)
    plain = Job(scan, config.reading, manifest.input.recipe, digest=config.verify, swaps=config.swaps)
    if scan.kind == "projection" or scan.problem is not None:
        return plain
    cache = None if config.projections is None else config.at(config.projections)
    aside = config.out.absolute() / UNCORRECTED_FOLDER if config.keep_uncorrected else None
    return replace(plain, cache=cache, uncorrected=aside)
