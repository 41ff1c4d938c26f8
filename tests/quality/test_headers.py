"""What headers say of the scanner reaches the stations by both routes, and damages no scan where it is odd."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from tests.support.small_scans import make_slices, write_zip
from ukb_infer.imaging import read_stations
from ukb_infer.records import Acquired, ReadingOptions

OPTIONS = ReadingOptions()


def _read(tmp_path: Path, *, fast: bool, **elements: object) -> list[Acquired]:
    slices = make_slices()
    for ds in slices:
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
    path = write_zip(tmp_path / f"{fast}.zip", slices)
    return [station.acquired for station in read_stations(path, OPTIONS, use_fast_path=fast).stations]


@pytest.mark.parametrize("fast", [True, False])
def test_facts_of_the_scanner_are_read(tmp_path: Path, fast: bool) -> None:
    found = _read(
        tmp_path, fast=fast, Manufacturer="SIEMENS", ManufacturerModelName="Aera", EchoTime="2.39",
        MagneticFieldStrength="1.5", SoftwareVersions=["syngo", "D13"], InPlanePhaseEncodingDirection="COL",
    )  # fmt: skip
    assert found[1] == Acquired(
        time_s=13 * 3600 + 60 + 27.1425, echo_time_ms=2.39, field_tesla=1.5, phase_along="column",
        scanner="SIEMENS Aera", software="syngo, D13",
    )  # fmt: skip
    assert len({acquired.time_s for acquired in found}) == 6


@pytest.mark.parametrize("fast", [True, False])
def test_absent_and_odd_facts_are_unknown(tmp_path: Path, fast: bool) -> None:
    assert _read(tmp_path, fast=fast, SeriesTime="")[0] == Acquired()
    odd = {"EchoTime": "0", "MagneticFieldStrength": "", "InPlanePhaseEncodingDirection": "OTHER"}
    (first, *_) = _read(tmp_path, fast=fast, SeriesTime="noon", SoftwareVersions="a\x1bb", **odd)
    assert first == Acquired(software="a\\x1bb")


def test_slices_that_differ_in_such_facts_are_still_one_series(tmp_path: Path) -> None:
    slices: list[Dataset] = make_slices()
    for k, ds in enumerate(slices):
        ds.EchoTime = f"{2 + k % 2}"
    stations = read_stations(write_zip(tmp_path / "scan.zip", slices), OPTIONS)
    assert len(stations.stations) == 6
    assert stations.flags == ()
