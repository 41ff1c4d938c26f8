"""What a terminal gets: drawn tables within its width; pipes and files get plain, stable lines. Completion."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios

import pytest
from typer.testing import CliRunner

from ukb_infer.cli.app import app
from ukb_infer.cli.common import ProgressDisplay
from ukb_infer.targets import TARGETS


def on_a_terminal(*arguments: object, columns: int, **environment: str) -> str:
    """Everything a command writes to a terminal of some width."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM")}
    with subprocess.Popen(
        [sys.executable, "-m", "ukb_infer", *map(str, arguments)],
        stdout=theirs, stderr=theirs, stdin=theirs, env=clean | {"TERM": "xterm"} | environment,
    ) as process:  # fmt: skip
        os.close(theirs)
        parts = []
        while True:
            try:
                parts.append(os.read(ours, 65536))
            except OSError:  # EIO: the command has ended
                break
            if not parts[-1]:
                break
    os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [70, 160])
def test_a_terminal_gets_a_table_within_its_width_and_names_in_one_piece(columns: int) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal("targets", columns=columns))
    assert "──" in text
    assert max(map(len, text.splitlines())) <= columns
    assert all(f"{name} " in text for name in TARGETS)


def test_colour_goes_where_it_is_not_wanted() -> None:
    assert "\x1b[1m" in on_a_terminal("modules", "list", columns=100)
    plain = on_a_terminal("modules", "list", columns=100, NO_COLOR="1", TERM="dumb")
    assert "\x1b" not in plain
    assert "phantom-demo" in plain


def test_pipes_get_plain_lines() -> None:
    listed = CliRunner().invoke(app, ["targets"]).output.splitlines()
    assert listed[0] == f"{'name':36} {'field':6} {'unit':24} {'ICC':>6} {'MAE':>7}  group"
    assert len(listed) == 1 + len(TARGETS)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("ukb-infer retry run --code unreadable_z", ["unreadable_zip"]),
        ("ukb-infer phantom --anomaly slice_mis", ["slice_missing"]),
        ("ukb-infer predict x --targets height,liverVo", ["height,liverVolume"]),
        ("ukb-infer predict x --precision fp", ["fp32", "fp16"]),
        ("ukb-infer predict x --modules phantom-d", ["phantom-demo"]),
        ("ukb-infer project x --lock f", ["flock", "file"]),
        ("ukb-infer train --backbone convn", ["convnext_tiny"]),
        ("ukb-infer cross-validate --targets height,wei", ["height,weight"]),
        ("ukb-infer project x --recipe mimir-1-", ["mimir-1-hires"]),
        ("ukb-infer sta", ["status"]),
    ],
)
def test_the_shell_completes_names(words: str, offered: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UKB_INFER_MODULES", raising=False)
    environment = {
        "_UKB_INFER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1),
    }  # fmt: skip
    result = CliRunner().invoke(app, [], prog_name="ukb-infer", env=environment)
    assert result.output.split() == offered


def test_the_completion_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    shown = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="ukb-infer")
    assert "_UKB_INFER_COMPLETE=complete_bash" in shown.output


def test_a_bar_is_drawn_a_few_times_a_second_however_many_scans_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slow terminal would hold up the run."""
    monkeypatch.setattr("ukb_infer.cli.common.stderr_is_terminal", lambda: True)
    with ProgressDisplay("project") as progress:
        for k in range(20_001):
            progress(k, 20_000, k)
    told = capsys.readouterr().err
    assert "20000 failed" in told
    assert told.count("\r") < 2_000


def test_a_pipe_hears_what_is_to_do_at_once_and_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay("project") as progress:
        for k in (1, 2, 3, 3):
            progress(k, 3, 0)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["project: starting ...", "project: 2 of 3 scans to do"]
    assert said[2].startswith("project: 3 of 3, 0 failed, ")
    assert len(said) == 3
    with ProgressDisplay("project") as progress:
        progress(3, 3, 0)
        progress(3, 3, 0)
    assert capsys.readouterr().err.splitlines() == ["project: starting ..."]
