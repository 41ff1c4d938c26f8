"""The short form of `make fuzz`, what it once found, and generated JSON and tables."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutants import ACTIONS, TARGETS, mutant, read_mutant
from ukb_infer.errors import ModuleError, UkbInferError, UsageError
from ukb_infer.labels import read_labels
from ukb_infer.modules.manifest import parse_manifest, read_manifest

ROOT = Path(__file__).parents[2]
#: Numbers that `make fuzz` does not reach, so that the smoke run is new ground.
SMOKE = range(10_000_000, 10_000_100)
FOUND = sorted((Path(__file__).parent / "regressions").glob("*.bin"))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_mutants_end_in_words_not_in_crashes(target: str, tmp_path: Path) -> None:
    outcomes = {read_mutant(target, number, tmp_path / "x") for number in SMOKE}
    assert len(outcomes) > 1, "every mutant ended alike: the mutations are too weak or too strong"


@pytest.mark.parametrize("found", FOUND, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore")
def test_what_fuzzing_once_found_stays_mended(found: Path, tmp_path: Path) -> None:
    with contextlib.suppress(UkbInferError):  # read or refused in words: both are fine
        ACTIONS[found.name.split("-")[0]](found.read_bytes(), tmp_path, 0)


def test_a_file_that_may_not_be_read_is_no_dicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by fuzzing as root, whom only system files refuse; so the refusal is made here."""
    from ukb_infer.imaging import input_kind

    (tmp_path / "secret").write_bytes(b"x")
    original = Path.open

    def refuse(self: Path, *arguments: object, **options: object) -> object:
        if self.name == "secret":
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", refuse)
    assert input_kind(tmp_path) is None


def test_mutants_are_repeatable() -> None:
    assert mutant("zip", 5) == mutant("zip", 5) != mutant("zip", 6)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_manifests_with_any_value_anywhere_are_read_or_refused(data: st.DataObject) -> None:
    found = read_manifest(ROOT / "models/phantom-demo")
    found = replace(found.with_targets(found.targets[:2]), schema_version=data.draw(st.sampled_from([1, 2])))
    manifest = found.to_dict()
    sections = {name: manifest.get(name, manifest) for name in ("input", "network", "outputs")}
    targets = sections["outputs"]["targets"]
    place = data.draw(st.sampled_from(["top", "input", "network", "target", "member", "calibration"]))
    home = sections | {
        "top": manifest, "target": targets[0], "member": sections["network"]["members"][0],
        "calibration": targets[1]["calibration"],
    }  # fmt: skip
    home = home[place]
    home[data.draw(st.sampled_from(sorted(home)))] = data.draw(JSON)
    words = "module.json"
    try:
        parse_manifest(json.dumps(manifest))
    except ModuleError as error:
        words = str(error)
    assert "module.json" in words


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.text(alphabet="01-.,\"'\tae\nN ", max_size=6), min_size=2, max_size=4), max_size=4))
def test_label_tables_of_any_cells_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    path.write_text("\n".join(["eid,weight", *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    words = "column"
    try:
        read_labels(path)
    except UsageError as error:
        words = str(error)
    assert "labels.csv" in words or "column" in words
