"""How large and how fast the report of a biobank is: ``make bench-report``.

Writes a made-up run of 170,000 scans with all 72 targets, labels of all of them, sex and age; the report of it, opens
that in Chromium and prints a table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.browser import OpenPage, open_browser
from tests.support.made_runs import make_run, write_labels, write_phenotypes

#: People of whom REPEATED come twice: 170,000 scans.
PEOPLE = 157_500
FRAME = "await new Promise(done => requestAnimationFrame(() => setTimeout(done)));"
TIMED = "async () => {{ const began = performance.now(); {action}; {frame} return performance.now() - began; }}"
ACTIONS = {
    "brush a histogram": "await ukbInferReport.selection.setFilter('t:weight', {{low: {k} + 100, high: {k} + 130}})",
    "a second range": "await ukbInferReport.selection.setFilter('t:height', {{low: 150 + {k}, high: 175}})",
    "a reason": (
        "await ukbInferReport.selection.setFilter('reasons', {{words: word => word.includes('motion'), label: '{k}'}})"
    ),
    "remove all": "await ukbInferReport.selection.clear()",
    "search": "await ukbInferReport.selection.setSearch('00{k}1')",
    "remove the search": "await ukbInferReport.selection.setSearch('')",
    "sort by a number": "await ukbInferReport.selection.sort('t:height', {k} % 2 === 1)",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--plain", action="store_true", help="without labels and phenotypes")
    parser.add_argument("--work", type=Path, default=None, help="folder for the run and its page, kept")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = chosen.work or Path(temporary)
        run, page = work / "run", work / "report.html"
        if not (run / "run.json").is_file():
            make_run(run, chosen.people)
        rows = [*_write(run, page, plain=chosen.plain), *_open(page)]
    print("| what | figure |\n|---|---|")
    for name, figure in rows:
        print(f"| {name} | {figure} |")


def _write(run: Path, page: Path, *, plain: bool) -> list[tuple[str, str]]:
    from ukb_infer.report.report import ReportConfig, run_report
    from ukb_infer.targets import TARGETS

    config = ReportConfig(run=run, out=page)
    if not plain:
        labels, phenotypes = run.with_name("labels.csv"), run.with_name("phenotypes.csv")
        if not labels.is_file():
            write_labels(run, labels, [name for name, spec in TARGETS.items() if not spec.is_binary])
        config = replace(config, labels=labels, phenotypes=write_phenotypes(run, phenotypes))
    began = time.monotonic()
    result = run_report(config)
    with (run / "scans.csv").open() as handle:
        count = sum(1 for _ in handle) - 1
    return [("scans", f"{count:,}"), ("written in", f"{time.monotonic() - began:.0f} s"),
            ("page", f"{result.size / 1e6:.1f} MB")]  # fmt: skip


def _open(path: Path) -> list[tuple[str, str]]:
    with open_browser() as browser:
        empty = _memory(browser)[1]
        page = OpenPage(browser, path)
        tab = page.tab
        paint = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        ready = tab.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
        rows = [("first paint", f"{paint / 1000:.2f} s"), ("complete", f"{ready / 1000:.2f} s")]
        tab.evaluate("document.getElementById('targets').scrollIntoView({behavior: 'instant'})")
        tab.wait_for_selector("html[data-warm]", timeout=60_000)
        warm = tab.evaluate("performance.getEntriesByName('warm')[0].startTime")
        rows.append(("all columns read, while idle", f"{warm / 1000:.2f} s"))
        session = page.context.new_cdp_session(tab)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        rows += [_time(tab, session, name, action) for name, action in ACTIONS.items()]
        tab.click("#scan-body button >> nth=0")
        tab.wait_for_selector("#scan-view[data-drawn]", timeout=60_000)
        tab.evaluate(
            "document.getElementById('scan-view').close(); delete document.getElementById('scan-view').dataset.drawn"
        )
        began = time.monotonic()
        tab.click("#scan-body button >> nth=1")
        tab.wait_for_selector("#scan-view[data-drawn]")
        rows.append(("open a second scan", f"{1000 * (time.monotonic() - began):.0f} ms"))
        own, everything = _memory(browser)
        rows += [("memory of the page", f"{own:.0f} MB"), ("memory of the whole browser", f"{everything:.0f} MB"),
                 ("of an empty browser", f"{empty:.0f} MB")]  # fmt: skip
        if page.said or page.requests():
            raise SystemExit(f"the page said {page.said[:3]} and asked for {page.requests()[:3]}")
    return rows


def _time(tab: Any, session: Any, name: str, action: str) -> tuple[str, str]:
    """The first time, which decodes columns, then the median and slowest of nine more, to the next frame.

    The time of a processor that the page's own thread took says more where others use the machine.
    """
    script = [TIMED.format(action=action.format(k=k), frame=FRAME) for k in range(10)]
    started = _busy_s(session)
    first = float(tab.evaluate(script[0]))
    before = _busy_s(session)
    others = [float(tab.evaluate(line)) for line in script[1:]]
    busy = 1000 * (_busy_s(session) - before) / len(others)
    middle, most = statistics.median(others), max(others)
    times = f"{middle:.0f} ms, at most {most:.0f} ms, first {first:.0f} ms"
    return name, f"{times}; {busy:.0f} ms of a processor, first {1000 * (before - started):.0f} ms"


def _busy_s(session: Any) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def _memory(browser: Any) -> tuple[float, float]:
    """MB of the largest page process and of all processes of the browser (proportional set size)."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    sizes = [(_size(process["id"]), process["type"]) for process in processes]
    return max((size for size, kind in sizes if kind == "renderer"), default=0.0), sum(size for size, _ in sizes)


def _size(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
