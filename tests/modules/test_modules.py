"""The module format: manifest, loading, verification, determinism."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_module import TINY_TARGETS, make_tiny_module
from ukb_infer.errors import ModuleError, UsageError
from ukb_infer.modules import (
    Calibration,
    InferenceModule,
    default_modules,
    find_module,
    list_modules,
    load_module,
    read_manifest,
    save_module,
    update_manifest,
    verify_module,
)
from ukb_infer.modules.combination import read_combinations, write_combination
from ukb_infer.modules.manifest import parse_manifest
from ukb_infer.networks import build_network

DATA = Path(__file__).parents[1] / "data/version1"


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
    found = load_module(tiny_module)
    assert found.manifest.network.log_variance == "bounded"
    network = replace(found.manifest.network, log_variance="plain")
    module = InferenceModule(replace(found.manifest, network=network), found.members, found.device)
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
    torch.manual_seed(3)
    base = read_manifest(make_tiny_module(tmp_path / "base"))
    network = build_network(backbone, len(TINY_TARGETS)).eval()
    save_module(tmp_path / "m", replace(base, network=replace(base.network, encoder=backbone)), [network])
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


def _version1(plain: dict[str, Any]) -> dict[str, Any]:
    """The flat form of a manifest that version 1 of the format would have had."""
    network, given = plain["network"], plain["input"]
    same = ("name", "version", "intended_use", "provenance", "warning", "licence")
    return {"schema_version": 1} | {key: plain[key] for key in same} | {
        "recipe": given["recipe"], "backbone": network["encoder"], "input_scale": given["scale"],
        "input_offset": given["offset"], "input_size": given["size"], "targets": plain["outputs"]["targets"],
        "members": network["members"], "log_variance": network["log_variance"],
    }  # fmt: skip


FAULTS = [
    ("input", [], "input is a list, expected an object"),
    ("outputs", None, "outputs is nothing, expected an object"),
    ("outputs.targets", {}, "outputs.targets is an object, expected a list"),
    ("outputs.targets", [], "outputs.targets is a list, expected a list of at least 1"),
    (
        "network.members",
        [{"file": "../../etc/x.safetensors", "sha256": "0" * 64}],
        r"network.members\[0\].file is '../",
    ),
    ("network.members", [{"file": "a.safetensors", "sha256": "zz"}], "sha256 is 'zz', expected 64 hexadecimal digits"),
    ("network.members", [{"file": "a.safetensors", "sha256": "0" * 64}] * 2, "repeated: a.safetensors"),
    ("network.dimension", 3, "network.dimension is 3, expected 2"),
    ("network.dtype", "int8", "network.dtype is 'int8', expected float32"),
    ("network.head", 1, "network.head is 1, expected mean-variance"),
    ("input.scale", "1", "input.scale is '1', expected a number above 0"),
    ("input.offset", True, "input.offset is true, expected a number"),
    ("input.size", [100, 100], r"input.size is a list, expected null or \[rows, cols\] of at least 32 that divide 256"),
    ("input.size", [64.0, 64], "input.size is a list"),
    ("input.size", [16, 16], "input.size is a list, expected .* at least 32"),
    ("input.recipe", "mimir-2", "input.recipe is 'mimir-2', expected mimir-1 or mimir-1-hires"),
    ("input.channels", ["fat", "water", "fat_fraction"], "those of mimir-1: water, fat, fat_fraction"),
    ("name", 5, "name is 5, expected one line of text"),
]


@pytest.mark.parametrize(("place", "value", "message"), FAULTS)
def test_a_manifest_of_the_wrong_shape_names_the_place(
    tiny_module: Path, tmp_path: Path, place: str, value: object, message: str
) -> None:
    plain = json.loads((tiny_module / "module.json").read_text())
    *section, key = place.split(".")
    (plain[section[0]] if section else plain)[key] = value
    (tmp_path / "module.json").write_text(json.dumps(plain))
    with pytest.raises(ModuleError, match=rf"module.json: .*{message}"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema_version", 99, "schema_version is 99, expected 1 or 2; a newer module needs a newer ukb-infer"),
        ("targets", {}, "targets is an object, expected a list"),
        ("members", [{"file": "../../etc/x.safetensors", "sha256": "0" * 64}], r"members\[0\].file"),
        ("input_scale", "1", "input_scale is '1', expected a number above 0"),
        ("input_size", [100, 100], "input_size is a list, expected null"),
        ("recipe", "other-2", "recipe is 'other-2', expected mimir-1"),
        ("backbone", None, "backbone is nothing, expected one line of text"),
        ("input", {}, "input is an object, expected no such key"),
    ],
)
def test_a_manifest_of_version_1_is_judged_in_its_own_words(
    tiny_module: Path, key: str, value: object, message: str
) -> None:
    plain = _version1(json.loads((tiny_module / "module.json").read_text()))
    parse_manifest(json.dumps(plain))
    with pytest.raises(ModuleError, match=f"^module.json: {message}"):
        parse_manifest(json.dumps(plain | {key: value}))
    if value is None:
        del plain[key]
        with pytest.raises(ModuleError, match=f"^module.json: {message}"):
            parse_manifest(json.dumps(plain))


def test_a_module_of_version_1_keeps_its_hash_its_file_and_its_estimates(tmp_path: Path) -> None:
    """Recorded with the code before sections existed; to the last digits, for other processors round otherwise."""
    recorded = json.loads((DATA / "recorded_estimates.json").read_text())
    assert read_manifest(DATA / "module").hash == recorded["version1_hash"]
    old = tmp_path / "phantom-demo"  # the released module as it was: the same weights
    shutil.copytree(find_module("phantom-demo"), old)
    shutil.copy(DATA / "phantom_demo_module.json", old / "module.json")
    module = load_module(old)
    assert module.hash == recorded["hash"]
    for folder in (DATA / "module", old):
        assert read_manifest(folder).to_json() == (folder / "module.json").read_text()
    blocks = np.random.default_rng(2024).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    images = torch.from_numpy(np.kron(blocks, np.ones((1, 1, 16, 16), np.uint8)))
    estimates = module.to_estimates(module.predict_standardized(images))
    places = [module.manifest.target_names.index(name) for name in recorded["targets"]]
    for part in ("mean", "aleatoric", "epistemic"):
        assert getattr(estimates, part)[:, places] == pytest.approx(np.array(recorded[part]), rel=1e-4)


@pytest.mark.parametrize("version", [1, 2])
def test_calibrating_keeps_the_version_and_all_but_the_calibration(
    tiny_module: Path, tmp_path: Path, version: int
) -> None:
    folder = Path(shutil.copytree(tiny_module, tmp_path / "m"))
    plain = json.loads((folder / "module.json").read_text())
    assert plain["schema_version"] == 2
    if version == 1:
        (folder / "module.json").write_text(json.dumps(_version1(plain)))
    before, images = load_module(folder), _images(2)
    calibration = Calibration("variance-factor", 2.0, (), "a test")
    calibrated = [replace(target, calibration=calibration) for target in before.manifest.targets]
    update_manifest(folder, before.manifest.with_targets(calibrated))
    after = load_module(folder)
    assert json.loads((folder / "module.json").read_text())["schema_version"] == version
    assert after.manifest.targets[0].calibration == calibration
    assert after.hash != before.hash
    assert after.manifest.with_targets(before.manifest.targets) == before.manifest
    raw = after.predict_standardized(images)
    assert np.array_equal(raw, before.predict_standardized(images))
    assert after.to_estimates(raw).total_variance == pytest.approx(2.0 * before.to_estimates(raw).total_variance)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '"x"', '{"schema_version": 1}'])
def test_broken_json_is_an_error_and_no_crash(text: str) -> None:
    with pytest.raises(ModuleError):
        parse_manifest(text)


def test_weights_of_another_backbone_are_refused(tiny_module: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_module, copy)
    plain = json.loads((copy / "module.json").read_text())
    plain["network"]["encoder"] = "resnet18"
    (copy / "module.json").write_text(json.dumps(plain))
    with pytest.raises(ModuleError, match="resnet18"):
        load_module(copy)
    plain["network"]["encoder"] = "resnet9000"
    (copy / "module.json").write_text(json.dumps(plain))
    with pytest.raises(ModuleError, match="unknown backbone"):
        load_module(copy)


def test_modules_are_found_by_environment_path_and_name(
    tiny_module: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("UKB_INFER_MODULES", raising=False)
    with pytest.raises(ModuleError, match=r"import-mimir.*set `modules` to phantom-demo"):
        default_modules()
    monkeypatch.setenv("UKB_INFER_MODULES", str(tmp_path))
    with pytest.raises(ModuleError, match="no modules in"):
        default_modules()
    monkeypatch.setenv("UKB_INFER_MODULES", str(tiny_module.parent))
    assert default_modules() == [tiny_module]
    assert find_module("tiny") == tiny_module
    assert find_module(tiny_module) == tiny_module
    assert [p.name for p in list_modules()] == ["tiny", "phantom-demo"]
    with pytest.raises(ModuleError, match=r"brain-contrastive is a pretrained encoder.*adapt --pretrained"):
        find_module("brain-contrastive")
    with pytest.raises(ModuleError, match=r"no module 'tin'.*tiny, phantom-demo"):
        find_module("tin")


def test_an_existing_module_is_not_overwritten_unasked(tiny_module: Path) -> None:
    module = load_module(tiny_module)
    with pytest.raises(UsageError, match="`overwrite`"):
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


def test_conformal_levels_beyond_the_table_have_no_half_width() -> None:
    module = load_module("phantom-demo")
    high, low = module.half_width(0, 0.95), module.half_width(0, 0.8)
    assert high is not None
    assert low is not None
    assert high > low > 0
    assert module.half_width(0, 0.9999) is None


# -- hostile manifests -------------------------------------------------------------------------------------------------

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 10**400, 1e308, 1e-320, float("nan"), "", "\ud800", "a\x1b[2J", "../x.safetensors", [], {}, [[]],
    [None], [[10**400, 1]], [[True, True]], [[0.5, 1], [0.5, 2]], [[0.5, 2], [0.6, 1]], {"a": 1},
)  # fmt: skip


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    keys = value if isinstance(value, dict) else range(min(len(value), 2)) if isinstance(value, list) else ()
    for key in keys:
        yield from _places(value[key], (*place, key))


@pytest.mark.parametrize("version", [1, 2])
def test_no_value_at_any_place_of_a_manifest_crashes_the_reader(version: int) -> None:
    """Every hostile value at every place is an error of ours, or a module whose numbers can be squared and written."""
    manifest = replace(read_manifest(find_module("phantom-demo")), schema_version=version)  # type: ignore[arg-type]
    plain = json.loads(manifest.with_targets(manifest.targets[:1]).to_json())
    accepted = 0
    for place in _places(plain):
        for value in HOSTILE:
            changed = copy.deepcopy(plain)
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            try:
                manifest = parse_manifest(json.dumps(changed))
            except ModuleError as error:
                str(error).encode()
                continue
            accepted += 1
            manifest.to_json().encode()
            target = manifest.targets[0]
            assert 0 < target.sd**2 < np.inf
            assert 0 < target.divisor**2 < np.inf
    assert 0 < accepted < 100


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"lower"', '"lowr"', r"targets\[0\].lowr .*did you mean lower"),
        ('"name"', '"name": "a", "name"', "'name' occurs twice"),
        ('"schema_version": 2', '"schema_version": true', "schema_version is true, expected 1 or 2"),
        ('"warning"', '"extra": 1, "warning"', "extra is 1, expected no such key"),
    ],
)
def test_keys_are_exact(old: str, new: str, message: str) -> None:
    text = (find_module("phantom-demo") / "module.json").read_text()
    with pytest.raises(ModuleError, match=message):
        parse_manifest(text.replace(old, new, 1))


def test_limits_must_leave_room(tiny_module: Path) -> None:
    plain = json.loads((tiny_module / "module.json").read_text())
    plain["outputs"]["targets"][0] |= {"lower": 2.0, "upper": 1.0}
    with pytest.raises(ModuleError, match=r"upper is 1\.0, expected more than the lower limit 2"):
        parse_manifest(json.dumps(plain))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{", "", "not valid JSON"),
        ('"factor": 2.0', '"factor": "2"', r"combinations.a\+b.height.factor is '2', expected a number above 0"),
        ('"schema_version": 1', '"schema_version": 9', "schema_version is 9, expected 1"),
    ],
)
def test_damaged_calibrations_of_modules_together_say_how_to_go_on(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    calibration = Calibration("conformal", 2.0, ((0.5, 1.0), (0.9, 2.0)), "a test")
    write_combination([tmp_path], "a+b", {"height": calibration})
    write_combination([tmp_path], "c+d", {"weight": Calibration("none")})
    assert read_combinations([tmp_path]) == {("a+b", "height"): calibration, ("c+d", "weight"): Calibration("none")}
    path = tmp_path / "combinations.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ModuleError, match=rf"combinations.json: is damaged \(.*{message}.*remove it, and run"):
        read_combinations([tmp_path])


# -- saving ------------------------------------------------------------------------------------------------------------


def test_a_module_is_readable_by_others_and_loading_draws_no_random_numbers(tiny_module: Path, tmp_path: Path) -> None:
    module = load_module(tiny_module)
    mask = os.umask(0o022)
    try:
        save_module(tmp_path / "m", module.manifest, module.members)
    finally:
        os.umask(mask)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "m").iterdir()} == {0o644}
    before = torch.get_rng_state()
    again = load_module(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), before)
    images = _images(2)
    assert np.array_equal(again.predict_standardized(images), module.predict_standardized(images))


def test_overwriting_replaces_the_whole_module_and_nothing_but_a_module(tiny_module: Path, tmp_path: Path) -> None:
    module, folder = load_module(tiny_module), tmp_path / "m"
    save_module(folder, module.manifest, module.members, extra={"README.md": "old"})
    save_module(folder, replace(module.manifest, version="2"), module.members[:1], overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == ["member1.safetensors", "module.json"]
    assert read_manifest(folder).version == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"not a module .*choose another folder"):
        save_module(mine, module.manifest, module.members, overwrite=True)
    assert (mine / "thesis.txt").read_text() == "years of work"
    with pytest.raises(UsageError, match="is a file"):
        save_module(mine / "thesis.txt", module.manifest, module.members, overwrite=True)


def test_a_full_disk_leaves_the_old_module(tiny_module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, folder = load_module(tiny_module), tmp_path / "m"
    save_module(folder, module.manifest, module.members)

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ukb_infer.modules.module.atomic_write_bytes", full)
    with pytest.raises(ModuleError, match="No space left"):
        save_module(folder, module.manifest, module.members, overwrite=True)
    assert verify_module(folder) == []
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_what_would_not_load_is_not_saved(tiny_module: Path, tmp_path: Path) -> None:
    manifest = read_manifest(tiny_module)
    with pytest.raises(ModuleError, match="at least one network"):
        save_module(tmp_path / "m", manifest, [])
    with pytest.raises(ModuleError, match="predicts 2 targets, the manifest names 4"):
        save_module(tmp_path / "m", manifest, [build_network("mobilenet_v3_small", 2)])
    broken = build_network("mobilenet_v3_small", 4)
    torch.nn.init.constant_(broken.model.classifier.bias, float("nan"))
    with pytest.raises(ModuleError, match="NaN"):
        save_module(tmp_path / "m", manifest, [broken])
    bad = manifest.with_targets([replace(manifest.targets[0], sd=0.0), *manifest.targets[1:]])
    with pytest.raises(ModuleError, match=r"targets\[0\].sd is 0.0"):
        save_module(tmp_path / "m", bad, load_module(tiny_module).members)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_keeps_what_it_cannot_hold(tiny_module: Path, tmp_path: Path) -> None:
    """Norms on 0-255 input have variances above 65,504, the end of fp16."""
    module = load_module(tiny_module)
    member = module.members[0]
    member.model.features[0][1].running_var.fill_(1e6)
    save_module(tmp_path / "m", module.manifest, [member], half=True)
    again = load_module(tmp_path / "m").members[0]
    assert again.model.features[0][1].running_var[0] == 1e6
    assert again.model.classifier.weight.dtype == torch.float32
    assert torch.equal(again.model.classifier.weight, member.model.classifier.weight.half().float())


def test_images_of_another_kind_are_refused(tiny_module: Path) -> None:
    module = load_module(tiny_module)
    with pytest.raises(UsageError, match=r"expected torch\.uint8"):
        module.predict_standardized(_images(2).float())
    with pytest.raises(UsageError, match=r"expected torch\.uint8"):
        module.predict_standardized(_images(2)[:, :, :128])
    with pytest.raises(UsageError, match="fp32, bf16, fp16"):
        module.predict_standardized(_images(1), "int8")  # type: ignore[arg-type]


def test_integer_weights_are_refused(tiny_module: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(tiny_module, folder)
    state = load_file(folder / "member1.safetensors")
    save_file(state | {"classifier.bias": torch.zeros(8, dtype=torch.int32)}, folder / "member1.safetensors")
    with pytest.raises(ModuleError, match=r"classifier.bias is stored as torch.int32"):
        load_module(folder, verify=False)


def test_a_calibration_in_a_few_words() -> None:
    assert Calibration("conformal", 2.0, ((0.95, 2.1),)).summary == "conformal x 2.000"
    assert Calibration("variance-factor", 0.5).summary == "variance-factor x 0.500"
    assert Calibration("none", curve=((0.0, 0.1), (1.0, 0.9))).summary == "probability"
    # not fitted: with method conformal and no half width there is no interval
    assert Calibration("conformal", 1.0, (), "not fitted on 3 scans").summary == Calibration("none").summary == "none"


def test_odd_names_are_not_found_and_do_not_crash(tiny_module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UKB_INFER_MODULES", "")
    for name in ("", "~nobody-of-this-name/x", "x" * 5000, "a\0b"):
        with pytest.raises(ModuleError, match="no module"):
            find_module(name)
    with pytest.raises(ModuleError, match=r"is a folder of modules \(.*tiny.*\)"):
        find_module(tiny_module.parent)
    with pytest.raises(ModuleError, match="did you mean phantom-demo"):
        find_module("phantom_demo")


def test_small_networks_give_the_same_bits_on_any_number_of_threads(tiny_module: Path) -> None:
    module = load_module(tiny_module)
    images = torch.randint(0, 256, (4, 3, 256, 256), dtype=torch.uint8)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(module.predict_standardized(images))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


# -- one differentiable forward ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["mean", "log_variance", "features"])
def test_gradients_flow_from_every_output_to_the_pixels_and_stop_at_the_weights(tiny_module: Path, what: str) -> None:
    module = load_module(tiny_module)
    images = _images(2).float().requires_grad_()
    output = getattr(module.forward(images, features=True), what)
    output[:, 0].sum().backward()
    assert images.grad is not None
    assert float(images.grad[0].abs().max()) > 0
    assert torch.equal(images.grad[1], torch.zeros_like(images.grad[1]))  # the other scan has no part in it
    assert all(parameter.grad is None for member in module.members for parameter in member.parameters())


def test_a_gradient_is_the_slope_of_the_estimate(tiny_module: Path) -> None:
    """Against a central difference along the gradient; 5 % is what fp32 leaves of a difference this small."""
    module = load_module(tiny_module)
    images = _images(1).float().requires_grad_()
    module.forward(images).mean[0, 0, 1].backward()
    slope = images.grad
    assert slope is not None
    step = slope / slope.norm() * 20.0
    with torch.no_grad():
        ahead, behind = (module.forward(images + sign * step).mean[0, 0, 1] for sign in (0.5, -0.5))
    assert float(ahead - behind) == pytest.approx(20.0 * float(slope.norm()), rel=0.05)


def test_features_come_when_asked_for_and_change_no_output(tiny_module: Path) -> None:
    module, images = load_module(tiny_module), _images(3)
    plain, full = module.forward(images), module.forward(images, features=True)
    assert plain.features is None
    assert full.features is not None
    assert full.features.shape == (2, 3, 576)
    assert not torch.equal(full.features[0], full.features[1])
    assert torch.equal(full.mean, plain.mean)
    assert torch.equal(full.log_variance, plain.log_variance)
    head = module.members[1].head
    assert torch.equal(head(full.features[1])[:, 0], full.mean[1, :, 0])
    with pytest.raises(UsageError, match=r"expected any type \(N, 3, 256, 256\)"):
        module.forward(images[:, :1])


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_the_fast_route_gives_the_numbers_of_forward(tiny_module: Path, backend: str) -> None:
    """To 1e-4 standardized units by torch (threads differ), to 1e-3 compiled."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="optional extra fast-cpu")
    module, images = load_module(tiny_module, backend=backend), _images(4)
    output = module.forward(images)
    fast = module.predict_standardized(images)
    tolerance = 1e-4 if backend == "torch" else 1e-3
    assert np.abs(fast[..., 0] - output.mean.numpy()).max() < tolerance
    assert np.abs(fast[..., 1] - output.log_variance.numpy()).max() < tolerance
    assert not module.launch(images).heads.requires_grad
