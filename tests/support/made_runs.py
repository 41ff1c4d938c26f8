"""Run folders without scans: tables of made-up people, of any number, as `predict` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from ukb_infer.quality.limits import read_spec
from ukb_infer.quality.registry import MEASURES
from ukb_infer.targets import TARGETS, TargetSpec

Float64 = NDArray[np.float64]
#: Share of people with a repeat visit, of scans that fail, that are flagged.
REPEATED, FAILED, FLAGGED = 0.08, 0.01, 0.06
FLAGS = ("motion", "knee_missing", "seam_mismatch", "out_of_distribution", "low_signal_to_noise", "metal")
LEVELS = {"knee_missing": "targets", "out_of_distribution": ""}
HOSTILE = '<script>document.title="broken"</script><img src=x onerror=alert(1)>'


def make_run(
    folder: Path, people: int, *, targets: Sequence[str] = tuple(TARGETS), seed: int = 0, hostile: bool = False
) -> Path:
    """Write a run; with ``hostile``, the first failed scan has markup in its path and message."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    eids, visits = _keys(people, rng)
    count = eids.size
    body = {"sex": rng.integers(0, 2, people)[eids - 1], "size": rng.normal(size=people)[eids - 1],
            "age": rng.uniform(45, 80, people)[eids - 1]}  # fmt: skip
    failed, flags = rng.random(count) < FAILED, rng.random(count) < FLAGGED
    failed[min(3, count - 1)] = True
    reasons = np.where(failed, "slice_missing", np.where(flags, rng.choice(FLAGS, count), ""))
    keys = _key_columns(eids, visits)
    _write(folder / "scans.csv", _scan_columns(keys, reasons, failed, hostile))
    _write(folder / "quality.csv", keys | _quality_columns(reasons, failed, body, rng))
    used = ~failed
    estimates: dict[str, Float64] = {}
    for target in targets:
        estimates |= _estimates(TARGETS[target], body, used, rng)
    percentile = np.where(reasons[used] == "out_of_distribution", 99.9, rng.uniform(0, 99.8, used.sum()))
    taken = {name: np.asarray(values)[used] for name, values in keys.items()}
    _write(folder / "estimates.csv", taken | {"ood_percentile": percentile.round(4)} | estimates)
    _write_facts(folder, targets)
    return folder


def write_phenotypes(folder: Path, path: Path) -> Path:
    """Sex and age of the people of a run, made up."""
    rng = np.random.default_rng(1)
    eids = sorted({line.split(",")[1] for line in (folder / "scans.csv").read_text().splitlines()[1:]})
    rows = [f"{eid},{rng.integers(0, 2)},{rng.integers(45, 80)}" for eid in eids if eid]
    path.write_text("\n".join(["eid,p31,p21003_i2", *rows, ""]))
    return path


def write_labels(folder: Path, path: Path, targets: Sequence[str]) -> Path:
    """Labels that the estimates of a run miss by about their own sd."""
    import pandas as pd

    rng = np.random.default_rng(2)
    table = pd.read_csv(folder / "estimates.csv", dtype={"eid": str})
    labels = table[["scan"]].assign(
        **{t: (table[f"{t}_mean"] + table[f"{t}_sd"] * rng.normal(size=len(table))).round(4)
           .clip(TARGETS[t].lower, TARGETS[t].upper) for t in targets}
    )  # fmt: skip
    labels.to_csv(path, index=False)
    return path


def _keys(people: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    again = np.flatnonzero(rng.random(people) < REPEATED) + 1
    eids = np.concatenate([np.arange(people) + 1, again])
    visits = np.concatenate([np.full(people, 2), np.full(again.size, 3)])
    order = np.lexsort((visits, eids))
    return eids[order], visits[order]


def _key_columns(eids: NDArray[np.int64], visits: NDArray[np.int64]) -> dict[str, Any]:
    names = [f"{e:07d}_20201_{v}_0" for e, v in zip(eids.tolist(), visits.tolist(), strict=True)]
    return {"eid": np.array([n[:7] for n in names]), "instance": visits, "array": np.zeros_like(visits),
            "scan": np.array(names)}  # fmt: skip


def _scan_columns(
    keys: Mapping[str, Any], reasons: NDArray[Any], failed: NDArray[np.bool_], hostile: bool
) -> dict[str, Any]:
    status = np.where(failed, "failed", np.where(reasons != "", "flagged", "ok"))
    message = [f"{reason}_3 is {k % 97}.{k % 89}, expected less" if reason else "" for k, reason in enumerate(reasons)]
    path = [f"/data/20201/{scan}.zip" for scan in keys["scan"]]
    if hostile:
        first = int(np.flatnonzero(failed)[0])
        path[first], message[first] = f"/data/{HOSTILE}.zip", HOSTILE
    stations = np.where(failed, 0, 6)
    return {"scan": keys["scan"], "eid": keys["eid"], "instance": keys["instance"], "array": keys["array"],
            "status": status, "reasons": reasons, "message": message, "stations": stations, "path": path}  # fmt: skip


def _quality_columns(
    reasons: NDArray[Any], failed: NDArray[np.bool_], body: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    level = [LEVELS.get(r, "note") if r and not f else "" for r, f in zip(reasons, failed, strict=True)]
    flags = np.where(failed | (reasons == "out_of_distribution"), "", reasons)
    affected = np.where(reasons == "knee_missing", "AtlasTotalThighMuscleVolume", "")
    columns: dict[str, Any] = {"level": level, "flags": flags, "affected": affected}
    for name, measure in MEASURES.items():
        if measure.unit == "text":
            columns[name] = np.where(failed, "", np.where(body["age"] > 60, "SYNTHETIC A", "SYNTHETIC B"))
            continue
        parts = {"scan": 0, "seam": 5}.get(measure.per, 6)
        values = np.exp(rng.normal(0.1 * body["size"], 0.2, (parts + 1, failed.size)).T)
        values[failed] = np.nan
        for k in range(parts + 1):
            columns[name if k == 0 else f"{name}_{k}"] = np.array([float(f"{v:.6g}") for v in values[:, k].tolist()])
    return columns


def _estimates(
    spec: TargetSpec, body: Mapping[str, Any], used: NDArray[np.bool_], rng: np.random.Generator
) -> dict[str, Float64]:
    """Columns of a target, as wide and as uncertain as published where that is known."""
    sex, size, age, count = body["sex"][used], body["size"][used], body["age"][used], int(used.sum())
    if spec.is_binary:
        mean = (sex if spec.name == "sex" else rng.random(count) < 0.05) + rng.normal(0, 0.1, count)
        probability = np.clip(mean, 0.001, 0.999)
        return {f"{spec.name}_mean": mean, f"{spec.name}_probability": probability,
                f"{spec.name}_class": (probability >= 0.5).astype(np.float64)}  # fmt: skip
    middle = 0.5 * ((spec.plausible_min or 0.0) + (spec.plausible_max or 10.0))
    r2 = min(0.99, spec.published.cv_r2 or 0.8)
    sd = 1.25 * spec.published.cv_mae if spec.published.cv_mae else 0.1 * middle
    spread = sd / np.sqrt(1 - r2)
    mixed = 0.6 * size + 0.4 * (sex - 0.5) - 0.3 * (age - 62) / 10 + rng.normal(0, 0.6, count)
    mean = middle + spread * mixed
    sds = sd * np.exp(rng.normal(0.1 * size, 0.15, count))
    return {f"{spec.name}_mean": mean, f"{spec.name}_sd": sds, f"{spec.name}_ci95_lower": mean - 1.96 * sds,
            f"{spec.name}_ci95_upper": mean + 1.96 * sds}  # fmt: skip


def _write(path: Path, columns: Mapping[str, Any]) -> None:
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    csv.write_csv(table, path, csv.WriteOptions(quoting_style="needed"))


def _write_facts(folder: Path, targets: Sequence[str]) -> None:
    specs = [TARGETS[name] for name in targets]
    facts = {
        "schema_version": 1, "level": 0.95, "level_name": "ci95", "quality": read_spec().to_plain(),
        "targets": [{"name": s.name, "unit": s.unit, "field": s.field, "kind": s.kind} for s in specs],
        "modules": [{"name": "made-up", "version": "1.0.0", "sha256": "0" * 64, "warning": "Made-up numbers."}],
        "configuration": {"recipe": "mimir-1", "ood_threshold": 99.8},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(facts))
