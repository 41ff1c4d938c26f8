"""Ctrl-C and SIGTERM at any moment: a sentence and an exit code, never a traceback; the same command continues."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.made_runs import make_run
from tests.support.pretraining import write_heads
from ukb_infer.runs.read import read_scans


def interrupted(number: signal.Signals, said: str, *arguments: object) -> tuple[int, str]:
    """Exit code and stderr of a command that gets a signal once it has said something."""
    with subprocess.Popen(
        [sys.executable, "-m", "ukb_infer", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        heard = ""
        while said not in heard:
            line = process.stderr.readline()
            assert line, heard
            heard += line
        process.send_signal(number)
        return process.wait(), heard + process.stderr.read()


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 75, "Stopped; run the same command again")],
)
def test_a_signal_while_libraries_load(
    number: signal.Signals, code: int, words: str, small_cohort: Path, tmp_path: Path
) -> None:
    """Importing torch takes seconds, and an exception amid the import of a compiled library aborts the process."""
    found, told = interrupted(
        number, "starting", "predict", small_cohort, "--out", tmp_path / "run", "--modules", "phantom-demo"
    )
    assert (found, "Traceback" in told, "terminate called" in told) == (code, False, False), told
    assert words in told
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_says_that_it_can_be_continued(small_cohort: Path, tmp_path: Path) -> None:
    given = ("project", small_cohort, "--out", tmp_path / "run", "--workers", 1)
    code, told = interrupted(signal.SIGINT, "scans to do", *given)
    assert (code, "Traceback" in told) == (130, False), told
    assert "Interrupted: finished work is kept; run the same command again to continue." in told
    assert len(read_scans(tmp_path / "run")) < 3
    again = subprocess.run([sys.executable, "-m", "ukb_infer", *map(str, given)], capture_output=True, check=False)
    assert again.returncode == 0
    assert len(read_scans(tmp_path / "run")) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_an_interrupted_report_leaves_the_page_that_was_there(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", 2000)
    (tmp_path / "report.html").write_text("an earlier page")
    found, told = interrupted(number, "reading", "report", run, "--out", tmp_path / "report.html")
    assert (found, "Traceback" in told) == (code, False), told
    assert (tmp_path / "report.html").read_text() == "an earlier page"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "report.html"}


@pytest.mark.slow
def test_an_interrupted_pretraining_keeps_its_checkpoint_and_goes_on(tmp_path: Path) -> None:
    heads = write_heads(tmp_path / "heads", 4)
    given = (
        "pretrain", "--data", heads, "--out", tmp_path / "c", "--size", "16,16,16", "--spacing", 10, "--steps", 40,
        "--batch-size", 2, "--workers", 0, "--threads", 1, "--device", "cpu",
    )  # fmt: skip
    code, told = interrupted(signal.SIGINT, "pretrain: 4/40", *given)
    assert (code, "Traceback" in told) == (130, False), told
    assert "Interrupted: finished work is kept; run the same command again to continue." in told
    assert not (tmp_path / "c/pretrained.json").exists()
    command = [sys.executable, "-m", "ukb_infer", *map(str, given)]
    again = subprocess.run(command, capture_output=True, check=False, text=True)
    assert again.returncode == 0, again.stderr
    assert "resuming after step" in again.stdout
    assert (tmp_path / "c/pretrained.json").is_file()
    assert len((tmp_path / "c/work/history.csv").read_text().splitlines()) == 21
