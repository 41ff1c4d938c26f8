"""What the container recipes rely on: files that exist, weights beside the code, no network at run time."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "scripts/containers"


def test_recipes_copy_what_exists_and_install_with_the_constraints() -> None:
    docker = (RECIPES / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", docker, re.MULTILINE) for name in line.split()]
    apptainer = (RECIPES / "ukb-infer.def").read_text()
    files = apptainer.split("%files")[1].split("%post")[0].split()[0::2]
    assert set(copied) == set(files)
    for name in copied:
        assert (ROOT / name).exists(), name
    for text in (docker, apptainer):
        assert "--constraint constraints.txt" in text
        assert "UKB_INFER_MODULES=/opt/modules" in text


@pytest.mark.slow
def test_no_command_needs_a_network(tmp_path: Path) -> None:
    """The demonstration in a network namespace of its own, where nothing but the process itself is reachable."""
    unshare = shutil.which("unshare")
    allowed = unshare and subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode == 0
    if not allowed:
        pytest.skip("needs unshare and user namespaces")
    done = subprocess.run(
        [str(unshare), "-rn", sys.executable, "-m", "ukb_infer", "demo", "--count", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 ok" in done.stdout
