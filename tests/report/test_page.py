"""The report in a real browser: what a person does with it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.browser import OpenPage, open_browser, shoot
from tests.support.made_runs import HOSTILE, make_run, write_labels, write_phenotypes
from ukb_infer import read_estimates
from ukb_infer.labels import read_id_list
from ukb_infer.report.report import ReportConfig, run_report

pytestmark = pytest.mark.browser
TARGETS = ("weight", "height", "liverFat", "sex", "AtlasTotalThighMuscleVolume")
PEOPLE = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run = make_run(folder / "run", PEOPLE, targets=TARGETS, hostile=True)
    rng, bodies = np.random.default_rng(0), folder / "projections"
    bodies.mkdir()
    for scan in pd.read_csv(run / "estimates.csv")["scan"][:40]:
        np.save(bodies / f"{scan}.npy", rng.integers(0, 255, (3, 256, 256), np.uint8))
    maps = folder / "maps"
    maps.mkdir()
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(maps / "0000002_20201_2_0_weight.png")
    run_report(
        ReportConfig(
            run=run, out=folder / "report.html", projections=bodies, saliency=maps,
            labels=write_labels(run, folder / "labels.csv", ("weight", "liverFat")),
            phenotypes=write_phenotypes(run, folder / "phenotypes.csv"),
        ),
        lambda _: None,
    )  # fmt: skip
    run_report(ReportConfig(run=run, out=folder / "anonymous.html", anonymous=True), lambda _: None)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as found:
        yield found


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[OpenPage]:
    page = OpenPage(browser, folder / "report.html")
    yield page
    assert page.said == []
    assert page.requests() == []
    assert page.tab.title() == "Report of run"  # markup in a path did nothing
    page.context.close()


def _scans(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "run" / "scans.csv", dtype=str, keep_default_na=False)


def _column(page: OpenPage, number: int) -> list[str]:
    return [row.text_content() for row in page.tab.query_selector_all(f"#scan-body tr.row > :nth-child({number})")]


def test_a_search_finds_scans_by_name_reason_and_message(page: OpenPage, folder: Path) -> None:
    scans = _scans(folder)
    shoot(page, "top")
    for words in ("0000017_", "SLICE_missing", " is 13.", "onerror"):
        page.tab.fill("#search", words)
        texts = scans[["scan", "reasons", "message", "path"]].agg(" ".join, axis=1).str.lower()
        page.wait_for_count(f"{int(texts.str.contains(words.lower(), regex=False).sum())} of {len(scans)}")
    assert HOSTILE in page.tab.evaluate("ukbInferReport.store.ready.get('message').join(' ')")
    page.tab.click("text=Clear all")
    page.wait_for_count(f"{len(scans)} of")


def test_headers_sort_by_enter_and_space_and_say_so(page: OpenPage, folder: Path) -> None:
    names = [cell.text_content().split()[0] for cell in page.tab.query_selector_all("#scan-head th")]
    at = names.index("weight") + 1
    page.tab.focus(f"#scan-head th:nth-child({at}) button")
    weights = read_estimates(folder / "run")["weight_mean"]
    for key, state, best in (("Enter", "ascending", weights.min()), ("Space", "descending", weights.max())):
        page.tab.keyboard.press(key)
        page.tab.wait_for_selector(f"#scan-head th:nth-child({at})[aria-sort={state}]")
        shown = [float(cell) for cell in _column(page, at)]
        assert shown == sorted(shown, reverse=state == "descending")
        assert shown[0] == pytest.approx(best, rel=1e-3)
    assert page.tab.get_attribute("#scan-head th:nth-child(1)", "aria-sort") == "none"
    assert len(shown) < 60  # rows out of view are not in the document


def test_brushing_a_histogram_filters_the_table_and_the_other_plots(page: OpenPage, folder: Path) -> None:
    page.tab.evaluate("document.getElementById('targets').scrollIntoView({behavior: 'instant'})")
    over = page.tab.wait_for_selector("article:has(h4:text('weight')) .u-over")
    page.tab.wait_for_timeout(300)  # the panels above it are drawn
    box = over.bounding_box()
    page.tab.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 30)
    page.tab.mouse.down()
    page.tab.mouse.move(box["x"] + box["width"] - 2, box["y"] + 40, steps=4)
    page.tab.mouse.up()
    page.tab.wait_for_selector("#filters button")
    low, high = page.tab.evaluate("(f => [f.low, f.high])(ukbInferReport.selection.filters.get('t:weight'))")
    weights = read_estimates(folder / "run")["weight_mean"]
    expected = int(((weights >= low) & (weights <= high)).sum())
    shown = page.tab.evaluate("ukbInferReport.selection.chosen.length")
    assert 0 < shown < len(weights)
    assert abs(shown - expected) <= 1  # 16 bits: a scan on the edge may fall to the other side
    page.tab.wait_for_timeout(200)
    shoot(page, "brushed")
    page.tab.click("#filters button >> nth=0")
    page.wait_for_count(f"{len(_scans(folder))} of")
    page.tab.fill("article:has(h4:text('height')) input >> nth=0", "170")  # the same without a pointer
    page.tab.keyboard.press("Enter")
    heights = read_estimates(folder / "run")["height_mean"]
    page.wait_for_count(f"{int((heights >= 170).sum())} of")


def test_a_reason_shows_its_scans(page: OpenPage, folder: Path) -> None:
    page.tab.click("#reasons button:text('motion')")
    page.wait_for_count(f"{int((_scans(folder)['reasons'] == 'motion').sum())} of")
    page.tab.click("#scan-body tr.row >> nth=0")
    page.tab.wait_for_selector("#scan-view[data-drawn]")
    assert page.tab.text_content(".layout li.flagged").startswith("3")  # its message names station 3
    page.tab.keyboard.press("Escape")
    page.tab.click("#reasons button:text('slice_missing')")
    page.wait_for_count(f"{int((_scans(folder)['reasons'] == 'slice_missing').sum())} of")
    assert set(_column(page, 2)) == {"failed"}


def test_enter_opens_a_scan_with_its_estimates_and_pictures(page: OpenPage, folder: Path) -> None:
    page.tab.focus("#scan-body button >> nth=1")
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector("#scan-view[data-drawn]")
    assert page.text("#scan-title") == "0000002_20201_2_0"
    row = read_estimates(folder / "run").loc[("0000002", 2)]
    cells = page.tab.query_selector_all("#scan-estimates tr:has(th:text-is('weight')) td")
    assert float(cells[1].inner_text()) == pytest.approx(row["weight_mean"], rel=1e-3)
    low, high = (float(number) for number in cells[2].inner_text().split(" to "))
    assert (low, high) == pytest.approx((row["weight_ci95_lower"], row["weight_ci95_upper"]), rel=1e-3)
    assert len(page.tab.query_selector_all(".channels div.tile")) == 3
    assert (
        page.tab.evaluate(
            "document.querySelector('.channels img').complete && document.querySelector('.channels img').naturalWidth"
        )
        == 64
    )
    assert page.tab.query_selector_all("#scan-stations .layout li")[5]
    assert "signal-to-noise" in page.text("#scan-measures")
    shoot(page, "scan")
    page.tab.keyboard.press("ArrowRight")
    page.tab.wait_for_function("() => document.getElementById('scan-title').textContent.startsWith('0000003')")
    page.tab.keyboard.press("Escape")
    page.tab.click("#scan-body tr.row >> nth=3")
    page.tab.wait_for_selector("#scan-view[open]")
    assert "script" in page.text("#scan-parts")  # the path, as text


def test_a_click_soon_after_scrolling_opens_the_scan(page: OpenPage) -> None:
    """The table used to be drawn again when scrolling ended, which took the row away before the button was released."""
    page.tab.hover("#scan-body tr.row >> nth=4")  # waits until the panels above it are drawn
    page.tab.evaluate("document.getElementById('scan-scroll').scrollTop = 3")
    page.tab.mouse.down()
    page.tab.wait_for_timeout(400)  # scrolling counts as ended after 150 ms
    page.tab.mouse.up()
    page.tab.wait_for_selector("#scan-view[open]", timeout=5000)


def test_ratings_by_keys_are_exported_and_taken(page: OpenPage, folder: Path, tmp_path: Path) -> None:
    page.tab.evaluate("document.getElementById('mosaic').scrollIntoView({behavior: 'instant'})")
    page.tab.focus("[data-index='0']")
    page.tab.keyboard.press("x")
    page.tab.keyboard.press("ArrowRight")
    page.tab.keyboard.press("u")
    page.tab.keyboard.press("ArrowDown")
    page.tab.wait_for_function(
        "() => document.activeElement.closest('#mosaic') && document.activeElement.dataset.index > 1"
    )
    page.tab.once("dialog", lambda dialog: dialog.accept('=odd, "quoted"'))
    page.tab.keyboard.press("n")
    page.tab.wait_for_function(
        "() => document.getElementById('ratings-count').textContent === '1 use, 1 exclude, 0 unsure'"
    )
    shoot(page, "mosaic")
    with page.tab.expect_download() as waiting:
        page.tab.click("#ratings-export")
    path = tmp_path / "ratings.csv"
    waiting.value.save_as(path)
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(r["scan"], r["rating"]) for r in rows[:2]] == [
        ("0000001_20201_2_0", "exclude"),
        ("0000002_20201_2_0", "use"),
    ]
    assert rows[2]["note"] == '\'=odd, "quoted"'
    assert read_id_list(path, "exclude").scans == {"1_20201_2_0"}
    left = read_estimates(folder / "run", exclude=path)["scan"]
    assert set(read_estimates(folder / "run")["scan"]) - set(left) == {"0000001_20201_2_0"}
    page.tab.reload()
    page.tab.wait_for_selector("html[data-ready=yes]")
    page.tab.wait_for_function(
        "() => document.getElementById('ratings-count').textContent.startsWith('1 use, 1 exclude')"
    )
    page.tab.evaluate("localStorage.clear()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, folder: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = OpenPage(browser, folder / "report.html", color_scheme=scheme, reduced_motion="reduce")
    for place in ("targets", "agreement", "scans", "mosaic"):
        page.tab.evaluate(f"document.getElementById('{place}').scrollIntoView()")
        page.tab.wait_for_timeout(150)
        shoot(page, f"{place}-{scheme}")
    first = Axe().run(page.tab).response
    found = first["violations"]
    assert len(first["passes"]) > 20
    page.tab.focus("#scan-body button >> nth=1")
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector("#scan-view[data-drawn]")
    shoot(page, f"scan-{scheme}")
    found += Axe().run(page.tab).response["violations"]
    grave = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]
    assert grave == []
    assert page.tab.get_attribute("html", "lang") == "en"
    page.context.close()


def test_an_anonymous_page_has_no_names_paths_or_messages(browser: Any, folder: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = OpenPage(browser, folder / "anonymous.html")
    names = page.tab.evaluate("ukbInferReport.store.load('scan').then(lines => lines.join(' '))")
    assert "20201" not in names
    assert page.tab.evaluate("['message', 'path'].map(name => ukbInferReport.store.has(name))") == [False, False]
    assert "run" not in page.text("h1")
    assert not page.tab.is_visible("#ratings-export")
    assert [v["id"] for v in Axe().run(page.tab).response["violations"] if v["impact"] in ("serious", "critical")] == []
    assert page.said == []
    page.context.close()


def test_the_page_prints(page: OpenPage) -> None:
    page.tab.emulate_media(media="print")
    assert not page.tab.is_visible("#bar")
    assert page.tab.is_visible("#reasons table")
    assert page.tab.pdf()[:5] == b"%PDF-"


def test_pictures_of_many_scans_are_read_from_the_folder_beside(
    browser: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ukb_infer.report.report.MOST_IN_PAGE", 10)
    out = folder / "a folder's" / "many scans.html"
    run_report(ReportConfig(run=folder / "run", out=out, projections=folder / "projections"), lambda _: None)
    page = OpenPage(browser, out)
    page.tab.evaluate("document.getElementById('mosaic').scrollIntoView({behavior: 'instant'})")
    with page.tab.expect_request_finished(lambda request: "sheet-00000.jpg" in request.url) as found:
        page.tab.wait_for_selector("[data-index='0'] .picture")
    assert found.value.failure is None
    assert (page.said, page.requests()) == ([], [])
    page.context.close()


def test_a_page_of_very_many_labels_shows_those_of_the_largest_errors(
    browser: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ukb_infer.report.contents.FINE_CELLS", 0)
    monkeypatch.setattr("ukb_infer.report.contents.MOST_LABELS", 0)
    out = folder / "labels.html"
    run_report(ReportConfig(run=folder / "run", out=out, labels=folder / "labels.csv"), lambda _: None)
    page = OpenPage(browser, out)
    page.tab.click("article:has(h4:text('weight')) button[aria-label^='Open the scan with error']")
    page.tab.wait_for_selector("#scan-view[data-drawn]")
    label = pd.read_csv(folder / "labels.csv").set_index("scan")["weight"][page.text("#scan-title")]
    cells = page.tab.query_selector_all("#scan-estimates tr:has(th:text-is('weight')) td")
    assert float(cells[3].inner_text()) == pytest.approx(label, abs=0.2)
    assert "those of the largest errors" in page.text("#scan-estimates")
    assert (page.said, page.requests()) == ([], [])
    page.context.close()
