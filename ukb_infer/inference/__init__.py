"""From scans to estimates.

Light to import: only ``run_predict`` loads torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.inference.config import PredictConfig, ProjectConfig, StitchConfig
    from ukb_infer.inference.inputs import resolve_inputs
    from ukb_infer.inference.predict import run_predict
    from ukb_infer.inference.project import run_project
    from ukb_infer.inference.stitch import run_stitch
    from ukb_infer.inference.volumetry import run_volumetry

__getattr__ = on_first_use(
    __name__,
    {
        "config": "PredictConfig ProjectConfig StitchConfig",
        "inputs": "resolve_inputs",
        "predict": "run_predict",
        "project": "run_project",
        "stitch": "run_stitch",
        "volumetry": "run_volumetry",
    },
)
