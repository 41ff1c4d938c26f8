"""The engine that turns scans into estimates (floor 4).

Light to import: torch is loaded by ``predicting`` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ukb_infer.inference.config import PredictConfig, ProjectConfig
    from ukb_infer.inference.inputs import ScanInput, resolve_inputs
    from ukb_infer.inference.predicting import run_predict
    from ukb_infer.inference.projecting import run_project
    from ukb_infer.inference.runs import RunSummary
    from ukb_infer.inference.tables import read_estimates

__all__ = [
    "PredictConfig",
    "ProjectConfig",
    "RunSummary",
    "ScanInput",
    "read_estimates",
    "resolve_inputs",
    "run_predict",
    "run_project",
]

_HOMES = {
    "PredictConfig": "config",
    "ProjectConfig": "config",
    "RunSummary": "runs",
    "ScanInput": "inputs",
    "read_estimates": "tables",
    "resolve_inputs": "inputs",
    "run_predict": "predicting",
    "run_project": "projecting",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ukb_infer.inference' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ukb_infer.inference.{_HOMES[name]}"), name)
