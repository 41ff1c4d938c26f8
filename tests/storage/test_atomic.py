"""Files that are whole or not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ukb_infer.storage import atomic_path, atomic_write_bytes, atomic_write_text, sha256_file


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic_write_text(target, "one\ntwo\n")
    assert target.read_bytes() == b"one\ntwo\n"
    assert sha256_file(target) == hashlib.sha256(b"one\ntwo\n").hexdigest()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.npy"
    atomic_write_bytes(target, b"old")
    with pytest.raises(RuntimeError, match="midway"):
        _write_half(target)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def _write_half(target: Path) -> None:
    with atomic_path(target) as partial:
        partial.write_bytes(b"new, half")
        assert partial.suffix == ".npy"
        raise RuntimeError("midway")
