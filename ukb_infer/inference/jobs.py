"""The job that reads a scan as the modules of a run want it."""

from __future__ import annotations

from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.volumes import VolumeJob
from ukb_infer.inference.work import Job, ScanJob
from ukb_infer.modules.manifest import ModuleManifest, VolumeInput


def make_job(config: PredictConfig, scan: ScanInput, manifest: ModuleManifest) -> ScanJob:
    """Job that projects and, on request, caches a scan, reads a cached projection, or preprocesses volumes.

    Args:
        config: of the run.
        scan: to read.
        manifest: of one of its modules, which all take the same.
    """
    if isinstance(manifest.input, VolumeInput):
        return VolumeJob(scan, manifest.input, config.reading.strict, config.verify)
    recipe = manifest.input.recipe
    if config.projections is None or scan.kind == "projection" or scan.problem is not None:
        return Job(scan, config.reading, recipe, digest=config.verify, swaps=config.swaps)
    folder = config.at(config.projections)
    return Job(scan, config.reading, recipe, folder, digest=config.verify, swaps=config.swaps)
