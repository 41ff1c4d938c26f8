"""Which part of the work belongs to one task of a job array (floor 1)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ukb_infer.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Shard ``number`` of ``count``, numbered from 1: every ``count``-th scan in the order of the tables."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"--shard: got {self.number}/{self.count}, expected I/N with I from 1 to N")

    def holds(self, position: int) -> bool:
        """Whether the scan at a position (from 0) of all scans, excluded ones included, belongs to this shard."""
        return position % self.count == self.number - 1

    def __str__(self) -> str:
        """As ``--shard`` takes it."""
        return f"{self.number}/{self.count}"


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> Shard | None:
    """Shard of ``--shard``.

    Args:
        text: ``I/N``, ``slurm`` (from the job array's variables), or "" for all the work.
        environment: variables; the process's own by default.

    Raises:
        UsageError: another form, or not in a Slurm job array.
    """
    if not text:
        return None
    if text == "slurm":
        return _from_slurm(os.environ if environment is None else environment)
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None:
        raise UsageError(f"--shard: got {text!r}, expected I/N (for instance 3/10) or slurm")
    return Shard(int(found[1]), int(found[2]))


def _from_slurm(environment: Mapping[str, str]) -> Shard:
    values = {}
    for name in ("ID", "MIN", "STEP", "COUNT"):
        variable = f"SLURM_ARRAY_TASK_{name}"
        text = environment.get(variable, "1" if name == "STEP" else "")
        if not text.isdigit():
            raise UsageError(f"--shard slurm: {variable} is {text!r}, expected a number; start it with sbatch --array")
        values[name] = int(text)
    offset = values["ID"] - values["MIN"]
    if values["STEP"] < 1 or offset % values["STEP"]:
        raise UsageError(f"--shard slurm: task {values['ID']} is none of {values['MIN']} + k x {values['STEP']}")
    return Shard(offset // values["STEP"] + 1, values["COUNT"])
