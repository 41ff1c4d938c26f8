"""Several modules together: from batches of images to combined estimates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer.errors import ModuleError, UsageError
from ukb_infer.imaging.recipe import ImageForm
from ukb_infer.modules import Calibration, InferenceModule, ModuleTarget, find_module, load_module, read_manifest
from ukb_infer.modules.combination import combination_key, read_combinations
from ukb_infer.modules.find import default_modules
from ukb_infer.modules.module import RawOutput
from ukb_infer.modules.plausibility import contradictions
from ukb_infer.networks.speed import Precision
from ukb_infer.regression import Mixture, calibrate, combine_modules
from ukb_infer.targets import TARGETS
from ukb_infer.text import suggest


def resolve_modules(names: Sequence[str]) -> list[Path]:
    """Folders of the modules to use: those named, else those of ``UKB_INFER_MODULES``.

    They are sorted by name and content, whatever the given order; the same module under two paths counts once.

    Raises:
        ModuleError: no such module, or a damaged manifest.
    """
    folders = [find_module(name) for name in names] if names else default_modules()
    found: dict[tuple[str, str], tuple[str, Path]] = {}
    for folder in folders:
        manifest = read_manifest(folder)
        reference = manifest.outputs.outliers.sha256 if manifest.outputs.outliers is not None else ""
        key = (manifest.name, manifest.hash)
        if key not in found or found[key][0] < reference:  # of two that differ in it alone the one that has it
            found[key] = (reference, folder.resolve())
    return [found[key][1] for key in sorted(found)]


@dataclass(frozen=True)
class OutputTarget:
    """A target of the run and its source modules.

    Attributes:
        spec: from the first module that has it.
        sources: (module number, index in that module's head), one per module.
        combination: joint calibration of the modules, if there is one.
    """

    spec: ModuleTarget
    sources: tuple[tuple[int, int], ...]
    combination: Calibration | None = None


@dataclass(frozen=True)
class Launched:
    """A batch in flight: its number of scans, and each module's raw outputs on the device."""

    count: int
    raws: list[RawOutput]


class BatchBuffers:
    """Copies images into batches of one size, in pinned memory for a GPU.

    Every batch is padded to the size, so that a result does not depend on the other scans.

    Args:
        recipe: of the images.
        size: of every batch.
        device: where the batches go.
        in_flight: batches in flight at most; each has its own buffer until its result is read.
    """

    def __init__(self, recipe: ImageForm, size: int, device: torch.device, in_flight: int) -> None:
        self.in_flight = in_flight
        blank = torch.from_numpy(np.zeros((size, *recipe.shape), recipe.dtype))
        self._buffers = [blank.pin_memory() if device.type == "cuda" else blank.clone() for _ in range(in_flight)]
        self._turn = 0

    def fill(self, images: Sequence[NDArray[np.generic]]) -> torch.Tensor:
        """The next batch: these images, then zeros."""
        buffer = self._buffers[self._turn]
        self._turn = (self._turn + 1) % len(self._buffers)
        for k, image in enumerate(images):
            buffer[k] = torch.from_numpy(image)
        buffer[len(images) :] = 0
        return buffer


class Engine:
    """Loaded modules on one device; ``launch`` and ``collect`` are a pipeline of batches.

    Args:
        folders: of the modules, in the order of :func:`resolve_modules`.
        device: torch device.
        precision: fp32, bf16 or fp16.
        batch_size: of every batch.
        backend: auto, torch or openvino.

    Attributes:
        buffers: of the batches in flight; two on a GPU, so that the next is filled during the current one.

    Raises:
        ModuleError: a module does not load, or two modules disagree on their recipe or a target's unit.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        device: torch.device,
        precision: Precision,
        batch_size: int,
        backend: str = "auto",
    ) -> None:
        self.modules = [load_module(folder, device, backend=backend, precision=precision) for folder in folders]
        self._combinations = read_combinations(folders)
        self.device, self.precision, self.batch_size = device, precision, batch_size
        self.recipe = _common_recipe(self.modules)
        self.targets = self._join_targets()
        self.buffers = BatchBuffers(self.recipe, batch_size, device, 2 if device.type == "cuda" else 1)

    def _join_targets(self) -> tuple[OutputTarget, ...]:
        joined: dict[str, OutputTarget] = {}
        for number, module in enumerate(self.modules):
            for place, spec in enumerate(module.manifest.targets):
                if spec.name not in joined:
                    joined[spec.name] = OutputTarget(spec, ((number, place),))
                    continue
                known = joined[spec.name]
                _check_same(known.spec, self.modules[known.sources[0][0]], spec, module)
                joined[spec.name] = OutputTarget(known.spec, (*known.sources, (number, place)))
        for name, target in joined.items():
            if len(target.sources) > 1:
                hashes = combination_key([self.modules[n].hash for n, _ in target.sources])
                joined[name] = replace(target, combination=self._combinations.get((hashes, name)))
        order = {name: k for k, name in enumerate(TARGETS)}
        return tuple(sorted(joined.values(), key=lambda t: (order.get(t.spec.name, len(order)), t.spec.name)))

    def select(self, names: Sequence[str]) -> tuple[OutputTarget, ...]:
        """Targets to write.

        Raises:
            UsageError: no module has a target of that name.
        """
        have = {t.spec.name: t for t in self.targets}
        for name in names:
            if name not in have:
                raise UsageError(f"`targets`: no module predicts {name!r}{suggest(name, have)}")
        return tuple(t for t in self.targets if not names or t.spec.name in names)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings in the modules' manifests."""
        return tuple(f"{m.manifest.name}: {m.manifest.warning}" for m in self.modules if m.manifest.warning)

    @property
    def can_overlap(self) -> bool:
        """Whether a batch can be launched before the previous one is collected (on a GPU)."""
        return self.buffers.in_flight > 1

    def predict(self, images: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Estimates of up to ``batch_size`` images.

        Args:
            images: of the modules' recipe, each (channels, ...).

        Returns:
            (N, 3 targets + 2 parts) float64 in natural units: mean, aleatoric and epistemic variance of every target,
            then mean and total variance of each module's own prediction of every target with several modules, and last,
            if a module has an outlier reference, the outlier percentile.
        """
        return self.collect(self.launch(images))

    def launch(self, images: Sequence[NDArray[Any]]) -> Launched:
        """Start a batch; on a GPU this returns at once.

        At most ``buffers.in_flight`` may be in flight before the first is collected.
        """
        batch = self.buffers.fill(images).to(self.device, non_blocking=True)
        return Launched(len(images), [m.launch(batch, self.precision) for m in self.modules])

    def collect(self, launched: Launched) -> NDArray[np.float64]:
        """Wait for a batch and run the steps after the networks; returns the same as :meth:`predict`."""
        count = launched.count
        raws = [np.asarray(raw.heads.cpu().numpy()) for raw in launched.raws]
        mixtures = [m.to_estimates(raw) for m, raw in zip(self.modules, raws, strict=True)]
        features = [None if raw.features is None else raw.features.cpu().numpy() for raw in launched.raws]
        columns, tail = [], []
        for target in self.targets:
            parts = [mixtures[n].select((slice(None), p)) for n, p in target.sources]
            whole = combine_modules(parts, self.weights(target))
            if target.combination is not None:
                whole = calibrate(whole, np.asarray(target.combination.factor))
            columns += [whole.mean, whole.aleatoric, whole.epistemic]
            if len(parts) > 1:
                tail += [column for part in parts for column in (part.mean, part.total_variance)]
        return np.stack([*columns, *tail, *self._outlier_percentiles(features)], axis=1)[:count]

    def probabilities(self, launched: Launched) -> NDArray[np.float32] | None:
        """Of every voxel and label, (N, labels, x, y, z), the background first; None without a segmentation."""
        found = [raw.probabilities for raw in launched.raws if raw.probabilities is not None]
        return np.asarray(found[0][: launched.count].cpu().numpy()) if found else None

    def _outlier_percentiles(self, features: Sequence[NDArray[Any] | None]) -> list[NDArray[np.float64]]:
        """One array of (N,) in 0-100, none where no module knows ordinary scans.

        Of several modules the most surprised one counts, its tail probability times their number (Bonferroni), so that
        ordinary scans are not flagged more often the more modules there are.
        """
        found = [
            m.outliers.percentile(f)
            for m, f in zip(self.modules, features, strict=True)
            if m.outliers is not None and f is not None
        ]
        return [np.maximum(0.0, 100.0 - len(found) * (100.0 - np.max(found, axis=0)))] if found else []

    def contradictions(self, estimate: NDArray[np.float64]) -> list[str]:
        """What one scan's estimates contradict, by the rules of every module with a reference; a sentence each.

        Args:
            estimate: a row of :meth:`predict`. Targets of several modules are left out.
        """
        found = []
        for number, module in enumerate(self.modules):
            if module.outliers is not None and module.outliers.rules:
                own = [k for k, t in enumerate(self.targets) if len(t.sources) == 1 and t.sources[0][0] == number]
                names = [self.targets[k].spec.name for k in own]
                mixture = Mixture(*(estimate[None, [3 * k + part for k in own]] for part in range(3)))
                found += contradictions(module.outliers.rules, names, mixture)
        return found

    @property
    def outlier_hashes(self) -> dict[str, str]:
        """SHA-256 of the outlier reference by module; only of those that have one."""
        entries = {f"{m.manifest.name} {m.hash[:8]}": m.manifest.outputs.outliers for m in self.modules}
        return {name: entry.sha256 for name, entry in entries.items() if entry is not None}

    def weights(self, target: OutputTarget) -> list[int]:
        """Weight of each source of a target: the number of its module's members."""
        return [len(self.modules[n].members) for n, _ in target.sources]

    def calibrations(self, target: OutputTarget) -> list[Calibration]:
        """Calibration of each source of a target, or their joint one."""
        if target.combination is not None:
            return [target.combination]
        return [self.modules[n].manifest.targets[p].calibration for n, p in target.sources]

    @property
    def has_combined(self) -> bool:
        """Whether several modules predict a target."""
        return any(len(t.sources) > 1 for t in self.targets)

    @property
    def combination_hash(self) -> str:
        """Hash of the joint calibrations, for the run's identity; "" if there are none."""
        used = {t.spec.name: asdict(t.combination) for t in self.targets if t.combination is not None}
        return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest() if used else ""


def _common_recipe(modules: Sequence[InferenceModule]) -> ImageForm:
    """The recipe whose images all modules take.

    Raises:
        ModuleError: names the modules of each recipe; or several segment, whose masks would have one name.
    """
    if len(segmenting := [m.manifest.name for m in modules if m.is_segmentation]) > 1:
        raise ModuleError(f"{' and '.join(segmenting)} both write masks; use one of them at a time")
    recipes = {m.recipe.name: m.recipe for m in modules}
    if len(recipes) > 1:
        of_each = (f"{r}: {', '.join(m.manifest.name for m in modules if m.recipe.name == r)}" for r in recipes)
        raise ModuleError(
            f"the modules take images of different recipes ({'; '.join(of_each)}); use those of one recipe"
        )
    return next(iter(recipes.values()))


def _check_same(one: ModuleTarget, first: InferenceModule, other: ModuleTarget, second: InferenceModule) -> None:
    """Refuse modules that disagree on a target.

    Raises:
        ModuleError: names the disagreement.
    """
    for what in ("unit", "kind", "lower", "upper", "field"):
        a, b = getattr(one, what), getattr(other, what)
        if a != b:
            name = {"lower": "lower limit", "upper": "upper limit"}.get(what, what)
            raise ModuleError(
                f"{first.manifest.name} and {second.manifest.name} disagree on the {name} of {one.name}: {a!r} and "
                f"{b!r}; use one of them, or rename the target in one"
            )
