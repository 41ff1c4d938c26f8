"""Modules together: batches of projections in, combined estimates out (floor 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer.errors import ModuleError, UsageError
from ukb_infer.geometry import PROJECTION_SHAPE
from ukb_infer.modules import InferenceModule, ModuleTarget, default_modules, find_module, load_module
from ukb_infer.regression import Mixture, combine_modules
from ukb_infer.targets import TARGETS, suggest


def resolve_modules(names: Sequence[str]) -> list[Path]:
    """Folders of the modules to use: those named, else those of ``UKB_INFER_MODULES``."""
    folders = [find_module(name) for name in names] if names else default_modules()
    return list(dict.fromkeys(folder.resolve() for folder in folders))


@dataclass(frozen=True)
class OutputTarget:
    """A target of the run and where it comes from: (module number, its place in that module's head)."""

    spec: ModuleTarget
    sources: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Launched:
    """A batch under way: scans in it, and each module's raw outputs on the device, (K, N, T, 2)."""

    count: int
    raws: list[torch.Tensor]


class Engine:
    """Loaded modules on one device.

    Args:
        folders: of the modules.
        device: torch device.
        precision: fp32, bf16 or fp16.
        batch_size: every batch is padded to it, so that a result does not depend on the scan's companions.
        backend: auto, torch or openvino.

    Raises:
        ModuleError: a module does not load, or two modules disagree about a target's unit.
    """

    def __init__(
        self, folders: Sequence[Path], device: torch.device, precision: str, batch_size: int, backend: str = "auto"
    ) -> None:
        self.modules: list[InferenceModule] = [
            load_module(folder, device, backend=backend, precision=precision)  # type: ignore[arg-type]
            for folder in folders
        ]
        self.device, self.precision, self.batch_size = device, precision, batch_size
        self.targets = self._join_targets()
        pinned = device.type == "cuda"
        shape = (batch_size, *PROJECTION_SHAPE)
        self._buffers = [torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned) for _ in range(2 if pinned else 1)]
        self._turn = 0

    def _join_targets(self) -> tuple[OutputTarget, ...]:
        joined: dict[str, OutputTarget] = {}
        for number, module in enumerate(self.modules):
            for place, spec in enumerate(module.manifest.targets):
                if spec.name not in joined:
                    joined[spec.name] = OutputTarget(spec, ((number, place),))
                    continue
                known = joined[spec.name]
                if known.spec.unit != spec.unit:
                    raise ModuleError(
                        f"modules disagree on the unit of {spec.name}: {known.spec.unit!r} and {spec.unit!r}; "
                        "use one of them"
                    )
                joined[spec.name] = OutputTarget(known.spec, (*known.sources, (number, place)))
        order = {name: k for k, name in enumerate(TARGETS)}
        return tuple(sorted(joined.values(), key=lambda t: (order.get(t.spec.name, len(order)), t.spec.name)))

    def select(self, names: Sequence[str]) -> tuple[OutputTarget, ...]:
        """Targets to write.

        Raises:
            UsageError: a name that no module has.
        """
        have = {t.spec.name: t for t in self.targets}
        for name in names:
            if name not in have:
                raise UsageError(f"--targets: no module predicts {name!r}{suggest(name, have)}")
        return tuple(t for t in self.targets if not names or t.spec.name in names)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the modules' manifests warn of."""
        return tuple(f"{m.manifest.name}: {m.manifest.warning}" for m in self.modules if m.manifest.warning)

    @property
    def can_overlap(self) -> bool:
        """Whether a batch can be launched before the one before is collected: on a GPU, which works meanwhile."""
        return len(self._buffers) > 1

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Estimates of up to ``batch_size`` projections.

        Args:
            images: each uint8 (3, 256, 256).

        Returns:
            (N, targets, 3) float64 in natural units: mean, aleatoric variance, epistemic variance.
        """
        return self.collect(self.launch(images))

    def launch(self, images: Sequence[NDArray[np.uint8]]) -> Launched:
        """Start a batch; on a GPU this returns at once.

        At most two batches may be in flight: each has one of the two pinned buffers until it is collected.
        """
        buffer = self._buffers[self._turn]
        self._turn = (self._turn + 1) % len(self._buffers)
        for k, image in enumerate(images):
            buffer[k] = torch.from_numpy(image)
        buffer[len(images) :] = 0
        batch = buffer.to(self.device, non_blocking=True)
        return Launched(len(images), [m.launch(batch, self.precision) for m in self.modules])  # type: ignore[arg-type]

    def collect(self, launched: Launched) -> NDArray[np.float64]:
        """Wait for a batch and run the chain after the networks; the result is that of :meth:`predict`."""
        count = launched.count
        raws = [np.asarray(raw.cpu().numpy()) for raw in launched.raws]
        mixtures = [m.to_estimates(raw) for m, raw in zip(self.modules, raws, strict=True)]
        result = np.empty((count, len(self.targets), 3))
        for column, target in enumerate(self.targets):
            mixture = self._combine(mixtures, target)
            result[:, column, 0] = mixture.mean[:count]
            result[:, column, 1] = mixture.aleatoric[:count]
            result[:, column, 2] = mixture.epistemic[:count]
        return result

    def _combine(self, mixtures: Sequence[Mixture], target: OutputTarget) -> Mixture:
        parts = [
            Mixture(mixtures[n].mean[:, p], mixtures[n].aleatoric[:, p], mixtures[n].epistemic[:, p])
            for n, p in target.sources
        ]
        return combine_modules(parts, [len(self.modules[n].members) for n, _ in target.sources])

    def half_width(self, target: OutputTarget, level: float) -> float:
        """Half width of the interval in total standard deviations; modules weigh by their members."""
        widths = [self.modules[n].half_width(p, level) for n, p in target.sources]
        members = [len(self.modules[n].members) for n, _ in target.sources]
        return float(np.average(widths, weights=members))
