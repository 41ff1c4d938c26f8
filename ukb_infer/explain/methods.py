"""Methods of explanation, by captum, on the differentiable ``forward`` of modules.

Each turns one projection into the attribution of every value, (channels, rows, cols) float64 in the unit of what is
explained: how much the value raised it. :func:`to_saliency` makes a map of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from ukb_infer.errors import UsageError
from ukb_infer.networks.scaling import InputScaling
from ukb_infer.text import suggest

if TYPE_CHECKING:
    from ukb_infer.modules import InferenceModule

Float64 = NDArray[np.float64]
#: (N, channels, rows, cols) float32 to (N,): what is explained.
Function = Callable[[Tensor], Tensor]
#: (function, picture, baseline, modules) to attributions; picture and baseline are (1, channels, rows, cols) float32.
Method = Callable[[nn.Module, Tensor, Tensor, "Sequence[InferenceModule]"], Tensor]

#: Steps of the integral from the baseline to the picture (Sundararajan et al. 2017: 20 to 300), and how many at once.
STEPS, AT_ONCE = 24, 8
#: Side of the occluded square and its stride, as shares of the picture's side.
PATCH, STRIDE = 1 / 16, 1 / 32


class Explained(nn.Module):
    """What is explained, as a network: one number a scan.

    Args:
        modules: that have the target; their ensembles count alike.
        places: index of the target in each.
        of: ``mean``, in natural units, or ``variance``: the log of the total variance in standardized units.
    """

    def __init__(self, modules: Sequence[InferenceModule], places: Sequence[int], of: str = "mean") -> None:
        super().__init__()
        self.modules_and_places, self.of = list(zip(modules, places, strict=True)), of

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, rows, cols) to (N,)."""
        parts = [self._one(module, place, images) for module, place in self.modules_and_places]
        return torch.stack(parts).mean(dim=0)

    def _one(self, module: InferenceModule, place: int, images: Tensor) -> Tensor:
        output = module.forward(images)
        mean, raw = output.mean[..., place], output.log_variance[..., place]
        if self.of == "mean":
            target = module.manifest.targets[place]
            return (mean.mean(dim=0) * target.sd + target.mean) / target.divisor
        variance = log_variance_of(raw, module.manifest.network.log_variance).exp()
        return (variance.mean(dim=0) + mean.var(dim=0, correction=0)).log()


def log_variance_of(raw: Tensor, kind: str) -> Tensor:
    """Log-variance of raw outputs, differentiable; see ``ukb_infer.regression.log_variance``.

    Args:
        raw: any shape.
        kind: plain or bounded.
    """
    from ukb_infer.regression.log_variance import CENTRE, HALF_RANGE, PLAIN_LIMIT

    if kind == "plain":
        return raw.clamp(-PLAIN_LIMIT, PLAIN_LIMIT)
    z = (raw - CENTRE) / HALF_RANGE
    return CENTRE + HALF_RANGE * z / (1.0 + z.square()).sqrt()


def integrated_gradients(
    explained: nn.Module, image: Tensor, baseline: Tensor, modules: Sequence[InferenceModule]
) -> Tensor:
    """Gradients summed on the way from the baseline to the picture (Sundararajan et al. 2017).

    The attributions add up to the difference between the two estimates.

    Args:
        explained: the network.
        image: (1, channels, rows, cols).
        baseline: likewise.
        modules: not used.
    """
    from captum.attr import IntegratedGradients

    found: Tensor = IntegratedGradients(explained).attribute(
        image, baseline, n_steps=STEPS, method="gausslegendre", internal_batch_size=AT_ONCE
    )
    return found


def occlusion(explained: nn.Module, image: Tensor, baseline: Tensor, modules: Sequence[InferenceModule]) -> Tensor:
    """How the estimate falls when a square is replaced by the baseline (Zeiler and Fergus 2014).

    Args:
        explained: the network.
        image: (1, channels, rows, cols).
        baseline: likewise.
        modules: not used.
    """
    from captum.attr import Occlusion

    channels, rows, cols = image.shape[1:]
    window = (channels, max(1, round(rows * PATCH)), max(1, round(cols * PATCH)))
    stride = (channels, max(1, round(rows * STRIDE)), max(1, round(cols * STRIDE)))
    with torch.no_grad():
        found: Tensor = Occlusion(explained).attribute(
            image, window, strides=stride, baselines=baseline, perturbations_per_eval=AT_ONCE
        )
    return found


def gradcam(explained: nn.Module, image: Tensor, baseline: Tensor, modules: Sequence[InferenceModule]) -> Tensor:
    """Gradient-weighted sum of the last feature maps, enlarged to the picture (Selvaraju et al. 2017); coarse.

    Args:
        explained: the network.
        image: (1, channels, rows, cols).
        baseline: not used.
        modules: whose networks are averaged; each ends in an average over maps, ``avgpool``.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    maps = []
    for member in (member for module in modules for member in module.members):
        layer: Any = member.model.avgpool
        cam = LayerGradCam(explained, layer).attribute(image, attribute_to_layer_input=True)
        maps.append(LayerAttribution.interpolate(cam, image.shape[2:], interpolate_mode="bilinear"))
    return torch.stack(maps).mean(dim=0).expand_as(image) / image.shape[1]


#: Name to method; ``--method`` chooses.
METHODS: dict[str, Method] = {"integrated-gradients": integrated_gradients, "occlusion": occlusion, "gradcam": gradcam}
DEFAULT_METHOD = "integrated-gradients"


def get_method(name: str) -> Method:
    """Method by name.

    Raises:
        UsageError: unknown; the message lists the choices.
    """
    if name not in METHODS:
        raise UsageError(f"unknown {name!r}{suggest(name, METHODS)} (choices: {', '.join(METHODS)})", field="method")
    return METHODS[name]


def attribute(name: str, explained: Explained, image: NDArray[Any], baseline: NDArray[Any]) -> Float64:
    """Attribution of every value of a picture.

    Args:
        name: of the method.
        explained: what is explained.
        image: (channels, rows, cols) of the recipe.
        baseline: likewise.

    Returns:
        (channels, rows, cols), in the unit of what is explained.
    """
    modules = [module for module, _ in explained.modules_and_places]
    device = modules[0].device
    x, start = (torch.from_numpy(np.asarray(part, np.float32))[None].to(device) for part in (image, baseline))
    return get_method(name)(explained, x, start, modules)[0].detach().cpu().numpy().astype(np.float64)


def to_saliency(attributions: Float64, scalings: Sequence[InputScaling]) -> NDArray[np.float32]:
    """Saliency of every pixel: the size of what the pixels of a neighbourhood contribute together.

    A network that averages blocks of pixels cannot tell them apart, and contributions of neighbours that cancel are
    noise of the gradient: they are summed over the channels and smoothed by such a block (sd), then the size is taken.

    Args:
        attributions: (channels, rows, cols).
        scalings: of the networks' inputs.

    Returns:
        (rows, cols), not negative.
    """
    total = attributions.sum(axis=0)
    sizes = [scaling.size or total.shape for scaling in scalings]
    sigma = [max(side / size[axis] for size in sizes) for axis, side in enumerate(total.shape)]
    return np.abs(gaussian_filter(total, sigma, mode="nearest")).astype(np.float32)
