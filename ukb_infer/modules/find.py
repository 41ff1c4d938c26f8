"""Finding modules by name or path."""

from __future__ import annotations

import os
from pathlib import Path

from ukb_infer.errors import UnknownModuleError
from ukb_infer.modules.manifest import MANIFEST_NAME
from ukb_infer.text import suggest

ENVIRONMENT = "UKB_INFER_MODULES"
#: The demonstration module; used only if named.
DEMO = "phantom-demo"
#: File that makes a folder a pretrained encoder (that of ``networks.pretrained``, which loads torch).
ENCODER_FACTS = "pretrained.json"

_HOW_TO_IMPORT = (
    "convert the published ones (module_organs, module_bodycomp, module_age, module_experimental) with "
    "`ukb-infer modules import-mimir FOLDER --out MODULES/NAME` and set "
    f"{ENVIRONMENT}=MODULES; to try the demonstration on synthetic bodies set `modules` to {DEMO}"
)


def shipped_modules_folder() -> Path:
    """Folder of the modules shipped with the package: in a wheel, or ``models/`` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "_shipped"
    return inside if inside.is_dir() else package.parent / "models"


def shipped_with(file: str) -> list[str]:
    """Names of the folders shipped with the package that hold a file of this name."""
    return [path.parent.name for path in sorted(shipped_modules_folder().glob(f"*/{file}"))]


def _is_module(folder: Path) -> bool:
    return _holds(folder, MANIFEST_NAME)


def _holds(folder: Path, file: str) -> bool:
    """Whether a folder has a file; False also for invalid names."""
    try:
        return (folder / file).is_file()
    except (OSError, ValueError):
        return False


def _modules_in(folder: Path) -> list[Path]:
    """The folder itself if it is a module, else the modules in it, without half-written (hidden) ones."""
    if _is_module(folder):
        return [folder]
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and _is_module(p))
    except (OSError, ValueError):
        return []


def _user_path(name: str | Path) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~user of an unknown user
        return Path(name)


def environment_folder() -> Path | None:
    """Folder that ``UKB_INFER_MODULES`` names, or None."""
    value = os.environ.get(ENVIRONMENT, "")
    return _user_path(value) if value else None


def default_modules() -> list[Path]:
    """Modules used if none is named: those in ``UKB_INFER_MODULES``, never the demonstration.

    Raises:
        UnknownModuleError: the variable is unset, or its folder has no module; says how to import modules and how to
            try the demonstration.
    """
    folder = environment_folder()
    if folder is None:
        raise UnknownModuleError(f"no modules: {ENVIRONMENT} is not set and no `modules` were given; {_HOW_TO_IMPORT}")
    found = [p for p in _modules_in(folder) if p.name != DEMO or p == folder]
    if not found:
        raise UnknownModuleError(
            f"no modules in {folder} ({ENVIRONMENT}): expected folders with {MANIFEST_NAME}; {_HOW_TO_IMPORT}"
        )
    return found


def list_modules() -> list[Path]:
    """All available modules: those in ``UKB_INFER_MODULES``, then those shipped."""
    folder = environment_folder()
    found = _modules_in(folder) if folder is not None else []
    names = {p.name for p in found}
    return found + [p for p in _modules_in(shipped_modules_folder()) if p.name not in names]


def find_module(name: str | Path) -> Path:
    """Folder of a module given by path or by name.

    Raises:
        UnknownModuleError: no such module; lists the available ones.
    """
    path = _user_path(name)
    if str(name) and _is_module(path):
        return path
    known = {p.name: p for p in reversed(list_modules())}
    if str(name) in known:
        return known[str(name)]
    inside = [p.name for p in _modules_in(path)] if str(name) else []
    if inside:
        raise UnknownModuleError(
            f"{path} is a folder of modules ({', '.join(inside)}); name one of them, or set {ENVIRONMENT} to it "
            "to use them all"
        )
    if str(name) and (_holds(path, ENCODER_FACTS) or str(name) in shipped_with(ENCODER_FACTS)):
        raise UnknownModuleError(
            f"{name} is a pretrained encoder, which estimates nothing by itself: make a module of it by "
            f"`ukb-infer adapt --pretrained {name}`, or write its features by `ukb-infer embed --module {name}`"
        )
    choices = ", ".join(p.name for p in list_modules()) or "none"
    similar = suggest(str(name), known)
    raise UnknownModuleError(
        f"no module {str(name)!r}: neither a folder with {MANIFEST_NAME} nor one of: {choices}"
        f"{similar or f'; {_HOW_TO_IMPORT}'}"
    )
