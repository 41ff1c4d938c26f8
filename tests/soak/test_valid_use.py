"""The studies of docs/valid-use.md and docs/reference-curves.md, whole: associations, GWAS, z-scores, changes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
#: For a quick look: number of cohorts or pairs instead of all, and a folder that keeps phantoms from an earlier call.
FEWER, KEPT = int(os.environ.get("UKB_INFER_SOAK_FEWER", "0")), os.environ.get("UKB_INFER_SOAK_WORK", "")


def _study(name: str, *arguments: str) -> list[list[str]]:
    """Cells of the rows that a study prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), "--full", *arguments], env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    print(done.stdout)
    rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in done.stdout.splitlines() if line.startswith("|")
    ]
    return [row for row in rows if not set("".join(row)) <= set("-")][1:]


@pytest.mark.soak
@pytest.mark.timeout(14400)
def test_recommended_intervals_cover_94_to_96_percent_and_naive_ones_do_not(tmp_path: Path) -> None:
    fewer = ("--cohorts", str(FEWER)) if FEWER else ()
    rows = _study("valid_use_study.py", "--work", KEPT or str(tmp_path), *fewer)
    slack = 200.0 * (0.05 * 0.95 / FEWER) ** 0.5 if FEWER else 0.0  # two standard errors of fewer cohorts
    naive = []
    for model, share, r2, estimator, covered, width in rows:
        coverage = float(covered.split()[0])
        if "**" in estimator or estimator == "chen_chen":
            assert 94.0 - slack <= coverage <= 96.0 + slack, (model, share, r2)
            if "**" in estimator and share == "2.5 %" and (r2 == "0.99" or model != "outcome, logistic"):
                assert float(width.strip(")").split("–")[1]) <= 0.45, (model, share, r2)  # the widest slope
        naive += [coverage] if estimator == "naive" else []
    assert max(naive) < 94.0 + slack


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_combined_gwas_is_valid_and_the_naive_one_is_not() -> None:
    rows = {row[0]: row[1:] for row in _study("gwas_study.py")}
    combined, naive = rows["combined"], rows["naive: estimates of everyone"]
    assert 0.98 <= float(combined[0]) <= 1.02
    assert not any("outside" in cell for cell in combined)
    assert float(naive[0]) > 1.02
    assert any("outside" in cell for cell in naive)
    found = {name: int(re.match(r"\d+", row[-1])[0]) for name, row in rows.items()}  # type: ignore[index]
    assert found["combined"] > found["measured only"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_z_scores_of_a_fresh_cohort_are_standard_in_every_cell() -> None:
    rows = _study("zscores_study.py")
    assert len(rows) == 5
    for name, _, mean, sd, _ in rows:
        assert all(abs(float(end)) <= 0.03 for end in mean.split(" to ")), name
        assert all(abs(float(end) - 1.0) <= 0.03 for end in sd.split(" to ")), name


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_intervals_of_changes_cover_93_to_97_percent(tmp_path: Path) -> None:
    rows = _study("changes_study.py", "--work", KEPT or str(tmp_path), *(("--pairs", str(FEWER)) if FEWER else ()))
    assert {row[0] for row in rows} == {"simulated", "phantoms"}
    for kind, _, _, _, covered, width, uncorrelated in rows:
        assert 93.0 <= float(covered.split()[0]) <= 97.0, kind
        assert float(width) < 1.0
        assert float(uncorrelated) > 97.0
