"""``report --summary``: the page holds what the summary's tables hold, and nothing of single people."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.support.browser import OpenPage, open_browser, shoot
from tests.support.made_runs import HOSTILE, make_run, write_labels, write_phenotypes
from ukb_infer.cli.app import app
from ukb_infer.epidemiology.cohort import Sources
from ukb_infer.epidemiology.summary import SummaryConfig, run_summary
from ukb_infer.errors import RunError, UsageError
from ukb_infer.report.report import ReportConfig, run_report

TARGETS = ("weight", "liverFat", "sex", "AtlasVatVolume")
PEOPLE = 1500
NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with markup in a path, phenotypes, and the run's summary by centre, with an association and curves."""
    folder = tmp_path_factory.mktemp("summary page")
    run = make_run(folder / "secret run", PEOPLE, targets=TARGETS, hostile=True)
    phenotypes = write_phenotypes(run, folder / "phenotypes.csv")
    table = pd.read_csv(phenotypes, dtype=str)
    centres = np.where(np.arange(len(table)) % 3, "<b>A", "B")
    heights = np.random.default_rng(3).normal(170, 9, len(table)).round(1)
    named = table.assign(centre=np.where(np.arange(len(table)) < 2, "Mary Example", centres), height=heights)
    named.to_csv(phenotypes, index=False)
    labels = write_labels(run, folder / "labels.csv", ("liverFat",))
    sources = Sources(run=run, phenotypes=phenotypes, labels=labels, trained_on="none")
    config = SummaryConfig(sources=sources, out=folder / "summary", by="centre", models=("liverFat ~ age + sex",))
    run_summary(config, lambda _: None)
    return folder


def _page(folder: Path, source: Path, **more: Any) -> str:
    out = folder / "page.html"
    run_report(ReportConfig(run=source, out=out, summary=True, **more), lambda _: None)
    return out.read_text(encoding="ascii")


def _head(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="head">(.*?)</script>', page)
    assert found is not None
    head: dict[str, Any] = json.loads(found[1])
    return head


def _leaves(value: Any) -> list[Any]:
    """Every number and text of nested lists and objects."""
    if isinstance(value, dict):
        return [*value, *(leaf for part in value.values() for leaf in _leaves(part))]
    return [leaf for part in value for leaf in _leaves(part)] if isinstance(value, list) else [value]


def test_every_number_of_the_page_is_a_cell_of_a_table(folder: Path) -> None:
    summary = _head(_page(folder, folder / "summary"))["summary"]
    cells = {
        cell
        for path in (folder / "summary").glob("*.csv")
        for cell in pd.read_csv(path, dtype=str, keep_default_na=False).to_numpy().ravel()
    }
    cells |= set(map(str, _leaves(json.loads((folder / "summary" / "reference.json").read_text()))))
    numbers = {float(cell) for cell in cells if NUMBER.fullmatch(cell)}
    places = {low + 2.5 for low in range(40, 90, 5)}  # middles of bands of age
    for part in ("people", "targets", "curves", "tables"):
        for leaf in _leaves(summary[part]):
            if isinstance(leaf, str) and NUMBER.fullmatch(leaf):
                assert leaf in cells
            elif isinstance(leaf, float) or (isinstance(leaf, int) and not isinstance(leaf, bool)):
                assert leaf in numbers | places | {len(t["rows"]) for t in summary["tables"]}
    names = ["counts.csv", "statistics.csv", "quantiles.csv", "reasons.csv", "associations.csv", "reference.json"]
    assert [t["name"] for t in summary["tables"]] == names
    assert [t["folded"] for t in summary["tables"]] == [True, True, True, True, False, True]
    assert summary["associations"][0]["model"] == "liverFat ~ age + sex"


def test_an_attacker_finds_nobody_in_the_page(folder: Path) -> None:
    page = _page(folder, folder / "summary")
    assert 'type="text/plain"' not in page  # no columns, no pictures
    assert not re.search(r"[A-Za-z0-9+/]{400}={0,2}\"", page.split("</style>")[1].split("<script>")[0])
    text = re.sub(r"\b[0-9a-f]{64}\b", "", unescape(_head_text(page)))  # hashes of modules
    run = folder / "secret run"
    scans, estimates = pd.read_csv(run / "scans.csv", dtype=str), pd.read_csv(run / "estimates.csv", dtype=str)
    quality = pd.read_csv(run / "quality.csv", dtype=str)
    forbidden = {*scans["eid"], *scans["scan"], *scans["path"], *scans["message"].dropna(), str(folder)}
    forbidden |= {"Mary", "secret", "_20201", HOSTILE}
    assert not [word for word in forbidden if word in text]
    assert not re.search(r"(?<![\d.])\d{7}", text)
    values = {v for c in estimates.columns[4:] for v in estimates[c].dropna() if len(v.replace(".", "")) > 5}
    values |= {v for v in quality["snr"].dropna() if len(v) > 5}
    assert len(values) > 10_000
    tokens = set(re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text))
    assert not tokens & values
    extremes = {f"{x:.{d}f}" for c in ("weight_mean", "liverFat_mean") for x in
                (estimates[c].astype(float).min(), estimates[c].astype(float).max()) for d in (1, 2, 3)}  # fmt: skip
    assert not tokens & extremes


def _head_text(page: str) -> str:
    """The page without script and style, which are the same for every page."""
    return re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.DOTALL)


def test_files_that_the_summary_did_not_write_are_not_read(folder: Path, tmp_path: Path) -> None:
    import shutil

    before = _page(tmp_path, folder / "summary")
    copied = tmp_path / "copied"
    shutil.copytree(folder / "summary", copied)
    shutil.copytree(folder / "secret run", copied, dirs_exist_ok=True)
    (copied / "more.csv").write_text("eid,weight\n0000001,70.123\n")
    assert _page(tmp_path, copied) == before
    (copied / "counts.csv").write_text((copied / "counts.csv").read_text() + "female,50-59,B,1\n")
    with pytest.raises(RunError, match=r"counts\.csv changed after the summary was made"):
        _page(tmp_path, copied)
    (copied / "counts.csv").unlink()
    with pytest.raises(RunError, match="no whole summary"):
        _page(tmp_path, copied)


def test_names_of_tables_lead_nowhere_else(folder: Path, tmp_path: Path) -> None:
    import shutil

    copied = tmp_path / "copied"
    shutil.copytree(folder / "summary", copied)
    facts = json.loads((copied / "summary.json").read_text())
    facts["tables"]["../secret run/scans.csv"] = "0" * 64
    (copied / "summary.json").write_text(json.dumps(facts))
    with pytest.raises(RunError):
        _page(tmp_path, copied)


def test_a_table_that_the_page_does_not_know_is_shown_as_it_is(folder: Path, tmp_path: Path) -> None:
    import shutil

    from ukb_infer.storage import sha256_file

    copied = tmp_path / "copied"
    shutil.copytree(folder / "summary", copied)
    (copied / "reference_models.csv").write_text("target,term,n,value\nweight,age,1500,0.25\n")
    facts = json.loads((copied / "summary.json").read_text())
    facts["tables"]["reference_models.csv"] = sha256_file(copied / "reference_models.csv")
    (copied / "summary.json").write_text(json.dumps(facts))
    shown = _head(_page(tmp_path, copied))["summary"]["tables"][-1]
    assert (shown["title"], shown["folded"]) == ("Reference models", False)
    assert shown["rows"] == [["weight", "age", "1500", "0.25"]]
    assert shown["numbers"] == [False, False, True, True]


def test_a_run_is_summarized_first_and_gives_the_same_page(folder: Path, tmp_path: Path) -> None:
    run, phenotypes = folder / "secret run", folder / "phenotypes.csv"
    config = SummaryConfig(sources=Sources(run=run, phenotypes=phenotypes), out=tmp_path / "s", min_count=10)
    run_summary(config, lambda _: None)
    expected = _page(tmp_path, tmp_path / "s")
    assert _page(tmp_path, run, phenotypes=phenotypes, min_count=10) == expected
    assert _page(tmp_path, run, phenotypes=phenotypes) != expected
    counts = _head(expected)["summary"]["people"]
    assert all(int(row["all"] or 0) % 10 == 0 for row in counts)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "x.csv"], "--labels: not used with --summary"),
        (["--projections", "x"], "--projections: not used with --summary"),
        (["--anonymous"], "--anonymous: not used"),
        (["--min-count", "10"], "--min-count: .* is a summary already"),
        (["--phenotypes", "x.csv"], "--phenotypes: .* is a summary already"),
    ],
)
def test_other_options_are_refused(folder: Path, tmp_path: Path, options: list[str], said: str) -> None:
    command = ["report", str(folder / "summary"), "--summary", "--out", str(tmp_path / "x.html"), *options]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, UsageError)
    assert re.search(said, str(done.exception))
    assert list(tmp_path.iterdir()) == []


def test_a_run_needs_phenotypes_and_a_summary_its_flag(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`phenotypes`: needed to summarize"):
        _page(tmp_path, folder / "secret run")
    with pytest.raises(UsageError, match="`min_count`: got 4, expected at least 5"):
        _page(tmp_path, folder / "secret run", phenotypes=folder / "phenotypes.csv", min_count=4)
    with pytest.raises(UsageError, match="is a summary; show it with `summary`"):
        run_report(ReportConfig(run=folder / "summary", out=tmp_path / "x.html"))
    with pytest.raises(UsageError, match="`min_count`: only used with `summary`"):
        ReportConfig(run=folder / "secret run", out=tmp_path / "x.html", min_count=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_prints_and_has_no_fault_that_axe_finds(folder: Path, tmp_path: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    _page(tmp_path, folder / "summary")
    with open_browser() as browser:
        page = OpenPage(browser, tmp_path / "page.html", color_scheme=scheme, reduced_motion="reduce")
        assert page.text("h1") == "Summary"
        assert "liverFat ~ age + sex" in page.text("#associations-csv")
        assert not page.tab.is_visible("#scans")
        assert not page.tab.is_visible("#search")
        page.tab.wait_for_selector("#targets canvas")
        shoot(page, f"summary-{scheme}")
        page.tab.click("summary:has-text('counts.csv')")
        page.tab.wait_for_selector("details[open] tbody tr")
        rows = page.tab.query_selector_all("details[open] tbody tr")
        assert len(rows) == len(pd.read_csv(folder / "summary" / "counts.csv"))
        found = Axe().run(page.tab).response
        assert len(found["passes"]) > 15
        grave = [
            (v["id"], v["nodes"][0]["html"][:200])
            for v in found["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert grave == []
        shoot(page, f"summary-tables-{scheme}", full=True)
        assert "<b>A" in page.text("#people")  # text, not markup
        assert page.tab.pdf()[:5] == b"%PDF-"
        assert (page.said, page.requests()) == ([], [])
        page.context.close()
