"""Shards: the part of the work of one task of a job array."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ukb_infer.errors import UsageError

_SLURM_TASK = "SLURM_ARRAY_TASK_ID"


@dataclass(frozen=True)
class Shard:
    """Shard ``number`` of ``count``, numbered from 1: every ``count``-th scan in the order of the tables."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"`shard`: got {self.number}/{self.count}, expected I/N with I from 1 to N")

    def holds(self, position: int) -> bool:
        """Whether the scan at a position (from 0) of all scans, excluded ones included, belongs to this shard."""
        return position % self.count == self.number - 1

    def __str__(self) -> str:
        """As given in the option."""
        return f"{self.number}/{self.count}"


def parse_shard(text: str) -> Shard | None:
    """Parse the option.

    The total is always given, never taken from the job array: if only some tasks are resubmitted (``--array=3,7``),
    Slurm counts 2, but the tasks must process the same scans as before.

    Args:
        text: ``I/N``, ``slurm/N`` (I is the task's number in the job array), or "" for all the work.

    Raises:
        UsageError: invalid text, or not a task from 1 to N of a Slurm job array.
    """
    if not text:
        return None
    found = re.fullmatch(r"([0-9]{1,6}|slurm)/([0-9]{1,6})", text)
    if found is None:
        raise UsageError(f"`shard`: got {text!r}, {_advice(text)}")
    count = int(found[2])
    if found[1] != "slurm":
        return Shard(int(found[1]), count)
    return Shard(_task_number(count), count)


def _advice(text: str) -> str:
    if text.strip().lower().rstrip("/") == "slurm":
        return (
            "expected slurm/N, e.g. `shard` slurm/16: N is the number of tasks of the first submission, which a task "
            "that is submitted again cannot know"
        )
    return "expected I/N (e.g. 3/16), or slurm/N for task I of a Slurm job array"


def _task_number(count: int) -> int:
    """Number of this task of a Slurm job array, from 1 to ``count``."""
    text = os.environ.get(_SLURM_TASK, "")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(
            f"`shard` slurm/{count}: {_SLURM_TASK} is {text!r}, expected a number from 1 to {count}; start it with "
            f"sbatch --array=1-{count}, or write `shard` I/{count}"
        )
    if not 1 <= int(text) <= count:
        raise UsageError(
            f"`shard` slurm/{count}: {_SLURM_TASK} is {text}, expected 1 to {count}; number the tasks from 1 (sbatch "
            f"--array=1-{count}, or some of these), or write `shard` I/{count}"
        )
    return int(text)
