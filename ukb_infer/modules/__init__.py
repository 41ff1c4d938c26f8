"""The module format on disk: manifest, load, save, verify, find, import of foreign formats.

Light to import: what needs torch lives in ``module`` and ``mimir`` and is loaded when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use
from ukb_infer.modules.calibration import Calibration, half_width_of
from ukb_infer.modules.find import default_modules, find_module, list_modules, shipped_modules_folder
from ukb_infer.modules.manifest import (
    MemberFile,
    ModuleInput,
    ModuleManifest,
    ModuleNetwork,
    ModuleOutputs,
    ModuleTarget,
    read_manifest,
    verify_module,
)

if TYPE_CHECKING:
    from ukb_infer.modules.mimir import import_mimir
    from ukb_infer.modules.module import InferenceModule, NetworkOutput, load_module, save_module, update_manifest

__all__ = [
    "Calibration",
    "InferenceModule",
    "MemberFile",
    "ModuleInput",
    "ModuleManifest",
    "ModuleNetwork",
    "ModuleOutputs",
    "ModuleTarget",
    "NetworkOutput",
    "default_modules",
    "find_module",
    "half_width_of",
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
    "NetworkOutput": "module",
    "load_module": "module",
    "save_module": "module",
    "update_manifest": "module",
    "import_mimir": "mimir",
}
__getattr__ = on_first_use(__name__, _HOMES)
