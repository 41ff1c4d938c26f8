"""``train`` and ``cross-validate``: labels and projections in, a module or out-of-fold predictions out (floor 4)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer._version import __version__
from ukb_infer.errors import RunError, UsageError
from ukb_infer.evaluation.crossvalidation import CrossValidation, write_cross_validation
from ukb_infer.execution import RunLock
from ukb_infer.labels import Labels, read_definitions, read_labels
from ukb_infer.modules import InferenceModule, ModuleManifest, save_module, verify_module
from ukb_infer.modules.manifest import MANIFEST_NAME
from ukb_infer.networks import MeanVarianceNetwork
from ukb_infer.networks.build import Init
from ukb_infer.regression import Mixture
from ukb_infer.storage import atomic_write_text, sha256_file
from ukb_infer.training.config import TrainConfig
from ukb_infer.training.dataset import participant_folds
from ukb_infer.training.distributed import Ranks, start_ranks, stop_ranks
from ukb_infer.training.ensemble import Standardization, make_manifest, predict_in_batches, train_members
from ukb_infer.training.packing import Packed, pack

#: Shown by every command until ``calibrate`` was run.
UNCALIBRATED = "Not calibrated: its intervals are as wide as the networks guessed; run `ukb-infer calibrate`."
SETTINGS_NAME = "training.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainRequest:
    """What ``train`` and ``cross-validate`` are asked for.

    Attributes:
        projections: folder written by ``project``.
        labels: table of labels.
        out: folder of the module, or of the out-of-fold predictions.
        config: of the training.
        targets: names, empty for all the table has.
        units: unit of a column or target where it is not the target's own.
        define: TOML with own targets, or None.
        init: initial weights of the backbone.
        work: working folder with checkpoints; None for ``<out>.work`` beside it.
        device: auto, cpu or cuda.
        processes: members trained at a time; 0 takes one a core on a CPU and one on CUDA.
        threads: CPU threads of each member; 0 takes its share of the cores. Kept when a training is continued.
        stratify: target whose distribution is alike in all folds, or "".
        overwrite: replace an existing result.
        dry_run: read, count and stop.
        intended_use: sentence for the manifest.
        warning: for the manifest, shown wherever the module is used.
    """

    projections: Path
    labels: Path
    out: Path
    config: TrainConfig
    targets: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    define: Path | None = None
    init: Init = "random"
    work: Path | None = None
    device: str = "auto"
    processes: int = 0
    threads: int = 0
    stratify: str = ""
    overwrite: bool = False
    dry_run: bool = False
    intended_use: str = ""
    warning: str = ""

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"--device: got {self.device!r}, expected auto, cpu or cuda")
        for name, value in (("--processes", self.processes), ("--threads", self.threads)):
            if value < 0:
                raise UsageError(f"{name}: got {value}, expected 0 or more")
        if self.stratify and not self.config.folds:
            raise UsageError("--stratify has no meaning without --folds")
        if self.config.precision == "bf16" and self.device == "cpu":
            raise UsageError("--precision bf16 needs CUDA; on a CPU use fp32")

    @property
    def work_folder(self) -> Path:
        """Where checkpoints live."""
        return self.work or self.out.with_name(f"{self.out.name}.work")


@dataclass(frozen=True)
class _Prepared:
    """Everything a training needs, resolved."""

    request: TrainRequest
    labels: Labels
    packed: Packed
    standardization: Standardization
    fold: NDArray[np.int64] | None
    device: str
    processes: int
    threads: int


# -- the two commands --------------------------------------------------------------------------------------------------


def run_train(request: TrainRequest, say: Say = print) -> ModuleManifest | None:
    """Train an ensemble and leave a complete, verified module; a repeated call continues.

    Args:
        request: what to train.
        say: receives lines about what is done.

    Returns:
        The manifest; None for a dry run, or in all but the first process started by torchrun.

    Raises:
        UsageError: contradictory options or unusable labels.
        RunError: missing files, another training in the working folder, a loss that is not finite.
    """
    _check_out(request, MANIFEST_NAME)
    labels = _labels(request, say)
    if request.dry_run:
        _dry_run(request, labels, say)
        return None
    device = start_ranks(_device(request.device))
    ranks = Ranks.current()
    request.work_folder.mkdir(parents=True, exist_ok=True)
    try:
        if not ranks.is_first:
            ranks.wait()
            _train(_prepare(request, labels, device, _silent), show=False)
            return None
        with RunLock(request.work_folder):
            prepared = _prepare(request, labels, device, say)
            ranks.wait()
            networks = _train(prepared, show=True)
            extra = {"README.md": _readme(prepared), "history.csv": _histories(request)}
            manifest = save_module(request.out, _manifest(prepared), networks, overwrite=request.overwrite, extra=extra)
    finally:
        stop_ranks()
    problems = verify_module(request.out)
    if problems:
        raise RunError(f"{request.out}: the module was written but does not verify: {problems[0]}")
    say(f"module {request.out}: {len(manifest.members)} members, {len(manifest.targets)} targets, verified")
    return manifest


def run_cross_validate(request: TrainRequest, members_per_fold: int = 1, say: Say = print) -> CrossValidation | None:
    """Predict every scan by networks that never saw its participant; a repeated call continues.

    Args:
        request: what to train; ``config.folds`` folds, ``config.members`` is set here.
        members_per_fold: networks trained for each fold, whose mixture predicts it.
        say: receives lines about what is done.

    Returns:
        The out-of-fold predictions, also written to ``request.out``; None for a dry run.

    Raises:
        UsageError: contradictory options or unusable labels.
        RunError: as for :func:`run_train`.
    """
    config = request.config
    if config.folds < 2:
        raise UsageError(f"--folds: got {config.folds}, expected at least 2")
    if members_per_fold < 1:
        raise UsageError(f"--members: got {members_per_fold}, expected at least 1")
    request = replace(request, config=replace(config, members=config.folds * members_per_fold))
    _check_out(request, "cross_validation.json")
    labels = _labels(request, say)
    if request.dry_run:
        _dry_run(request, labels, say)
        return None
    request.work_folder.mkdir(parents=True, exist_ok=True)
    with RunLock(request.work_folder):
        prepared = _prepare(request, labels, _device(request.device), say)
        networks = _train(prepared, show=True)
        result = _out_of_fold(prepared, networks, members_per_fold)
        request.out.mkdir(parents=True, exist_ok=True)
        files = write_cross_validation(request.out, result)
        atomic_write_text(request.out / "history.csv", _histories(request))
    say(f"{len(result.keys)} scans predicted by networks that never saw their participants: {files[0]}")
    return result


# -- preparing ---------------------------------------------------------------------------------------------------------


def _silent(_: str) -> None:
    """Say nothing."""


def _check_out(request: TrainRequest, name: str) -> None:
    """Refuse to replace a finished result before hours are spent on a new one."""
    out = request.out
    if out.is_file():
        raise UsageError(f"--out {out} is a file, expected a folder")
    if request.overwrite or not out.is_dir() or not any(out.iterdir()):
        return
    if (out / name).is_file():
        raise RunError(f"--out {out} holds a finished result ({name}); choose another folder or pass --overwrite")
    raise RunError(f"--out {out} is not empty; choose another folder")


def _labels(request: TrainRequest, say: Say) -> Labels:
    definitions = read_definitions(request.define) if request.define else {}
    labels = read_labels(request.labels, request.targets, units=request.units, definitions=definitions)
    for summary in labels.summaries:
        say(str(summary))
    return labels


def _device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("--device cuda: torch finds no usable CUDA device; check the driver, or use --device cpu")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _prepare(request: TrainRequest, labels: Labels, device: str, say: Say) -> _Prepared:
    work, config = request.work_folder, request.config
    packed = pack(request.projections, labels, work, say)
    participants = np.unique(packed.data.participants).size
    say(
        f"{len(packed.keys)} labelled scans of {participants} participants; {packed.without_label} projections have no "
        "label and are left out"
    )
    missing = np.isnan(packed.data.labels).mean(axis=0)
    for name, share in zip(labels.targets, missing, strict=True):
        if share > 0:
            say(f"{name}: {100 * share:.0f} % of the labels are missing")
    if config.flip and any(name.endswith(("Left", "Right")) for name in labels.targets):
        raise UsageError("flip exchanges left and right, and targets of one side are to be learned; switch it off")
    standardization = Standardization.fit(packed.data.labels, labels.targets)
    fold = _folds(request, packed)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    processes = request.processes or (min(config.members, cores) if device == "cpu" else 1)
    if Ranks.current().world > 1:
        processes = 1
    settings = _settings(request, packed, request.threads or max(1, cores // processes))
    threads = _check_settings(work, settings, overwrite=request.overwrite)
    return _Prepared(request, labels, packed, standardization, fold, device, processes, threads)


def _folds(request: TrainRequest, packed: Packed) -> NDArray[np.int64] | None:
    config = request.config
    if not config.folds:
        return None
    by = None
    if request.stratify:
        if request.stratify not in packed.data.targets:
            raise UsageError(
                f"--stratify: {request.stratify!r} is none of the targets ({', '.join(packed.data.targets)})"
            )
        by = packed.data.labels[:, packed.data.targets.index(request.stratify)]
    return participant_folds(packed.data.participants, config.folds, config.seed, by)


def _settings(request: TrainRequest, packed: Packed, threads: int) -> dict[str, Any]:
    """Everything that decides the weights, as plain values."""
    index = json.loads((request.work_folder / "projections.json").read_text(encoding="utf-8"))
    labels = packed.data.labels
    return {
        "config": json.loads(json.dumps(asdict(request.config))),
        "targets": list(packed.data.targets),
        "projections": index["stamp"],
        "labels": _digest(labels),
        "init": str(request.init) if not isinstance(request.init, Path) else sha256_file(request.init),
        "stratify": request.stratify,
        "threads": threads,
    }


def _digest(values: NDArray[np.float64]) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _check_settings(work: Path, settings: dict[str, Any], *, overwrite: bool) -> int:
    """Refuse to continue another training; returns the number of threads the first call used."""
    path = work / SETTINGS_NAME
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path}: damaged ({error}); remove {work} to start again") from error
        differences = _differences(before, settings)
        if not differences:
            return int(before["threads"])
        if not overwrite:
            raise RunError(
                f"{work} holds the checkpoints of another training: {'; '.join(differences[:6])}. Repeat that command, "
                "choose another --work, or pass --overwrite to start again"
            )
        _forget(work)
    atomic_write_text(path, json.dumps(settings, indent=2) + "\n")
    return int(settings["threads"])


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, in words; the number of threads may (the first call's is kept)."""
    found = []
    for key in now:
        if key == "threads":
            continue
        if key == "config":
            old, new = before.get("config", {}), now["config"]
            found += [f"{k} was {old.get(k)}, now {new[k]}" for k in new if old.get(k) != new[k]]
        elif before.get(key) != now[key]:
            plain = key in ("targets", "stratify", "init")
            found.append(f"{key} was {before.get(key)}, now {now[key]}" if plain else f"the {key} have changed")
    return found


def _forget(work: Path) -> None:
    """Remove the checkpoints of an earlier training, and nothing else."""
    import shutil

    for member in work.glob("member*"):
        if (member / "history.csv").is_file() or (member / "checkpoint.pt").is_file():
            shutil.rmtree(member)


# -- training ----------------------------------------------------------------------------------------------------------


def _train(prepared: _Prepared, *, show: bool) -> list[MeanVarianceNetwork]:
    config = prepared.request.config
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return train_members(
        config,
        prepared.packed.data,
        prepared.standardization,
        prepared.request.work_folder,
        images_path=prepared.packed.images_path,
        fold=prepared.fold,
        device=prepared.device,
        init=prepared.request.init,
        processes=prepared.processes,
        threads=prepared.threads,
        show=show,
    )


def _manifest(prepared: _Prepared) -> ModuleManifest:
    request, data = prepared.request, prepared.packed.data
    scans, people = len(data.labels), np.unique(data.participants).size
    return make_manifest(
        request.out.name,
        "1.0.0",
        request.config,
        data.targets,
        prepared.standardization,
        intended_use=request.intended_use,
        provenance=f"Trained by `ukb-infer train` {__version__} on {scans} scans of {people} participants.",
        warning=" ".join(part for part in (request.warning, UNCALIBRATED) if part),
        licence="",
        specs=prepared.labels.specs,
    )


def _histories(request: TrainRequest) -> str:
    """Learning curves of all members in one table."""
    lines: list[str] = []
    for member in range(1, request.config.members + 1):
        path = request.work_folder / f"member{member}" / "history.csv"
        content = path.read_text(encoding="utf-8").splitlines()
        if not lines and content:
            lines.append(f"member,{content[0]}")
        lines += [f"{member},{row}" for row in content[1:]]
    return "\n".join(lines) + "\n"


def _readme(prepared: _Prepared) -> str:
    request, data = prepared.request, prepared.packed.data
    config = request.config
    lines = [
        f"# {request.out.name}",
        "",
        *([f"**{request.warning}**", ""] if request.warning else []),
        f"{config.members} {config.backbone} networks trained by `ukb-infer train` {__version__} on {len(data.labels)} "
        f"scans of {np.unique(data.participants).size} participants, {config.iterations} iterations each; "
        + (f"member k left out fold k of {config.folds}." if config.folds else "every member saw all of them."),
        "",
        "| target | unit | labels |",
        "|---|---|---|",
    ]
    counts = np.isfinite(data.labels).sum(axis=0)
    for name, count in zip(data.targets, counts, strict=True):
        lines.append(f"| {name} | {prepared.labels.specs[name].unit} | {count} |")
    return "\n".join([*lines, "", "`history.csv`: learning curves. `module.json`: everything else.", ""])


def _out_of_fold(prepared: _Prepared, networks: list[MeanVarianceNetwork], members_per_fold: int) -> CrossValidation:
    """Predict each fold by the networks that left it out."""
    data, config, fold = prepared.packed.data, prepared.request.config, prepared.fold
    assert fold is not None
    images = np.load(prepared.packed.images_path, mmap_mode="r")
    manifest = _manifest(prepared)
    device = torch.device(prepared.device)
    parts = {name: np.full(data.labels.shape, np.nan) for name in ("mean", "aleatoric", "epistemic")}
    for number in range(config.folds):
        rows = np.flatnonzero(fold == number)
        module = InferenceModule(manifest, networks[number :: config.folds], device)
        predicted = predict_in_batches(module, images, rows=rows)
        for name, values in parts.items():
            values[rows] = getattr(predicted, name)
    targets = [
        {"name": t.name, "unit": t.unit, "field": t.field, "kind": t.kind, "lower": t.lower, "upper": t.upper}
        for t in manifest.targets
    ]
    facts = {
        "targets": targets,
        "folds": config.folds,
        "members_per_fold": members_per_fold,
        "config": json.loads(json.dumps(asdict(config))),
        "version": __version__,
        "warning": prepared.request.warning,
    }
    return CrossValidation(prepared.packed.keys, fold, Mixture(**parts), data.labels, facts)


def _dry_run(request: TrainRequest, labels: Labels, say: Say) -> None:
    from ukb_infer.records import ScanKey

    if not request.projections.is_dir():
        raise RunError(f"--projections {request.projections}: no such folder")
    keys = [ScanKey.from_name(p.stem) for p in sorted(request.projections.glob("*.npy"))]
    labelled = int(np.isfinite(labels.matrix(keys)).any(axis=1).sum()) if keys else 0
    checkpoint = 0.2 * labelled
    say(f"{labelled} of {len(keys)} projections have a label; {request.config.members} members would be trained")
    say(f"about {checkpoint:.0f} MB of packed projections in {request.work_folder}; nothing was written (--dry-run)")
