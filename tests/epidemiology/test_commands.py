"""The commands of epidemiology as users meet them: as the README prints them, wrong, interrupted, on a full disk."""

from __future__ import annotations

import errno
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.made_run import make_run
from ukb_infer.cli.app import _run

ROOT = Path(__file__).parents[2]
PEOPLE, VARIANTS = 480, 1200


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the README's commands name."""
    where, rng = tmp_path_factory.mktemp("findings"), np.random.default_rng(4)
    eids = [f"{k:07d}" for k in range(1, PEOPLE + 1)]
    fat = rng.uniform(3, 9, PEOPLE)
    scans = [f"{eid}_20201_{visit}_0" for eid in eids for visit in (2, 3)]
    make_run(where / "run", scans, {"liverFat": np.repeat(fat, 2) + rng.normal(0, 0.5, 2 * PEOPLE)}, sd=0.5)
    pd.DataFrame({"eid": eids, "liverFat": fat}).head(120).to_csv(where / "fat.csv", index=False)
    pd.DataFrame({"scan": scans, "liverFat": np.repeat(fat, 2)}).to_csv(where / "both_visits.csv", index=False)
    people = {"eid": eids, "sex": np.arange(PEOPLE) % 2, "age": rng.uniform(45, 82, PEOPLE)}
    export = pd.DataFrame(people | {"bmi": rng.normal(27, 4, PEOPLE), "height": rng.normal(168, 9, PEOPLE)})
    export.to_csv(where / "export.csv", index=False)
    export[["eid", "age", "sex"]].to_csv(where / "covariates.tsv", index=False, sep="\t")
    for name in ("observed", "estimated", "unlabelled"):
        place = np.arange(VARIANTS)
        pd.DataFrame({"CHROM": 1, "GENPOS": place, "ID": "rs", "ALLELE0": "C", "ALLELE1": "T", "A1FREQ": 0.3, "N": 500,
                      "TEST": "ADD", "BETA": 0.02 * rng.normal(size=VARIANTS), "SE": 0.02, "CHISQ": 1, "LOG10P": 1,
                      "EXTRA": "NA"}).to_csv(where / f"{name}.regenie", sep=" ", index=False)  # fmt: skip
    return where


#: Arguments of every command, OUT standing for where it writes.
COMMANDS = {
    "associate": "run --labels fat.csv --phenotypes export.csv --model 'liverFat ~ age' --trained-on none --out OUT",
    "gwas-inputs": "run --labels fat.csv --covariates covariates.tsv --trained-on none --out OUT",
    "gwas-combine": "observed.regenie estimated.regenie unlabelled.regenie --correlation 0.5 --out OUT/fat.tsv",
    "zscores": "run --phenotypes export.csv --out OUT/z.csv --save-reference OUT/curves.json",
    "changes": "run --labels both_visits.csv --out OUT/c.csv --save-correlations OUT/visits.json",
    "summary": "run --phenotypes export.csv --out OUT",
}
#: What is wrong, by command: arguments in place of those above.
WRONG = {
    "associate": (
        "run --out OUT", "run --model 'nothing' --out OUT", "run --labels none.csv --model 'liverFat ~ 1' --out OUT",
        "run --model 'liverFat ~ weigth' --phenotypes export.csv --out OUT",
        "run --model 'liverFat ~ 1' --ci 7 --out OUT",
    ),
    "gwas-inputs": ("run", "run --labels fat.csv --targets wieght --out OUT", "run --labels none.csv --out OUT"),
    "gwas-combine": (
        "observed.regenie --out OUT/t.tsv", "observed.regenie none.txt unlabelled.regenie --out OUT/t.tsv",
        "observed.regenie estimated.regenie unlabelled.regenie --correlation missing --out OUT/t.tsv",
        "observed.regenie estimated.regenie fat.csv --correlation 0.5 --out OUT/t.tsv",
    ),
    "zscores": (
        "run --out OUT/z.csv", "run --phenotypes none.csv --out OUT/z.csv", "run --phenotypes fat.csv --out OUT/z.csv",
        "run --phenotypes export.csv --out OUT/z.txt",
        "run --phenotypes export.csv --reference none.json --out OUT/z.csv",
    ),
    "changes": (
        "run --correlations 1.5 --out OUT/c.csv", "run --correlations none.json --out OUT/c.csv",
        "run --labels both_visits.csv --correlations 0.5 --out OUT/c.csv", "run --quality some --out OUT/c.csv",
        "run --module none --out OUT/c.csv", "run --save-correlations OUT/v.json --out OUT/c.csv",
    ),
    "summary": (
        "run --out OUT", "run --phenotypes export.csv --min-count 2 --out OUT", "run --phenotypes fat.csv --out OUT",
        "run --phenotypes export.csv --model 'liverFat ~ age' --out OUT",
    ),
}  # fmt: skip


def call(command: str, arguments: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Exit code of a command as the shell sees it."""
    given = shlex.split(arguments.replace("OUT", shlex.quote(str(out))))
    monkeypatch.setattr("sys.argv", ["ukb-infer", command, *given])
    return _run()


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []


def test_the_readmes_commands_run_as_printed(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inputs)
    section = (ROOT / "README.md").read_text().split("## From estimates to findings")[1].split("\n## ")[0]
    lines = [line for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    commands = [words[1:] for words in commands if words[:1] == ["ukb-infer"]]
    assert {words[0] for words in commands} == set(COMMANDS)
    for words in commands:
        monkeypatch.setattr("sys.argv", ["ukb-infer", *words])
        assert _run() in (0, None), words


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_writes_whole_files(
    command: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(inputs)
    assert call(command, COMMANDS[command], tmp_path / "o", monkeypatch) in (0, None)
    said = capsys.readouterr()
    assert files_in(tmp_path / "o")
    assert not [name for name in files_in(tmp_path / "o") if "partial" in name]
    assert "0000001" not in said.out + said.err


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system")])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_or_read_only_disk_is_said_and_leaves_nothing(
    command: str, number: int, words: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(inputs)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("ukb_infer.storage.atomic.os.fsync", fail)
    assert call(command, COMMANDS[command], tmp_path / "o", monkeypatch) == 1
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
    assert "Errno" not in told
    assert files_in(tmp_path / "o") == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_said(
    command: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(inputs)
    (tmp_path / "file").write_text("kept")
    assert call(command, COMMANDS[command], tmp_path / "file" / "o", monkeypatch) == 1
    told = capsys.readouterr().err
    assert "cannot be written" in told
    assert "Errno" not in told
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_leaves_no_half_written_file(
    command: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ukb_infer.storage.atomic.os.fsync", interrupt)
    assert call(command, COMMANDS[command], tmp_path / "o", monkeypatch) == 130
    assert files_in(tmp_path / "o") == []


@pytest.mark.parametrize(("command", "arguments"), [(c, a) for c, several in WRONG.items() for a in several])
def test_wrong_arguments_are_exit_code_two_and_write_nothing(
    command: str, arguments: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(inputs)
    assert call(command, arguments, tmp_path / "o", monkeypatch) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "Errno" not in told
    assert "`" not in re.sub(r"`(ukb-infer|gwas|train|predict|modules|none|out|zscores|changes)[^`]*`", "", told), told
    assert files_in(tmp_path / "o") == []


def test_many_targets_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["liverFat", "weight", "waist", "hip", "height"]
    rng, eids = np.random.default_rng(1), [f"{k:07d}" for k in range(1, 41)]
    values = {name: rng.normal(middle, 2, 40) for name, middle in zip(names, (8, 75, 90, 100, 170), strict=True)}
    make_run(tmp_path / "run", [f"{eid}_20201_2_0" for eid in eids], values)
    pd.DataFrame({"eid": eids} | values).to_csv(tmp_path / "labels.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert call("gwas-inputs", "run --labels labels.csv --trained-on none --out OUT", tmp_path / "o", monkeypatch) == 0
    told = capsys.readouterr().err.splitlines()
    assert len([line for line in told if "targets" in line]) == 2
    assert not [line for line in told if line.startswith(tuple(names))]
