"""Shards of job arrays."""

from __future__ import annotations

import pytest

from ukb_infer.errors import UsageError
from ukb_infer.execution import Shard, parse_shard


def test_shards_divide_the_work_evenly_and_completely() -> None:
    held = [[k for k in range(103) if Shard(i, 8).holds(k)] for i in range(1, 9)]
    assert sorted(k for part in held for k in part) == list(range(103))
    assert {len(h) for h in held} == {12, 13}


@pytest.mark.parametrize(("text", "expected"), [("", None), ("1/1", Shard(1, 1)), ("3/10", Shard(3, 10))])
def test_shards_as_text(text: str, expected: Shard | None) -> None:
    assert parse_shard(text) == expected
    assert expected is None or str(expected) == text


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", "1 / 3"])
def test_wrong_shards_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        parse_shard(text)


def _array(task: int, first: int, count: int, step: int | None = None) -> dict[str, str]:
    values = {"ID": task, "MIN": first, "COUNT": count} | ({} if step is None else {"STEP": step})
    return {f"SLURM_ARRAY_TASK_{k}": str(v) for k, v in values.items()}


def test_slurm_arrays_of_any_numbering() -> None:
    assert [parse_shard("slurm", _array(t, 0, 4, 1)) for t in range(4)] == [Shard(k, 4) for k in (1, 2, 3, 4)]
    assert [parse_shard("slurm", _array(t, 5, 3, 10)) for t in (5, 15, 25)] == [Shard(k, 3) for k in (1, 2, 3)]
    assert parse_shard("slurm", _array(2, 1, 2)) == Shard(2, 2)


def test_slurm_is_never_guessed() -> None:
    assert parse_shard("", _array(2, 1, 4)) is None
    with pytest.raises(UsageError, match="SLURM_ARRAY_TASK_ID"):
        parse_shard("slurm", {})
    with pytest.raises(UsageError, match="is none of"):
        parse_shard("slurm", _array(6, 5, 3, 10))
