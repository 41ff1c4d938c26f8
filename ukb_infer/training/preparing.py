"""What ``train`` and ``cross-validate`` share: from a request to trained members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer._version import __version__
from ukb_infer.errors import UsageError
from ukb_infer.execution import usable_cores
from ukb_infer.labels import Labels, read_definitions, read_labels
from ukb_infer.modules import ModuleManifest
from ukb_infer.networks import MeanVarianceNetwork
from ukb_infer.training.dataset import participant_folds
from ukb_infer.training.distributed import Ranks
from ukb_infer.training.ensemble import UNCALIBRATED, Standardization, make_manifest, train_members
from ukb_infer.training.packing import Packed, line_up, pack
from ukb_infer.training.recipe import training_recipe
from ukb_infer.training.request import TrainRequest
from ukb_infer.training.work import claim_work

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything a training needs, resolved.

    Attributes:
        request: with defaults resolved.
        labels: the labels.
        packed: matched projections and labels.
        standardization: of the labels.
        fold: (N,) fold of every scan, or None.
        device: of this process.
        processes: members trained at a time.
        threads: of each member.
    """

    request: TrainRequest
    labels: Labels
    packed: Packed
    standardization: Standardization
    fold: NDArray[np.int64] | None
    device: str
    processes: int
    threads: int

    def train(self, *, show: bool = True) -> list[MeanVarianceNetwork]:
        """Train all members, or resume; ``show`` displays progress on stderr."""
        request, packed = self.request, self.packed
        return train_members(
            request.config, packed.data, self.standardization, request.work_folder, images_path=packed.images_path,
            fold=self.fold, device=self.device, init=request.init, processes=self.processes, threads=self.threads,
            show=show,
        )  # fmt: skip

    def recipe(self, networks: int) -> dict[str, Any]:
        """Training recipe of the networks just trained; ``networks`` of them predict a scan."""
        request, packed = self.request, self.packed
        return training_recipe(
            request.config, networks=networks, targets=packed.data.targets, keys=packed.keys, labels=packed.data.labels,
            projection_recipe=packed.recipe.name, init=request.init, stratify=request.stratify,
        )  # fmt: skip

    def manifest(self) -> ModuleManifest:
        """Manifest of the networks just trained."""
        request, data = self.request, self.packed.data
        scans, people = len(data.labels), np.unique(data.participants).size
        return make_manifest(
            request.out.name, "1.0.0", request.config, data.targets, self.standardization,
            intended_use=request.intended_use,
            provenance=f"Trained by `ukb-infer train` {__version__} on {scans} scans of {people} participants.",
            warning=" ".join(part for part in (request.warning, UNCALIBRATED) if part), licence="",
            specs=self.labels.specs, training=self.recipe(request.config.ensemble.members),
            recipe=self.packed.recipe.name,
        )  # fmt: skip


def read_request_labels(request: TrainRequest, say: Say) -> Labels:
    """Labels of the targets to learn.

    Args:
        request: what to train.
        say: receives one line per target.

    Raises:
        UsageError: unusable labels, or an objective that cannot learn them.
    """
    definitions = read_definitions(request.define) if request.define else {}
    labels = read_labels(request.labels, request.targets, units=request.units, definitions=definitions)
    for summary in labels.summaries:
        say(str(summary))
    objective = request.config.objective
    if objective.on_masks:
        raise UsageError("segmentation learns from masks of volumes; use `ukb-infer adapt`", field="objective")
    others = [name for name in labels.targets if not labels.specs[name].is_binary]
    if objective.head == "class" and others:
        raise UsageError(f"classification learns 0/1 targets only, not {', '.join(others[:6])}", field="objective")
    return labels


def prepare(request: TrainRequest, labels: Labels, device: str, say: Say) -> Prepared:
    """Match projections and labels, and resolve all defaults.

    Args:
        request: what to train.
        labels: of :func:`read_request_labels`.
        device: of this process.
        say: receives messages about the data.

    Raises:
        UsageError: a target that cannot be learned, or not with these settings.
        RunError: missing files, or a working folder with another training.
    """
    packed = pack(request.projections, labels, request.work_folder, say)
    config = request.config.resolved(len(packed.keys))
    config.network.scaling.check(packed.recipe.shape[1:])
    request = replace(request, config=config)
    _describe(packed, say)
    if config.augmentation.flip and any(name.endswith(("Left", "Right")) for name in labels.targets):
        raise UsageError("swaps left and right, but some targets are of one side; set it to false", field="flip")
    standardization = Standardization.of(config.objective, packed.data.labels, labels.targets)
    fold = _folds(request, packed)
    cores = usable_cores()
    processes = request.processes or (min(config.ensemble.members, cores) if device == "cpu" else 1)
    if Ranks.current().world > 1:
        processes = 1
    threads = claim_work(request, packed, request.threads or max(1, cores // processes))
    return Prepared(
        request=request, labels=labels, packed=packed, standardization=standardization, fold=fold, device=device,
        processes=processes, threads=threads,
    )  # fmt: skip


def _describe(packed: Packed, say: Say) -> None:
    participants = np.unique(packed.data.participants).size
    say(
        f"{len(packed.keys)} labelled scans of {participants} participants; {packed.without_label} projections have no "
        "label and are left out"
    )
    missing = np.isnan(packed.data.labels).mean(axis=0)
    for name, share in zip(packed.data.targets, missing, strict=True):
        if share > 0:
            say(f"{name}: {100 * share:.0f} % of the labels are missing")


def _folds(request: TrainRequest, packed: Packed) -> NDArray[np.int64] | None:
    ensemble, targets, by = request.config.ensemble, packed.data.targets, None
    if not ensemble.folds:
        return None
    if request.stratify:
        if request.stratify not in targets:
            raise UsageError(f"{request.stratify!r} is not one of the targets ({', '.join(targets)})", field="stratify")
        by = packed.data.labels[:, targets.index(request.stratify)]
    return participant_folds(packed.data.participants, ensemble.folds, ensemble.seed, by)


def count_only(request: TrainRequest, labels: Labels, say: Say) -> None:
    """Dry run: report what would be trained.

    Args:
        request: what to train.
        labels: of :func:`read_request_labels`.
        say: receives messages.

    Raises:
        UsageError: a target that cannot be learned.
        RunError: no projections, or none with a label.
    """
    keys, values = line_up(request.projections, labels, say)
    labelled = int(np.isfinite(values).any(axis=1).sum())
    Standardization.fit(values, labels.targets)
    members = request.config.ensemble.members
    say(f"{labelled} of {len(keys)} projections have a label; {members} members would be trained")
    say(f"about {0.2 * labelled:.0f} MB of packed projections in {request.work_folder}; nothing was written (dry run)")
