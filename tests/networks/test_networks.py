"""Backbones, heads, initial weights, input scaling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ukb_infer.errors import UsageError
from ukb_infer.networks import BACKBONES, InputScaling, RowLinear, build_network, transfer_weights


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small", "efficientnet_b0"])
def test_every_head_gives_mean_and_log_variance(backbone: str) -> None:
    network = build_network(backbone, 3).eval()
    with torch.inference_mode():
        output = network(torch.rand(2, 3, 64, 64))
    assert output.shape == (2, 3, 2)
    linears = [m for n, m in network.named_modules() if isinstance(m, torch.nn.Linear)]
    assert len(linears) == 1
    assert linears[0].out_features == 6


FEATURES = {
    "resnet18": 512, "resnet34": 512, "resnet50": 2048, "mobilenet_v3_small": 576, "mobilenet_v3_large": 960,
    "efficientnet_b0": 1280, "efficientnet_v2_s": 1280, "convnext_tiny": 768, "conv_small": 480, "conv_base": 1984,
    "conv_small_apart": 1440, "conv_base_apart": 5952,
}  # fmt: skip


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_every_encoder_pools_to_the_features_its_head_sees(backbone: str) -> None:
    with torch.device("meta"):  # shapes without arithmetic
        network = build_network(backbone, 2).eval()
        features = network.encode(torch.empty(5, 3, 64, 96))
        assert features.shape == (5, FEATURES[backbone])
        assert network.head.in_features == FEATURES[backbone]


@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "conv_small"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "mobilenet_v3_large", "efficientnet_v2_s")],
)
def test_encoder_and_head_give_what_torchvisions_own_forward_gives(backbone: str) -> None:
    """Bitwise, for one scan: the same layers in the same order, under torchvision's names."""
    torch.manual_seed(1)
    network = build_network(backbone, 3).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(image), network.model(image).reshape(1, 3, 2))
    own = BACKBONES[backbone].factory(weights=None).state_dict()
    assert {k for k in network.model.state_dict() if k in own} >= {k for k in own if "classifier" not in k}


def test_an_unknown_backbone_lists_the_choices() -> None:
    with pytest.raises(UsageError, match=r"resnet18.*choices: .*convnext_tiny"):
        build_network("resnet19", 2)


def test_imagenet_needs_the_cached_file_and_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real code path on a stand-in file in the torch hub cache; nothing is downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = str(BACKBONES["mobilenet_v3_small"].weights.url).rsplit("/", 1)[-1]
    with pytest.raises(UsageError, match=name):
        build_network("mobilenet_v3_small", 2, "imagenet")
    import torchvision

    stand_in = torchvision.models.mobilenet_v3_small(weights=None)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(stand_in.state_dict(), tmp_path / "hub" / "checkpoints" / name)
    network = build_network("mobilenet_v3_small", 2, "imagenet")
    assert torch.equal(network.model.features[0][0].weight, stand_in.features[0][0].weight)


def test_a_weight_file_reports_its_coverage(tmp_path: Path) -> None:
    source, other = build_network("mobilenet_v3_small", 5), build_network("mobilenet_v3_small", 2)
    save_file(source.model.state_dict(), tmp_path / "w.safetensors")
    transfer = transfer_weights(other, tmp_path / "w.safetensors")
    assert set(transfer.random) == {"classifier.weight", "classifier.bias"} == set(transfer.unused)
    assert transfer.coverage > 0.98
    assert other.transfer == transfer
    save_file({"nothing": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="no tensor"):
        build_network("mobilenet_v3_small", 2, tmp_path / "x.safetensors")


def test_scaling_averages_blocks() -> None:
    images = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8)
    assert torch.equal(InputScaling().apply(images), images.float())
    small = InputScaling(0.5, -1.0, (64, 64)).apply(images)
    expected = images[:, :, :4, :4].float().mean(dim=(2, 3)) * 0.5 - 1.0
    assert torch.allclose(small[:, :, 0, 0], expected)
    with pytest.raises(UsageError, match=r"divide \(256, 256\)"):
        InputScaling(size=(100, 100)).check((256, 256))
    with pytest.raises(UsageError, match="at least 32"):
        InputScaling(size=(16, 16))


def _trained_like(backbone: str, n_targets: int, size: int, generator: torch.Generator) -> torch.nn.Module:
    """Random weights, norms fitted to the input: outputs that differ between scans, about 1 in size."""
    network = build_network(backbone, n_targets)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
        elif isinstance(module, RowLinear):
            torch.nn.init.normal_(module.weight, std=0.05, generator=generator)
    with torch.no_grad():
        network.train()(torch.rand(8, 3, size, size, generator=generator))
    return network.eval()


@pytest.mark.parametrize(
    "backbone",
    [
        "mobilenet_v3_small",
        "resnet18",
        "conv_small",
        pytest.param("efficientnet_b0", marks=pytest.mark.slow),
        pytest.param("convnext_tiny", marks=pytest.mark.slow),
    ],
)
def test_a_scan_alone_decides_its_output(backbone: str) -> None:
    """Bitwise, with 1 to 3 threads: odd batches and 144 outputs showed both ways a batch can leak into a scan.

    (The matrix product of the head, and the scalar ends of vectorized SiLU.)
    """
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    network = _trained_like(backbone, 72, 64, generator)
    try:
        for count in (5, 8):
            images = torch.rand(count, 3, 64, 64, generator=generator)
            for torch_threads in (1, 2, 3):
                torch.set_num_threads(torch_threads)
                with torch.inference_mode():
                    whole, turned = network(images), network(images.roll(2, 0))
                    others = torch.zeros_like(images)
                    others[1] = images[3]
                    assert float(whole.std(dim=0).max()) > 1e-4
                    assert torch.equal(turned, whole.roll(2, 0))
                    assert torch.equal(network(others)[1], whole[3])
    finally:
        torch.set_num_threads(threads)


def test_the_head_equals_a_plain_linear_layer() -> None:
    head, features = RowLinear(96, 10).eval(), torch.randn(7, 96)
    plain = torch.nn.functional.linear(features, head.weight, head.bias)
    assert torch.allclose(head(features), plain, atol=1e-6)  # another order of summation
    assert torch.equal(head.train()(features), plain)
    assert head.eval()(features[:0]).shape == (0, 10)


def test_the_head_is_not_rounded_in_mixed_precision() -> None:
    head, features = RowLinear(96, 10).eval(), torch.randn(3, 96)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        mixed = head(features)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, head(features))


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_b0"])
def test_compiled_networks_equal_torch_and_keep_scans_apart(backbone: str) -> None:
    """Within 1e-3 standardized units of eager torch; bitwise independent of place and companions."""
    pytest.importorskip("openvino", reason="optional extra fast-cpu")
    from ukb_infer.networks import CompiledNetwork

    generator = torch.Generator().manual_seed(6)
    torch.manual_seed(6)
    network = _trained_like(backbone, 3, 64, generator)
    images = torch.rand(5, 3, 64, 64, generator=generator)
    compiled = CompiledNetwork(network, tuple(images.shape))  # type: ignore[arg-type]
    with torch.inference_mode():
        plain = network(images)
    whole = compiled(images)
    assert float(plain.std(dim=0).max()) > 1e-4
    assert torch.allclose(whole, plain, atol=1e-3)
    assert torch.equal(compiled(images.roll(2, 0)), whole.roll(2, 0))
    others = torch.zeros_like(images)
    others[1] = images[3]
    assert torch.equal(compiled(others)[1], whole[3])


def test_the_backend_is_chosen_or_refused_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    from ukb_infer.networks import choose_backend, compiled

    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(compiled, "openvino_is_installed", lambda: True)
    assert choose_backend("auto", "resnet50", cpu, "fp32") == "openvino"
    assert choose_backend("auto", "mobilenet_v3_small", cpu, "fp32") == "torch"
    assert choose_backend("auto", "resnet50", cuda, "bf16") == "torch"
    assert choose_backend("torch", "resnet50", cpu, "fp32") == "torch"
    with pytest.raises(UsageError, match=r"`backend`: .*`device` cpu"):
        choose_backend("openvino", "resnet50", cuda, "fp32")
    monkeypatch.setattr(compiled, "openvino_is_installed", lambda: False)
    assert choose_backend("auto", "resnet50", cpu, "fp32") == "torch"
    with pytest.raises(UsageError, match="fast-cpu"):
        choose_backend("openvino", "resnet50", cpu, "fp32")
