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
PAIRS = {"ukb-infer": ("Dockerfile", "ukb-infer.def"), "fomo": ("fomo/Dockerfile", "fomo/fomo.def")}


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The Dockerfile and the Apptainer definition of one image."""
    docker, apptainer = PAIRS[request.param]
    return (RECIPES / docker).read_text(), (RECIPES / apptainer).read_text()


def test_recipes_copy_what_exists(pair: tuple[str, str]) -> None:
    docker, apptainer = pair
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", docker, re.MULTILINE) for name in line.split()]
    words = apptainer.split("%files")[1].split("%post")[0].replace("{{ weights }}", "${WEIGHTS}").split()
    assert set(copied) == set(words[0::2])
    for name in set(copied) - {"${WEIGHTS}"}:
        assert (ROOT / name).exists(), name


def test_both_recipes_of_an_image_start_and_install_alike(pair: tuple[str, str]) -> None:
    """From any base: Debian's own Python refuses packages unless told."""
    docker, apptainer = pair
    for name, value in re.findall(r"^ARG (\w+)=(\S+)$", docker, re.MULTILINE):
        assert f"    {name.lower()}={value}\n" in apptainer.split("%arguments")[1].split("%files")[0]
    assert apptainer.startswith("Bootstrap: {{ bootstrap }}\nFrom: {{ python }}\n")
    installs = [re.findall(r'--constraint constraints.txt "(.+)"', text) for text in pair]
    assert installs[0] == installs[1]
    assert len(installs[0]) == 1
    for text in pair:
        assert "PIP_BREAK_SYSTEM_PACKAGES=1" in text
        assert "PYTHONUNBUFFERED=1" in text


def test_the_packages_of_the_caller_are_not_used(pair: tuple[str, str]) -> None:
    """Apptainer keeps the caller's home folder and variables; ``unset`` in a definition does not remove one."""
    environment = pair[1].split("%environment")[1].split("%runscript")[0]
    assert re.search(r"^    export PYTHONNOUSERSITE=1$", environment, re.MULTILINE)
    assert re.search(r"^    export PYTHONPATH=$", environment, re.MULTILINE)


def test_checkpoints_beside_modules_stay_out_of_the_images() -> None:
    assert "**/*.work" in (ROOT / ".dockerignore").read_text().splitlines()
    assert "rm -rf /app/weights/*.work" in (RECIPES / "fomo/fomo.def").read_text()


def test_modules_of_the_image_are_found() -> None:
    for name in PAIRS["ukb-infer"]:
        assert "UKB_INFER_MODULES=/opt/modules" in (RECIPES / name).read_text()


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
