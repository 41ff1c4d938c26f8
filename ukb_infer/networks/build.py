"""Build a network: backbone, linear head, initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ukb_infer.errors import UsageError
from ukb_infer.networks.backbones import BackboneSpec, get_backbone
from ukb_infer.networks.head import RowLinear

if TYPE_CHECKING:
    from ukb_infer.networks.encoder import EncoderSpec

Init = Literal["random", "imagenet"] | Path
#: (channels, rows, cols) of a projection; only the channels and the number of axes matter to a network.
PROJECTION = (3, 256, 256)


class MeanVarianceNetwork(nn.Module):
    """An encoder and its head: images -> features -> (mean, log-variance) per target.

    Args:
        model: torchvision model with its head replaced; it holds encoder and head under torchvision's names, so that
            weight files are those of torchvision.
        n_targets: T.
        spec: where the encoder ends in the model.

    Attributes:
        transfer: which tensors the initial weights covered; None for random weights.
    """

    def __init__(self, model: nn.Module, n_targets: int, spec: BackboneSpec) -> None:
        super().__init__()
        self.model = model
        self.n_targets = n_targets
        self.spec = spec
        self.transfer: Transfer | None = None

    @property
    def head(self) -> RowLinear:
        """The linear layer behind the encoder: (N, F) -> (N, 2T)."""
        layer: Any = getattr(self.model, self.spec.head)
        return cast(RowLinear, layer[-1] if self.spec.keep else layer)

    @property
    def width(self) -> int:
        """F: number of features."""
        return self.head.in_features

    @property
    def groups(self) -> tuple[int, ...]:
        """Numbers of features that belong together, in order; they add up to F."""
        return getattr(self.model, "groups", (self.width,))

    def encode(self, images: Tensor) -> Tensor:
        """(N, channels, ...) float -> (N, F) features, pooled over the image."""
        if self.spec.one_by_one and not self.training and images.device.type == "cpu" and len(images) > 1:
            return torch.cat([self.spec.encode(self.model, image) for image in images.unsqueeze(1).unbind()])
        return self.spec.encode(self.model, images)

    def predict(self, features: Tensor) -> Tensor:
        """(N, F) -> (N, T, 2): mean and log-variance in standardized units."""
        output: Tensor = self.head(features)
        return output.reshape(-1, self.n_targets, 2)

    def with_features(self, images: Tensor) -> Tensor:
        """(N, 3, rows, cols) float -> (N, 2T + F): the flat output of :meth:`forward`, then the features."""
        features = self.encode(images)
        return torch.cat([self.head(features), features.float()], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, rows, cols) float -> (N, T, 2): mean and log-variance in standardized units.

        In evaluation on a CPU a scan's output does not depend on the other scans of the batch or its place in it.
        """
        return self.predict(self.encode(images))


@dataclass(frozen=True)
class Transfer:
    """Coverage of an initial weight file: tensors loaded, left random, and unused in the file."""

    loaded: tuple[str, ...]
    random: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def coverage(self) -> float:
        """Share of the network's tensors that were loaded."""
        total = len(self.loaded) + len(self.random)
        return len(self.loaded) / total if total else 0.0


def _replace_head(model: nn.Module, spec: BackboneSpec, n_targets: int) -> None:
    old = getattr(model, spec.head)
    features = next(m.in_features for m in old.modules() if isinstance(m, nn.Linear))
    linear = RowLinear(features, 2 * n_targets)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    kept = list(old.children())[: spec.keep]
    setattr(model, spec.head, nn.Sequential(*kept, linear) if kept else linear)


def _cached_imagenet_file(spec: BackboneSpec) -> Path:
    if not spec.imagenet:
        raise UsageError(
            f"imagenet: there are no such weights for {spec.name}; use random, or the encoder.safetensors of a "
            "pretraining",
            field="init",
        )
    name = str(spec.weights.url).rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        raise UsageError(
            f"`init` imagenet: no file {name} in the torch hub cache; nothing is downloaded at run time. "
            f"Put torchvision's ImageNet weights of {spec.name} at {path} (set TORCH_HOME to choose another cache), "
            "or use random weights"
        )
    return path


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(f"`init`: {path.name} cannot be read as weights ({type(error).__name__}: {error})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"`init`: {path.name} contains no tensors; expected a state dict or safetensors file")
    return {str(k).removeprefix("module.").removeprefix("model."): v for k, v in state.items()}


def transfer_weights(network: MeanVarianceNetwork, path: Path) -> Transfer:
    """Load every tensor of the same name and shape.

    Args:
        network: changed in place.
        path: safetensors file or torch state dict (loaded with ``weights_only=True``).

    Returns:
        The coverage; also stored as ``network.transfer``.

    Raises:
        UsageError: unreadable, or nothing fits.
    """
    state, own = _read_state(path), network.model.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise UsageError(f"`init`: no tensor of {path.name} fits this backbone; expected weights of the same backbone")
    network.model.load_state_dict(fitting, strict=False)
    network.transfer = Transfer(
        tuple(fitting), tuple(k for k in own if k not in fitting), tuple(k for k in state if k not in fitting)
    )
    return network.transfer


def check_encoder(found: EncoderSpec, dim: int, preset: str, folder: Path) -> None:
    """Refuse a checkpoint of another kind of encoder.

    Args:
        found: encoder of the checkpoint.
        dim: wanted dimensions.
        preset: wanted size.
        folder: of the checkpoint, for the message.

    Raises:
        UsageError: names both.
    """
    if (found.dim, found.preset) != (dim, preset):
        raise UsageError(
            f"{folder} holds a {found.preset} encoder in {found.dim} dimensions, expected a {preset} one in {dim}",
            field="pretrained",
        )


def transfer_pretrained(network: nn.Module, folder: Path, encoder: EncoderSpec) -> Transfer:
    """Load the encoder of a checkpoint of ``pretrain``, and of its decoder what fits.

    Args:
        network: changed in place; its encoder's names begin with ``levels``, its decoder's with ``decoder``.
        folder: of the checkpoint.
        encoder: of the network.

    Returns:
        The coverage.

    Raises:
        UsageError: the checkpoint is of another kind of encoder.
        ModuleError: it is not a checkpoint, or damaged.
    """
    from ukb_infer.networks.encoder import adapt_first_convolution
    from ukb_infer.networks.pretrained import load_fitting, load_pretrained

    found = load_pretrained(folder)
    check_encoder(found.spec, encoder.dim, encoder.preset, folder)
    state = adapt_first_convolution(found.state, encoder.channels)
    return load_fitting(network, state | {f"decoder.{name}": value for name, value in found.decoder.items()})


def build_network(
    backbone: str, n_targets: int, init: Init = "random", shape: Sequence[int] = PROJECTION
) -> MeanVarianceNetwork:
    """Build one member.

    Args:
        backbone: key of :data:`BACKBONES`.
        n_targets: T >= 1.
        init: ``random``; ``imagenet`` for torchvision's weights from the torch hub cache (never downloaded); a
            weight file; or the folder of a checkpoint of ``pretrain``.
        shape: (channels, ...) of an image.

    Returns:
        The network; its head starts near zero, so that training starts at the mean with unit variance.

    Raises:
        UsageError: unknown backbone, or initial weights that are missing or do not fit.
    """
    spec = get_backbone(backbone)
    if n_targets < 1:
        raise UsageError(f"a network needs at least one target, got {n_targets}")
    model = spec.factory(weights=None, **_form_of(spec, shape))
    _replace_head(model, spec, n_targets)
    network = MeanVarianceNetwork(model, n_targets, spec)
    if isinstance(init, Path) and init.is_dir() and not spec.imagenet:
        network.transfer = transfer_pretrained(model, init, cast(Any, model).spec)
    elif init == "imagenet":
        transfer_weights(network, _cached_imagenet_file(spec))
    elif isinstance(init, Path):
        transfer_weights(network, init)
    elif init != "random":
        raise UsageError(f"`init`: {init!r}; expected random, imagenet or the path of a weight file")
    return network


def _form_of(spec: BackboneSpec, shape: Sequence[int]) -> dict[str, int]:
    """Dimensions and channels, for the backbones that take any."""
    if not spec.imagenet:
        return {"dim": len(shape) - 1, "channels": shape[0]}
    if len(shape) != 3 or shape[0] != 3:
        raise UsageError(f"backbone {spec.name} sees 3 channels of 2 dimensions, got images of {tuple(shape)}")
    return {}
