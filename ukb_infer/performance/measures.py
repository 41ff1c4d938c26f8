"""The measurements; each returns plain numbers and runs in a fresh process."""

from __future__ import annotations

import functools
import multiprocessing
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from isal import isal_zlib

from ukb_infer.execution import usable_cores as cores
from ukb_infer.imaging.recipes import DEFAULT_RECIPE, RECIPES
from ukb_infer.performance.timing import alternate, cpu_seconds, on_one_core, peak_memory_mb
from ukb_infer.records import ReadingOptions

#: What is measured: projecting by this recipe, and networks on its projections.
RECIPE = RECIPES[DEFAULT_RECIPE]


def contrast_members(path: Path) -> list[str]:
    """Names of the water and fat members of a phantom's zip, from its headers."""
    import io

    import pydicom

    names = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith(".dcm"):
                continue
            header = pydicom.dcmread(io.BytesIO(archive.read(name)), specific_tags=["SeriesDescription"])
            if str(header.SeriesDescription).endswith(("_W", "_F")):
                names.append(name)
    return names


def inflate(path: Path, members: frozenset[str]) -> int:
    """The floor: read the zip's directory, read and inflate the members; returns their bytes.

    Args:
        path: of the zip.
        members: names in it.
    """
    total = 0
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for info in archive.infolist():
            if info.filename in members:
                file.seek(info.header_offset + 26)
                lengths = file.read(4)
                skip = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
                file.seek(skip, 1)
                total += len(isal_zlib.decompress(file.read(info.compress_size), -15, info.file_size))
    return total


def projecting(zips: Sequence[str], repeats: int) -> dict[str, Any]:
    """`project(path)` and inflating the same members, alternating, on one core.

    Args:
        zips: paths of scans, used in turn.
        repeats: measured rounds.
    """
    from ukb_infer.imaging.reading import project_path

    on_one_core()
    paths = [Path(z) for z in zips]
    wanted = {p: frozenset(contrast_members(p)) for p in paths}
    options = ReadingOptions()
    floor, whole = alternate(
        [
            lambda k: inflate(paths[k % len(paths)], wanted[paths[k % len(paths)]]),
            lambda k: project_path(paths[k % len(paths)], options),
        ],
        repeats,
    )
    return {"floor": asdict(floor), "project": asdict(whole), "ratio": whole.median_s / floor.median_s}


def projecting_memory(zips: Sequence[str]) -> dict[str, float]:
    """Peak memory of a process that only projects."""
    from ukb_infer.imaging.reading import project_path

    for path in zips:
        project_path(Path(path), ReadingOptions())
    return {"peak_mb": peak_memory_mb()}


def stages(zips: Sequence[str], repeats: int) -> dict[str, float]:
    """Where the time of one projection goes: reading, and fusion with projection, s.

    Args:
        zips: paths of scans, used in turn.
        repeats: measured rounds.
    """
    from ukb_infer.imaging.reading import read_stations

    on_one_core()
    read: dict[int, Any] = {}
    paths = [Path(z) for z in zips]

    def reading(k: int) -> None:
        read[0] = read_stations(paths[k % len(paths)], ReadingOptions())

    first, second = alternate([reading, lambda _: RECIPE.project(read[0].stations)], repeats)
    return {"read_s": first.median_s, "project_s": second.median_s}


def measuring(zips: Sequence[str], repeats: int) -> dict[str, Any]:
    """All measures of image quality against projecting the same scan without them, alternating, on one core.

    Args:
        zips: paths of scans, taken in turn.
        repeats: rounds that count.
    """
    from ukb_infer.imaging.reading import project_path, read_stations
    from ukb_infer.quality import inspect_scan

    on_one_core()
    read: dict[int, Any] = {}
    paths = [Path(z) for z in zips]

    def reading(k: int) -> None:
        read[0] = read_stations(paths[k % len(paths)], ReadingOptions())

    whole, _, part = alternate(
        [lambda k: project_path(paths[k % len(paths)], ReadingOptions()), reading, lambda _: inspect_scan(read[0])],
        repeats,
    )
    return {"project": asdict(whole), "measure": asdict(part), "ratio": part.median_s / whole.median_s}


def _inflate_job(job: tuple[str, frozenset[str]]) -> int:
    return inflate(Path(job[0]), job[1])


def _project_job(job: tuple[str, frozenset[str]]) -> int:
    from ukb_infer.imaging.reading import project_path

    return int(project_path(Path(job[0]), ReadingOptions()).image.sum())


def _throughput(function: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> float:
    """Jobs per second of a warm pool."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(function, jobs[: 4 * workers], chunksize=1)
        started = time.perf_counter()
        pool.map(function, jobs, chunksize=1)
        return len(jobs) / (time.perf_counter() - started)


def worker_scaling(zips: Sequence[str], scans: int, rounds: int) -> dict[str, Any]:
    """Throughput of projecting and of pure inflating with 1 and 2 workers.

    Args:
        zips: paths of scans, used in turn.
        scans: jobs of each measurement.
        rounds: measurements, of which the fastest counts.
    """
    members = {z: frozenset(contrast_members(Path(z))) for z in zips}
    jobs = [(z, members[z]) for z in (zips[k % len(zips)] for k in range(scans))]
    best: dict[str, dict[int, float]] = {"inflate": {}, "project": {}}
    for _ in range(rounds):
        for workers in (1, 2):
            for name, function in (("inflate", _inflate_job), ("project", _project_job)):
                rate = _throughput(function, jobs, workers)
                best[name][workers] = max(rate, best[name].get(workers, 0.0))
    scaling = {name: rates[2] / rates[1] for name, rates in best.items()}
    rates = {f"{name}_{w}": rate for name, found in best.items() for w, rate in found.items()}
    ratio = scaling["project"] / scaling["inflate"]
    return {"rates_per_s": rates, "scaling": scaling, "ratio": ratio, "cores": cores()}


def _lively_resnet50() -> Any:
    """Random ResNet-50 whose norms are fitted to its input, so that outputs are about one standardized unit."""
    import torch
    from torch import nn

    from ukb_infer.networks import build_network

    torch.manual_seed(0)
    network = build_network("resnet50", 12)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.rand(8, 3, 128, 128) * 255.0)
    return network.eval()


def cpu_inference(batch_size: int, repeats: int) -> dict[str, Any]:
    """One ResNet-50 member, full size: eager fp32 torch against the compiled backend, alternating.

    Args:
        batch_size: projections per batch.
        repeats: measured rounds.
    """
    import torch

    from ukb_infer.networks.compiled import CompiledNetwork, openvino_is_installed

    network = _lively_resnet50()
    images = torch.rand(batch_size, *RECIPE.shape) * 255.0
    with torch.inference_mode():
        plain = network(images)

        def eager(_: int) -> None:
            network(images)

        if not openvino_is_installed():
            (only,) = alternate([eager], repeats)
            return {
                "eager": asdict(only), "ratio": 1.0, "backend": "torch", "largest_difference": 0.0,
                "cuda": torch.cuda.is_available(),
            }  # fmt: skip
        compiled = CompiledNetwork(network, tuple(images.shape))
        difference = float((compiled(images) - plain).abs().max())
        before, after = alternate([eager, lambda _: compiled(images)], repeats)
    return {
        "eager": asdict(before), "compiled": asdict(after), "ratio": before.median_s / after.median_s,
        "backend": "openvino", "largest_difference": difference, "scans_per_s": batch_size / after.median_s,
        "cuda": torch.cuda.is_available(),
    }  # fmt: skip


def cuda_inference(batch_size: int, repeats: int) -> dict[str, Any]:
    """ResNet-50 member-evaluations per second from 8-bit batches, and their share of the measured matrix ceiling.

    Args:
        batch_size: projections per batch.
        repeats: measured rounds.
    """
    import torch

    from ukb_infer.networks import InputScaling

    device = torch.device("cuda")
    network = _lively_resnet50().to(device, memory_format=torch.channels_last)
    batch = torch.randint(0, 200, (batch_size, *RECIPE.shape), dtype=getattr(torch, RECIPE.dtype)).pin_memory()
    scaling = InputScaling()

    def evaluate(_: int) -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16):
            images = scaling.apply(batch.to(device, non_blocking=True)).contiguous(memory_format=torch.channels_last)
            network(images)
        torch.cuda.synchronize()

    side = 8192
    left, right = (torch.randn(side, side, device=device, dtype=torch.float16) for _ in range(2))

    def multiply(_: int) -> None:
        torch.mm(left, right)
        torch.cuda.synchronize()

    run, ceiling = alternate([evaluate, multiply], repeats, warm_up=5)
    operations = 2 * 4.09e9 * (RECIPE.shape[1] / 224) ** 2
    rate = batch_size / run.median_s
    peak = 2 * side**3 / ceiling.median_s
    return {
        "measured": True,
        "device": torch.cuda.get_device_name(),
        "member_evaluations_per_s": rate,
        "share_of_matrix_ceiling": rate * operations / peak,
    }


def _linked(zips: Sequence[str], folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    suffix = Path(zips[0]).suffix
    for k in range(count):
        (folder / f"{k + 1:07d}_20201_2_0{suffix}").symlink_to(Path(zips[k % len(zips)]).resolve())
    return folder


def predict_run(scans: Sequence[str], count: int, work: str, workers: int, batch_size: int = 8) -> dict[str, float]:
    """A whole `predict` on linked scans: wall and CPU seconds after loading, peak memory.

    Args:
        scans: paths of zips or projections, used in turn.
        count: links to them, each a scan of the run.
        work: empty folder for links and results.
        workers: processes; 0 works in this one.
        batch_size: scans per batch.
    """
    from ukb_infer.inference.config import PredictConfig
    from ukb_infer.inference.predict import run_predict

    folder = Path(work)
    inputs = _linked(scans, folder / "in", count)
    config = PredictConfig(
        (str(inputs),), folder / "run", modules=("phantom-demo",), device="cpu", workers=workers, batch_size=batch_size
    )
    before = cpu_seconds()
    summary = run_predict(config)
    return {
        "wall_s": summary.timings["total_s"] - summary.timings["load_s"],
        "total_wall_s": summary.timings["total_s"],
        "cpu_s": cpu_seconds() - before,
        "peak_mb": peak_memory_mb(),
        "failed": summary.counts["failed"],
    }


def cuda_end_to_end(scans: Sequence[str], count: int, work: str, workers: int) -> dict[str, Any]:
    """`predict` on zips with a GPU against each of its stages alone: wall seconds without loading.

    Args:
        scans: paths of zips, used in turn.
        count: links to them, each a scan of the run.
        work: empty folder for links and results.
        workers: processes; 0 works in this one.
    """
    import torch

    from ukb_infer.inference.config import PredictConfig, ProjectConfig
    from ukb_infer.inference.predict import run_predict
    from ukb_infer.inference.project import run_project

    folder = Path(work)
    inputs = (str(_linked(scans, folder / "in", count)),)
    projections = folder / "projections"
    project = run_project(ProjectConfig(inputs, projections, workers=workers)).seconds

    def predict(name: str, source: str) -> float:
        config = PredictConfig((source,), folder / name, modules=("phantom-demo",), device="cuda", workers=workers)
        timings = run_predict(config).timings
        return timings["total_s"] - timings["load_s"]

    infer = predict("cached", str(projections))
    whole = predict("whole", inputs[0])
    return {
        "measured": True,
        "device": torch.cuda.get_device_name(),
        "project_s": project,
        "infer_s": infer,
        "whole_s": whole,
        "ratio": whole / max(project, infer),
    }


def project_run(scans: Sequence[str], count: int) -> dict[str, float]:
    """CPU seconds of projecting and measuring linked scans in one process, without start-up.

    Args:
        scans: paths of zips, used in turn.
        count: projections that count, after one to warm up.
    """
    from ukb_infer.imaging.reading import project_path
    from ukb_infer.quality import inspect_scan

    project_path(Path(scans[0]), ReadingOptions(), DEFAULT_RECIPE, inspect_scan)
    before = cpu_seconds()
    for k in range(count):
        project_path(Path(scans[k % len(scans)]), ReadingOptions(), DEFAULT_RECIPE, inspect_scan)
    return {"cpu_s": cpu_seconds() - before}


def infer_run(points: Sequence[tuple[int, int, int]]) -> list[dict[str, float]]:
    """CPU and wall seconds of the demonstration ensemble on projections, without start-up.

    Args:
        points: of each measurement: scans a batch, members (0 for all), projections (to which the time of whole
            batches is scaled).
    """
    import numpy as np
    import torch

    from ukb_infer.inference.engine import Engine
    from ukb_infer.modules import find_module

    found = []
    for batch_size, members, count in points:
        engine = Engine([find_module("phantom-demo")], torch.device("cpu"), "fp32", batch_size)
        if members:
            engine.modules[0].members = engine.modules[0].members[:members]
            engine.modules[0].outliers = None  # it knows the features of all members together
        shape = (batch_size, *engine.recipe.shape)
        images = list(np.random.default_rng(0).integers(0, 200, shape).astype(engine.recipe.dtype))
        engine.predict(images)
        before, started = cpu_seconds(), time.perf_counter()
        batches = max(1, count // batch_size)
        for _ in range(batches):
            engine.predict(images)
        scale = count / (batches * batch_size)
        found.append({"cpu_s": (cpu_seconds() - before) * scale, "wall_s": (time.perf_counter() - started) * scale})
    return found


@functools.cache
def machine() -> dict[str, str]:
    """What this was measured on."""
    import platform

    from ukb_infer.inference.predict import package_versions

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    from importlib.metadata import PackageNotFoundError, version

    further = {}
    for name in ("isal", "openvino"):
        try:
            further[name] = version(name)
        except PackageNotFoundError:
            further[name] = "not installed"
    return further | {"cpu": model, "cores": str(cores()), "system": platform.system()} | package_versions()
