"""Train the members of an ensemble and make a module of them (floor 4)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution import Failure, run_in_workers
from ukb_infer.geometry import RECIPE
from ukb_infer.modules import Calibration, InferenceModule, ModuleManifest, ModuleTarget
from ukb_infer.networks import MeanVarianceNetwork
from ukb_infer.networks.build import Init
from ukb_infer.regression import Mixture, conformal_table, variance_factor_closed_form, variance_factor_coverage
from ukb_infer.targets import TargetSpec, get_target
from ukb_infer.training.config import TrainConfig
from ukb_infer.training.dataset import LabelledProjections, participant_folds
from ukb_infer.training.loop import MemberTrainer, Progress
from ukb_infer.training.progress import MemberDisplay


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
    fold: NDArray[np.int64] | None
    folder: Path
    device: str
    init: Init
    threads: int
    parent: int
    show: bool


def member_rows(
    config: TrainConfig, member: int, fold: NDArray[np.int64] | None, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train and to validate one member on: member k leaves out fold k modulo the folds.

    Args:
        config: of the ensemble.
        member: number of the member from 0.
        fold: (N,) fold of every scan, None for training on everything.
        count: N.
    """
    rows = np.arange(count)
    if fold is None:
        return rows, rows[:0]
    left_out = fold == member % config.folds
    return rows[~left_out], rows[left_out]


def train_member(job: _Job, progress: Progress | None = None) -> dict[str, torch.Tensor]:
    """Train (or go on training) one member and return its best weights."""
    torch.set_num_threads(job.threads)
    data = job.data
    if job.images_path is not None:
        data = replace(data, images=np.load(job.images_path, mmap_mode="r"))
    train_rows, valid_rows = member_rows(job.config, job.member, job.fold, len(data.labels))
    trainer = MemberTrainer(
        job.config,
        job.member,
        data,
        job.standardization.apply(data.labels),
        train_rows,
        valid_rows,
        job.folder / f"member{job.member + 1}",
        job.device,
        job.init,
    )
    trainer.run(progress)
    return {k: v.cpu() for k, v in trainer.best.items()}


def _train_in_process(job: _Job) -> tuple[int, dict[str, NDArray[np.generic]]]:
    display = MemberDisplay(job.member, job.config.validate_every, show=job.show)

    def report(iteration: int, total: int, loss: float, best: float) -> None:
        if job.parent not in (os.getpid(), os.getppid()):
            os._exit(1)  # the command was killed: what continues it must not meet a second writer
        display(iteration, total, loss, best)

    try:
        weights = train_member(job, report)
    finally:
        display.close()
    return job.member, {k: v.numpy() for k, v in weights.items()}


def train_members(
    config: TrainConfig,
    data: LabelledProjections,
    standardization: Standardization,
    folder: Path,
    *,
    images_path: Path | None = None,
    fold: NDArray[np.int64] | None = None,
    device: str = "cpu",
    init: Init = "random",
    processes: int = 1,
    threads: int = 0,
    show: bool = True,
) -> list[MeanVarianceNetwork]:
    """Train every member, several at a time on a CPU; a repeated call continues from the checkpoints.

    Args:
        config: how.
        data: projections and labels.
        standardization: of the labels.
        folder: working folder.
        images_path: .npy of the images, so that other processes map it instead of receiving it.
        fold: (N,) fold of every scan; None makes folds by participant where ``config.folds`` asks for them.
        device: torch device.
        init: initial weights of the backbone.
        processes: members trained at a time, each on its share of the cores.
        threads: of each member; 0 for its share of the cores. Part of what decides the bits.
        show: display progress on stderr.

    Returns:
        The members with their best weights.

    Raises:
        RunError: a member's loss is not finite, its files cannot be written, or its process died twice.
    """
    from ukb_infer.networks import build_network

    if fold is None and config.folds:
        fold = participant_folds(data.participants, config.folds, config.seed)
    threads = threads or max(1, torch.get_num_threads() // processes)
    lean = replace(data, images=np.empty((len(data.labels), 0), np.uint8)) if images_path else data
    jobs = [
        _Job(
            config, k, lean, images_path, standardization, fold, folder, device, init, threads, os.getpid(), show
        )
        for k in range(config.members)
    ]  # fmt: skip
    results: list[tuple[int, dict[str, NDArray[np.generic]]]] = []
    if processes == 1:
        results = [_train_in_process(job) for job in jobs]
    else:
        for index, result in run_in_workers(_train_in_process, jobs, workers=processes):
            if isinstance(result, Failure):
                raise RunError(f"member {index + 1}: {result.detail.removeprefix('RunError: ')}")
            results.append(result)
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
    specs: Mapping[str, TargetSpec] | None = None,
) -> ModuleManifest:
    """Manifest of freshly trained members, not calibrated yet.

    Args:
        name: of the module.
        version: of its release.
        config: of the training.
        targets: names in the order of the head.
        standardization: of the labels.
        intended_use: one sentence.
        provenance: how it was made.
        warning: shown wherever the module could be mistaken.
        licence: of the weights.
        specs: targets that are not in the registry.
    """
    entries = []
    for k, target in enumerate(targets):
        spec = specs[target] if specs is not None and target in specs else get_target(target)
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


def predict_in_batches(
    module: InferenceModule,
    images: NDArray[np.uint8],
    batch_size: int = 50,
    rows: NDArray[np.int64] | None = None,
) -> Mixture:
    """Estimates of many projections in natural units: (N, T) each part.

    Args:
        module: that predicts.
        images: (N, 3, 256, 256) uint8, possibly a memory map.
        batch_size: projections at a time.
        rows: which of the images; None for all.
    """
    rows = np.arange(len(images)) if rows is None else rows
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = torch.from_numpy(np.array(images[rows[start : start + batch_size]]))
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
