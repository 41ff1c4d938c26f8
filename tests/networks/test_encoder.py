"""Encoders of pretraining, their decoders, and the weights that pass on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ukb_infer.errors import ModuleError, UsageError
from ukb_infer.networks import (
    EncoderSpec,
    Pretrained,
    ReconstructionDecoder,
    SegmentationDecoder,
    adapt_first_convolution,
    build_encoder,
    build_network,
    load_pretrained,
    save_pretrained,
    transfer,
)
from ukb_infer.networks import encoder as encoders
from ukb_infer.networks.pretrained import load_fitting

SPECS = [EncoderSpec(dim=d, channels=c, preset=p) for d, c in ((2, 3), (3, 1)) for p in ("small", "base")]  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("side", [32, 24])  # 24 does not divide into all levels
def test_decoders_return_to_the_grid_of_the_image(spec: EncoderSpec, side: int) -> None:
    with torch.device("meta"):  # shapes without arithmetic
        images = torch.empty(2, spec.channels, side, 24, 16)[..., : 16 if spec.dim == 3 else 1]
        images = images if spec.dim == 3 else images[..., 0]
        encoder = build_encoder(spec)
        levels = encoder(images)
        assert [level.shape[1] for level in levels] == list(spec.widths)
        assert encoder.pool(levels).shape == (2, spec.features)
        assert ReconstructionDecoder(spec)(levels[-1], images.shape[2:]).shape == images.shape
        labels = SegmentationDecoder(spec, 3)(images, levels)
        assert labels.shape == (2, 3, *images.shape[2:])


def test_the_small_encoder_is_small() -> None:
    encoder, decoder = build_encoder(SPECS[2]), ReconstructionDecoder(SPECS[2])
    count = sum(p.numel() for part in (encoder, decoder) for p in part.parameters())
    assert 4 * count < 8e6  # bytes of the shipped encoder


def test_a_lesions_channel_keeps_its_strength_in_the_deepest_level() -> None:
    """Normalized alone, a strong and a faint response would give the same features."""
    block = encoders.double_convolution(3, 4, 16, 2, local=False)
    torch.manual_seed(0)
    quiet = 0.1 * torch.rand(1, 4, 8, 8, 8)
    loud = quiet.clone()
    loud[:, 0, 2:4, 2:4, 2:4] += 3.0
    with torch.no_grad():
        faint, strong = (encoders.pool_level(block(x)) for x in (quiet, loud))
    assert float((strong - faint).abs().max()) > 0.5


def test_a_small_lesion_is_seen_in_the_pooled_features() -> None:
    """Among noise it hardly moves the deepest level; the largest values of the finer levels stand out."""
    torch.manual_seed(0)
    spec = EncoderSpec(dim=3, channels=1)
    encoder, images = build_encoder(spec), torch.randn(24, 1, 48, 48, 32)
    images[12:, :, 20:23, 20:23, 12:15] += 5.0
    with torch.no_grad():
        levels = encoder(images)
        whole, deepest = encoder.pool(levels), encoders.pool_level(levels[-1])

    def separated(features: torch.Tensor) -> float:
        """Largest distance of both groups, in standard deviations within them."""
        without, lesion = features.split(12)
        spread = ((without.var(dim=0) + lesion.var(dim=0)) / 2).sqrt().clamp(min=1e-6)
        return float(((lesion.mean(dim=0) - without.mean(dim=0)).abs() / spread).max())

    assert whole.shape == (24, spec.features)
    assert separated(whole) > 3.0 > separated(deepest)


def test_the_first_convolution_takes_other_channels() -> None:
    """An image repeated in all channels gives the features it gave before."""
    torch.manual_seed(0)
    one, four = (build_encoder(EncoderSpec(dim=3, channels=c)) for c in (1, 4))
    state = one.state_dict()
    before = {k: v.clone() for k, v in state.items()}
    found = load_fitting(four, adapt_first_convolution(state, 4))
    assert found.coverage == 1.0
    image = torch.rand(2, 1, 32, 32, 16)
    with torch.no_grad():
        assert torch.allclose(four(image.expand(-1, 4, -1, -1, -1))[-1], one(image)[-1], atol=1e-4)
    assert all(torch.equal(before[k], v) for k, v in state.items())
    back = build_encoder(EncoderSpec(dim=3, channels=1))
    load_fitting(back, adapt_first_convolution(four.state_dict(), 1))
    with torch.no_grad():
        assert torch.allclose(back(image)[-1], one(image)[-1], atol=1e-4)


def _checkpoint(folder: Path, spec: EncoderSpec) -> Pretrained:
    torch.manual_seed(1)
    encoder, decoder = build_encoder(spec), ReconstructionDecoder(spec)
    made = Pretrained(
        spec=spec, settings={"spacing_mm": 3.5, "size": [48, 48, 32]}, state=encoder.state_dict(),
        decoder=decoder.state_dict(), facts={"objective": "mae", "warning": "Made from phantoms."},
    )  # fmt: skip
    save_pretrained(folder, made)
    return made


def test_a_checkpoint_comes_back_and_passes_its_weights_on(tmp_path: Path) -> None:
    spec = EncoderSpec(dim=3, channels=1)
    made = _checkpoint(tmp_path, spec)
    read = load_pretrained(tmp_path)
    assert (read.spec, read.settings, read.facts) == (spec, made.settings, made.facts)
    assert read.warning == "Made from phantoms."
    assert all(torch.equal(read.state[k], v) for k, v in made.state.items())
    encoder = build_encoder(EncoderSpec(dim=3, channels=3))
    assert transfer(read, encoder).coverage == 1.0
    deep = "levels.3.conv2.conv.weight"
    assert torch.equal(encoder.state_dict()[deep], made.state[deep])
    decoder = SegmentationDecoder(spec, 2)
    fitted = load_fitting(decoder, read.decoder)
    assert {name.split(".")[0] for name in fitted.loaded} == {"ups"}
    left = {name.split(".")[3] for name in fitted.random if name.startswith("ups")}
    assert left == {"conv1", "conv3", "norm3"}  # what also sees the skip


def test_a_pretrained_encoder_is_an_initial_weight_file_of_train(tmp_path: Path) -> None:
    made = _checkpoint(tmp_path, EncoderSpec(dim=2, channels=3))
    network = build_network("conv_small", 2, tmp_path / "encoder.safetensors")
    assert network.transfer is not None
    assert set(network.transfer.random) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(network.model.state_dict()[k], v) for k, v in made.state.items())
    with pytest.raises(UsageError, match="no such weights for conv_small"):
        build_network("conv_small", 2, "imagenet")


def test_a_damaged_checkpoint_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModuleError, match="ukb-infer pretrain"):
        load_pretrained(tmp_path)
    _checkpoint(tmp_path, EncoderSpec(dim=3, channels=1))
    facts = tmp_path / "pretrained.json"
    whole = json.loads(facts.read_text())
    for change, words in (
        ({"schema": 9}, "got schema 9"),
        ({"spec": {"dim": 3, "channels": 2, "preset": "small"}}, "not those of"),
        ({"spec": {"dim": 3}}, "damaged"),
        ({"settings": 3}, "damaged"),
    ):
        facts.write_text(json.dumps(whole | change))
        with pytest.raises(ModuleError, match=words):
            load_pretrained(tmp_path)
    facts.write_text(json.dumps(whole))
    (tmp_path / "encoder.safetensors").write_bytes(b"cut")
    with pytest.raises(ModuleError, match="damaged"):
        load_pretrained(tmp_path)


def test_without_monai_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"ukb-infer\[foundation\]"):
        build_network("conv_small", 1)


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(UsageError, match=r"`preset`: unknown 'smal'; did you mean small"):
        EncoderSpec(dim=3, channels=1, preset="smal")  # type: ignore[arg-type]


def test_gradients_reach_the_whole_encoder() -> None:
    spec = EncoderSpec(dim=3, channels=2)
    encoder: nn.Module = build_encoder(spec)
    decoder = SegmentationDecoder(spec, 2)
    images = torch.rand(1, 2, 32, 32, 16)
    decoder(images, encoder(images)).square().mean().backward()
    missing = [n for part in (encoder, decoder) for n, p in part.named_parameters() if p.grad is None]
    assert missing == []


def test_contrasts_are_seen_one_at_a_time() -> None:
    """By the weights of one channel, whatever the other contrasts are; features lie side by side."""
    torch.manual_seed(0)
    single = encoders.conv_small(dim=3, channels=1).eval()
    apart = encoders.conv_small_apart(dim=3, channels=3).eval()
    found = load_fitting(apart, {k: v for k, v in single.state_dict().items() if k.startswith("levels")})
    assert {name.split(".")[0] for name in found.loaded} == {"levels"}
    images = torch.rand(2, 3, 32, 32, 16)
    with torch.no_grad():
        features = apart.encode(images)
        alone = torch.cat([single.encode(images[:, k : k + 1]) for k in range(3)], dim=1)
    assert features.shape == (2, 3 * single.spec.features)
    assert torch.allclose(features, alone, atol=1e-5)


@pytest.mark.parametrize("name", ["brain-pretrained", "brain-contrastive"])
def test_shipped_encoders_load_and_warn(name: str) -> None:
    folder = Path(__file__).parents[2] / "models" / name
    found = load_pretrained(folder)
    assert "synthetic heads only" in found.warning
    assert (found.spec.dim, found.spec.channels) == (3, 1)
    assert load_fitting(build_encoder(found.spec), found.state).coverage == 1.0
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
    assert found.warning in (folder / "README.md").read_text()
