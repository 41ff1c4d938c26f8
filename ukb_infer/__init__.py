"""ukb_infer: from UK Biobank neck-to-knee Dixon MRI to 72 estimates with prediction intervals.

The public API is loaded when first used, so that ``import ukb_infer`` (and ``ukb-infer --help``) stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer._version import __version__
from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.api import predict, project, stitch
    from ukb_infer.modules import load_module
    from ukb_infer.records import Projection, ScanKey
    from ukb_infer.runs.read import read_estimates

__all__ = ["Projection", "ScanKey", "__version__", "load_module", "predict", "project", "read_estimates", "stitch"]
__getattr__ = on_first_use(
    __name__,
    {
        "api": "predict project stitch",
        "modules": "load_module",
        "records": "Projection ScanKey",
        "runs.read": "read_estimates",
    },
)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
