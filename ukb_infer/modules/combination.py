"""Joint calibrations of several modules: ``combinations.json`` in each of their folders.

An entry is valid for exactly the modules it was fitted on, identified by their hashes. Once one of them is calibrated
or trained again, the entry is no longer used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ukb_infer.errors import ModuleError
from ukb_infer.modules.calibration import Calibration
from ukb_infer.modules.checks import expected, from_json, load_json, read_object
from ukb_infer.storage import atomic_write_text

COMBINATIONS_NAME = "combinations.json"
SCHEMA_VERSION = 1
#: Larger files are refused unread.
MAX_BYTES = 16 << 20


def combination_key(hashes: Iterable[str]) -> str:
    """Key of a set of modules, independent of their order."""
    return "+".join(sorted(hashes))


def read_combinations(folders: Sequence[Path]) -> dict[tuple[str, str], Calibration]:
    """Read the joint calibrations in module folders.

    Args:
        folders: of modules.

    Returns:
        (key of the modules, target) to calibration.

    Raises:
        ModuleError: a file is damaged.
    """
    return {
        (key, name): calibration
        for folder in folders
        for key, targets in _read(folder / COMBINATIONS_NAME).items()
        for name, calibration in targets.items()
    }


def write_combination(folders: Sequence[Path], key: str, targets: Mapping[str, Calibration]) -> None:
    """Write a joint calibration to the folder of each module, replacing an earlier one of the same modules.

    Args:
        folders: of the modules.
        key: from :func:`combination_key`.
        targets: by name.

    Raises:
        ModuleError: a file is damaged or cannot be written.
    """
    for folder in folders:
        path = folder / COMBINATIONS_NAME
        kept = {**_read(path), key: targets}
        entries = {k: {name: c.to_dict() for name, c in found.items()} for k, found in kept.items()}
        text = json.dumps({"schema_version": SCHEMA_VERSION, "combinations": entries}, indent=2, allow_nan=False)
        try:
            atomic_write_text(path, text + "\n")
        except OSError as error:
            raise ModuleError(
                f"{path}: cannot be written ({error.strerror}); restore access and run the command again"
            ) from error


@from_json
@dataclass(frozen=True)
class _Combinations:
    schema_version: Annotated[Literal[1], expected("1")]
    combinations: dict[str, dict[str, Calibration]]


def _read(path: Path) -> Mapping[str, Mapping[str, Calibration]]:
    """Entries of one file; empty if there is no file."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModuleError(f"{path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        plain = load_json(path.read_text(encoding="utf-8"), path.name)
        return read_object(_Combinations, plain, path.name).combinations
    except (OSError, UnicodeDecodeError, ModuleError) as error:
        raise ModuleError(
            f"{path}: is damaged ({error}); remove it, and run `ukb-infer calibrate --combine` again for "
            "joint intervals"
        ) from error
