"""Import of published MIMIR modules.

The format is described in ``docs/modules.md``. The pickle is untrusted: it is read with ``weights_only=True``, which
builds tensors and plain containers and executes nothing.
"""

from __future__ import annotations

import csv
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ukb_infer.errors import ModuleError, UnknownModuleError
from ukb_infer.imaging.recipes.mimir1 import MIMIR_1
from ukb_infer.labels.units import published_unit
from ukb_infer.modules.calibration import Calibration
from ukb_infer.modules.checks import MAX_NUMBER
from ukb_infer.modules.manifest import ModuleInput, ModuleManifest, ModuleNetwork, ModuleOutputs, ModuleTarget
from ukb_infer.modules.module import save_module
from ukb_infer.networks import MeanVarianceNetwork, build_network
from ukb_infer.targets import find_target

SNAPSHOT, METADATA = "snapshot.pth.tar", "metadata.txt"
STANDARDIZATION, CALIBRATION = "standardization_parameters.txt", "calibration_factors.txt"
BACKBONE = "resnet50"
_MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class _MimirTarget:
    name: str
    field: str
    unit: str
    divisor: float
    mean: float
    sd: float
    factor: float


def _fail(path: Path, found: str, expected: str) -> NoReturn:
    raise ModuleError(f"{path}: {found}, expected {expected}; take the file from the published module again")


def _rows(path: Path) -> list[list[str]]:
    """Rows below the header, cells stripped of spaces and quotes."""
    if not path.is_file():
        raise UnknownModuleError(
            f"{path.parent}: no {path.name}; a published MIMIR module has {SNAPSHOT}, {STANDARDIZATION}, "
            f"{CALIBRATION} and {METADATA}"
        )
    try:
        if path.stat().st_size > _MAX_TEXT_BYTES:
            _fail(path, f"{path.stat().st_size} bytes", f"at most {_MAX_TEXT_BYTES}")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        _fail(path, f"no UTF-8 text ({error.reason})", "a text table")
    except OSError as error:
        raise ModuleError(f"{path}: cannot be read ({error.strerror}); restore access or copy it again") from error
    try:
        cells = list(csv.reader(text.splitlines(), skipinitialspace=True))
    except csv.Error as error:
        _fail(path, f"no table ({error})", "cells separated by commas")
    rows = [[c.strip().strip("'\"").strip() for c in row] for row in cells]
    return [row for row in rows if any(row)][1:]


def _number(path: Path, row: list[str], column: int, line: int, *, positive: bool) -> float:
    try:
        value = float(row[column])
    except (IndexError, ValueError):
        _fail(path, f"line {line} is {','.join(row)[:60]!r}", f"a number in column {column + 1}")
    if not abs(value) <= MAX_NUMBER or (positive and value < 1.0 / MAX_NUMBER):
        _fail(path, f"line {line} holds {value:g}", "a finite number above 0" if positive else "a finite number")
    return value


def _read_targets(folder: Path) -> list[_MimirTarget]:
    """Join the three tables line by line."""
    meta, standard, factors = (_rows(folder / n) for n in (METADATA, STANDARDIZATION, CALIBRATION))
    if not meta or not len(meta) == len(standard) == len(factors):
        raise ModuleError(
            f"{folder}: {METADATA} names {len(meta)} targets, {STANDARDIZATION} has {len(standard)} lines and "
            f"{CALIBRATION} {len(factors)}, expected one line per target in each"
        )
    targets = []
    for k, (m, s, f) in enumerate(zip(meta, standard, factors, strict=True)):
        line = k + 2
        if len(m) < 4 or not m[0]:
            _fail(folder / METADATA, f"line {line} is {','.join(m)[:60]!r}", "Name,Field,Unit,Divisor")
        numbers = (
            _number(folder / METADATA, m, 3, line, positive=True),
            _number(folder / STANDARDIZATION, s, 0, line, positive=False),
            _number(folder / STANDARDIZATION, s, 1, line, positive=True),
            _number(folder / CALIBRATION, f, 0, line, positive=True),
        )
        targets.append(_MimirTarget(m[0], m[1], m[2], *numbers))
    return targets


def _own_name(name: str) -> str:
    """Column name of a target not in the registry: letters and digits in camel case."""
    words = re.findall(r"[A-Za-z0-9]+", name) or ["target"]
    joined = (words[0] + "".join(w[:1].upper() + w[1:] for w in words[1:]))[:90]
    return joined if joined[0].isalpha() else f"target{joined}"


def _same_unit(one: str, other: str) -> bool:
    """Whether two spellings are the same unit; a missing unit is assumed to be the registry's."""
    spelled = [published_unit(unit).casefold() for unit in (one, other)]
    return not spelled[0] or spelled[0] == spelled[1]


def _module_target(target: _MimirTarget) -> ModuleTarget:
    """Map to the registry by field, else by name ignoring case and punctuation, else keep as user-defined.

    Values are never rescaled: if the metadata state another unit than the registry, that unit is kept, and of the
    limits only a lower limit of 0, which is valid in any unit.
    """
    known = find_target(target.name, target.field)
    calibration = Calibration("variance-factor", target.factor, (), "published cross-validation (MIMIR)")
    numbers = (target.mean, target.sd, target.divisor, calibration)
    if known is not None:
        if known.is_binary or _same_unit(target.unit, known.unit):
            return ModuleTarget(known.name, known.unit, known.field, known.kind, known.lower, known.upper, *numbers)
        lower = 0.0 if known.lower == 0 else None
        return ModuleTarget(known.name, target.unit, known.field, known.kind, lower, None, *numbers)
    field = target.field.split("-")[0].strip().removeprefix("p")
    field = field if field.isascii() and field.isdigit() else ""
    return ModuleTarget(_own_name(target.name), target.unit, field, "continuous", None, None, *numbers)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UnknownModuleError(f"{path.parent}: no {path.name}; expected the folder of a published MIMIR module")
    try:
        snapshot: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModuleError(
            f"{path}: contains more than tensors and plain values, expected weights only; nothing was executed "
            f"({str(error).splitlines()[0][:120]})"
        ) from error
    except Exception as error:
        raise ModuleError(f"{path}: cannot be read as a torch file ({type(error).__name__}); copy it again") from error
    state = snapshot.get("state_dict") if isinstance(snapshot, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        _fail(path, "no table of tensors under state_dict", "iteration, state_dict, optimizer")
    return {str(k).removeprefix("module."): v for k, v in state.items()}


def _load_network(path: Path, n_targets: int) -> MeanVarianceNetwork:
    state = _read_state(path)
    outputs = state["fc.bias"].numel() if "fc.bias" in state else 0
    if outputs != 2 * n_targets:
        _fail(path, f"a last layer of {outputs} outputs", f"{2 * n_targets}, two for each target of {METADATA}")
    network = build_network(BACKBONE, n_targets)
    try:
        network.model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except (RuntimeError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise ModuleError(f"{path}: is not a torchvision ResNet50 ({detail})") from error
    if not all(bool(torch.isfinite(v).all()) for v in network.state_dict().values() if v.is_floating_point()):
        _fail(path, "NaN or infinite weights", "finite ones")
    return network


def import_mimir(folder: Path, out: Path, *, overwrite: bool = False) -> ModuleManifest:
    """Convert the folder of a published module.

    The result gives ``mean = (m * stdev + mean) / divisor`` and ``variance = exp(s) * stdev^2 * factor / divisor^2``
    (the published code divides the variance by the divisor only once, which is a defect).

    Args:
        folder: contains the snapshot and three text tables.
        out: folder of the new module, named after it.
        overwrite: replace an existing one.

    Returns:
        The manifest written.

    Raises:
        ModuleError: a file is missing, damaged, unsafe or inconsistent with the others.
    """
    out = out.absolute()
    targets = _read_targets(folder)
    network = _load_network(folder / SNAPSHOT, len(targets))
    manifest = ModuleManifest(
        name=out.name,
        version="published",
        intended_use="Research on UK Biobank neck-to-knee body MRI, as published with MIMIR.",
        provenance=f"Imported from the published MIMIR module folder {folder.name!r}: one ResNet50.",
        warning="",
        licence="as published with MIMIR",
        input=ModuleInput(recipe=MIMIR_1.name, channels=MIMIR_1.channels, scale=1.0, offset=0.0),
        network=ModuleNetwork(encoder=BACKBONE, log_variance="plain"),
        outputs=ModuleOutputs(tuple(_module_target(t) for t in targets)),
    )
    twice = {n for n in manifest.target_names if manifest.target_names.count(n) > 1}
    if twice:
        raise ModuleError(f"{folder / METADATA}: names {', '.join(sorted(twice))} twice, expected each target once")
    return save_module(out, manifest, [network], overwrite=overwrite)
