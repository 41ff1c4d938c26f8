"""Facts about this machine and installation."""

from __future__ import annotations

import os
import platform

import torch

from ukb_infer.inference.predict import package_versions
from ukb_infer.modules import list_modules
from ukb_infer.modules.find import environment_folder


def system_facts() -> dict[str, str]:
    """Versions, device and modules, for ``ukb-infer info`` and bug reports; without paths of the user's data."""
    cuda = (
        [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    versions = package_versions()
    folder = environment_folder()
    return versions | {
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": f"cuda ({', '.join(cuda)})" if cuda else "cpu",
        "UKB_INFER_MODULES": "not set" if folder is None else str(folder),
        "modules": ", ".join(p.name for p in list_modules()) or "none",
    }
