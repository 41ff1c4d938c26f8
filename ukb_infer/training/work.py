"""The working folder of a training, and whether its checkpoints may be resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ukb_infer.errors import RunError, UsageError
from ukb_infer.storage import atomic_write_text, sha256_file
from ukb_infer.training.packing import INDEX_NAME, Packed
from ukb_infer.training.request import TrainRequest

SETTINGS_NAME = "training.json"


def claim_work(request: TrainRequest, packed: Packed, threads: int) -> int:
    """Record in the working folder what is trained, and refuse to resume another training.

    Args:
        request: with resolved configuration.
        packed: the data.
        threads: per member, if the folder is new.

    Returns:
        Threads per member: a resumed training keeps the first call's, because they affect the last bits.

    Raises:
        UsageError: the folder holds checkpoints of another training.
        RunError: it is damaged.
    """
    work = request.work_folder

    def remove() -> None:
        for member in work.glob("member*"):
            if (member / "history.csv").is_file() or (member / "checkpoint.pt").is_file():
                shutil.rmtree(member)

    claimed = claim(work, _settings(request, packed, threads), overwrite=request.overwrite, remove=remove)
    return int(claimed["threads"])


def claim(
    work: Path, settings: dict[str, Any], *, overwrite: bool, remove: Callable[[], None], field: str = "work"
) -> dict[str, Any]:
    """Record in a folder what is trained, and refuse to resume another training.

    Args:
        work: folder of the checkpoints; exists.
        settings: everything that affects the weights, as plain values: ``config`` by name, and other facts.
        overwrite: start over if they differ.
        remove: removes the checkpoints then.
        field: option that names the folder.

    Returns:
        The settings, those of the first call where they do not count as different (threads).

    Raises:
        UsageError: the folder holds checkpoints of another training.
        RunError: it is damaged.
    """
    path = work / SETTINGS_NAME
    if path.is_file():
        try:
            before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path}: damaged ({error}); remove {work} to start over") from error
        differences = _differences(before, settings)
        if not differences:
            return before
        if not overwrite:
            raise UsageError(
                f"{work} contains checkpoints of another training: {'; '.join(differences[:6])}. Repeat that command, "
                f"choose another `{field}`, or use `overwrite` to start over"
            )
        remove()
    atomic_write_text(path, json.dumps(settings, indent=2) + "\n")
    return settings


def _settings(request: TrainRequest, packed: Packed, threads: int) -> dict[str, Any]:
    """Everything that affects the weights, as plain values."""
    index = json.loads((request.work_folder / INDEX_NAME).read_text(encoding="utf-8"))
    return {
        "config": json.loads(json.dumps(request.config.flat())),
        "targets": list(packed.data.targets),
        "projections": index["stamp"],
        "labels": hashlib.sha256(np.ascontiguousarray(packed.data.labels).tobytes()).hexdigest(),
        "init": sha256_file(request.init) if isinstance(request.init, Path) else str(request.init),
        "stratify": request.stratify,
        "threads": threads,
    }


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences, except the number of threads (the first call's is kept)."""
    old, new = before.get("config", {}), now["config"]
    found = [f"{k} was {old.get(k)}, now {new.get(k)}" for k in {**new, **old} if old.get(k) != new.get(k)]
    for key in (key for key in now if key not in ("config", "threads")):
        if before.get(key) != now[key]:
            plain = key in ("targets", "stratify", "init")
            found.append(f"{key} was {before.get(key)}, now {now[key]}" if plain else f"the {key} have changed")
    return found
