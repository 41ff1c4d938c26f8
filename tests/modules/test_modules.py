"""The module format: manifest, loading, verification, determinism."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import TINY_TARGETS, make_tiny_module
from ukb_infer.errors import ModuleError
from ukb_infer.modules import (
    default_modules,
    find_module,
    list_modules,
    load_module,
    read_manifest,
    save_module,
    verify_module,
)
from ukb_infer.modules.manifest import parse_manifest


def _images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 256, 256), dtype=torch.uint8, generator=generator)


def test_a_module_survives_saving_and_loading(tiny_module: Path) -> None:
    module = load_module(tiny_module)
    assert module.manifest.target_names == TINY_TARGETS
    assert len(module.members) == 2
    assert verify_module(tiny_module) == []
    assert parse_manifest(module.manifest.to_json()) == module.manifest
    raw = module.predict_standardized(_images(3))
    assert raw.shape == (2, 3, 4, 2)
    assert raw.dtype == np.float32


def test_estimates_follow_the_published_formula(tiny_module: Path) -> None:
    module = load_module(tiny_module)
    raw = module.predict_standardized(_images(2)).astype(np.float64)
    estimates = module.to_estimates(raw.astype(np.float32))
    for k, target in enumerate(module.manifest.targets):
        means = raw[:, :, k, 0] * target.sd + target.mean
        variances = np.exp(raw[:, :, k, 1]) * target.sd**2
        assert estimates.mean[:, k] == pytest.approx(means.mean(axis=0), rel=1e-6)
        total = (variances + means**2).mean(axis=0) - means.mean(axis=0) ** 2
        assert estimates.total_variance[:, k] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet18"])
def test_a_result_depends_on_neither_place_nor_companions(tmp_path: Path, backbone: str) -> None:
    """Bitwise, for one batch size: the basis of byte-identical tables."""
    from dataclasses import replace

    from ukb_infer.networks import build_network

    torch.manual_seed(3)
    base = read_manifest(make_tiny_module(tmp_path / "base"))
    network = build_network(backbone, len(TINY_TARGETS)).eval()
    save_module(tmp_path / "m", replace(base, backbone=backbone), [network])
    module = load_module(tmp_path / "m")
    images = _images(8)
    whole = module.predict_standardized(images)[0]
    assert np.ptp(whole[:, 0, 0]) > 0
    order = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    shuffled = module.predict_standardized(images[order])[0]
    assert np.array_equal(shuffled, whole[order.numpy()])
    padded = torch.zeros_like(images)
    padded[3] = images[6]
    assert np.array_equal(module.predict_standardized(padded)[0][3], whole[6])


def test_batch_sizes_agree_to_a_ten_thousandth(tiny_module: Path) -> None:
    module, images = load_module(tiny_module), _images(8)
    alone = np.concatenate([module.predict_standardized(images[k : k + 1]) for k in range(8)], axis=1)
    assert np.abs(alone - module.predict_standardized(images)).max() < 1e-4


def test_a_changed_weight_file_is_refused(tiny_module: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_module, copy)
    data = bytearray((copy / "member2.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "member2.safetensors").write_bytes(data)
    assert len(verify_module(copy)) == 1
    with pytest.raises(ModuleError, match=r"member2.*SHA-256"):
        load_module(copy)
    (copy / "member1.safetensors").unlink()
    assert "missing" in verify_module(copy)[0]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema_version", 99, "schema_version"),
        ("targets", {}, "targets is an object, expected a list"),
        ("targets", [], "targets"),
        ("members", [{"file": "../../etc/x.safetensors", "sha256": "0" * 64}], r"members\[0\].file"),
        ("members", [{"file": "a.safetensors", "sha256": "zz"}], "sha256"),
        ("input_scale", "1", "input_scale"),
        ("input_size", [100, 100], "input_size"),
        ("recipe", "other-2", "mimir-1"),
        ("name", 5, "name"),
    ],
)
def test_a_manifest_of_the_wrong_shape_names_the_place(
    tiny_module: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    plain = json.loads((tiny_module / "module.json").read_text())
    plain[key] = value
    (tmp_path / "module.json").write_text(json.dumps(plain))
    with pytest.raises(ModuleError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '"x"', '{"schema_version": 1}'])
def test_broken_json_is_an_error_and_no_crash(text: str) -> None:
    with pytest.raises(ModuleError):
        parse_manifest(text)


def test_weights_of_another_backbone_are_refused(tiny_module: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_module, copy)
    plain = json.loads((copy / "module.json").read_text())
    plain["backbone"] = "resnet18"
    (copy / "module.json").write_text(json.dumps(plain))
    with pytest.raises(ModuleError, match="resnet18"):
        load_module(copy)
    plain["backbone"] = "resnet9000"
    (copy / "module.json").write_text(json.dumps(plain))
    with pytest.raises(ModuleError, match="unknown backbone"):
        load_module(copy)


def test_modules_are_found_by_environment_path_and_name(
    tiny_module: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("UKB_INFER_MODULES", raising=False)
    with pytest.raises(ModuleError, match=r"import-mimir.*--modules phantom-demo"):
        default_modules()
    monkeypatch.setenv("UKB_INFER_MODULES", str(tmp_path))
    with pytest.raises(ModuleError, match="no modules in"):
        default_modules()
    monkeypatch.setenv("UKB_INFER_MODULES", str(tiny_module.parent))
    assert default_modules() == [tiny_module]
    assert find_module("tiny") == tiny_module
    assert find_module(tiny_module) == tiny_module
    assert [p.name for p in list_modules()] == ["tiny", "phantom-demo"]
    with pytest.raises(ModuleError, match=r"no module 'tin'.*tiny, phantom-demo"):
        find_module("tin")


def test_an_existing_module_is_not_overwritten_unasked(tiny_module: Path) -> None:
    module = load_module(tiny_module)
    with pytest.raises(ModuleError, match="--overwrite"):
        save_module(tiny_module, module.manifest, module.members)


def test_the_demonstration_module_is_whole_and_says_what_it_is() -> None:
    folder = find_module("phantom-demo")
    assert verify_module(folder) == []
    manifest = read_manifest(folder)
    assert len(manifest.targets) == 72
    assert len(manifest.members) >= 3
    assert "knows nothing about people" in manifest.warning
    assert sum(p.stat().st_size for p in folder.iterdir()) < 20e6
    assert manifest.warning in (folder / "README.md").read_text()


def test_conformal_levels_beyond_the_table_are_refused() -> None:
    module = load_module("phantom-demo")
    assert module.half_width(0, 0.95) > module.half_width(0, 0.8) > 0
    with pytest.raises(ModuleError, match=r"--ci 0\.9999"):
        module.half_width(0, 0.9999)
