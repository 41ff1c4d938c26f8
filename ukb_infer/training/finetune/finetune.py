"""From labelled cases to a module: train the folds, calibrate on what they left out, save."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer._version import __version__
from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution import RunLock, usable_cores
from ukb_infer.modules import Calibration, InferenceModule, ModuleManifest, ModuleTarget, save_module, verify_module
from ukb_infer.modules.manifest import MANIFEST_NAME, ModuleInput, ModuleNetwork, ModuleOutputs, VolumeInput
from ukb_infer.modules.outliers import MIN_SCANS, OutlierReference, drawn_scans, fit_reference
from ukb_infer.networks.build import check_encoder
from ukb_infer.networks.device import choose_device
from ukb_infer.networks.encoder import need_monai
from ukb_infer.networks.pretrained import ENCODER_NAME, Pretrained, load_pretrained
from ukb_infer.regression import Mixture
from ukb_infer.storage import sha256_file
from ukb_infer.training.calibrate import CalibratedTarget, fit_module
from ukb_infer.training.config import TrainConfig
from ukb_infer.training.dataset import participant_folds
from ukb_infer.training.ensemble import UNCALIBRATED, UNCALIBRATED_CLASS, Standardization, train_members
from ukb_infer.training.finetune.config import FinetuneRequest
from ukb_infer.training.finetune.packing import Drawn, Packed, Progress, draw_cases, pack_cases, stamp_of
from ukb_infer.training.finetune.scores import out_of_fold_words
from ukb_infer.training.history import HISTORY_NAME, read_histories
from ukb_infer.training.preparing import Say
from ukb_infer.training.work import claim

#: Cases of an out-of-fold prediction at a time.
_AT_ONCE = {2: 50, 3: 2}


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for cases by the network that left them out.

    Attributes:
        estimates: (N, T) in natural units.
        dice: (N, T) of a segmentation; None otherwise.
    """

    estimates: Mixture
    dice: NDArray[np.float64] | None


def run_finetune(
    request: FinetuneRequest, say: Say = print, progress: Progress = lambda *_: None, *, show: bool = True
) -> ModuleManifest | None:
    """Adapt an encoder to a task and save a calibrated module; a repeated call resumes.

    Args:
        request: what to adapt.
        say: receives messages.
        progress: told the finished, all and unusable cases while they are read.
        show: display the training's progress on stderr.

    Returns:
        The manifest; None for a dry run.

    Raises:
        UsageError: no labelled cases, a checkpoint of another kind, another training in the work folder, or MONAI is
            missing.
        RunError: no usable case, a loss that is not finite.
    """
    need_monai()
    _check_out(request)
    pretrained = None
    if request.pretrained is not None:
        pretrained = load_pretrained(request.pretrained)
        check_encoder(pretrained.spec, request.dimension, request.preset, request.pretrained)
    read = request.reads(pretrained) if request.dimension == 3 else None
    config, drawn = request.config(pretrained, read), draw_cases(request, say)
    transferred = _transferred(config, request, read, say)
    if request.dry_run:
        steps = config.optimization.iterations
        say(f"{request.folds} networks of {steps} steps would be trained; nothing was written (dry run)")
        return None
    request.work_folder.mkdir(parents=True, exist_ok=True)
    with RunLock(request.work_folder):
        processes, threads = _claim(drawn, config, request, read)
        packed = pack_cases(drawn, request, read, say, progress)
        networks = _train(packed, config, request, processes, threads, show=show)
        manifest = _manifest(packed, config, request, pretrained, transferred)
        manifest = _finish(manifest, networks, packed, config, request, say)
    if problems := verify_module(request.out):
        raise RunError(f"{request.out}: written but damaged: {problems[0]}; check the storage and adapt again")
    say(f"module {request.out}: {len(networks)} networks, {', '.join(manifest.target_names)}; use it with `predict`")
    return manifest


def _check_out(request: FinetuneRequest) -> None:
    """Refuse to replace a finished module, before training starts."""
    if request.out.is_file():
        raise UsageError(f"{request.out} is a file, expected a folder", field="out")
    if not request.overwrite and request.out.is_dir() and any(request.out.iterdir()):
        done = (request.out / MANIFEST_NAME).is_file()
        what = "contains a finished module; choose another folder or use `overwrite`" if done else "is not empty"
        raise UsageError(f"`out` {request.out} {what}")


def _transferred(config: TrainConfig, request: FinetuneRequest, read: VolumeInput | None, say: Say) -> float:
    """Share of a network's weights that come from the checkpoint; complains about one that does not fit."""
    if request.pretrained is None:
        say("from random weights: no checkpoint is used")
        return 0.0
    shape = (3, 1, 1) if read is None else read.form.shape
    with torch.random.fork_rng([]):
        network = config.objective.build_network(
            config.network.backbone, len(request.targets), request.pretrained, shape
        )
    sizes = {name: value.numel() for name, value in network.model.state_dict().items()}
    share = float(sum(sizes[name] for name in network.transfer.loaded) / sum(sizes.values()))
    rest = ", ".join(dict.fromkeys(name.split(".")[0] for name in network.transfer.random)) or "none"
    say(f"{100 * share:.1f} % of the weights come from {request.pretrained}; random: {rest}")
    return share


def _claim(drawn: Drawn, config: TrainConfig, request: FinetuneRequest, read: VolumeInput | None) -> tuple[int, int]:
    """Refuse to resume another adaptation; returns members at a time, and the threads of each."""
    cores, work = usable_cores(), request.work_folder
    on_cpu = choose_device(request.device).type == "cpu"
    processes = request.processes or (min(request.folds, cores) if on_cpu else 1)

    def remove() -> None:
        for member in work.glob("member*"):
            shutil.rmtree(member)

    settings = {
        "config": json.loads(json.dumps(config.flat())) | {"task": request.task, "shots": request.shots or "all"},
        "targets": [spec.name for spec in request.targets],
        "init": "random" if request.pretrained is None else sha256_file(request.pretrained / ENCODER_NAME)[:16],
        "cases": stamp_of(drawn, request, read),
        "threads": request.threads or max(1, cores // processes),
    }
    return processes, int(claim(work, settings, overwrite=request.overwrite, remove=remove)["threads"])


def _train(
    packed: Packed, config: TrainConfig, request: FinetuneRequest, processes: int, threads: int, *, show: bool
) -> list[Any]:
    """Train the members, or resume."""
    data, init = packed.data, request.pretrained or "random"
    standardization = Standardization.of(config.objective, data.labels, data.targets)
    return train_members(
        config, data, standardization, request.work_folder, images_path=packed.images_path,
        masks_path=packed.masks_path, fold=_folds(packed, request), device=choose_device(request.device).type,
        init=init, processes=processes, threads=threads, show=show,  # type: ignore[arg-type]
    )  # fmt: skip


def _folds(packed: Packed, request: FinetuneRequest) -> NDArray[np.int64]:
    """Folds by participant, with similar labels."""
    return participant_folds(packed.data.participants, request.folds, request.seed, packed.data.labels[:, 0])


# -- the module --------------------------------------------------------------------------------------------------------


def _manifest(
    packed: Packed, config: TrainConfig, request: FinetuneRequest, pretrained: Pretrained | None, transferred: float
) -> ModuleManifest:
    """Manifest of the networks, not yet calibrated."""
    data, people = packed.data, np.unique(packed.data.participants).size
    standardization = Standardization.of(config.objective, data.labels, data.targets)
    segments = request.output == "segmentation"
    targets = tuple(
        ModuleTarget(
            spec.name, spec.unit, spec.field, "binary" if request.output == "class" else "continuous", spec.lower,
            spec.upper, float(standardization.mean[k]), float(standardization.sd[k]), 1.0, Calibration("none"),
            k + 1 if segments else None,
        )
        for k, spec in enumerate(request.targets)
    )  # fmt: skip
    read = packed.read
    if isinstance(read, ModuleInput):
        scaling = config.network.scaling
        read = replace(read, scale=scaling.scale, offset=scaling.offset, size=scaling.size)
    start = "random weights" if request.pretrained is None else f"the checkpoint {request.pretrained.name}"
    warnings = (request.warning, "" if pretrained is None else pretrained.warning)
    return ModuleManifest(
        name=request.out.name, version="1.0.0", intended_use=request.title,
        provenance=f"Adapted by `ukb-infer adapt` {__version__} to {request.task} from {start} on "
        f"{len(packed.data.labels)} cases of {people} participants.",
        warning=" ".join(part for part in warnings if part), licence="", input=read,
        network=ModuleNetwork(
            encoder=config.network.backbone, log_variance="plain" if segments else "bounded",
            dimension=request.dimension, head=config.objective.head,
        ),
        outputs=ModuleOutputs(targets), training=_recipe(packed, config, request, transferred),
    )  # fmt: skip


def _recipe(packed: Packed, config: TrainConfig, request: FinetuneRequest, transferred: float) -> dict[str, Any]:
    settings = json.loads(json.dumps(config.flat()))
    scaling = settings.pop("scaling")
    init = "random"
    if request.pretrained is not None:
        init = f"{request.pretrained.name} {sha256_file(request.pretrained / ENCODER_NAME)[:16]}"
    recipe: dict[str, Any] = (
        {"task": request.task, "preset": request.preset, "shots": request.shots or "all", "init": init}
        | {"transferred": round(transferred, 4), "cases": len(packed.data.labels)}
        | settings
        | ({f"input_{name}": value for name, value in scaling.items()} if request.dimension == 2 else {})
        | {"labels": hashlib.sha256(np.ascontiguousarray(packed.data.labels).tobytes()).hexdigest()[:16]}
    )
    return recipe


def _finish(
    manifest: ModuleManifest, networks: Sequence[Any], packed: Packed, config: TrainConfig, request: FinetuneRequest,
    say: Say,
) -> ModuleManifest:  # fmt: skip
    """Calibrate on the cases that each network left out, and save."""
    found = predict_left_out(manifest, networks, packed, _folds(packed, request), request)
    note = f"out-of-fold predictions of single networks, {request.folds} folds by participant"
    manifest, fitted = fit_module(manifest, found.estimates, packed.data.labels, note=note)
    for target in (t for t in fitted if t.problem):
        say(f"WARNING: {target.name}: {target.problem}")
    if not any(t.fitted for t in fitted):
        uncalibrated = UNCALIBRATED if request.output != "class" else UNCALIBRATED_CLASS
        manifest = replace(manifest, warning=" ".join(part for part in (manifest.warning, uncalibrated) if part))
    words = out_of_fold_words(manifest, found.estimates, packed.data.labels, packed.data.participants, found.dice)
    for line in words:
        say(f"out of fold: {line}")
    module = InferenceModule(manifest, networks, choose_device(request.device))
    curves = read_histories(request.work_folder, request.folds)
    extra = {"README.md": _readme(manifest, request, words, fitted), HISTORY_NAME: curves}
    return save_module(
        request.out, manifest, networks, overwrite=request.overwrite, extra=extra,
        outliers=_reference(module, packed, say),
    )  # fmt: skip


def predict_left_out(
    manifest: ModuleManifest, networks: Sequence[Any], packed: Packed, fold: NDArray[np.int64], request: FinetuneRequest
) -> OutOfFold:
    """Predict every case with the network that left out its fold.

    Args:
        manifest: of the networks.
        networks: network k left out fold k.
        packed: the cases.
        fold: (N,) of every case.
        request: what is adapted.
    """
    data, device = packed.data, choose_device(request.device)
    parts = {name: np.full(data.labels.shape, np.nan) for name in ("mean", "aleatoric", "epistemic")}
    dice = None if data.masks is None else np.full(data.labels.shape, np.nan)
    for number, network in enumerate(networks):
        module = InferenceModule(manifest, [network], device)
        rows, at_once = np.flatnonzero(fold == number), _AT_ONCE[request.dimension]
        for some in np.array_split(rows, max(1, -(-rows.size // at_once))):
            raw = module.run(torch.from_numpy(np.array(data.images[some])), features=False)
            estimates = module.to_estimates(np.asarray(raw.heads.cpu().numpy()))
            for name, values in parts.items():
                values[some] = getattr(estimates, name)
            if dice is not None and data.masks is not None and raw.probabilities is not None:
                labels = np.asarray(raw.probabilities.argmax(dim=1).cpu().numpy())
                dice[some] = _dice(labels, np.asarray(data.masks[some]), data.labels.shape[1])
    return OutOfFold(Mixture(**parts), dice)


def _dice(found: NDArray[Any], wanted: NDArray[Any], labels: int) -> NDArray[np.float64]:
    """(N, T) Dice on the box; 0 where both are empty, as a label too small for its voxels was missed."""
    scores = np.zeros((len(found), labels))
    for k in range(labels):
        a, b = found == k + 1, wanted == k + 1
        total = a.sum(axis=(1, 2, 3)) + b.sum(axis=(1, 2, 3))
        both = 2.0 * (a & b).sum(axis=(1, 2, 3))
        scores[:, k] = np.where(total > 0, both / np.maximum(total, 1), 0.0)
    return scores


def _reference(module: InferenceModule, packed: Packed, say: Say) -> tuple[OutlierReference, str] | None:
    """What the cases look like to the networks; None for too few."""
    images = packed.data.images
    if len(images) < MIN_SCANS:
        say(
            f"no outlier reference: {len(images)} cases, {MIN_SCANS} are needed; ood_percentile stays empty until "
            "`ukb-infer modules fit-outliers` has seen some without labels"
        )
        return None
    reference, count = fit_reference(module, (np.asarray(images[k]) for k in drawn_scans(len(images))))
    return reference, f"{count} training cases"


def _readme(
    manifest: ModuleManifest, request: FinetuneRequest, words: Sequence[str], fitted: Sequence[CalibratedTarget]
) -> str:
    """The README of the module."""
    recipe, folder = manifest.training, Path(request.out.name)
    calibrated = ", ".join(t.name for t in fitted if t.fitted) or "none"
    lines = [
        f"# {request.out.name}", "", *([f"**{manifest.warning}**", ""] if manifest.warning else []),
        manifest.provenance, "",
        f"- task: {request.task}" + (f" ({request.title})" if request.title else ""),
        f"- input: {manifest.input.form.name}",
        f"- networks: {request.folds} x {manifest.network.encoder}, {recipe['iterations']} steps each; network k kept "
        "the weights that did best on fold k, which it did not learn from",
        f"- {100 * recipe['transferred']:.1f} % of the weights started from: {recipe['init']}",
        f"- calibrated on the folds left out: {calibrated}", "",
        "On the folds left out, by single networks (slightly optimistic, as they chose the weights that were kept):",
        "", *(f"- {line}" for line in words), "",
        f"    ukb-infer predict INPUT --modules {folder} --out run", "",
        "`history.csv`: learning curves. `module.json`: everything else.", "",
    ]  # fmt: skip
    return "\n".join(lines)
