"""``embed``: scans to the features of an encoder, one row per scan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ukb_infer.errors import RunError, ScanError, UnknownModuleError, UsageError
from ukb_infer.execution import Failure, run_in_workers, usable_cores
from ukb_infer.imaging.datasets.names import MODALITIES
from ukb_infer.imaging.recipes import DEFAULT_RECIPE
from ukb_infer.imaging.volumes.preprocess import VolumeSettings, preprocess
from ukb_infer.imaging.volumes.read import read_volume
from ukb_infer.inference.inputs import ScanInput, keep_unique, resolve_inputs
from ukb_infer.inference.volumes import SessionFinder, VolumeJob, session_images
from ukb_infer.inference.work import Job, Outcome, ScanJob, failed, finished, from_failure, process_scan
from ukb_infer.modules import InferenceModule, load_module
from ukb_infer.modules.find import find_module, list_modules, shipped_modules_folder, shipped_with
from ukb_infer.modules.manifest import ModuleInput, VolumeInput
from ukb_infer.modules.outliers import join_features
from ukb_infer.networks import InputScaling, Pretrained, build_encoder, load_pretrained, transfer
from ukb_infer.networks.device import choose_device
from ukb_infer.networks.pretrained import FACTS_NAME
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, ScanKey
from ukb_infer.runs.tables import require_parquet
from ukb_infer.storage import atomic_path, save_array
from ukb_infer.text import suggest

#: Kinds of files, and the columns before the features.
SUFFIXES, KEYS = (".parquet", ".csv", ".npy"), ("scan", "participant", "session")
#: One scan may take so long, s.
TIME_LIMIT_S = 600.0
_IMAGE = (".nii", ".nii.gz")
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What to embed.

    Attributes:
        inputs: as for ``predict``: session folders or images of heads, scans or projections of bodies.
        module: folder of a pretraining or of a module, or the name of one.
        out: ``.parquet`` or ``.csv`` for a table, ``.npy`` for the vector of a single scan.
        device: auto, cpu or cuda.
        workers: processes that read; 0 reads in this one, None is one per core.
        overwrite: replace the file.
    """

    inputs: tuple[str, ...]
    module: str
    out: Path
    device: str = "auto"
    workers: int | None = None
    overwrite: bool = False

    def check(self) -> None:
        """Refuse what cannot be written, before anything is read.

        Raises:
            UsageError: a file of another kind, in no folder, or there already; Parquet without pyarrow.
        """
        if self.out.suffix not in SUFFIXES:
            raise UsageError(field="out", got=self.out.name, expected=f"a name that ends in {', '.join(SUFFIXES)}")
        if not self.out.absolute().parent.is_dir():
            raise UsageError(field="out", got=str(self.out), expected="a file in a folder that exists")
        if self.out.exists() and not self.overwrite:
            raise UsageError(f"{self.out} exists; choose another name or use `overwrite`", field="out")
        if self.out.suffix == ".parquet":
            require_parquet()


@dataclass(frozen=True)
class EmbedSummary:
    """What became of the scans.

    Attributes:
        embedded: their number.
        features: F.
        failures: (scan, reason, message) of those left out.
        warning: of the weights, or "".
    """

    embedded: int
    features: int
    failures: tuple[tuple[str, Reason, str], ...]
    warning: str

    @property
    def exit_code(self) -> int:
        """0, or 3 if a scan failed."""
        return 3 if self.failures else 0

    @property
    def reasons(self) -> dict[str, int]:
        """Failed scans by code."""
        return dict(Counter(reason.value for _, reason, _ in self.failures))


class Embedder(ABC):
    """Weights that make a vector of a scan."""

    warning: str

    @property
    @abstractmethod
    def dimension(self) -> int:
        """3 for heads, 2 for projections of bodies."""

    @property
    def sees(self) -> str:
        """What they are for, in words."""
        return "volumes of heads" if self.dimension == 3 else "scans or projections of bodies"

    @abstractmethod
    def find(self, inputs: Sequence[str]) -> list[ScanInput]:
        """Scans that the inputs name."""

    @abstractmethod
    def job(self, scan: ScanInput) -> ScanJob:
        """Job that reads a scan."""

    @abstractmethod
    def embed(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """What the job read -> (F,)."""


class PretrainedEmbedder(Embedder):
    """The encoder of a pretraining: of a head the mean over its images, each seen alone.

    Args:
        pretrained: weights.
        device: they run on.
    """

    def __init__(self, pretrained: Pretrained, device: torch.device) -> None:
        self.pretrained, self.device, self.warning = pretrained, device, pretrained.warning
        self.encoder = build_encoder(pretrained.spec).to(device).eval()
        transfer(pretrained, self.encoder)

    @property
    def dimension(self) -> int:
        """Of the images."""
        return self.pretrained.spec.dim

    def find(self, inputs: Sequence[str]) -> list[ScanInput]:
        """Session folders, brain zips and single images; or scans of bodies."""
        if self.dimension == 2:
            return resolve_inputs(inputs)
        single = [text for text in inputs if text.lower().endswith(_IMAGE) and Path(text).is_file()]
        others = [text for text in inputs if text not in single]
        found = [ScanInput(ScanKey.from_name(_stem(Path(text))), Path(text), text, "volumes") for text in single]
        finder = SessionFinder(tuple((name,) for name in MODALITIES))
        return keep_unique([*found, *(finder(others) if others else [])])

    def job(self, scan: ScanInput) -> ScanJob:
        """Reads every image that a session has."""
        if self.dimension == 2:
            return Job(scan, ReadingOptions(), DEFAULT_RECIPE)
        return ImagesJob(scan, self._box)

    @cached_property
    def _box(self) -> VolumeSettings:
        settings = self.pretrained.settings
        return VolumeSettings(spacing_mm=float(settings["spacing_mm"]), size=tuple(settings["size"]))

    @cached_property
    def _scaling(self) -> InputScaling:
        settings = self.pretrained.settings
        size = settings["size"]
        return InputScaling(settings["scale"], settings["offset"], None if size is None else tuple(size))

    @torch.inference_mode()
    def embed(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """(C, ...) -> (F,)."""
        images = torch.from_numpy(image).to(self.device)
        images = images[:, None] if self.dimension == 3 else self._scaling.apply(images[None])
        pooled = self.encoder.pool(self.encoder(images)).mean(dim=0)
        return np.asarray(pooled.float().cpu().numpy())

    def embed_files(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        """Images of one head -> (F,).

        Raises:
            UsageError: the encoder is for bodies.
            ScanError: an image cannot be used.
        """
        if self.dimension != 3:
            raise UsageError(f"the encoder sees {self.sees}, not volumes")
        return self.embed(box_images(paths, self._box)[0])


class ModuleEmbedder(Embedder):
    """The features of a module's members side by side, each of length one.

    Args:
        module: for projections or volumes.
    """

    def __init__(self, module: InferenceModule) -> None:
        self.module, self.warning = module, module.manifest.warning

    @property
    def dimension(self) -> int:
        """Of the images."""
        return self.module.manifest.network.dimension

    def find(self, inputs: Sequence[str]) -> list[ScanInput]:
        """What ``predict`` finds."""
        read = self.module.manifest.input
        return SessionFinder(read.modalities)(inputs) if isinstance(read, VolumeInput) else resolve_inputs(inputs)

    def job(self, scan: ScanInput) -> ScanJob:
        """What ``predict`` reads."""
        read = self.module.manifest.input
        if isinstance(read, ModuleInput):
            return Job(scan, ReadingOptions(), read.recipe)
        return VolumeJob(scan, read)

    def embed(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """(C, ...) -> (K F,)."""
        features = self.module.run(torch.from_numpy(image[None]), features=True).features
        assert features is not None
        return np.asarray(join_features(features.float().cpu().numpy())[0], np.float32)


@dataclass(frozen=True)
class ImagesJob:
    """Every image of a session on one box, whatever its contrast.

    Attributes:
        scan: session folder, brain zip, or a single image.
        box: that they are brought onto.
        digest: also compute the SHA-256 of the input.
    """

    scan: ScanInput
    box: VolumeSettings
    digest: bool = False

    def make(self) -> tuple[NDArray[np.float32], tuple[Reason, ...]]:
        """Read and box the images."""
        path = self.scan.path
        single = path.name.lower().endswith(_IMAGE)
        paths = [path] if single else list(session_images(path, [MODALITIES]).values())
        if not paths:
            raise ScanError(Reason.INPUT_MISSING, "the session has no image of a known contrast")
        return box_images(paths, self.box)

    def keep(self, made: tuple[NDArray[np.float32], tuple[Reason, ...]]) -> Outcome:
        """Nothing is written."""
        image, flags = made
        return finished(flags, [flag.meaning for flag in flags], 0, image=image)


def box_images(paths: Sequence[Path], box: VolumeSettings) -> tuple[NDArray[np.float32], tuple[Reason, ...]]:
    """Read images of one head: (images, x, y, z), and flags.

    Args:
        paths: of the images.
        box: that they are brought onto.

    Raises:
        ScanError: an image cannot be used.
    """
    boxed, grid = preprocess([read_volume(path) for path in paths], box)
    return boxed, grid.flags


def load_embedder(name: str, device: torch.device) -> Embedder:
    """Weights by path or name: a pretraining, shipped or not, or a module.

    Args:
        name: folder, or name of a shipped one.
        device: they run on.

    Raises:
        UnknownModuleError: neither.
    """
    for folder in (Path(name).expanduser(), shipped_modules_folder() / name):
        if name and (folder / FACTS_NAME).is_file():
            return PretrainedEmbedder(load_pretrained(folder), device)
    try:
        home = find_module(name)
    except UnknownModuleError:
        known = [*shipped_with(FACTS_NAME), *(folder.name for folder in list_modules())]
        raise UnknownModuleError(
            f"no encoder {name!r}: neither a folder written by `pretrain`, `adapt` or `train` nor one of: "
            f"{', '.join(known) or 'none'}{suggest(name, known)}"
        ) from None
    return ModuleEmbedder(load_module(home, device))


def run_embed(config: EmbedConfig, progress: Progress = lambda *_: None) -> EmbedSummary:
    """Embed scans and write one row per scan; those that fail are left out and listed beside the file.

    Args:
        config: what to embed.
        progress: called with scans done, in total, and failed.

    Raises:
        UsageError: contradictory arguments.
        RunError: no scan could be embedded.
    """
    config.check()
    embedder = load_embedder(config.module, choose_device(config.device))
    scans = _find(config, embedder)
    if config.out.suffix == ".npy" and len(scans) != 1:
        raise UsageError(field="out", got=config.out.name, expected=f".parquet or .csv for {len(scans)} scans")
    vectors: dict[int, NDArray[np.float32]] = {}
    failures: dict[int, tuple[str, Reason, str]] = {}
    progress(0, len(scans), 0)
    for index, outcome in _outcomes(config, embedder, scans):
        vector = None if outcome.image is None else embedder.embed(outcome.image)
        if vector is not None and np.isfinite(vector).all():
            vectors[index] = vector
        else:
            result = outcome.result
            code = result.reasons[0] if outcome.image is None else Reason.NON_FINITE_VALUES
            failures[index] = (scans[index].key.scan, code, result.message)
        progress(len(vectors) + len(failures), len(scans), len(failures))
    listed = tuple(failures[k] for k in sorted(failures))
    _write_failures(config.out, listed)
    if not vectors:
        counts = ", ".join(f"{n} {code}" for code, n in Counter(f[1].value for f in listed).items())
        where = _failures_path(config.out)
        raise RunError(f"no scan could be embedded ({counts}); see {where}. {config.module} sees {embedder.sees}")
    order = sorted(vectors)
    _write(config.out, [scans[k] for k in order], np.stack([vectors[k] for k in order]))
    return EmbedSummary(len(order), vectors[order[0]].size, listed, embedder.warning)


def _find(config: EmbedConfig, embedder: Embedder) -> list[ScanInput]:
    """Scans of the inputs; if there are none, it is said what the encoder sees."""
    try:
        return [scan for scan in embedder.find(config.inputs) if not scan.excluded]
    except RunError as error:
        raise RunError(f"{config.module} sees {embedder.sees}, and the inputs have none: {error}") from error


def _outcomes(config: EmbedConfig, embedder: Embedder, scans: Sequence[ScanInput]) -> Iterator[tuple[int, Outcome]]:
    """What became of each scan, as they come."""
    todo = []
    for index, scan in enumerate(scans):
        if scan.problem is not None:
            yield index, failed(scan.problem)
        else:
            todo.append(index)
    workers = min(usable_cores(), len(todo)) if config.workers is None else config.workers
    jobs = [embedder.job(scans[index]) for index in todo]
    for place, found in run_in_workers(process_scan, jobs, workers=workers, timeout_s=TIME_LIMIT_S):
        yield todo[place], from_failure(found) if isinstance(found, Failure) else found


def _stem(path: Path) -> str:
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".gz") else path.stem


def _key_columns(scan: ScanInput) -> tuple[str, str, str]:
    """Scan, participant and session."""
    key = scan.key
    if key.eid:
        return key.scan, key.eid, "" if key.instance is None else str(key.instance)
    if scan.kind == "volumes" and scan.path.is_dir():
        folder = scan.path.absolute()
        if key.scan != folder.name:  # <participant>_<session>
            return key.scan, folder.parent.name, folder.name
    return key.scan, key.scan, ""


def _write(path: Path, scans: Sequence[ScanInput], vectors: NDArray[np.float32]) -> None:
    """Write the table, or the only vector."""
    if path.suffix == ".npy":
        save_array(path, vectors[0])
        return
    with atomic_path(path) as partial:
        keys = pd.DataFrame([_key_columns(scan) for scan in scans], columns=list(KEYS))
        table = pd.concat([keys, pd.DataFrame(vectors, columns=[f"f{k}" for k in range(vectors.shape[1])])], axis=1)
        if path.suffix == ".parquet":
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False, lineterminator="\n")


def _failures_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}.failures.csv")


def _write_failures(out: Path, failures: Sequence[tuple[str, Reason, str]]) -> None:
    """List the failed scans beside the result; no file if there are none."""
    path = _failures_path(out)
    if not failures:
        path.unlink(missing_ok=True)
        return
    table = pd.DataFrame([(scan, reason.value, message) for scan, reason, message in failures])
    with atomic_path(path) as partial:
        table.to_csv(partial, index=False, header=["scan", "code", "message"], lineterminator="\n")
