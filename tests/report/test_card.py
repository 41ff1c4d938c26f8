"""Cards of evaluations: accuracy, groups, limits, the items of TRIPOD+AI."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.browser import OpenPage, open_browser, shoot
from tests.support.cross_validation import make_cross_validation, write_labels
from tests.support.made_runs import make_run, write_phenotypes
from tests.support.made_runs import write_labels as write_run_labels
from ukb_infer.modules.card import COMMON, Card, card_markdown
from ukb_infer.modules.tripod import ITEMS, filled_items
from ukb_infer.report.card import card_of_cross_validation
from ukb_infer.report.evaluate import EvaluateConfig, run_evaluate


def test_every_item_of_tripod_ai_is_answered_or_missing() -> None:
    assert len(ITEMS) == 52
    assert {int(re.sub("[a-z]", "", number)) for number in ITEMS} == set(range(1, 28))
    text = card_markdown(Card(name="x", known={"5a": "A | B", "26": ""}, tables={}))
    rows = {row.split("|")[1].strip(): row for row in text.splitlines() if re.match(r"\| \d", row)}
    assert rows.keys() == ITEMS.keys()
    assert "A \\| B" in rows["5a"]
    missing = [number for number, row in rows.items() if "**missing**" in row]
    assert set(missing) == ITEMS.keys() - COMMON.keys() - {"5a"}
    assert f"{len(missing)} of 52 are missing" in text
    with pytest.raises(KeyError):
        filled_items({"28": "no such item"})


def test_a_cross_validation_gets_a_card_with_groups(tmp_path: Path) -> None:
    folder = make_cross_validation(tmp_path / "cv")
    files = card_of_cross_validation(folder)
    assert [path.name for path in files] == ["MODULE.md", "report.html"]
    text = files[0].read_text()
    assert "4 folds by participant" in text
    assert "| weight | kg | 39 |" in text
    groups = dict(re.findall(r"^\| weight \| (visit \d) \| (\d+) \|", text, re.MULTILINE))
    assert groups == {"visit 2": "19", "visit 3": "20"} or groups == {"visit 2": "20", "visit 3": "19"}


def test_groups_are_the_people_that_phenotypes_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 120, targets=("weight",))
    labels = write_run_labels(run, tmp_path / "labels.csv", ("weight",))
    phenotypes = write_phenotypes(run, tmp_path / "phenotypes.csv")
    config = EvaluateConfig(
        run, labels, tmp_path / "out", replicates=0, figures=False, phenotypes=phenotypes, targets=("weight",)
    )
    run_evaluate(config, lambda _: None)
    head = re.search(r'id="head">(.*?)</script>', (tmp_path / "out" / "report.html").read_text())
    assert head is not None
    groups = {row["group"]: row for row in json.loads(head[1])["card"]["groups"]}
    estimates = pd.read_csv(run / "estimates.csv", dtype={"eid": str}).merge(pd.read_csv(labels), on="scan")
    table = estimates.merge(pd.read_csv(phenotypes, dtype={"eid": str}), on="eid")
    for name, sex in (("female", 0), ("male", 1)):
        own = table[table["p31"] == sex]
        assert groups[name]["n"] == len(own)
        assert groups[name]["metrics"]["mae"] == pytest.approx(
            np.abs(own["weight_mean"] - own["weight"]).mean(), rel=1e-4
        )
    assert any(name.startswith("age ") for name in groups)


def test_evaluate_without_groups_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 8, targets=("weight",), seed=3)
    labels = write_run_labels(run, tmp_path / "labels.csv", ("weight",))
    run_evaluate(EvaluateConfig(run, labels, tmp_path / "out", replicates=0, figures=False), lambda _: None)
    assert "Groups were not evaluated" in (tmp_path / "out" / "MODULE.md").read_text()


@pytest.mark.browser
def test_the_card_opens_as_a_page(tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    folder = make_cross_validation(tmp_path / "<b>cv")
    config = EvaluateConfig(folder, write_labels(tmp_path), tmp_path / "out", replicates=20, figures=False)
    run_evaluate(config, lambda _: None)
    with open_browser() as browser:
        page = OpenPage(browser, tmp_path / "out" / "report.html")
        assert page.text("h1") == "Evaluation of <b>cv"
        assert page.text("#tripod").count("missing") >= 25
        assert "weight" in page.text("#groups")
        assert len(page.tab.query_selector_all("#agreement canvas")) == 3
        assert not page.tab.is_visible("#scans")
        shoot(page, "card", full=True)
        found = Axe().run(page.tab).response
        assert len(found["passes"]) > 15
        assert [v["id"] for v in found["violations"] if v["impact"] in ("serious", "critical")] == []
        assert (page.said, page.requests()) == ([], [])
