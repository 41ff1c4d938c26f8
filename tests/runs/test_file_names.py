"""The files of a run folder are spelled in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ukb_infer
from ukb_infer.runs import files

PACKAGE = Path(ukb_infer.__file__).parent
NAMES = (files.SCANS, files.ESTIMATES, files.DICTIONARY, files.FACTS, files.LOG, files.LOG_KEY, files.MISSING)


def _spelled(name: str) -> set[str]:
    """Modules with a text that is the name, or a path that ends in it; sentences that mention it are no code."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        if any(isinstance(text, str) and (text == name or text.endswith(f"/{name}")) for text in texts):
            found.add(str(path.relative_to(PACKAGE)))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_spelled_once(name: str) -> None:
    assert _spelled(name) == {"runs/files.py"}


def test_overwriting_removes_what_runs_write_and_nothing_else(tmp_path: Path) -> None:
    for name in (*files.OWN_FILES, "0000001_20201_2_0.npy"):
        (tmp_path / name).write_bytes(b"")
    files.open_run_folder(tmp_path, overwrite=True)
    left = {p.name for p in tmp_path.iterdir() if not p.name.startswith(".lock")}
    assert left == {"0000001_20201_2_0.npy"}
