"""One case of a module for volumes: from its images to what the module says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.inference.volumes import native_mask
from ukb_infer.modules.manifest import VolumeInput
from ukb_infer.modules.outliers import join_features
from ukb_infer.modules.volumes import read_session
from ukb_infer.reasons import Reason
from ukb_infer.regression.probability import apply_curve

if TYPE_CHECKING:
    from ukb_infer.imaging.volumes.preprocess import Grid
    from ukb_infer.modules import InferenceModule


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What a module says of one case.

    Attributes:
        probability: of each target of a class, in 0-1 and calibrated where the module is, by name; else empty.
        mean: estimate of each target in natural units, by name: of a regression, or volumes of a segmentation in ml.
        sd: total standard deviation of each, likewise.
        mask: (x, y, z) uint8 labels on the grid of the case's first image, 0 for the background; None without
            segmentation.
        embedding: (F,) float32 features, the members' side by side, each of length one.
        grid: how the volumes were read, for saving the mask.
        flags: raised on the way.
    """

    probability: Mapping[str, float] = field(default_factory=dict)
    mean: Mapping[str, float] = field(default_factory=dict)
    sd: Mapping[str, float] = field(default_factory=dict)
    mask: NDArray[np.uint8] | None = None
    embedding: NDArray[np.float32]
    grid: Grid
    flags: tuple[Reason, ...] = ()

    def save_mask(self, path: Path) -> None:
        """Write the mask as NIfTI with shape and affine of the case's first image.

        Raises:
            ValueError: there is no mask.
        """
        from ukb_infer.imaging.volumes.preprocess import save_mask

        if self.mask is None:
            raise ValueError("the module does not segment, so there is no mask to save")
        save_mask(self.mask, self.grid, path)


def predict_case(module: InferenceModule, images: Mapping[str, Path]) -> CaseResult:
    """Apply a module to one case.

    Args:
        module: for volumes, loaded with :func:`ukb_infer.modules.load_module`.
        images: path of the NIfTI file by modality; those that the module does not use are ignored.

    Raises:
        UsageError: a module for projections.
        ScanError: a contrast that the module needs is missing, or an image cannot be used.
    """
    read = module.manifest.input
    if not isinstance(read, VolumeInput):
        raise UsageError(f"{module.manifest.name} is for projections, not for volumes; use `predict`")
    wanted = {name for group in read.modalities for name in group}
    values, grid, flags = read_session({name: path for name, path in images.items() if name in wanted}, read)
    raw = module.run(torch.from_numpy(values[None]))
    estimates = module.to_estimates(np.asarray(raw.heads.cpu().numpy()))
    assert raw.features is not None
    embedding = join_features(raw.features.cpu().numpy())[0].astype(np.float32)
    mean, sd = estimates.mean[0], np.sqrt(estimates.total_variance[0])
    names, targets = module.manifest.target_names, module.manifest.targets
    probability = {
        t.name: float(apply_curve(t.calibration.curve, mean[k])) for k, t in enumerate(targets) if t.kind == "binary"
    }
    mask = None if raw.probabilities is None else native_mask(raw.probabilities[0].cpu().numpy(), grid)
    return CaseResult(
        probability=probability, mean=dict(zip(names, map(float, mean), strict=True)),
        sd=dict(zip(names, map(float, sd), strict=True)), mask=mask, embedding=embedding, grid=grid,
        flags=tuple(flags),
    )  # fmt: skip
