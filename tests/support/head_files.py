"""Sessions of made-up heads as NIfTI files, and modules for them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import torch

from tests.support.heads import SIZE, make_head
from ukb_infer.modules import Calibration, ModuleManifest, ModuleTarget, save_module
from ukb_infer.modules.manifest import Head, ModuleNetwork, ModuleOutputs, VolumeInput
from ukb_infer.networks import build_network
from ukb_infer.networks.segmentation import build_segmentation

SPACING_MM = 4.0
READ = VolumeInput(modalities=(("flair",), ("t2s", "swi")), spacing_mm=SPACING_MM, size=SIZE)


def write_session(folder: Path, names: tuple[str, ...] = ("flair", "swi"), *, lump: bool = True, seed: int = 0) -> None:
    """One file a contrast, with a tilted axis order, and ``seg.nii.gz`` of the lump beside it."""
    images, mask = make_head(np.random.default_rng(seed), lump=lump, channels=len(names))
    head = images != 0
    affine = np.diag([-SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        values = np.where(head[0], 100.0 + 40.0 * image, 0.0).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values[::-1], affine), folder / f"{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask[::-1], affine), folder / "seg.nii.gz")


def make_module(
    folder: Path, head: Head, *, members: int = 2, read: VolumeInput = READ, target: str = "lump"
) -> Path:  # fmt: skip
    """An untrained module of any head."""
    torch.manual_seed(0)
    kind = "binary" if head == "class" else "continuous"
    label = 1 if head == "segmentation" else None
    made = ModuleTarget(target, "ml", "", kind, 0.0, None, 0.0, 1.0, 1.0, Calibration("none"), label)
    shape = read.form.shape
    if head == "segmentation":
        networks = [build_segmentation("conv_small", 1, shape, patch=read.patch) for _ in range(members)]
    else:
        networks = [build_network("conv_small", 1, shape=shape) for _ in range(members)]
    for network in networks:  # so that outputs differ between cases
        torch.nn.init.normal_(network.model.decoder.classify.weight if head == "segmentation" else network.head.weight)
    manifest = ModuleManifest(
        name=folder.name, version="0.0.1", intended_use="tests", provenance="random weights", warning="", licence="",
        input=read, network=ModuleNetwork(
            encoder="conv_small", log_variance="plain" if head == "segmentation" else "bounded", dimension=3, head=head
        ),
        outputs=ModuleOutputs((made,)),
    )  # fmt: skip
    save_module(folder, manifest, networks)
    return folder
