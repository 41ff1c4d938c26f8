"""Train the members of an ensemble and make a module of them (floor 4)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.geometry import RECIPE
from ukb_infer.modules import Calibration, InferenceModule, ModuleManifest, ModuleTarget
from ukb_infer.networks import MeanVarianceNetwork
from ukb_infer.regression import Mixture, conformal_table, variance_factor_closed_form, variance_factor_coverage
from ukb_infer.targets import get_target
from ukb_infer.training.config import TrainConfig
from ukb_infer.training.dataset import LabelledProjections, participant_folds
from ukb_infer.training.loop import MemberTrainer, Progress


@dataclass(frozen=True)
class Standardization:
    """Mean and standard deviation of the labels training saw: (T,) float64 each."""

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]

    @classmethod
    def fit(cls, labels: NDArray[np.float64], targets: Sequence[str]) -> Standardization:
        """Fit on (N, T) labels, NaN where missing.

        Raises:
            UsageError: a target has no two different labels.
        """
        sd = np.nanstd(labels, axis=0)
        for name, value in zip(targets, sd, strict=True):
            if not value > 0:
                raise UsageError(f"--targets: {name} has no two different labels, so it cannot be learned")
        return cls(np.nanmean(labels, axis=0), sd)

    def apply(self, labels: NDArray[np.float64]) -> NDArray[np.float32]:
        """Labels in standardized units, NaN kept."""
        return np.asarray((labels - self.mean) / self.sd, np.float32)


@dataclass(frozen=True)
class _Job:
    config: TrainConfig
    member: int
    data: LabelledProjections
    images_path: Path | None
    standardization: Standardization
    folder: Path
    device: str
    threads: int


def _member_rows(
    config: TrainConfig, member: int, data: LabelledProjections
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train and to validate one member on."""
    rows = np.arange(len(data.images))
    if config.folds == 0:
        return rows, rows[:0]
    fold = participant_folds(data.participants, config.folds, config.seed)
    left_out = fold == member % config.folds
    return rows[~left_out], rows[left_out]


def train_member(job: _Job, progress: Progress | None = None) -> dict[str, torch.Tensor]:
    """Train (or go on training) one member and return its best weights."""
    torch.set_num_threads(job.threads)
    data = job.data
    if job.images_path is not None:
        data = replace(data, images=np.load(job.images_path, mmap_mode="r"))
    train_rows, valid_rows = _member_rows(job.config, job.member, data)
    trainer = MemberTrainer(
        job.config,
        job.member,
        data,
        job.standardization.apply(data.labels),
        train_rows,
        valid_rows,
        job.folder / f"member{job.member + 1}",
        job.device,
    )
    trainer.run(progress)
    return {k: v.cpu() for k, v in trainer.best.items()}


def _train_in_process(job: _Job) -> tuple[int, dict[str, NDArray[np.generic]]]:
    def report(iteration: int, total: int, loss: float, best: float) -> None:
        print(
            f"member {job.member + 1}: {iteration}/{total}  loss {loss:.3f}  best validation NLL {best:.3f}", flush=True
        )

    weights = train_member(job, report)
    return job.member, {k: v.numpy() for k, v in weights.items()}


def train_members(
    config: TrainConfig,
    data: LabelledProjections,
    standardization: Standardization,
    folder: Path,
    *,
    images_path: Path | None = None,
    device: str = "cpu",
    processes: int = 1,
) -> list[MeanVarianceNetwork]:
    """Train every member, several at a time on a CPU; a repeated call continues from the checkpoints.

    Args:
        config: how.
        data: projections and labels.
        standardization: of the labels.
        folder: working folder.
        images_path: .npy of the images, so that other processes map it instead of receiving it.
        device: torch device.
        processes: members trained at a time, each on its share of the cores.

    Returns:
        The members with their best weights.
    """
    from ukb_infer.networks import build_network

    threads = max(1, torch.get_num_threads() // processes)
    lean = replace(data, images=np.empty((len(data.labels), 0), np.uint8)) if images_path else data
    jobs = [_Job(config, k, lean, images_path, standardization, folder, device, threads) for k in range(config.members)]
    if processes == 1:
        results = [_train_in_process(job) for job in jobs]
    else:
        with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
            results = list(pool.imap_unordered(_train_in_process, jobs))
    networks = []
    for _, weights in sorted(results, key=lambda r: r[0]):
        network = build_network(config.backbone, len(data.targets))
        network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()})
        networks.append(network.eval())
    return networks


def make_manifest(
    name: str,
    version: str,
    config: TrainConfig,
    targets: Sequence[str],
    standardization: Standardization,
    *,
    intended_use: str,
    provenance: str,
    warning: str,
    licence: str = "Apache-2.0",
) -> ModuleManifest:
    """Manifest of freshly trained members, not calibrated yet."""
    entries = []
    for k, target in enumerate(targets):
        spec = get_target(target)
        entries.append(
            ModuleTarget(
                spec.name,
                spec.unit,
                spec.field,
                spec.kind,
                spec.lower,
                spec.upper,
                float(standardization.mean[k]),
                float(standardization.sd[k]),
                1.0,
                Calibration(),
            )
        )
    scaling = config.scaling
    return ModuleManifest(
        name,
        version,
        intended_use,
        provenance,
        warning,
        licence,
        RECIPE,
        config.backbone,
        scaling.scale,
        scaling.offset,
        scaling.size,
        tuple(entries),
        (),
    )


def predict_in_batches(module: InferenceModule, images: NDArray[np.uint8], batch_size: int = 50) -> Mixture:
    """Estimates of many projections in natural units: (N, T) each part."""
    parts = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.array(images[start : start + batch_size]))
        parts.append(module.to_estimates(module.predict_standardized(batch)))
    return Mixture(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("mean", "aleatoric", "epistemic")))


def fit_calibration(
    manifest: ModuleManifest,
    predictions: Mixture,
    labels: NDArray[np.float64],
    fitted_on: str,
    *,
    factor: str = "coverage",
    conformal: bool = True,
) -> ModuleManifest:
    """Fit the calibration of every target on predictions for scans that no member saw.

    Args:
        manifest: of the module, uncalibrated.
        predictions: (N, T) in natural units.
        labels: (N, T) in natural units, NaN where missing.
        fitted_on: for the manifest.
        factor: ``coverage`` (published matching) or ``closed-form``.
        conformal: keep conformal half widths as well and use them for the intervals.
    """
    fit = {"coverage": variance_factor_coverage, "closed-form": variance_factor_closed_form}[factor]
    targets = []
    for k, target in enumerate(manifest.targets):
        mean, variance = predictions.mean[:, k], predictions.total_variance[:, k]
        scale = fit(labels[:, k], mean, variance)
        widths = conformal_table(labels[:, k], mean, variance * scale) if conformal else {}
        method = "conformal" if conformal else "variance-factor"
        calibration = Calibration(method, scale, tuple(sorted(widths.items())), fitted_on)  # type: ignore[arg-type]
        targets.append(replace(target, calibration=calibration))
    return replace(manifest, targets=tuple(targets))
