"""A dry run looks at the folder as the run would, and says how many scans of which kind there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ukb_infer.errors import RunError, UsageError
from ukb_infer.inference import PredictConfig, ProjectConfig, run_predict, run_project


def _config(out: Path, *inputs: Path, **options: object) -> ProjectConfig:
    return ProjectConfig(tuple(map(str, inputs)), out, workers=0, dry_run=True, **options)  # type: ignore[arg-type]


def test_it_counts_kinds_and_what_is_finished(projections: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("1\n2\n999\n")
    config = _config(tmp_path / "run", ids, root=projections)
    first = run_project(config).notes
    assert first[0] == "3 scans (1 input_missing, 2 projection), 0 excluded, 0 finished before"
    assert first[1].startswith("less than a minute for 2 scans")
    assert first[2].startswith("about 1 MB")
    run_project(replace(config, dry_run=False))
    assert run_project(config).notes[0].endswith("2 finished before")
    assert run_project(replace(config, overwrite=True)).notes[0].endswith("0 finished before")


def test_it_counts_no_scan(projections: Path, tmp_path: Path) -> None:
    withdrawn = tmp_path / "w.csv"
    withdrawn.write_text("1\n")
    notes = run_project(_config(tmp_path / "run", projections / "0000001_20201_2_0.npy", exclude=(withdrawn,))).notes
    assert notes[1] == "0 scans, 1 excluded, 0 finished before"


def test_it_refuses_the_folder_that_the_run_would_refuse(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(RunError, match=r"`out` .* contains other files \(notes\.txt\)"):
        run_project(_config(tmp_path, projections))
    with pytest.raises(RunError, match="cannot be used as a folder"):
        run_project(_config(tmp_path / "notes.txt", projections))
    run = tmp_path / "run"
    run_project(replace(_config(run, projections / "0000001_20201_2_0.npy"), dry_run=False))
    with pytest.raises(UsageError, match=r"^`out`: .*other settings \(project before, predict now\)"):
        run_predict(PredictConfig((str(projections),), run, workers=0, modules=(str(tiny_module),), dry_run=True))
    with pytest.raises(UsageError, match=r"\(`png`: False before, True now\)"):
        run_project(_config(run, projections, png=True))


def test_other_modules_are_told_in_a_few_words(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    scan = str(projections / "0000001_20201_2_0.npy")
    config = PredictConfig((scan,), tmp_path / "run", workers=0, modules=(str(tiny_module),), device="cpu")
    run_predict(config)
    with pytest.raises(UsageError, match=r"`modules`: tiny \w{8} before, phantom-demo \w{8} now") as caught:
        run_predict(replace(config, modules=("phantom-demo",)))
    assert "`targets`: 4 names before, 72 names now" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_root_that_does_not_exist_is_refused_also_where_no_list_needs_it(projections: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`root` .* is not a folder"):
        run_project(_config(tmp_path / "run", projections, root=tmp_path / "nowhere"))
