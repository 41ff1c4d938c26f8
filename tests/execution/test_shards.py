"""Shards of job arrays."""

from __future__ import annotations

import pytest

from ukb_infer.errors import UsageError
from ukb_infer.execution import Shard, parse_shard


def in_array(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Be a task of a Slurm job array."""
    for name in ("ID", "MIN", "MAX", "COUNT", "STEP"):
        monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)


def test_shards_divide_the_work_evenly_and_completely() -> None:
    held = [[k for k in range(103) if Shard(i, 8).holds(k)] for i in range(1, 9)]
    assert sorted(k for part in held for k in part) == list(range(103))
    assert {len(h) for h in held} == {12, 13}


@pytest.mark.parametrize(("text", "expected"), [("", None), ("1/1", Shard(1, 1)), ("3/10", Shard(3, 10))])
def test_shards_as_text(text: str, expected: Shard | None) -> None:
    assert parse_shard(text) == expected
    assert expected is None or str(expected) == text


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", "1 / 3", "/16", "undefined/16"])
def test_wrong_shards_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="`shard`"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("task", "others"),
    [
        (3, {}),
        (3, {"MIN": "1", "MAX": "16", "COUNT": "16", "STEP": "1"}),
        (3, {"MIN": "3", "MAX": "3", "COUNT": "1", "STEP": "1"}),  # --array=3
        (3, {"MIN": "1", "MAX": "7", "COUNT": "3", "STEP": "1"}),  # --array=1,3,7
        (16, {"MIN": "4", "MAX": "16", "COUNT": "4", "STEP": "4"}),  # --array=4-16:4
    ],
)
def test_a_slurm_task_does_its_shard_however_its_array_was_submitted(
    task: int, others: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_array(monkeypatch, {"ID": str(task)} | others)
    assert parse_shard("slurm/16") == Shard(task, 16)


@pytest.mark.parametrize("text", ["slurm", "SLURM", "slurm/"])
def test_slurm_without_a_total_is_refused_and_told_what_to_write(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_array(monkeypatch, {"ID": "1", "MIN": "1", "COUNT": "4", "STEP": "1"})
    with pytest.raises(UsageError, match=r"`shard` slurm/16: N is the number of tasks of the first submission"):
        parse_shard(text)


@pytest.mark.parametrize("task", [None, "", "0", "17", "-1", "3_4", "undefined", "3.0", " 3"])
def test_a_task_number_that_is_missing_or_out_of_range_is_refused(
    task: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_array(monkeypatch, {} if task is None else {"ID": task})
    with pytest.raises(UsageError, match=r"SLURM_ARRAY_TASK_ID is .*expected .*1 to 16.*sbatch --array=1-16"):
        parse_shard("slurm/16")


@pytest.mark.parametrize(
    "text", ["slurm/0", "slurm/x", "slurm/3/4", "3/slurm", "slurm:4", "pbs/4", "sge", "lsf/3", "auto"]
)
def test_other_forms_are_refused_inside_an_array_too(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_array(monkeypatch, {"ID": "1"})
    with pytest.raises(UsageError, match="`shard`"):
        parse_shard(text)


def test_slurm_is_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    in_array(monkeypatch, {"ID": "2", "COUNT": "4"})
    assert parse_shard("") is None
