"""The engine that turns scans into estimates.

Light to import: torch is loaded by ``run_predict`` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.inference.config import PredictConfig, ProjectConfig, StitchConfig
    from ukb_infer.inference.inputs import ScanInput, resolve_inputs
    from ukb_infer.inference.predict import run_predict
    from ukb_infer.inference.project import run_project
    from ukb_infer.inference.stitch import run_stitch
    from ukb_infer.inference.volumetry import run_volumetry
    from ukb_infer.runs.read import read_estimates
    from ukb_infer.runs.summary import RunSummary

__all__ = [
    "PredictConfig",
    "ProjectConfig",
    "RunSummary",
    "ScanInput",
    "StitchConfig",
    "read_estimates",
    "resolve_inputs",
    "run_predict",
    "run_project",
    "run_stitch",
    "run_volumetry",
]

_HOMES = {
    "PredictConfig": "inference.config",
    "ProjectConfig": "inference.config",
    "RunSummary": "runs.summary",
    "ScanInput": "inference.inputs",
    "StitchConfig": "inference.config",
    "read_estimates": "runs.read",
    "resolve_inputs": "inference.inputs",
    "run_predict": "inference.predict",
    "run_project": "inference.project",
    "run_stitch": "inference.stitch",
    "run_volumetry": "inference.volumetry",
}
__getattr__ = on_first_use("ukb_infer", _HOMES)
