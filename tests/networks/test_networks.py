"""Backbones, heads, initial weights, input scaling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ukb_infer.errors import UsageError
from ukb_infer.networks import BACKBONES, InputScaling, build_network
from ukb_infer.networks.build import transfer_weights


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small", "efficientnet_b0"])
def test_every_head_gives_mean_and_log_variance(backbone: str) -> None:
    network = build_network(backbone, 3).eval()
    with torch.inference_mode():
        output = network(torch.rand(2, 3, 64, 64))
    assert output.shape == (2, 3, 2)
    linears = [m for n, m in network.named_modules() if isinstance(m, torch.nn.Linear)]
    assert len(linears) == 1
    assert linears[0].out_features == 6


@pytest.mark.slow
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_all_backbones_run(backbone: str) -> None:
    with torch.inference_mode():
        assert build_network(backbone, 2).eval()(torch.rand(1, 3, 64, 64)).shape == (1, 2, 2)


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
    save_file({"nothing": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="no tensor"):
        build_network("mobilenet_v3_small", 2, tmp_path / "x.safetensors")


def test_scaling_averages_blocks() -> None:
    images = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8)
    assert torch.equal(InputScaling().apply(images), images.float())
    small = InputScaling(0.5, -1.0, (64, 64)).apply(images)
    expected = images[:, :, :4, :4].float().mean(dim=(2, 3)) * 0.5 - 1.0
    assert torch.allclose(small[:, :, 0, 0], expected)
    with pytest.raises(UsageError, match="divide 256"):
        InputScaling(size=(100, 100))
