"""``dataset`` and ``phantom --heads`` as commands: tables, exit codes, messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ukb_infer.cli.app import app
from ukb_infer.errors import UsageError
from ukb_infer.imaging.datasets import read_images


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, done.output + (f"{done.exception}" if done.exception else "")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("heads") / "pool"
    code, said = run("phantom", "--heads", "fomo60k", "--out", out, "--count", 3, "--size", "small", "--site", "site_a")
    assert code == 0, said
    assert "3 synthetic heads" in said
    return out


def test_a_pool_becomes_a_table_and_a_summary(pool: Path, tmp_path: Path) -> None:
    code, said = run("dataset", pool, "--out", tmp_path, "--validation", 0.4, "--seed", 2, "--workers", 0)
    rows = read_images(tmp_path)
    assert code == 0, said
    assert {r.dataset for r in rows} == {"PT001_site_a"}
    assert {r.split for r in rows} == {"train", "validation"}
    assert "PT001_site_a: 3 participants (" in said
    assert f"{len(rows)} ok, 0 flagged, 0 failed" in said
    assert "sub_0001" not in said
    again = run("dataset", pool, "--out", tmp_path, "--workers", 0)
    assert again[0] != 0
    assert "overwrite" in again[1]
    assert run("dataset", pool, "--out", tmp_path, "--workers", 0, "--overwrite")[0] == 0


def test_a_broken_file_gives_exit_code_3_and_its_reason(pool: Path, tmp_path: Path) -> None:
    rows = read_images(pool)
    whole = rows[0].path.read_bytes()
    rows[0].path.write_bytes(whole[:-100])
    try:
        code, said = run("dataset", pool, "--out", tmp_path, "--workers", 2)
    finally:
        rows[0].path.write_bytes(whole)
    assert code == 3
    assert "1 failed" in said
    assert "unreadable_nifti" in said
    assert [r.status for r in read_images(tmp_path)].count("failed") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dataset", "nowhere", "--out", "x"], "a folder of images"),
        (["dataset", "tests/cli", "--out", "x"], "without images"),
        (["dataset", "tests", "--out", "x", "--validation", "2"], "--validation"),
        (["phantom", "--out", "x", "--site", "site_a"], "second"),
        (["phantom", "--out", "x", "--heads", "liver"], "fomo60k"),
        (["phantom", "--out", "x", "--heads", "infarct", "--site", "site_q"], "site_e"),
        (["phantom", "--out", "x", "--heads", "infarct", "--format", "nifti"], "only bodies"),
        (["phantom", "--out", "x", "--heads", "infarct", "--anomaly", "metal"], "only bodies"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], said: str) -> None:
    code, output = run(*arguments)
    assert code != 0
    assert said in output
    assert not Path("x").exists()


def test_the_sites_of_bodies_are_listed_and_data_that_is_missing_is_said(tmp_path: Path) -> None:
    code, said = run("phantom", "--out", str(tmp_path / "x"), "--site", "list")
    assert (code, (tmp_path / "x").exists()) == (0, False)
    assert "second: 3 T, 4 stations of up to 200 x 256 x 76" in said
    with pytest.raises(UsageError, match="nothere, which does not exist', expected a folder of images, or the table"):
        read_images(tmp_path / "nothere")


def test_the_sites_are_listed() -> None:
    code, said = run("phantom", "--out", "x", "--heads", "infarct", "--site", "list")
    assert code == 0
    assert [line.split(":")[0] for line in said.strip().splitlines()] == [
        *(f"site_{c}" for c in "abcde"),
        "ukb",
        "site_f",
        "site_g",
    ]
