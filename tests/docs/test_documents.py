"""The documents say what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ukb_infer.quality.page import with_tables
from ukb_infer.reasons import reason_table

ROOT = Path(__file__).parents[2]
#: Arguments of examples that are not small by themselves.
SMALLER = {"epidemiology.py": ("--scans", "54", "--work", "work")}


def test_the_reason_table_is_made_from_the_codes() -> None:
    assert (ROOT / "docs" / "reasons.md").read_text() == reason_table()


def test_the_tables_of_quality_are_made_from_measures_and_limits() -> None:
    page = (ROOT / "docs" / "quality.md").read_text()
    assert with_tables(page) == page
    assert page.count("<!-- end -->") == 2


def test_every_element_that_is_read_stands_in_the_page_on_stored_values() -> None:
    from nibabel.nifti1 import header_dtype as nifti1
    from nibabel.nifti2 import header_dtype as nifti2

    from ukb_infer.imaging.readers import dicom
    from ukb_infer.reasons import Reason

    page = (ROOT / "docs" / "stored-values.md").read_text()
    not_about_values = {"StudyInstanceUID", "SeriesInstanceUID", "PatientID"}
    keywords = {keyword for _, keyword, _ in dicom._ELEMENTS + dicom._JUDGED if "Creator" not in keyword}
    for name in keywords - not_about_values | {*nifti1.names, *nifti2.names}:
        assert re.search(rf"\b{re.sub('60[0-9A-F]{2}$', '', name)}\b", page), name
    codes = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page))
    assert codes <= {reason.value for reason in Reason}
    new = {"unsupported_pixels", "unused_bits_masked", "padding_replaced", "lossy_compression", "geometry_disagrees"}
    assert new <= codes


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_named_in_the_readme_exist() -> None:
    from typer.testing import CliRunner

    from ukb_infer.cli.app import app

    for command in set(re.findall(r"^ukb-infer ([\w-]+)", (ROOT / "README.md").read_text(), re.MULTILINE)):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


@pytest.mark.slow
def test_the_readmes_commands_run_as_printed(tmp_path: Path) -> None:
    blocks = re.findall(r"<!-- run -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", blocks[0]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run" / "estimates.csv").read_text().splitlines()) == 3
    assert "weight_ci90_lower" in (tmp_path / "run2" / "estimates.csv").read_text().splitlines()[0]
    assert len(list((tmp_path / "projections").glob("*.png"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_every_example_runs(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(example), *SMALLER.get(example.name, ())],
        cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {
        "python_api.py": "intervals cover the truth",
        "ensemble_study.py": "| labelled scans | MAE",
        "interval_study.py": "| 24 | all |",
        "quality_study.py": "| folding | 1 |",
        "swap_study.py": "| station 1, whole | 2 |",
        "explain_study.py": "| integrated-gradients | ",
        "flag_study.py": "| ordinary | 4 |",
        "fewshot_study.py": "| brain-age | MAE | mae - untrained |",
        "body_fewshot_study.py": "| vat | 6 | scratch |",
        "valid_use_study.py": "| exposure, logistic | 10 % | 0.9 | **multiple_imputation** |",
        "gwas_study.py": "| combined |",
        "zscores_study.py": "| liverFat | log-normal",
        "changes_study.py": "| phantoms | 44 |",
        "epidemiology.py": "to be reported: chen_chen",
    }
    assert expected[example.name] in done.stdout
    if example.name == "epidemiology.py":
        results = tmp_path / "work" / "association"
        assert len((results / "associations.csv").read_text().splitlines()) == 1 + 3 * 4  # terms, estimators
        assert (results / "associations.png").stat().st_size > 10_000


def test_nothing_committed_looks_like_a_participant() -> None:
    """Seven digits that start with 1 to 6, in any text file of the repository."""
    pattern = re.compile(r"(?<![0-9A-Za-z.])[1-6][0-9]{6}(?![0-9A-Za-z.])")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".csv", ".json", ".txt", ".sh", ""} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            found = [number for number in pattern.findall(text) if not number.endswith("00000")]
            assert not found, f"{name}: {found[:3]}"
