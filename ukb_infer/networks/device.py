"""Choice of device, precision and batch size."""

from __future__ import annotations

from typing import Literal

import torch

from ukb_infer.errors import RunError
from ukb_infer.networks.speed import Precision

DEFAULT_BATCH_CPU, DEFAULT_BATCH_CUDA = 8, 64
#: Volumes at a time; a batch is filled up to its size, which for volumes costs as much as real ones.
DEFAULT_VOLUMES_CPU, DEFAULT_VOLUMES_CUDA = 1, 4


def choose_device(name: str) -> torch.device:
    """Device by name; ``auto`` uses CUDA if available.

    Raises:
        RunError: CUDA was requested but is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise RunError(f"`device`: got {name}, but torch finds no usable CUDA device; check the driver, or use cpu")
        index = int(name.split(":")[1]) if ":" in name else 0
        if index >= torch.cuda.device_count():
            raise RunError(f"`device`: got {name}, but only {torch.cuda.device_count()} CUDA devices exist, from 0")
    return torch.device(name)


def choose_precision(name: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """The precision given; ``auto`` is fp16 on CUDA, fp32 on CPUs.

    bfloat16 keeps 8 bits: emulated on the demonstration ensemble it moved members' means by up to 0.035 standardized
    units, fp16 by 0.004 (the ensemble's by 0.009 and 0.0009).

    Args:
        name: auto, fp32, bf16 or fp16.
        device: of the run.
    """
    if name != "auto":
        return name
    return "fp16" if device.type == "cuda" else "fp32"


def choose_batch_size(size: int, device: torch.device, dimension: int = 2) -> int:
    """The size given, or the device's default.

    Args:
        size: 0 for the default.
        device: of the run.
        dimension: 3 for volumes.
    """
    if dimension == 3:
        return size or (DEFAULT_VOLUMES_CUDA if device.type == "cuda" else DEFAULT_VOLUMES_CPU)
    return size or (DEFAULT_BATCH_CUDA if device.type == "cuda" else DEFAULT_BATCH_CPU)


def prepare_device(device: torch.device) -> None:
    """Make results repeatable: no TF32 in fp32, deterministic kernels; threads stay at torch's default."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
