"""All measurements in one run, written as tables and JSON."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ukb_infer.execution import usable_cores as cores
from ukb_infer.performance.measures import machine
from ukb_infer.performance.timing import in_process
from ukb_infer.phantom import write_cohort
from ukb_infer.storage import atomic_write_text

_MEASURES = "ukb_infer.performance.measures"
_NO_CUDA = {"measured": False, "why": "no CUDA device on this machine"}


class _Once:
    """Runs each measurement once, in a fresh process; ``work`` (for files) does not distinguish measurements."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def __call__(self, function: str, **arguments: Any) -> Any:
        key = json.dumps([function, arguments | {"work": None}])
        if key not in self._found:
            self._found[key] = in_process(_MEASURES, function, **arguments)
        return self._found[key]


@dataclass(frozen=True)
class BenchConfig:
    """Size of a benchmark run.

    Attributes:
        out: folder of the results.
        repeats: rounds of the alternating measurements, at least 12 for figures to report.
        zips: different full-size scans.
        end_to_end: scans of the end-to-end run.
        memory: scans of the two runs whose memory is compared.
        size: of the zips; full for figures to report.
        rounds: of the scaling over workers.
        batch_size: scans of the compiled network's batch.
        starts: runs of the command; the last one gives the time to the first result.
        members, batches: of the measurements of how the cost of inference grows, on ``inferences`` projections.
    """

    out: Path
    repeats: int = 15
    zips: int = 4
    end_to_end: int = 600
    memory: tuple[int, int] = (50, 500)
    size: Literal["full", "small"] = "full"
    rounds: int = 3
    batch_size: int = 8
    starts: int = 2
    members: tuple[int, ...] = (1, 2, 3, 5)
    batches: tuple[int, ...] = (1, 4, 8, 16, 32)
    inferences: int = 64

    @classmethod
    def quick(cls, out: Path) -> BenchConfig:
        """A minute or two: for a try, not for figures to report."""
        return cls(out, repeats=4, zips=2, end_to_end=16, memory=(10, 40))

    @classmethod
    def tiny(cls, out: Path) -> BenchConfig:
        """The minimum that gives every figure: for tests, meaningless."""
        return cls(
            out, repeats=2, zips=1, end_to_end=2, memory=(1, 2), size="small", rounds=1, batch_size=1, starts=1,
            members=(1, 2), batches=(1, 2), inferences=2,
        )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One figure of the table: what, ratio or value, the aim, whether it is met (None: no aim or not measured)."""

    name: str
    value: float
    aim: str
    met: bool | None
    detail: str


def run_benchmarks(config: BenchConfig, say: Callable[[str], None] = print) -> list[Row]:
    """Measure everything and write ``bench.json``, ``bench.md``, ``scaling.csv`` and ``scaling.png``.

    Args:
        config: sizes.
        say: receives a line per step.

    Returns:
        The rows of the table.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ukb-infer-bench-") as temporary:
        work = Path(temporary)
        say("writing synthetic scans ...")
        full = _scans(work / "full", config.zips, config.size)
        small = full if config.size == "small" else _scans(work / "small", 4, "small")
        measure = _Once()
        results = _measure(config, work, full, small, measure, say)
        scaling = _measure_scaling(config, work, small, results.pop("inference"), measure, say)
    rows = _rows(results)
    facts = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "results": results, "scaling": scaling}
    atomic_write_text(config.out / "bench.json", json.dumps(facts, indent=2) + "\n")
    atomic_write_text(config.out / "bench.md", _markdown(rows, facts))
    atomic_write_text(config.out / "scaling.csv", _scaling_csv(scaling))
    _plot(scaling, config.out / "scaling.png", say)
    return rows


def _scans(folder: Path, count: int, size: str) -> list[str]:
    write_cohort(folder, count, 77, size=size)  # type: ignore[arg-type]
    return [str(p) for p in sorted(folder.glob("*.zip"))]


def _measure(
    config: BenchConfig, work: Path, full: list[str], small: list[str], measure: _Once, say: Callable[[str], None]
) -> dict[str, Any]:
    results: dict[str, Any] = {}

    def step(name: str, function: str, **arguments: Any) -> None:
        say(f"{name} ...")
        results[name] = measure(function, **arguments)

    step("projecting", "projecting", zips=full, repeats=config.repeats)
    step("stages", "stages", zips=full, repeats=config.repeats)
    step("measuring", "measuring", zips=full, repeats=config.repeats)
    step("projecting_memory", "projecting_memory", zips=full)
    if cores() >= 2:
        step("worker_scaling", "worker_scaling", zips=full, scans=max(2, 2 * config.repeats), rounds=config.rounds)
    step("cpu_inference", "cpu_inference", batch_size=config.batch_size, repeats=config.repeats)
    count, workers = config.end_to_end, cores()
    step("end_to_end", "predict_run", scans=full, count=count, work=str(work / "e2e"), workers=workers)
    if results["cpu_inference"]["cuda"]:
        step("cuda_inference", "cuda_inference", batch_size=256, repeats=4 * config.repeats)
        step("cuda_end_to_end", "cuda_end_to_end", scans=full, count=count, work=str(work / "gpu"), workers=workers)
    else:
        results |= dict.fromkeys(("cuda_inference", "cuda_end_to_end"), _NO_CUDA)
    step("projecting_alone", "project_run", scans=full, count=min(count, 40))
    step("inference", "infer_run", points=[(8, 0, count), *(p for _, _, p in _growth(config))])
    for scans in config.memory:
        step(f"memory_{scans}", "predict_run", scans=small, count=scans, work=str(work / f"m{scans}"), workers=workers)
    say("start-up ...")
    results["start_up"] = _start_up(full[0], work, config.starts)
    results["inference_alone"], *results["inference"] = results["inference"]
    results["end_to_end"] = results["end_to_end"] | {"scans": count, "cores": workers}
    results["projecting_alone"] = results["projecting_alone"] | {"scans": min(count, 40)}
    results["memory_scans"] = list(config.memory)
    return results


def _start_up(path: str, work: Path, starts: int) -> dict[str, float]:
    """From the command to the tables of one scan, s; the last of several runs, when compiled loops are cached."""
    times = []
    for k in range(starts):
        command = [
            sys.executable, "-m", "ukb_infer", "predict", path, "--out", str(work / f"s{k}"),
            "--modules", "phantom-demo", "--device", "cpu",
        ]  # fmt: skip
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return {"first_s": times[0], "second_s": times[-1]}


def _rows(results: dict[str, Any]) -> list[Row]:
    rows = []

    def row(name: str, value: float, aim: str, met: bool | None, detail: str) -> None:
        rows.append(Row(name, value, aim, met, detail))

    p = results["projecting"]
    whole, floor = 1e3 * p["project"]["median_s"], 1e3 * p["floor"]["median_s"]
    detail = f"{whole:.0f} ms over {floor:.0f} ms, {p['project']['count']} rounds"
    row("zip to projection / inflating its water and fat", p["ratio"], "at most 1.8", p["ratio"] <= 1.8, detail)
    m = results["measuring"]
    whole, part = 1e3 * m["project"]["median_s"], 1e3 * m["measure"]["median_s"]
    detail = f"{part:.0f} ms over {whole:.0f} ms, {m['measure']['count']} rounds"
    row("all measures of image quality / zip to projection", m["ratio"], "at most 0.15", m["ratio"] <= 0.15, detail)
    memory = results["projecting_memory"]["peak_mb"]
    row("memory of a projecting worker, MB", memory, "at most 350", memory <= 350, "peak resident memory")
    if "worker_scaling" in results:
        s = results["worker_scaling"]
        detail = f"projecting {s['scaling']['project']:.2f} x, inflating {s['scaling']['inflate']:.2f} x"
        row("scaling from 1 to 2 workers / that of inflating", s["ratio"], "at least 0.93", s["ratio"] >= 0.93, detail)
    c = results["cpu_inference"]
    detail = f"{c['backend']}; largest difference {c['largest_difference']:.1e} standardized units"
    fine = c["ratio"] >= 1.8 and c["largest_difference"] <= 1e-3
    row("ResNet-50 on this CPU / eager fp32 torch", c["ratio"], "at least 1.8", fine, detail)
    g = results["cuda_inference"]
    if g["measured"]:
        rate = g["member_evaluations_per_s"]
        detail = f"{g['device']}, {100 * g['share_of_matrix_ceiling']:.0f} % of the measured matrix ceiling"
        row("ResNet-50 member-evaluations per second on CUDA", rate, "at least 5000 (H200)", rate >= 5000, detail)
    else:
        row("ResNet-50 member-evaluations per second on CUDA", float("nan"), "at least 5000 (H200)", None, g["why"])
    _cuda_end_to_end_row(results["cuda_end_to_end"], row)
    _end_to_end_rows(results, row)
    return rows


def _cuda_end_to_end_row(g: dict[str, Any], row: Callable[[str, float, str, bool | None, str], None]) -> None:
    name, aim = "predict on zips with CUDA / the slower of its two stages", "at most 1.15"
    if not g["measured"]:
        row(name, float("nan"), aim, None, g["why"])
        return
    detail = f"{g['whole_s']:.1f} s; projecting {g['project_s']:.1f} s, inference {g['infer_s']:.1f} s"
    row(name, g["ratio"], aim, g["ratio"] <= 1.15, f"{g['device']}, {detail}")


def _end_to_end_rows(results: dict[str, Any], row: Callable[[str, float, str, bool | None, str], None]) -> None:
    e, alone = results["end_to_end"], results["projecting_alone"]
    project = alone["cpu_s"] / alone["scans"] * e["scans"]
    ideal = (project + results["inference_alone"]["cpu_s"]) / e["cores"]
    detail = f"{e['scans']} scans in {e['wall_s']:.1f} s with {e['cores']} workers, ideal {ideal:.1f} s"
    ratio = e["wall_s"] / ideal
    row("predict on zips / CPU time of its two stages over the cores", ratio, "at most 1.1", ratio <= 1.1, detail)
    second = results["start_up"]["second_s"]
    detail = f"first call {results['start_up']['first_s']:.1f} s"
    row("start-up to first result, s", second, "under 6", second < 6, detail)
    few, many = results["memory_scans"]
    peaks = [results[f"memory_{n}"]["peak_mb"] for n in (few, many)]
    detail = f"{peaks[0]:.0f} MB at {few} scans, {peaks[1]:.0f} MB at {many}"
    ratio = peaks[1] / peaks[0]
    row("peak memory of many scans / few scans", ratio, "at most 1.05", ratio <= 1.05, detail)


def _measure_scaling(
    config: BenchConfig, work: Path, small: list[str], inference: list[dict[str, float]], measure: _Once,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """How cost grows: seconds per scan by scans, workers, members and batch size (small scans)."""
    say("how cost grows ...")
    points: list[dict[str, Any]] = []
    base = min(300, config.end_to_end)

    def point(what: str, value: int, seconds: float, scans: int) -> None:
        points.append({"what": what, "value": value, "seconds": seconds, "per_scan_s": seconds / scans})

    def whole_run(scans: int, workers: int) -> float:
        folder = str(work / f"g{scans}-{workers}")
        run = measure("predict_run", scans=small, count=scans, work=folder, workers=workers)
        return float(run["wall_s"])

    for scans in sorted({max(1, base // 4), max(1, base // 2)}):
        point("scans", scans, whole_run(scans, cores()), scans)
    by_workers = {workers: whole_run(base, workers) for workers in range(1, cores() + 1)}
    point("scans", base, by_workers[cores()], base)
    for workers, seconds in by_workers.items():
        point("workers", workers, seconds, base)
    for (what, value, (_, _, count)), run in zip(_growth(config), inference, strict=True):
        point(what, value, run["wall_s"], count)
    return points


def _growth(config: BenchConfig) -> list[tuple[str, int, tuple[int, int, int]]]:
    """What of inference is varied, its value, and the measurement: batch size, members, projections."""
    count = config.inferences
    members = [("members", n, (8, n, count)) for n in config.members]
    return members + [("batch size", n, (n, 0, count)) for n in config.batches]


def _scaling_csv(points: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ("what", "value", "seconds", "per_scan_s"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(points)
    return buffer.getvalue()


def table(rows: list[Row]) -> list[str]:
    """The rows as lines of Markdown."""
    lines = ["| figure | value | aim | met | detail |", "|---|---|---|---|---|"]
    for r in rows:
        met = "" if r.met is None else "yes" if r.met else "**no**"
        value = "not measured" if r.value != r.value else f"{r.value:.3g}"
        lines.append(f"| {r.name} | {value} | {r.aim} | {met} | {r.detail} |")
    return lines


def _markdown(rows: list[Row], facts: dict[str, Any]) -> str:
    where = ", ".join(f"{k} {v}" for k, v in facts["machine"].items())
    stages = facts["results"]["stages"]
    read, project = 1e3 * stages["read_s"], 1e3 * stages["project_s"]
    split = f"Of one projection, reading takes {read:.0f} ms, fusion and projection {project:.0f} ms."
    return "\n".join([f"# Benchmark of {facts['date']}", "", where, "", *table(rows), "", split, ""])


def _plot(points: list[dict[str, Any]], path: Path, say: Callable[[str], None]) -> None:
    """Seconds per scan over scans, workers, members and batch size; needs the optional extra ``bench``."""
    try:
        import matplotlib as mpl
    except ImportError:
        say('no plot: pip install "ukb-infer[bench]"')
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(p["what"] for p in points))
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 2.8), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        chosen = [p for p in points if p["what"] == name]
        axis.plot([p["value"] for p in chosen], [1e3 * p["per_scan_s"] for p in chosen], "ko-", markersize=4)
        axis.set(xlabel=name, ylabel="ms a scan", ylim=(0, 1.1 * max(1e3 * p["per_scan_s"] for p in chosen)))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    figure.savefig(path, dpi=110)
    plt.close(figure)
