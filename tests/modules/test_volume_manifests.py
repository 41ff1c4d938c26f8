"""Manifests of modules for volumes: their form, its checks, and that older manifests stay as they were."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.head_files import READ, make_module
from ukb_infer.errors import ModuleError
from ukb_infer.modules import find_module, load_module, read_manifest
from ukb_infer.modules.manifest import VolumeInput, parse_manifest


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The manifest of a segmentation."""
    folder = make_module(tmp_path_factory.mktemp("modules") / "segment", "segmentation", members=1)
    found: dict[str, Any] = json.loads((folder / "module.json").read_text())
    return found


def changed(plain: dict[str, Any], place: str, value: object) -> str:
    copied = copy.deepcopy(plain)
    here = copied
    *above, last = place.split(".")
    for key in above:
        here = here[int(key)] if key.isdigit() else here[key]  # type: ignore[index]
    here[last] = value
    return json.dumps(copied)


def test_a_manifest_of_volumes_is_read_as_it_was_written(plain: dict[str, Any]) -> None:
    assert plain["input"] == {"modalities": [["flair"], ["t2s", "swi"]], "spacing_mm": 4.0, "size": [24, 24, 16]}
    assert plain["outputs"]["targets"][0]["label"] == 1
    manifest = parse_manifest(json.dumps(plain))
    assert manifest.input == READ
    assert manifest.input.form.channels == ("flair", "t2s|swi")
    assert manifest.input.form.form == "float32 (2, 24, 24, 16)"
    assert json.loads(manifest.to_json()) == plain
    patched = parse_manifest(changed(plain, "input.patch", [16, 16, 16]))
    assert isinstance(patched.input, VolumeInput)
    assert patched.input.patch == (16, 16, 16)
    assert patched.hash != manifest.hash


def test_the_hash_follows_what_affects_the_estimates(plain: dict[str, Any]) -> None:
    hashes = {
        parse_manifest(changed(plain, place, value)).hash
        for place, value in (
            ("version", plain["version"]),
            ("input.spacing_mm", 3.5),
            ("input.modalities", [["flair"], ["swi", "t2s"]]),
        )
    }
    assert len(hashes) == 3


def test_manifests_of_projections_have_no_new_keys() -> None:
    manifest = read_manifest(find_module("phantom-demo"))
    written = manifest.to_dict()
    assert "label" not in written["outputs"]["targets"][0]
    assert set(written["input"]) == {"recipe", "channels", "scale", "offset", "size"}
    assert parse_manifest(manifest.to_json()).hash == manifest.hash


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("input.modalities", [], "input.modalities"),
        ("input.modalities", [["flair"], ["flair"]], "input.modalities is a list, expected .*every modality once"),
        ("input.modalities", [["flair"], []], "every modality once"),
        (
            "input.modalities",
            [["FLAIR"]],
            r"input.modalities\[0\]\[0\] is 'FLAIR', expected a modality like t1 or flair",
        ),
        ("input.spacing_mm", 0, "input.spacing_mm is 0, expected 0.1 to 20 mm"),
        ("input.size", [48, 48], r"input.size is a list, expected \[x, y, z\]"),
        ("input.size", [48, 48, 4], "input.size is a list"),
        ("input.patch", [32, 16, 16], r"input.patch is a list, expected null or .*of at most \[24, 24, 16\]"),
        ("input.scale", 1.0, "input.scale is 1.0, expected no such key"),
        ("network.dimension", 2, "network.dimension is 2, expected 3, that of the input"),
        ("network.dimension", 4, "network.dimension is 4, expected 2 or 3"),
        ("network.head", "mean-variance", "no labels, as the head is mean-variance"),
        ("network.head", "detector", "network.head is 'detector', expected mean-variance or class or segmentation"),
        ("network.log_variance", "bounded", "network.head is 'segmentation', expected another head"),
        ("outputs.targets.0.label", 2, r"labels 1, 2, \.\.\. in this order"),
        ("outputs.targets.0.label", 0, "label is 0, expected null or a label number from 1"),
    ],
)
def test_what_does_not_fit_is_named(plain: dict[str, Any], place: str, value: object, words: str) -> None:
    with pytest.raises(ModuleError, match=words):
        parse_manifest(changed(plain, place, value), "module.json")


def test_a_class_has_binary_targets(tmp_path: Path) -> None:
    folder = make_module(tmp_path / "class", "class", members=1)
    text = (folder / "module.json").read_text()
    with pytest.raises(ModuleError, match="binary targets, as the head is class"):
        parse_manifest(text.replace('"binary"', '"continuous"'))
    assert load_module(folder).members[0].n_targets == 1
