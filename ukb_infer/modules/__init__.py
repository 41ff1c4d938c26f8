"""The module format on disk: manifest, load, save, verify, find, import of foreign formats.

Light to import: ``module`` and ``mimir``, which need torch, are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use
from ukb_infer.modules.calibration import Calibration, half_width_of
from ukb_infer.modules.find import default_modules, find_module, list_modules
from ukb_infer.modules.manifest import ModuleManifest, ModuleTarget, read_manifest, verify_module

if TYPE_CHECKING:
    from ukb_infer.modules.mimir import import_mimir
    from ukb_infer.modules.module import InferenceModule, copy_module, load_module, save_module, update_manifest

__getattr__ = on_first_use(
    __name__, {"mimir": "import_mimir", "module": "InferenceModule copy_module load_module save_module update_manifest"}
)
