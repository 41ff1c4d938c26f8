"""Networks compiled by OpenVINO for CPUs: same results within 1e-3, about twice as fast as eager torch.

OpenVINO is an optional extra (``ukb-infer[fast-cpu]``). It was chosen over ONNX Runtime, which is
about as fast, for reading torch models directly. Bitwise, its results depend neither on a scan's place in the batch
nor on the number of threads (measured on six backbones).
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ukb_infer.errors import UsageError
from ukb_infer.networks.build import MeanVarianceNetwork

#: Backbones for which compiling (about 2 s per member) pays off within a few hundred scans; small ones use torch.
WORTH_COMPILING = frozenset(
    {"resnet18", "resnet34", "resnet50", "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny"}
)
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


def openvino_is_installed() -> bool:
    """Whether the optional extra is installed."""
    return importlib.util.find_spec("openvino") is not None


def choose_backend(name: str, backbone: str, device: torch.device, precision: str) -> str:
    """``torch`` or ``openvino`` for one module.

    Args:
        name: ``auto`` uses OpenVINO where it is installed and faster; otherwise the backend itself.
        backbone: of the module.
        device: of the run.
        precision: of the run.

    Raises:
        UsageError: OpenVINO was asked for and cannot be used.
    """
    possible = device.type == "cpu" and precision == "fp32"
    if name == "openvino":
        if not possible:
            raise UsageError("`backend`: openvino needs `device` cpu and `precision` fp32; change them, or use torch")
        if not openvino_is_installed():
            raise UsageError('`backend`: openvino is not installed; pip install "ukb-infer[fast-cpu]"')
        return "openvino"
    if name == "auto" and possible and backbone in WORTH_COMPILING and openvino_is_installed():
        return "openvino"
    return "torch"


class _WithFeatures(torch.nn.Module):
    """What is compiled where features are wanted: the whole batch at once, for every backbone."""

    def __init__(self, network: MeanVarianceNetwork) -> None:
        super().__init__()
        self.model, self._encode, self._head = network.model, network.spec.encode, network.head

    def forward(self, images: Tensor) -> Tensor:
        features = self._encode(self.model, images)
        return torch.cat([self._head(features), features], dim=1)


class CompiledNetwork:
    """One member compiled for batches of one shape.

    Args:
        network: in evaluation mode, on the CPU.
        shape: (N, 3, rows, cols) of every batch.
        features: also return the features.
    """

    def __init__(self, network: MeanVarianceNetwork, shape: tuple[int, ...], *, features: bool = False) -> None:
        import openvino

        self._form = (-1,) if features else (network.n_targets, 2)
        traced = _WithFeatures(network) if features else network.model
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = openvino.convert_model(
                traced, example_input=torch.zeros(shape), input=[openvino.PartialShape(list(shape))]
            )
        settings: dict[str, Any] = dict(_SETTINGS)
        if threads := os.environ.get("OMP_NUM_THREADS"):
            settings["INFERENCE_NUM_THREADS"] = int(threads)
        self._request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, rows, cols) float32 -> (N, T, 2) float32; with features (N, 2T + F)."""
        output = self._request.infer({0: np.ascontiguousarray(images.numpy())})[0]
        return torch.from_numpy(np.array(output, np.float32)).reshape(len(images), *self._form)


class CompiledMembers:
    """Members compiled for every batch shape on first use.

    Args:
        members: in evaluation mode, on the CPU.
        features: also return the features.
    """

    def __init__(self, members: Sequence[MeanVarianceNetwork], *, features: bool = False) -> None:
        self._members, self._features = members, features
        self._compiled: dict[tuple[int, ...], list[CompiledNetwork]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, rows, cols) float32 -> (K, N, T, 2) float32; with features (K, N, 2T + F)."""
        shape = tuple(images.shape)
        if shape not in self._compiled:
            self._compiled[shape] = [
                CompiledNetwork(member, shape, features=self._features) for member in self._members
            ]
        return torch.stack([member(images) for member in self._compiled[shape]])
