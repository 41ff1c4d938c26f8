"""The module format on disk: manifest, load, save, verify, find, import of foreign formats (floor 3).

Light to import: what needs torch lives in ``module`` and ``mimir`` and is loaded when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ukb_infer.modules.find import default_modules, find_module, list_modules, shipped_modules_folder
from ukb_infer.modules.manifest import (
    Calibration,
    MemberFile,
    ModuleManifest,
    ModuleTarget,
    read_manifest,
    verify_module,
)

if TYPE_CHECKING:
    from ukb_infer.modules.mimir import import_mimir
    from ukb_infer.modules.module import InferenceModule, load_module, save_module, update_manifest

__all__ = [
    "Calibration",
    "InferenceModule",
    "MemberFile",
    "ModuleManifest",
    "ModuleTarget",
    "default_modules",
    "find_module",
    "import_mimir",
    "list_modules",
    "load_module",
    "read_manifest",
    "save_module",
    "shipped_modules_folder",
    "update_manifest",
    "verify_module",
]

_HOMES = {
    "InferenceModule": "module",
    "load_module": "module",
    "save_module": "module",
    "update_manifest": "module",
    "import_mimir": "mimir",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ukb_infer.modules' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ukb_infer.modules.{_HOMES[name]}"), name)
