"""ukb_infer: from UK Biobank neck-to-knee Dixon MRI to 72 estimates with prediction intervals.

The public API is loaded when first used, so that ``import ukb_infer`` (and ``ukb-infer --help``) stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ukb_infer._version import __version__

if TYPE_CHECKING:
    from ukb_infer.api import load_module, predict, project, read_estimates
    from ukb_infer.records import Projection, ScanKey

__all__ = ["Projection", "ScanKey", "__version__", "load_module", "predict", "project", "read_estimates"]

_HOMES = {
    "Projection": "ukb_infer.records",
    "ScanKey": "ukb_infer.records",
    "load_module": "ukb_infer.api",
    "predict": "ukb_infer.api",
    "project": "ukb_infer.api",
    "read_estimates": "ukb_infer.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ukb_infer' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
