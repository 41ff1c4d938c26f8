"""Bodies at a second site: another geometry and contrast, read and projected with a documented option."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ukb_infer.errors import ScanError, UsageError
from ukb_infer.imaging.reading import read_stations
from ukb_infer.imaging.recipes import RECIPES
from ukb_infer.phantom import render, sample_subject, write_cohort
from ukb_infer.phantom.cohort import one_site
from ukb_infer.protocol import PROTOCOLS, SECOND
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions

NAME = "0000001_20201_2_0.zip"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("sites")
    for site in PROTOCOLS:
        write_cohort(out / site, 1, 4, size="small", site=site)
    return {site: out / site for site in PROTOCOLS}


def test_four_stations_project_with_their_number(scans: dict[str, Path]) -> None:
    with pytest.raises(ScanError) as caught:
        read_stations(scans["second"] / NAME, ReadingOptions(6, False, False))
    assert caught.value.reason is Reason.STATION_MISSING
    found = read_stations(scans["second"] / NAME, ReadingOptions(4, False, False))
    assert len(found.stations) == 4
    assert found.flags == ()
    recipe = RECIPES["mimir-1"]
    second = recipe.project(found.stations).astype(float)
    first = recipe.project(read_stations(scans["ukb"] / NAME, ReadingOptions()).stations).astype(float)
    assert second.shape == recipe.shape
    alike = [np.corrcoef(first[c].ravel(), second[c].ravel())[0, 1] for c in range(3)]
    assert min(alike) > 0.6  # the same body ...
    assert np.abs(first - second).mean() > 3  # ... seen differently


def test_the_same_people_with_the_same_truth(scans: dict[str, Path]) -> None:
    truths = [(scans[site] / "truth.csv").read_bytes() for site in PROTOCOLS]
    assert truths[0] == truths[1]


def test_the_headers_name_the_other_scanner(scans: dict[str, Path]) -> None:
    acquired = read_stations(scans["second"] / NAME, ReadingOptions(4, False, False)).stations[0].acquired
    assert acquired.field_tesla == SECOND.field_tesla
    assert acquired.echo_time_ms == SECOND.echo_times_ms[0]
    assert "second site" in acquired.scanner


def test_contrast_differs_by_tissue() -> None:
    subject = sample_subject(1, 1)
    one, two = (render(subject, "small", protocol=PROTOCOLS[site]).stations for site in ("ukb", "second"))
    ratios = [np.percentile(s.fat, 99) / np.percentile(s.water, 99) for s in (one[2], two[1])]
    assert ratios[1] < 0.95 * ratios[0]  # weaker fat, brighter organs
    length = [sum(s.shape[2] * s.spacing_mm[2] for s in stations) for stations in (one, two)]
    overlap = [sum(PROTOCOLS[site].overlaps_mm) for site in ("ukb", "second")]
    assert length[0] - overlap[0] == pytest.approx(length[1] - overlap[1], abs=10.0)  # neck to knee at both


def test_what_other_sites_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choices: ukb, second"):
        write_cohort(tmp_path / "x", 1, 1, size="small", site="secnd")
    with pytest.raises(UsageError, match="none at site second"):
        write_cohort(tmp_path / "x", 1, 1, size="small", site="second", anomalies=[Reason.METAL])
    with pytest.raises(UsageError, match="a folder for each"):
        one_site(["ukb", "second"])
    assert not (tmp_path / "x").exists()
