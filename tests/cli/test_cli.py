"""The command line: parsing, exit codes, messages; one subprocess a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ukb_infer.cli.app import COMMANDS, app
from ukb_infer.errors import UkbInferError
from ukb_infer.targets import TARGETS


def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ukb_infer", *(str(a) for a in arguments)],
        cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [[], ["modules"], ["modules", "import-mimir"], ["benchmark"], ["benchmark", "score"], *([c] for c in COMMANDS)],
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    script = (
        "import sys\nfrom ukb_infer.cli.app import app\n"
        f"try:\n    app({[*command, '--help']!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pandas', 'numba', 'pydicom', 'nibabel', 'scipy', 'numpy'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_teaches_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"ukb-infer {command}" in result.output


def test_version_and_targets() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.startswith("ukb-infer 0.")
    listed = CliRunner().invoke(app, ["targets"]).output
    assert all(name in listed for name in TARGETS)
    table = CliRunner().invoke(app, ["targets", "--csv"]).output
    assert len(table.splitlines()) == 73


def test_predict_runs_as_a_command(small_cohort: Path, tiny_module: Path, tmp_path: Path) -> None:
    done = run("predict", small_cohort, "--out", tmp_path / "run", "--modules", tiny_module, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "WARNING tiny: Random weights" in done.stderr
    assert "estimates.csv" in done.stdout
    assert "0000001" not in done.stderr + done.stdout.replace(str(small_cohort), "")
    again = run("predict", small_cohort, "--out", tmp_path / "run", "--modules", tiny_module, "--device", "cpu")
    assert "0 processed now" in again.stdout


def test_without_modules_the_error_teaches(small_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UKB_INFER_MODULES", raising=False)
    done = run("predict", small_cohort, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "import-mimir" in done.stderr
    assert "set --modules to phantom-demo" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predict"], 2, "Missing"),
        (["predict", "nowhere", "--out", "x", "--modules", "phantom-demo"], 2, "does not exist"),
        (["predict", ".", "--out", "x", "--modules", "phantom-demo"], 1, "no scan in"),
        (["predict", ".", "--out", "x", "--ci", "95"], 2, "--ci"),
        (["predict", ".", "--out", "x", "--device", "gpu"], 2, "--device"),
        (["project", ".", "--out", "x", "--workers", "-3"], 2, "--workers"),
        (["phantom", "--out", "x", "--anomaly", "slice_mising"], 2, "slice_missing"),
        (["modules", "show", "nothing"], 2, "phantom-demo"),
        (["modules", "import-mimir", ".", "--out", "x"], 2, "metadata.txt"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_wrong_arguments_end_with_a_sentence_and_a_code(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_project_writes_cache_and_pictures(small_cohort: Path, tmp_path: Path) -> None:
    from PIL import Image

    done = run("project", small_cohort / "0000001_20201_2_0.zip", "--out", tmp_path / "p", "--png")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "p" / "0000001_20201_2_0.png").size == (768, 256)


def test_modules_commands(tiny_module: Path) -> None:
    listed = run("modules", "list", UKB_INFER_MODULES=str(tiny_module.parent))
    assert "tiny  0.0.1" in listed.stdout
    assert "phantom-demo" in listed.stdout
    shown = run("modules", "show", tiny_module)
    assert "Random weights for tests." in shown.stdout
    assert run("modules", "verify", tiny_module).returncode == 0
    assert "phantom-demo" in run("info").stdout


def test_errors_are_sentences() -> None:
    """Every error of ours derives from one class, so none reaches the user as a traceback."""
    from ukb_infer import errors

    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert all(issubclass(e, UkbInferError) for e in kinds)


BROKEN = (
    "unreadable_zip", "no_water_series", "station_missing", "stations_do_not_overlap", "water_fat_mismatch",
    "slice_missing", "unsupported_transfer_syntax", "multiframe",
)  # fmt: skip


@pytest.mark.slow
def test_twelve_good_and_eight_broken_scans(tmp_path: Path) -> None:
    """The acceptance run: 20 phantoms, 8 broken in 8 ways, give 12 rows, 8 reasons and exit code 3."""
    anomalies = [part for name in BROKEN for part in ("--anomaly", name)]
    made = run("phantom", "--out", tmp_path / "scans", "--count", 20, "--seed", 3, "--size", "small", *anomalies)
    assert made.returncode == 0, made.stderr
    done = run("predict", tmp_path / "scans", "--out", tmp_path / "run", "--modules", "phantom-demo", "--device", "cpu")
    assert done.returncode == 3, done.stderr
    estimates = pd.read_csv(tmp_path / "run" / "estimates.csv", dtype={"eid": str})
    assert estimates["eid"].tolist() == [f"{k:07d}" for k in range(9, 21)]
    scans = pd.read_csv(tmp_path / "run" / "scans.csv", dtype=str, keep_default_na=False)
    assert scans["reasons"].tolist()[:8] == list(BROKEN)
    assert scans["status"].tolist()[:8] == ["failed"] * 8
    assert set(scans["status"].tolist()[8:]) <= {"ok", "flagged"}
    assert "8 failed" in done.stdout


@pytest.mark.slow
def test_the_demonstration_prints_estimates_beside_truths(tmp_path: Path) -> None:
    for _ in range(2):
        done = run("demo", "--count", 2, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Nothing here says anything about people" in done.stdout
        assert "liverVolume" in done.stdout
        assert "2 ok" in done.stdout


@pytest.mark.slow
def test_a_wheel_carries_the_demonstration(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    wheel = next((tmp_path / "dist").glob("*.whl"))
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    assert (site / "ukb_infer/report/page/built/report.js").is_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run("demo", "--count", 1, cwd=elsewhere, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [sys.executable, "-c", "import ukb_infer; print(ukb_infer.__file__)"],
        env=os.environ | {"PYTHONPATH": str(site)}, cwd=elsewhere, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert str(site) in where


@pytest.mark.slow
def test_a_module_is_made_calibrated_used_and_judged_from_the_command_line(tmp_path: Path) -> None:
    """The README's chain on synthetic scans, in one folder, as a user would type it."""
    from ukb_infer.phantom import write_cohort

    truth = write_cohort(tmp_path / "scans", 14, 3, size="small")
    small = tmp_path / "small.toml"
    small.write_text(
        "iterations = 6\nvalidate_every = 3\nwarmup_mse = 1\nbatch_size = 4\n"
        "scaling = {scale = 0.015625, offset = -1.0, size = [64, 64]}\n"
    )

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ukb_infer", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    run("project", "scans", "--out", "projections", "--expected-stations", "0")
    data = ["--projections", "projections", "--labels", str(truth), "--targets", "height,weight"]
    how = ["--preset", "fast", "--config", "small.toml", "--members", "2", "--device", "cpu"]
    assert "verified" in run("train", *data, *how, "--out", "mod")
    assert "not calibrated" in run("predict", "projections", "--modules", "./mod", "--out", "run").lower()
    assert "14 scans predicted" in run("cross-validate", *data, *how, "--folds", "2", "--out", "cv")
    assert all((tmp_path / folder / "MODULE.md").is_file() for folder in ("mod", "cv"))
    assert "mod: calibrated by conformal" in run("calibrate", "cv", "--module", "mod")
    assert "no 95 % interval for height, weight" in run("predict", "projections", "--modules", "./mod", "--out", "r")
    run("calibrate", "cv", "--module", "mod", "--method", "coverage")
    text = run("predict", "projections", "--modules", "./mod", "--out", "run2")
    assert "not calibrated" not in text.lower()
    judged = run("evaluate", "run2", "--labels", str(truth), "--out", "agreement", "--replicates", "20")
    assert "| height | cm | 14 |" in judged
    assert (tmp_path / "agreement/figures/height.pdf").exists()
    assert "finished result" in run("train", *data, *how, "--out", "mod", code=2)
    assert "did you mean height" in run("train", *data[:-1], "hieght", *how, "--out", "x", code=2)
    assert "--unit" in run("train", *data, *how, "--out", "x", "--unit", "height", code=2)
