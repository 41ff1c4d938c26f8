"""The report's content, without a browser."""

from __future__ import annotations

import errno
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.support.made_runs import HOSTILE, make_run, write_labels, write_phenotypes
from tests.support.tiny_module import make_tiny_module
from ukb_infer import read_estimates
from ukb_infer.cli.app import app
from ukb_infer.errors import RunError, UsageError
from ukb_infer.report import contents
from ukb_infer.report.html import script_json
from ukb_infer.report.packing import ALPHABET, decode, encode, pack_numbers, pack_text, pack_words
from ukb_infer.report.report import ReportConfig, ReportResult, run_report

PAGE = Path(contents.__file__).with_name("page")
TARGETS = ("weight", "liverFat", "sex")


def _read(page: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Head and deflated columns of a page."""
    text = page.read_text(encoding="ascii")
    head = re.search(r'<script type="application/json" id="head">(.*?)</script>', text)
    assert head is not None
    blobs = re.findall(r'<script type="text/plain" id="([^"]+)" data-size="(\d+)">([^<]*)</script>', text)
    return json.loads(head[1]), {name: decode(data, int(size)) for name, size, data in blobs}


def _numbers(head: dict[str, Any], blobs: dict[str, bytes], name: str) -> Any:
    """Numbers of a column as the page reads them."""
    facts = next(column for column in head["columns"] if column["name"] == name)
    planes = np.frombuffer(zlib.decompress(blobs[f"c-{name}"]), np.uint8).reshape(facts["bytes"], -1)
    codes = sum(plane.astype(np.int64) << (8 * k) for k, plane in enumerate(planes))
    values = facts["low"] + (codes - 1) * facts["step"]
    return np.where(codes == 0, np.nan, np.exp(values) if facts.get("log") else values)


def _report(folder: Path, run: Path, **more: Any) -> ReportResult:
    return run_report(ReportConfig(run=run, out=folder / "report.html", **more), lambda _: None)


@given(st.binary(max_size=64))
@settings(max_examples=50, deadline=None)
def test_bytes_come_back_from_text_that_html_leaves_alone(data: bytes) -> None:
    text = encode(data)
    assert decode(text, len(data)) == data
    assert not set(text) & set("<>&\"'\\")
    assert len(set(ALPHABET)) == 85


@pytest.mark.parametrize(("step", "relative"), [(None, False), (0.25, False), (0.1, True)])
def test_numbers_are_off_by_half_a_step_at_most(step: float | None, relative: bool) -> None:
    values = np.random.default_rng(0).lognormal(2, 1, 1000)
    values[::7] = np.nan
    packed = pack_numbers(values, step=step, relative=relative)
    facts, codes = packed.facts, packed.codes
    assert codes is not None
    read = facts["low"] + (codes.astype(float) - 1) * facts["step"]
    read = np.where(codes == 0, np.nan, np.exp(read) if relative else read)
    assert np.array_equal(np.isnan(read), np.isnan(values))
    error = np.log(read / values) if relative else read - values
    assert np.nanmax(np.abs(error)) <= 0.5 * facts["step"] * (1 + 1e-9)


def test_constants_missing_columns_and_words_are_packed() -> None:
    assert pack_numbers(np.full(3, 5.0)).facts["low"] == 5.0
    assert pack_numbers(np.full(3, np.nan)).codes.tolist() == [0, 0, 0]  # type: ignore[union-attr]
    words = pack_words(["b", "a", "b", ""])
    assert [words.facts["words"][code] for code in words.codes] == ["b", "a", "b", ""]  # type: ignore[union-attr]
    assert zlib.decompress(pack_text(["a\nb", "ü"]).data).decode() == "a b\nü"


def test_a_page_holds_the_run_in_one_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 60, targets=TARGETS, hostile=True)
    result = _report(tmp_path, run)
    assert (result.size, result.pictures) == (result.page.stat().st_size, None)
    head, blobs = _read(result.page)
    names = zlib.decompress(blobs["c-scan"]).decode().split("\n")
    estimates = read_estimates(run).set_index("scan")
    for target in ("weight", "liverFat"):
        for kind, column in (("t", "mean"), ("l", "ci95_lower"), ("u", "ci95_upper")):
            expected = estimates.reindex(names)[f"{target}_{column}"].to_numpy()
            found = _numbers(head, blobs, f"{kind}:{target}")
            assert np.allclose(found, expected, rtol=0, atol=np.nanstd(expected) / 1000, equal_nan=True)
    counts = head["counts"]["status"]
    assert sum(counts.values()) == head["rows"] == len(names)
    missing = next(reason for reason in head["counts"]["reasons"] if reason["code"] == "slice_missing")
    assert missing["count"] == counts["failed"]
    assert missing["advice"]
    assert [limit["code"] for limit in head["limits"]["snr"]] == ["low_signal_to_noise"]


def test_nothing_of_a_run_is_markup_and_nothing_is_fetched(tmp_path: Path) -> None:
    run = make_run(tmp_path / "<b>run", 30, targets=("weight",), hostile=True)
    text = _report(tmp_path, run).page.read_text()
    assert HOSTILE not in text
    assert "<b>" not in text
    assert "&lt;b&gt;run" in text
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "</script" not in script_json({"path": "</script><!--"})


def test_sex_and_age_come_from_phenotypes_or_sex_from_estimates(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 80, targets=TARGETS)
    head, _ = _read(_report(tmp_path, run).page)
    weight = head["targets"][0]
    assert head["sexFrom"] == "estimates"
    assert weight["spread"]["female"]["n"] + weight["spread"]["male"]["n"] == weight["spread"]["all"]["n"]
    assert weight["published"]["mae"] == pytest.approx(0.878)
    assert "age" not in weight
    head, blobs = _read(_report(tmp_path, run, phenotypes=write_phenotypes(run, tmp_path / "p.csv")).page)
    assert head["sexFrom"] == "phenotypes"
    assert np.nanmin(_numbers(head, blobs, "age")) >= 44.9
    assert any(value is not None for value in head["targets"][0]["age"]["male"])
    (tmp_path / "p.csv").write_text("eid,p21002_i2\n0000001,70\n")
    with pytest.raises(UsageError, match=r"neither sex .* nor age"):
        _report(tmp_path, run, phenotypes=tmp_path / "p.csv")


def test_labels_add_agreement_and_say_whether_the_worst_errors_were_flagged(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 200, targets=TARGETS)
    labels = write_labels(run, tmp_path / "labels.csv", ("weight",))
    head, blobs = _read(_report(tmp_path, run, labels=labels).page)
    [target] = head["agreement"]["targets"]
    error = np.abs(_numbers(head, blobs, "t:weight") - _numbers(head, blobs, "y:weight"))
    assert target["metrics"]["mae"] == pytest.approx(np.nanmean(error), rel=1e-2)
    assert target["worst"]["rows"][0] == int(np.nanargmax(error))
    assert target["worst"]["n"] == 5
    assert 0 <= target["worst"]["flagged"] <= 5
    assert target["metrics"]["coverage"] == pytest.approx(0.95, abs=0.06)


def test_of_very_many_labels_those_of_the_largest_errors_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", 200, targets=TARGETS)
    labels = write_labels(run, tmp_path / "labels.csv", ("weight", "liverFat"))
    known, _ = _read(_report(tmp_path, run, labels=labels).page)
    monkeypatch.setattr(contents, "FINE_CELLS", 0)
    head, blobs = _read(_report(tmp_path, run, labels=labels).page)
    assert head["allLabels"]
    assert "c-y:weight" in blobs
    monkeypatch.setattr(contents, "MOST_LABELS", 100)
    head, blobs = _read(_report(tmp_path, run, labels=labels).page)
    assert not head["allLabels"]
    assert not any(name.startswith("c-y:") for name in blobs)
    assert head["agreement"] == known["agreement"]  # rests on all labels
    worst = head["agreement"]["targets"][0]["worst"]
    given = pd.read_csv(labels).set_index("scan")["weight"]
    names = zlib.decompress(blobs["c-scan"]).decode().split("\n")
    assert worst["labels"] == [given[names[row]] for row in worst["rows"]]


def test_points_of_many_targets_share_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", 60, targets=TARGETS)
    labels = write_labels(run, tmp_path / "labels.csv", ("weight", "liverFat"))
    monkeypatch.setattr("ukb_infer.report.cohort.ALL_POINTS", 40)
    head, _ = _read(_report(tmp_path, run, labels=labels).page)
    assert [len(target["points"]["label"]) for target in head["agreement"]["targets"]] == [20, 20]


def test_visits_are_compared_by_participant(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 200, targets=("weight",))
    head, _ = _read(_report(tmp_path, run).page)
    weights = read_estimates(run)["weight_mean"].unstack()
    change = (weights[3] - weights[2]).dropna()
    [found] = head["visits"]
    assert found["n"] == len(change)
    assert found["mean"] == pytest.approx(change.mean(), rel=1e-6)


def test_a_large_run_is_quantized_by_its_own_uncertainty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", 300, targets=TARGETS)
    fine = _report(tmp_path, run).size
    monkeypatch.setattr(contents, "FINE_CELLS", 0)
    result = _report(tmp_path, run)
    head, blobs = _read(result.page)
    names = zlib.decompress(blobs["c-scan"]).decode().split("\n")
    table = read_estimates(run).set_index("scan").reindex(names)
    error = np.abs(_numbers(head, blobs, "t:weight") - table["weight_mean"].to_numpy())
    assert np.nanmax(error) <= 0.1001 * table["weight_sd"].median()
    half = (table["weight_ci95_upper"] - table["weight_mean"]).to_numpy()
    assert np.nanmax(np.abs(np.log(_numbers(head, blobs, "w:weight") / half))) <= 0.0501
    assert result.size < 0.75 * fine
    assert not any(name.startswith("c-m:snr_") for name in blobs)


def test_an_anonymous_page_names_no_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 50, targets=("weight",))
    _, blobs = _read(_report(tmp_path, run, anonymous=True).page)
    assert b"20201" not in zlib.decompress(blobs["c-scan"])
    assert {"c-message", "c-path"}.isdisjoint(blobs)
    everything = (tmp_path / "report.html").read_text() + "".join(
        zlib.decompress(data).decode("latin1") for data in blobs.values()
    )
    assert "0000001" not in everything


def test_pictures_lie_in_the_page_or_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from io import BytesIO

    from PIL import Image

    run = make_run(tmp_path / "run", 30, targets=("weight",))
    bodies = tmp_path / "bodies"
    bodies.mkdir()
    image = np.zeros((3, 256, 256), np.uint8)
    image[1, :128] = 200
    np.save(bodies / "0000002_20201_2_0.npy", image)
    head, blobs = _read(_report(tmp_path, run, projections=bodies).page)
    with Image.open(BytesIO(blobs["sheet-0"])) as sheet:
        side, pixels = head["pictures"]["side"], np.asarray(sheet)
    names = zlib.decompress(blobs["c-scan"]).decode().split("\n")
    column = 3 * names.index("0000002_20201_2_0") + 1  # the fat of that scan
    assert pixels[: side // 2, column * side : (column + 1) * side].mean() > 190
    assert pixels[:, : 3 * side].max() < 10
    monkeypatch.setattr("ukb_infer.report.report.MOST_IN_PAGE", 10)
    keep = tmp_path / "report_files" / "notes.txt"
    keep.parent.mkdir()
    keep.write_text("mine")
    result = _report(tmp_path, run, projections=bodies)
    assert result.pictures == tmp_path / "report_files"
    [sheet] = result.pictures.rglob("*.jpg")
    assert _read(result.page)[0]["folder"] == f"report_files/{sheet.parent.name}"
    _report(tmp_path, run, projections=bodies)
    assert not sheet.exists()
    assert len([*result.pictures.rglob("*.jpg")]) == 1
    assert keep.read_text() == "mine"
    with pytest.raises(UsageError, match="not a folder"):
        _report(tmp_path, run, projections=tmp_path / "none")


def test_saliency_maps_are_shown_with_their_scans(tmp_path: Path) -> None:
    from PIL import Image

    run, maps = make_run(tmp_path / "run", 20, targets=TARGETS), tmp_path / "maps"
    maps.mkdir()
    for name in ("0000002_20201_2_0_liverFat", "0000002_20201_2_0_weight", "cohort_weight"):
        Image.fromarray(np.full((300, 300, 3), 90, np.uint8)).save(maps / f"{name}.png")
    head, blobs = _read(_report(tmp_path, run, saliency=maps).page)
    row = zlib.decompress(blobs["c-scan"]).decode().split("\n").index("0000002_20201_2_0")
    assert head["saliency"] == [[row, "weight"], [row, "liverFat"]]
    assert blobs["map-1"].startswith(b"\xff\xd8")


def test_the_command_writes_the_page_and_refuses_other_folders(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 20, targets=("weight",))
    done = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "pages" / "r.html")])
    assert done.exit_code == 0
    assert "r.html (0." in done.output
    with pytest.raises(RunError, match="no tables"):
        _report(tmp_path, tmp_path / "pages")


def test_a_page_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, bodies = make_run(tmp_path / "run", 30, targets=("weight",)), tmp_path / "bodies"
    bodies.mkdir()
    np.save(bodies / "0000002_20201_2_0.npy", np.full((3, 256, 256), 90, np.uint8))
    monkeypatch.setattr("ukb_infer.report.report.MOST_IN_PAGE", 10)
    page = _report(tmp_path, run, projections=bodies).page
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_: Any) -> Any:
        yield "<!DOCTYPE html>"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ukb_infer.report.html.page_pieces", full)
    with pytest.raises(RunError, match="No space left on device"):
        _report(tmp_path, run, projections=bodies)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert page in before


@pytest.mark.parametrize(
    ("out", "said"), [("report.txt", "does not end in .html"), ("pages", "is a folder; expected the name of a page")]
)
def test_a_name_that_is_no_page_is_refused_before_the_work(tmp_path: Path, out: str, said: str) -> None:
    (tmp_path / "pages").mkdir()
    done = CliRunner().invoke(app, ["report", str(tmp_path / "none"), "--out", str(tmp_path / out)])
    assert isinstance(done.exception, UsageError)
    assert "--out: " in str(done.exception)
    assert said in str(done.exception)


def test_a_run_without_estimates_has_scans_and_quality(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 20, targets=("weight",))
    for name in ("estimates.csv", "run.json"):
        (run / name).unlink()
    head, blobs = _read(_report(tmp_path, run).page)
    assert head["targets"] == []
    assert "c-m:snr" in blobs
    with pytest.raises(RunError, match="no estimates"):
        _report(tmp_path, run, labels=tmp_path / "labels.csv")


def test_the_built_script_is_small_pinned_and_licensed() -> None:
    facts = json.loads((PAGE / "package.json").read_text())
    licences = (PAGE / "built" / "LICENCES.txt").read_text()
    for name, version in facts["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert f"{name} {version} (MIT)" in licences
    assert (PAGE / "built" / "report.js").stat().st_size < 1_000_000


def test_predict_writes_a_report_even_if_no_scan_is_usable(tmp_path: Path) -> None:
    module, scans = make_tiny_module(tmp_path / "module", members=1), tmp_path / "scans"
    scans.mkdir()
    np.save(scans / "0000001_20201_2_0.npy", np.zeros((3, 256, 256), np.uint8))  # an empty image fails
    command = ["predict", str(scans), "--modules", str(module), "--workers", "1", "--report", "--out"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "none")])
    assert done.exit_code == 3
    head, _ = _read(tmp_path / "none" / "report.html")
    assert (head["counts"]["status"]["failed"], head["targets"][0]["spread"]["all"]["n"]) == (1, 0)
    noise = np.random.default_rng(0).integers(0, 255, (3, 256, 256), np.uint8)
    np.save(scans / "0000002_20201_2_0.npy", noise)
    assert CliRunner().invoke(app, [*command, str(tmp_path / "one")]).exit_code == 3
    head, blobs = _read(tmp_path / "one" / "report.html")
    assert "sheet-0" in blobs  # the pictures are those that the run read
    assert head["warning"] == "Random weights for tests."
    again = CliRunner().invoke(app, [*command, str(tmp_path / "one"), "--overwrite"])
    assert again.exit_code == 3, again.output
