"""A label for every voxel, by Dice and cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ukb_infer.modules.manifest import Head
from ukb_infer.networks.build import PROJECTION, Init
from ukb_infer.training.objectives.objective import Objective


class Segmentation(Objective):
    """The sum of Dice loss and cross-entropy. The network's outputs are (N, labels, x, y, z) logits.

    Attributes:
        patch: (x, y, z) voxels of the parts that are learned from; None for the whole box.
        foreground: share of the parts that are centred on a labelled voxel. Lesions fill so little of a head that
            without it most parts would teach nothing but background.
    """

    measures = ("dice_ce", "dice_error")
    #: Half of the largest Dice loss.
    overfitted = 0.5
    on_masks = True
    head: ClassVar[Head] = "segmentation"
    standardizes: ClassVar[bool] = False
    name: Literal["segmentation"] = "segmentation"
    patch: Annotated[tuple[int, int, int] | None, Field(strict=False, description="[x, y, z], e.g. [32, 32, 32]")] = (
        None
    )
    foreground: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5

    def build_network(
        self, backbone: str, n_targets: int, init: Init = "random", shape: Sequence[int] = PROJECTION
    ) -> Any:
        """An untrained encoder with a decoder.

        Args:
            backbone: key of the backbone registry, of ours.
            n_targets: labels without the background.
            init: initial weights.
            shape: (channels, x, y, z) of an image.
        """
        from ukb_infer.networks.segmentation import build_segmentation

        return build_segmentation(backbone, n_targets, shape, init, self.patch)

    def loss(self, outputs: Tensor, labels: Tensor, iteration: int, count: Tensor | None = None) -> Tensor:
        """Dice loss over the batch, so that parts without a label do not swing it, and cross-entropy.

        Args:
            outputs: (N, labels, x, y, z).
            labels: (N, x, y, z).
            iteration: not used.
            count: not used.
        """
        del iteration, count
        from monai.losses import DiceCELoss

        loss: Tensor = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)(
            outputs, labels.long().unsqueeze(1)
        )
        return loss

    def judge(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """The loss, and 1 minus the mean Dice of the labels, counted over all cases.

        Args:
            outputs: (N, labels, x, y, z).
            labels: (N, x, y, z); numbers that are not finite count as no labels at all.
        """
        if not labels.numel() or not bool(torch.isfinite(labels).any()):
            return dict.fromkeys(self.measures, math.nan)
        wanted = functional.one_hot(labels.long(), outputs.shape[1]).movedim(-1, 1)[:, 1:].flatten(2)
        found = functional.one_hot(outputs.argmax(dim=1), outputs.shape[1]).movedim(-1, 1)[:, 1:].flatten(2)
        both = 2.0 * (wanted & found).sum(dim=(0, 2))
        dice = both / (wanted.sum(dim=(0, 2)) + found.sum(dim=(0, 2))).clamp(min=1)
        return {"dice_ce": float(self.loss(outputs, labels, 0)), "dice_error": 1.0 - float(dice.mean())}
