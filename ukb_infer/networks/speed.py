"""Wrappers that make networks fast: each wraps a call and has one meaning.

A call maps scaled images (N, channels, rows, cols) to the raw outputs of K members, (K, N, T, 2). They are combined in
:meth:`ukb_infer.modules.InferenceModule.launch`; the networks themselves stay differentiable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Call = Callable[[Tensor], Tensor]
Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def without_gradients(call: Call) -> Call:
    """Run in inference mode: less memory and time."""

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return call(images)

    return run


def on_device(call: Call, device: torch.device) -> Call:
    """Copy images to the device first; from pinned memory this does not wait for a GPU.

    Args:
        call: to be wrapped.
        device: it runs on.
    """
    return lambda images: call(images.to(device, non_blocking=True))


def channels_last_of(ndim: int) -> torch.memory_format:
    """The channels-last layout of batches with 4 or 5 dimensions."""
    return torch.channels_last_3d if ndim == 5 else torch.channels_last


def channels_last(call: Call) -> Call:
    """Use the channels-last layout, which GPU convolutions prefer."""
    return lambda images: call(images.contiguous(memory_format=channels_last_of(images.ndim)))


def mixed_precision(call: Call, device: torch.device, precision: Precision) -> Call:
    """Compute in 16 bits where it is safe (autocast); heads still compute in fp32.

    Args:
        call: to be wrapped.
        device: it runs on.
        precision: bf16 or fp16.
    """

    def run(images: Tensor) -> Tensor:
        with torch.autocast(device.type, DTYPES[precision]):
            return call(images)

    return run


def one_thread(call: Call) -> Call:
    """Run on one CPU thread: for small networks.

    More threads gain them nothing, and cost much while other processes use the cores. One thread also gives the same
    bits whatever the number of cores.
    """

    def run(images: Tensor) -> Tensor:
        before = torch.get_num_threads()
        if before == 1:
            return call(images)
        torch.set_num_threads(1)
        try:
            return call(images)
        finally:
            torch.set_num_threads(before)

    return run
