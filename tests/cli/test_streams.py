"""Commands whose standard streams are closed, full, without a reader, or of another encoding."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ukb_infer.phantom import write_cohort

#: What a shell may do to the streams of a command, and the encodings it may name.
STREAMS = {
    "no stdout": ">&-",
    "no stderr": "2>&-",
    "no streams": "<&- >&- 2>&-",
    "no reader": "2>&1 | true",
    "one line read": "2>&1 | head -1",
    "full": "> /dev/full 2> /dev/full",
}
ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "strict": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C"},
    "C without coercion": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
UKB = f"{shlex.quote(sys.executable)} -m ukb_infer"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash; the exit code of a pipe is that of its first part."""
    script = f"set -o pipefail\n{line}"
    return subprocess.run(
        ["bash", "-c", script], env=os.environ | environment, capture_output=True, check=False, timeout=600
    )


def files(folder: Path) -> dict[str, bytes]:
    """Tables and projections, by name."""
    names = sorted(p for p in folder.iterdir() if p.suffix in (".csv", ".npy") and not p.name.startswith("."))
    return {p.name: p.read_bytes() for p in names}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans, one of them broken, and what an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("streams")
    write_cohort(folder / "in", 1, 5, size="small")
    (folder / "in/0000009_20201_2_0.zip").write_bytes(b"no zip")
    done = shell(f"{UKB} project {folder}/in --out {folder}/whole --workers 1 --expected-stations 0")
    assert done.returncode == 3, done.stderr
    assert set(files(folder / "whole")) == {
        "scans.csv", "quality.csv", "dictionary.csv", "0000001_20201_2_0.npy",
    }  # fmt: skip
    return folder


@pytest.mark.parametrize("streams", STREAMS)
def test_tables_are_whole_whatever_the_streams_are(run: Path, tmp_path: Path, streams: str) -> None:
    done = shell(f"{UKB} project {run}/in --out {tmp_path}/r --workers 1 --expected-stations 0 {STREAMS[streams]}")
    assert done.returncode == 3
    assert b"Traceback" not in done.stdout + done.stderr
    assert files(tmp_path / "r") == files(run / "whole")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_names_and_signs_that_the_terminal_lacks(run: Path, tmp_path: Path, encoding: str) -> None:
    out = f"{tmp_path}/r\u00fcn \u2192"
    line = f"{UKB} project {run}/in --out '{out}' --workers 1 --expected-stations 0 && exit 9; "
    line += f"{UKB} status '{out}' && {UKB} targets --csv && {UKB} predict --help && {UKB} status $'{tmp_path}/\\xff'"
    done = shell(line, **ENCODINGS[encoding])
    assert done.returncode == 2, done.stderr  # of the last: no such folder
    assert b"does not exist; check the path" in done.stderr
    assert b"Traceback" not in done.stdout + done.stderr
    assert b"1 ok, 0 flagged, 1 failed" in done.stdout
    assert b"Example:" in done.stdout
    assert files(Path(out)) == files(run / "whole")


@pytest.mark.parametrize("streams", ["no streams", "one line read", "full"])
def test_what_is_only_printed_ends_without_a_traceback(run: Path, streams: str) -> None:
    commands = {"--help": 0, "--version": 0, "predict --help": 0, "predict nowhere --out x": 2, "nonsense": 2}
    commands |= {"targets": 0, f"status {run}/whole": 0}
    if streams == "full":  # the result is what is printed, and it is lost
        commands |= {"targets": 1, f"status {run}/whole": 1}
    for command, code in commands.items():
        done = shell(f"{UKB} {command} {STREAMS[streams]}")
        assert (command, done.returncode) == (command, code)
        assert b"Traceback" not in done.stdout + done.stderr


def test_lost_output_is_told() -> None:
    done = shell(f"{UKB} targets --csv > /dev/full")
    assert done.returncode == 1
    assert b"No space left on device; output was lost" in done.stderr


def test_a_pipe_that_does_not_block_gets_everything() -> None:
    """Some parents leave their end so; the buffer here is smaller than the table."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(theirs, False)
    with subprocess.Popen([sys.executable, "-m", "ukb_infer", "targets", "--csv"], stdout=theirs) as process:
        os.close(theirs)
        time.sleep(0.2)  # it fills meanwhile
        with os.fdopen(ours, "rb") as reader:
            table = reader.read()
    assert process.returncode == 0
    assert len(table) > 4096
    assert table == shell(f"{UKB} targets --csv").stdout


def test_closed_streams_are_kept_from_files() -> None:
    """Else the first files opened get the numbers 1 and 2, and a library's message is written into them."""
    script = (
        "import os, sys\nfrom ukb_infer.console import prepare_streams\nprepare_streams()\n"
        "numbers = [os.open('/dev/null', os.O_RDONLY) for _ in range(3)]\n"
        "os.write(2, b'x')\nprint('x', file=sys.stderr, flush=True)\nsys.exit(7 if min(numbers) > 2 else 1)\n"
    )
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} <&- >&- 2>&-")
    assert done.returncode == 7


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_other_command(run: Path, tiny_module: Path, tmp_path: Path) -> None:
    (tmp_path / "projections").mkdir()
    rng = np.random.default_rng(0)
    rows = ["eid,instance,weight"]
    for person in range(1, 13):
        image = rng.integers(0, 200, (3, 256, 256), dtype=np.uint8)
        np.save(tmp_path / f"projections/{person:07d}_20201_2_0.npy", image)
        rows.append(f"{person:07d},2,{60 + person}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "small.toml").write_text(
        "iterations = 4\nvalidate_every = 2\nwarmup_mse = 1\nbatch_size = 4\n"
        "scaling = {scale = 0.015625, offset = -1.0, size = [32, 32]}\n"
    )
    data = "--projections projections --labels labels.csv"
    how = "--preset fast --config small.toml --members 2 --device cpu --processes 2 --threads 1"
    commands = (
        (f"predict {run}/in --out r --modules {tiny_module} --device cpu --workers 1 --expected-stations 0", 3),
        ("retry r", 3), ("merge r --out merged", 3), ("export r --out partial", 0),
        ("phantom --out p --count 1 --size small", 0), (f"modules show {tiny_module}", 0), ("modules list", 0),
        (f"modules verify {tiny_module}", 0), ("info", 0),
        (f"train {data} {how} --out mod", 0), (f"cross-validate {data} {how} --folds 2 --out cv", 0),
        ("calibrate cv --module ./mod", 0),
        ("evaluate cv --labels labels.csv --out agreement --replicates 10", 0),
    )  # fmt: skip
    for number, (command, code) in enumerate(commands):
        streams = STREAMS["no streams" if number % 2 else "no reader"]
        done = shell(f"cd {tmp_path} && {UKB} {command} {streams}")
        assert (command, done.returncode, b"Traceback" in done.stderr) == (command, code, False)
    assert (tmp_path / "r/estimates.csv").read_bytes() == (tmp_path / "merged/estimates.csv").read_bytes()
    assert len((tmp_path / "cv/predictions.csv").read_text().splitlines()) == 13
    assert (tmp_path / "agreement/metrics.md").read_text(encoding="utf-8").startswith("# Agreement")


def test_lines_arrive_at_once_where_streams_are_unbuffered(tmp_path: Path) -> None:
    """Containers set PYTHONUNBUFFERED; a line must not wait for the end of the command."""
    script = tmp_path / "lines.py"
    script.write_text(
        "import os\nfrom ukb_infer.console import prepare_streams\nprepare_streams()\nprint('a line')\nos._exit(0)\n"
    )
    done = shell(f"{shlex.quote(sys.executable)} {script}", PYTHONUNBUFFERED="1")
    assert done.stdout == b"a line\n"
