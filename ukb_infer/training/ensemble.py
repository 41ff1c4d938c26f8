"""Train the members of an ensemble and make a module of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution import Failure, run_in_workers
from ukb_infer.imaging.recipes import DEFAULT_RECIPE, get_recipe
from ukb_infer.modules import Calibration, InferenceModule, ModuleManifest, ModuleTarget
from ukb_infer.modules.manifest import ModuleInput, ModuleNetwork, ModuleOutputs
from ukb_infer.networks.build import Init
from ukb_infer.regression import Mixture
from ukb_infer.targets import TargetSpec, get_target
from ukb_infer.training.config import TrainConfig
from ukb_infer.training.dataset import LabelledImages, participant_folds, validation_rows
from ukb_infer.training.objectives import Objective
from ukb_infer.training.progress import MemberDisplay
from ukb_infer.training.trainer import Trainer

#: Projections at a time.
PREDICTED_AT_ONCE = 50
#: Shown by every command until ``calibrate`` has run.
UNCALIBRATED = "Not calibrated: its intervals use the networks' own sd; run `ukb-infer calibrate`."
UNCALIBRATED_CLASS = "Not calibrated: too few labels of a class."


@dataclass(frozen=True)
class Standardization:
    """Mean and standard deviation of the training labels: (T,) float64 each."""

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]

    @classmethod
    def fit(cls, labels: NDArray[np.float64], targets: Sequence[str]) -> Standardization:
        """Fit on labels.

        Args:
            labels: (N, T) in natural units, NaN where missing.
            targets: T names, for the message.

        Raises:
            UsageError: a target has fewer than two different labels.
        """
        for name, values in zip(targets, labels.T, strict=True):
            if np.unique(values[np.isfinite(values)]).size < 2:
                raise UsageError(f"{name} has fewer than two different labels; leave it out", field="targets")
        return cls(np.nanmean(labels, axis=0), np.nanstd(labels, axis=0))

    @classmethod
    def of(cls, objective: Objective, labels: NDArray[np.float64], targets: Sequence[str]) -> Standardization:
        """As an objective learns the labels: fitted on them, or none.

        Args:
            objective: that learns.
            labels: (N, T) in natural units, NaN where missing.
            targets: T names, for the message.

        Raises:
            UsageError: a target has fewer than two different labels.
        """
        fitted = cls.fit(labels, targets)
        return fitted if objective.standardizes else cls(np.zeros(len(targets)), np.ones(len(targets)))

    def apply(self, labels: NDArray[np.float64]) -> NDArray[np.float32]:
        """Labels in standardized units, NaN kept."""
        return np.asarray((labels - self.mean) / self.sd, np.float32)


def member_rows(
    config: TrainConfig, member: int, fold: NDArray[np.int64] | None, participants: NDArray[np.str_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train and to validate one member on.

    Member k leaves out fold k modulo the folds, which influences nothing about it. Of the rest, a share of the
    participants, drawn for this member, is its validation set; or it is the fold itself (``on_fold``), for few labels.

    Args:
        config: of the ensemble.
        member: number of the member from 0.
        fold: (N,) fold of every scan, None if no fold is left out.
        participants: (N,) participant of every scan.
    """
    rows = np.arange(len(participants))
    if fold is not None:
        own = fold == member % config.ensemble.folds
        if config.validation.on_fold:
            return rows[~own], rows[own]
        rows = rows[~own]
    valid = validation_rows(participants, rows, config.validation.share, config.ensemble.seed + member)
    return rows[~np.isin(rows, valid)], valid


@contextmanager
def _borrowed_torch(threads: int, deterministic: bool, device: str) -> Iterator[None]:
    """Set threads, generators and kernels for one member; restore the caller's afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic or before[1])
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])


def _train_member(
    member: int, config: TrainConfig, data: LabelledImages, standardization: Standardization, folder: Path, *,
    images_path: Path | None, masks_path: Path | None, fold: NDArray[np.int64] | None, device: str, init: Init,
    threads: int, parent: int, show: bool,
) -> dict[str, NDArray[np.generic]]:  # fmt: skip
    """Train (or resume) one member and return its best weights."""
    display = MemberDisplay(member, config.validation.every, config.objective.measures[0], show=show)

    def report(iteration: int, total: int, loss: float, best: float) -> None:
        if parent not in (os.getpid(), os.getppid()):
            os._exit(1)  # the command was killed: a resumed one must not meet a second writer
        display(iteration, total, loss, best)

    if images_path is not None:
        data = replace(data, images=np.load(images_path, mmap_mode="r"))
    if masks_path is not None:
        data = replace(data, masks=np.load(masks_path, mmap_mode="r"))
    rows, own = member_rows(config, member, fold, data.participants), folder / f"member{member + 1}"
    with _borrowed_torch(threads, config.numerics.deterministic, device):
        trainer = Trainer(config, member, data, standardization.apply(data.labels), *rows, own, device, init)
        try:
            weights = trainer.run(report)
        finally:
            display.close()
    return {k: v.cpu().numpy() for k, v in weights.items()}


def train_members(
    config: TrainConfig,
    data: LabelledImages,
    standardization: Standardization,
    folder: Path,
    *,
    images_path: Path | None = None,
    masks_path: Path | None = None,
    fold: NDArray[np.int64] | None = None,
    device: str = "cpu",
    init: Init = "random",
    processes: int = 1,
    threads: int = 0,
    show: bool = True,
) -> list[Any]:
    """Train every member, several at a time on a CPU; a repeated call resumes from the checkpoints.

    Args:
        config: of the training.
        data: images and labels.
        standardization: of the labels.
        folder: working folder.
        images_path: .npy of the images, so that other processes map it instead of receiving it.
        masks_path: the same of the masks.
        fold: (N,) fold of every scan; None makes folds by participant if ``config.folds`` is set.
        device: torch device.
        init: initial weights of the backbone.
        processes: members trained at a time, each on its share of the cores.
        threads: of each member; 0 for its share of the cores. It affects the last bits.
        show: display progress on stderr.

    Returns:
        The members with their best weights.

    Raises:
        RunError: a member's loss is not finite, its files cannot be written, or its process died twice.
    """
    config = config.resolved(len(data.labels))
    if fold is None and config.ensemble.folds:
        fold = participant_folds(data.participants, config.ensemble.folds, config.ensemble.seed)
    threads = threads or max(1, torch.get_num_threads() // processes)
    lean = replace(data, images=np.empty((len(data.labels), 0), data.images.dtype)) if images_path else data
    lean = replace(lean, masks=None) if masks_path else lean
    work = partial(
        _train_member, config=config, data=lean, standardization=standardization, folder=folder,
        images_path=images_path, masks_path=masks_path, fold=fold, device=device, init=init, threads=threads,
        parent=os.getpid(), show=show,
    )  # fmt: skip
    members = range(config.ensemble.members)
    if processes == 1:
        results = {member: work(member) for member in members}
    else:
        results = {}
        for member, result in run_in_workers(work, members, workers=processes):
            if isinstance(result, Failure):
                raise RunError(f"member {member + 1}: {result.detail.removeprefix('RunError: ')}")
            results[member] = result
    return [_network(config, data, results[member]) for member in members]


def _network(config: TrainConfig, data: LabelledImages, weights: Mapping[str, NDArray[Any]]) -> Any:
    """A network with trained weights, to be evaluated."""
    with torch.random.fork_rng([]):  # draws initial weights that are overwritten; the caller's generator stays
        network = config.objective.build_network(
            config.network.backbone, len(data.targets), shape=data.images.shape[1:]
        )
    network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()})
    return network.eval()


def _uncalibrated(spec: TargetSpec, standardization: Standardization, place: int) -> ModuleTarget:
    """Manifest entry of the target at a place of the head, before calibration."""
    mean, sd = float(standardization.mean[place]), float(standardization.sd[place])
    limits = (spec.lower, spec.upper)
    return ModuleTarget(spec.name, spec.unit, spec.field, spec.kind, *limits, mean, sd, 1.0, Calibration("none"))


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
    training: Mapping[str, Any] | None = None,
    recipe: str = DEFAULT_RECIPE,
) -> ModuleManifest:
    """Manifest of newly trained members, not yet calibrated.

    Args:
        name: of the module.
        version: of its release.
        config: of the training.
        targets: names in the order of the head.
        standardization: of the labels.
        intended_use: one sentence.
        provenance: how it was made.
        warning: shown whenever the module is used.
        licence: of the weights.
        specs: targets that are not in the registry.
        recipe: of the projections.
        training: recipe, from :func:`ukb_infer.training.recipe.training_recipe`.
    """
    found = [specs[t] if specs is not None and t in specs else get_target(t) for t in targets]
    entries = tuple(_uncalibrated(spec, standardization, k) for k, spec in enumerate(found))
    channels = get_recipe(recipe).channels
    return ModuleManifest(
        name=name, version=version, intended_use=intended_use, provenance=provenance, warning=warning, licence=licence,
        input=ModuleInput(recipe=recipe, channels=channels, **asdict(config.network.scaling)),
        network=ModuleNetwork(
            encoder=config.network.backbone, log_variance="bounded", head=config.objective.head
        ),
        outputs=ModuleOutputs(entries), training=dict(training or {}),
    )  # fmt: skip


def predict_in_batches(module: InferenceModule, images: NDArray[Any], rows: NDArray[np.int64] | None = None) -> Mixture:
    """Estimates of many projections in natural units: (N, T) each part.

    Args:
        module: that predicts.
        images: (N, channels, rows, cols), possibly a memory map.
        rows: which of the images; None for all.
    """
    rows = np.arange(len(images)) if rows is None else rows
    parts = []
    for start in range(0, len(rows), PREDICTED_AT_ONCE):
        batch = torch.from_numpy(np.array(images[rows[start : start + PREDICTED_AT_ONCE]]))
        parts.append(module.to_estimates(module.predict_standardized(batch)))
    return Mixture(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("mean", "aleatoric", "epistemic")))
