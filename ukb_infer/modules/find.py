"""Where modules are found (floor 3)."""

from __future__ import annotations

import os
from pathlib import Path

from ukb_infer.errors import ModuleError
from ukb_infer.modules.manifest import MANIFEST_NAME

ENVIRONMENT = "UKB_INFER_MODULES"
#: The demonstration module; found only when asked for by name.
DEMO = "phantom-demo"

_HOW_TO_IMPORT = (
    "convert the published ones with `ukb-infer modules import-mimir FOLDER --out MODULES/NAME` and set "
    f"{ENVIRONMENT}=MODULES; to try the demonstration on synthetic bodies add `--modules {DEMO}`"
)


def shipped_modules_folder() -> Path:
    """Folder of the modules that travel with the package: in a wheel, or ``models/`` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "_shipped"
    return inside if inside.is_dir() else package.parent / "models"


def _modules_in(folder: Path) -> list[Path]:
    if (folder / MANIFEST_NAME).is_file():
        return [folder]
    if not folder.is_dir():
        return []
    return sorted(p.parent for p in folder.glob(f"*/{MANIFEST_NAME}"))


def environment_folder() -> Path | None:
    """Folder that ``UKB_INFER_MODULES`` names, or None."""
    value = os.environ.get(ENVIRONMENT, "")
    return Path(value).expanduser() if value else None


def default_modules() -> list[Path]:
    """Modules used when none is named: those of ``UKB_INFER_MODULES``, never the demonstration.

    Raises:
        ModuleError: the variable is unset, or its folder has no module; says how to import and how to try.
    """
    folder = environment_folder()
    if folder is None:
        raise ModuleError(f"no modules: {ENVIRONMENT} is not set and --modules was not given; {_HOW_TO_IMPORT}")
    found = [p for p in _modules_in(folder) if p.name != DEMO or p == folder]
    if not found:
        raise ModuleError(
            f"no modules in {folder} ({ENVIRONMENT}): expected folders with {MANIFEST_NAME}; {_HOW_TO_IMPORT}"
        )
    return found


def list_modules() -> list[Path]:
    """Every module there is to name: those of ``UKB_INFER_MODULES``, then those shipped."""
    folder = environment_folder()
    found = _modules_in(folder) if folder is not None else []
    names = {p.name for p in found}
    return found + [p for p in _modules_in(shipped_modules_folder()) if p.name not in names]


def find_module(name: str | Path) -> Path:
    """Folder of a module given by path or by name.

    Raises:
        ModuleError: nothing of that name; lists what there is.
    """
    path = Path(name).expanduser()
    if (path / MANIFEST_NAME).is_file():
        return path
    for known in list_modules():
        if known.name == str(name):
            return known
    choices = ", ".join(p.name for p in list_modules()) or "none"
    raise ModuleError(
        f"no module {str(name)!r}: neither a folder with {MANIFEST_NAME} nor one of: {choices}; {_HOW_TO_IMPORT}"
    )
