"""A folder of scans with their truths: what is in it, that it does not depend on workers, and writing over it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ukb_infer.errors import UsageError
from ukb_infer.phantom import sample_subject, truths, write_cohort
from ukb_infer.reasons import Reason
from ukb_infer.targets import TARGETS


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_truths_are_written_to_the_last_digit(tmp_path: Path) -> None:
    path = write_cohort(tmp_path, 2, 5, size="small")
    rows = _rows(path)
    assert list(rows[0]) == ["scan", "eid", "instance", "array", *TARGETS]
    assert len(TARGETS) == 72
    for index, row in enumerate(rows, start=1):
        assert [row[k] for k in ("eid", "instance", "array")] == [f"{index:07d}", "2", "0"]
        assert row["scan"] == f"{index:07d}_20201_2_0"
        assert {name: float(row[name]) for name in TARGETS} == truths(sample_subject(5, index))
    assert not (tmp_path / "anomalies.csv").exists()


def test_workers_change_nothing(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    anomalies = [Reason.MOTION]
    write_cohort(tmp_path / "one", 2, 2, "zip", "small", anomalies, 1, lambda *n: told.append(n))
    write_cohort(tmp_path / "two", 2, 2, "zip", "small", anomalies, 2, lambda *n: told.append(n))
    assert _files(tmp_path / "one") == _files(tmp_path / "two")
    assert told == [(0, 2), (1, 2), (2, 2)] * 2


def test_the_first_scans_get_the_anomalies_and_the_rest_are_flawless(tmp_path: Path) -> None:
    write_cohort(tmp_path / "a", 3, 2, size="small", anomalies=[Reason.FOLDING, Reason.SLICE_MISSING])
    write_cohort(tmp_path / "b", 3, 2, size="small")
    spoiled, flawless = _files(tmp_path / "a"), _files(tmp_path / "b")
    assert [(row["scan"][:7], row["anomaly"]) for row in _rows(tmp_path / "a" / "anomalies.csv")] == [
        ("0000001", "folding"),
        ("0000002", "slice_missing"),
    ]
    assert [spoiled[f"000000{k}_20201_2_0.zip"] == flawless[f"000000{k}_20201_2_0.zip"] for k in (1, 2, 3)] == [
        False,
        False,
        True,
    ]
    # What a body is does not depend on what went wrong with its scan.
    assert spoiled["truth.csv"] == flawless["truth.csv"]


def test_writing_over_a_cohort_leaves_nothing_of_it(tmp_path: Path) -> None:
    write_cohort(tmp_path, 2, 2, size="small", anomalies=[Reason.METAL])
    (tmp_path / "notes.txt").write_text("the user's own")
    before = _files(tmp_path)
    with pytest.raises(UsageError, match="`overwrite`"):
        write_cohort(tmp_path, 1, 2, "nifti", "small")
    assert _files(tmp_path) == before
    write_cohort(tmp_path, 1, 2, "nifti", "small", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0000001_20201_2_0", "notes.txt", "truth.csv"]


def test_only_synthetic_scans_are_removed_and_only_on_request(tmp_path: Path) -> None:
    """A truth.csv that names other files, or paths, is no reason to delete them; nor is an unrelated table."""
    kept = tmp_path / "kept.zip"
    kept.write_bytes(b"")
    out = tmp_path / "out"
    out.mkdir()
    (out / "anomalies.csv").write_text("the user's own")
    write_cohort(out, 1, 2, size="small")
    assert (out / "anomalies.csv").read_text() == "the user's own"
    (out / "truth.csv").write_text("scan\n../kept\nmine\n")
    (out / "mine.zip").write_bytes(b"")
    write_cohort(out, 1, 2, size="small", overwrite=True)
    assert kept.exists()
    assert (out / "mine.zip").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 0}, "`workers`: got 0"),
        ({"anomalies": [Reason.METAL] * 2}, "2 `anomalies` need a `count` of at least 2, got 1"),
        ({"anomalies": [Reason.OBLIQUE]}, "oblique needs `format` nifti, got zip"),
        ({"count": 1_000_000}, "`count`: got 1000000"),
    ],
)
def test_contradictions_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write_cohort(tmp_path / "x", **({"count": 1, "seed": 1} | change))  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()
