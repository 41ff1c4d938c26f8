"""``benchmark predict``: a module's outputs for cases, in the files that every system of a suite writes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ukb_infer.errors import ScanError, UsageError
from ukb_infer.imaging.datasets.cases import Case
from ukb_infer.imaging.datasets.names import MODALITIES, PROJECTION
from ukb_infer.inference.cases import CaseResult, predict_case
from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.embed import PretrainedEmbedder
from ukb_infer.inference.predict import run_predict
from ukb_infer.modules import InferenceModule, load_module
from ukb_infer.modules.manifest import ModuleManifest, ModuleTarget, VolumeInput
from ukb_infer.networks.device import choose_device
from ukb_infer.networks.pretrained import FACTS_NAME, load_pretrained
from ukb_infer.runs import read_run
from ukb_infer.storage import atomic_write_text, csv_text, save_array, write_texts
from ukb_infer.tasks.adapt import find_checkpoint
from ukb_infer.tasks.containers import named_cases
from ukb_infer.tasks.outputs import SUFFIXES

TABLE_NAME = "predicted.csv"


@dataclass(frozen=True, kw_only=True)
class PredictedCase:
    """One case: the file written, or the code and message of why there is none."""

    name: str
    path: Path | None
    code: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class PredictReport:
    """All cases, and the table written."""

    cases: tuple[PredictedCase, ...]
    files: tuple[Path, ...]

    @property
    def exit_code(self) -> int:
        """0 if every case has its output, else 3."""
        return 3 if any(case.path is None for case in self.cases) else 0


def run_benchmark_predict(
    module: str, data: Path, out: Path, *, device: str = "auto", progress: Callable[[int, int, int], None] | None = None
) -> PredictReport:
    """Apply a module to every case and write ``<sub>.txt`` or ``<sub>.nii.gz``, and ``predicted.csv``.

    Args:
        module: name or folder; its first target is written. Of an encoder of heads embeddings, ``<sub>.npy``.
        data: cases, see :func:`ukb_infer.imaging.datasets.cases.read_cases`.
        out: folder of the outputs; those of earlier runs for these cases are removed first.
        device: auto, cpu, cuda or cuda:N.
        progress: called with cases done, in total, and failed.

    Raises:
        ModuleError: the module cannot be used.
        UsageError: no cases.
        RunError: the folder cannot be written.
    """
    encoder = find_checkpoint(Path(module))
    if (encoder / FACTS_NAME).is_file():
        return _embed_cases(encoder, data, out, device, progress or (lambda *_: None))
    loaded = load_module(module, choose_device(device))
    read = loaded.manifest.input
    cases = named_cases(data, read.modalities if isinstance(read, VolumeInput) else ((PROJECTION,),))
    suffix = SUFFIXES[output_of(loaded.manifest)]
    write_texts(out, {})
    for name in cases:
        (out / f"{name}{suffix}").unlink(missing_ok=True)
    report, found = progress or (lambda *_: None), list[PredictedCase]()
    report(0, len(cases), 0)
    if not isinstance(read, VolumeInput):
        found = _predict_projections(module, loaded.manifest.targets[0], device, cases, out)
        report(len(found), len(cases), sum(case.path is None for case in found))
    else:
        for name, case in cases.items():
            found.append(_predict_volumes(loaded, name, case, out / f"{name}{suffix}"))
            report(len(found), len(cases), sum(case.path is None for case in found))
    return _told(found, out)


def _told(found: Sequence[PredictedCase], out: Path) -> PredictReport:
    """Write the table of all cases."""
    rows = [(c.name, "failed" if c.path is None else "ok", c.code, c.message) for c in found]
    table = csv_text(("participant", "status", "code", "message"), rows)
    return PredictReport(cases=tuple(found), files=write_texts(out, {TABLE_NAME: table}))


def _embed_cases(
    encoder: Path, data: Path, out: Path, device: str, report: Callable[[int, int, int], None]
) -> PredictReport:
    """Embeddings of all cases by a pretrained encoder, the mean over a case's images."""
    embedder = PretrainedEmbedder(load_pretrained(encoder), choose_device(device))
    cases, found = named_cases(data, [MODALITIES]), list[PredictedCase]()
    write_texts(out, {})
    for name, case in cases.items():
        path = out / f"{name}{SUFFIXES['embedding']}"
        path.unlink(missing_ok=True)
        try:
            save_array(path, embedder.embed_files(list(case.images.values())))
            found.append(PredictedCase(name=name, path=path))
        except ScanError as error:
            found.append(PredictedCase(name=name, path=None, code=error.reason.value, message=error.message))
        report(len(found), len(cases), sum(each.path is None for each in found))
    return _told(found, out)


def output_of(manifest: ModuleManifest) -> str:
    """What the module returns, as :data:`ukb_infer.tasks.task.Output`."""
    if manifest.network.head == "segmentation":
        return "segmentation"
    return "class" if manifest.targets[0].kind == "binary" else "regression"


def write_answer(module: InferenceModule, images: Mapping[str, Path], path: Path) -> CaseResult:
    """Apply a module to one case and write its output, whole or not at all.

    Args:
        module: for volumes.
        images: path by modality.
        path: ``.txt`` for the number of the first target, ``.nii.gz`` for the mask, ``.npy`` for the embedding.

    Raises:
        ScanError: an image is missing or cannot be used.
        UsageError: the module returns something else.
    """
    kind = output_of(module.manifest)
    if not path.name.endswith((SUFFIXES[kind], SUFFIXES["embedding"])):
        raise UsageError(field="output", got=path.name, expected=f"a name that ends in {SUFFIXES[kind]} or .npy")
    result = predict_case(module, images)
    if path.suffix == ".npy":
        save_array(path, result.embedding)
    elif kind == "segmentation":
        result.save_mask(path)
    else:
        target = module.manifest.targets[0]
        value = result.probability[target.name] if kind == "class" else result.mean[target.name]
        write_number(path, value, target.lower, target.upper)
    return result


def write_number(path: Path, value: float, lower: float | None, upper: float | None) -> None:
    """Write one number within its limits.

    Args:
        path: of the text file.
        value: to write.
        lower: limit or None; ``upper`` likewise.
        upper: limit or None.
    """
    atomic_write_text(path, f"{float(np.clip(value, lower, upper)):.6g}\n")


def _predict_volumes(module: InferenceModule, name: str, case: Case, path: Path) -> PredictedCase:
    try:
        write_answer(module, case.images, path)
    except ScanError as error:
        return PredictedCase(name=name, path=None, code=error.reason.value, message=error.message)
    return PredictedCase(name=name, path=path)


def _predict_projections(
    module: str, target: ModuleTarget, device: str, cases: Mapping[str, Case], out: Path
) -> list[PredictedCase]:
    """By a run of ``predict``, whose batches are those of every module for bodies."""
    scans = {case.images[PROJECTION].stem: name for name, case in cases.items()}
    with tempfile.TemporaryDirectory(prefix="ukb-infer-") as scratch:
        config = PredictConfig(
            inputs=tuple(str(case.images[PROJECTION]) for case in cases.values()), out=Path(scratch) / "run",
            modules=(module,), device=device, workers=0,
        )  # fmt: skip
        run_predict(config)
        run = read_run(config.out)
    found, estimates = {}, run.estimates(target.name)
    values = estimates.probability if target.kind == "binary" else estimates.mean
    for key, value in zip(run.keys, values, strict=True):
        if np.isfinite(value):
            path = out / f"{scans[key.scan]}.txt"
            write_number(path, value, target.lower, target.upper)
            found[scans[key.scan]] = PredictedCase(name=scans[key.scan], path=path)
    failed = {scans[scan.key.scan]: scan for scan in run.scans if scan.key.scan in scans}
    return [found.get(name) or _failed(name, failed.get(name)) for name in cases]


def _failed(name: str, scan: object) -> PredictedCase:
    codes = ";".join(reason.value for reason in getattr(scan, "reasons", ()))
    return PredictedCase(name=name, path=None, code=codes, message=str(getattr(scan, "message", "")))
