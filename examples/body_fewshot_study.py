"""Few labels of bodies: in domain, at a second site, and read from frozen features.

Synthetic bodies of UK Biobank's protocol are projected; an encoder is pretrained on some without labels, then adapted
with 20, 50 and 200 labels to age, visceral fat, liver fat and diabetes, beside the same networks from random weights.
Every module is judged on other people, scanned in domain and at a second site. Its intervals there are counted as they
are, and after fitting them again on 50 labelled scans of that site. A linear probe reads the targets from the frozen
features of the pretrained encoder; 40 % of its participants are learned from.

WORK keeps projections, the checkpoint and a table per task, start, number of labels and seed; the same command goes on
where it stopped. WORK/cases.csv holds all outputs.

Without options it runs in a minute, too small to mean anything. A real one takes hours:

    python examples/body_fewshot_study.py --work BODIES --tasks all --labels 20,50,200 --seeds 3 --labelled 250 \
        --test 250 --local 50 --pool 1000 --pretrain-steps 6000 --steps 0 --folds 5 --jobs 2
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fewshot_study import REPLICATES, SHOWN, check_steps, in_words, interval, run_all, verdict

from ukb_infer.evaluation.metrics import bootstrap_weights, resampled
from ukb_infer.evaluation.probe import ProbeConfig, run_probe
from ukb_infer.imaging.recipes import DEFAULT_RECIPE, RECIPES
from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.embed import EmbedConfig, run_embed
from ukb_infer.inference.predict import run_predict
from ukb_infer.modules.calibration import fit_target, half_width_of
from ukb_infer.networks.pretrained import ENCODER_NAME, FACTS_NAME
from ukb_infer.phantom import render, sample_subject, truths
from ukb_infer.phantom.cohort import scan_name
from ukb_infer.protocol import PROTOCOLS
from ukb_infer.runs import read_run
from ukb_infer.storage import atomic_path, atomic_write_text, sha256_file
from ukb_infer.tasks.adapt import run_adapt
from ukb_infer.tasks.registry import TASKS
from ukb_infer.training.finetune.config import PRESETS
from ukb_infer.training.pretrain.config import PretrainRequest, make_pretrain_config
from ukb_infer.training.pretrain.pretrain import run_pretrain

SEED, LEVEL = 201, 0.95
NAMES = ("age", "vat", "liver-fat", "diabetes")
TARGETS = {name: TASKS[f"body-{name}"].targets[0].name for name in NAMES}
STARTS = ("pretrained", "scratch")
#: First person of each cohort; nobody is in two.
FIRST = {"labelled": 1, "test": 10_001, "local": 20_001, "pool": 30_001}
#: Where each cohort is scanned, as folders of projections.
SCANNED = (("labelled", "ukb"), ("test", "ukb"), ("test", "second"), ("local", "second"), ("pool", "ukb"))
JUDGED = ("test-ukb", "test-second", "local-second")
FACTS, CASES, TRUTH = "cell.json", "cases.csv", "truth.csv"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One adaptation: its task, start, number of labels, seed and settings."""

    task: str
    start: str
    labels: int
    seed: int
    labelled: int
    steps: int
    folds: int
    size: str
    judged: tuple[int, int]
    weights: str

    def folder(self, work: Path) -> Path:
        return work / "cells" / self.task / self.start / f"{self.labels}-labels" / f"seed{self.seed}"

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"judged": list(self.judged)}


# -- projections -------------------------------------------------------------------------------------------------------


def write_projection(job: tuple[Path, int, str, str]) -> str:
    """Scan and project one person, as `phantom` and `project` do without the files between; says nothing."""
    path, index, site, size = job
    stations = render(sample_subject(SEED, index), size, protocol=PROTOCOLS[site]).stations  # type: ignore[arg-type]
    with atomic_path(path) as partial_path, partial_path.open("wb") as file:
        np.save(file, RECIPES[DEFAULT_RECIPE].project(stations))
    return ""


def write_bodies(given: argparse.Namespace, work: Path) -> None:
    """Projections of every cohort that are not there yet, and the true values of those with labels."""
    counts = {"labelled": given.labelled, "test": given.test, "local": given.local, "pool": given.pool}
    jobs = []
    for cohort, site in SCANNED:
        folder = work / f"{cohort}-{site}"
        folder.mkdir(parents=True, exist_ok=True)
        people = range(FIRST[cohort], FIRST[cohort] + counts[cohort])
        wanted = {f"{scan_name(index)}.npy" for index in people}
        if others := {path.name for path in folder.glob("*.npy")} - wanted:
            raise SystemExit(f"{folder} has {len(others)} more scans than this study; choose another --work")
        jobs += [(path, k, site, given.size) for k in people if not (path := folder / f"{scan_name(k)}.npy").is_file()]
    print(f"{len(jobs)} projections to write", flush=True)
    run_all(write_projection, jobs, given.jobs)
    labelled = [k for name in ("labelled", "test", "local") for k in range(FIRST[name], FIRST[name] + counts[name])]
    with atomic_path(work / TRUTH) as path, path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["scan", "eid", *TARGETS.values()])
        for index in labelled:
            values = truths(sample_subject(SEED, index))
            writer.writerow([scan_name(index), f"{index:07d}", *(values[name] for name in TARGETS.values())])


def pretrain(given: argparse.Namespace, work: Path) -> Path:
    """The checkpoint, given or made here."""
    if given.pretrained is not None:
        return Path(given.pretrained)
    out = work / "pretrained"
    if not (out / FACTS_NAME).is_file():
        config = make_pretrain_config(2, given.objective, steps=given.pretrain_steps, batch_size=given.batch_size)
        request = PretrainRequest(
            data=work / "pool-ukb", out=out, config=config, workers=0, threads=given.jobs,
            warning="Made from synthetic phantoms.",
        )  # fmt: skip
        run_pretrain(request, show=False)
    check_steps(out, given.pretrain_steps)
    return out


# -- cells -------------------------------------------------------------------------------------------------------------


def run_cell(cell: Cell, work: Path, checkpoint: Path) -> str:
    """Adapt, predict all cohorts; only the table is kept."""
    folder, target, said = cell.folder(work), TARGETS[cell.task], list[str]()
    started_file, wanted = folder / "started.json", json.dumps(cell.settings())
    if not started_file.is_file() or started_file.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started_file.write_text(wanted)
    started = time.monotonic()
    manifest = run_adapt(
        f"body-{cell.task}", work / "labelled-ukb", folder / "module", labels=work / TRUTH, shots=cell.labels,
        pretrained=checkpoint if cell.start == "pretrained" else None, seed=cell.seed, steps=cell.steps,
        folds=cell.folds, processes=1, threads=1, overwrite=True, say=said.append, show=False,
    )  # fmt: skip
    assert manifest is not None
    seconds = time.monotonic() - started
    predict(cell, folder, work, target).to_csv(folder / CASES, index=False)
    facts = {"settings": cell.settings(), "adapt_s": seconds, "transferred": manifest.training["transferred"]}
    atomic_write_text(folder / FACTS, json.dumps(facts | {"said": said}, indent=1) + "\n")
    for name in ("module", "module.work", *(f"run-{cohort}" for cohort in JUDGED)):
        shutil.rmtree(folder / name)
    found = next(line for line in said if line.startswith("out of fold"))
    return f"{cell.task}, {cell.start}, {cell.labels} labels, seed {cell.seed}: {found}; {seconds:.0f} s"


def predict(cell: Cell, folder: Path, work: Path, target: str) -> pd.DataFrame:
    """Outputs of a module for every cohort, beside the labels."""
    labels = pd.read_csv(work / TRUTH, index_col="scan")[target]
    tables = []
    for cohort in JUDGED:
        run_predict(
            PredictConfig(
                inputs=(str(work / cohort),), out=folder / f"run-{cohort}", modules=(str(folder / "module"),),
                workers=0, level=LEVEL, overwrite=True,
            )
        )  # fmt: skip
        run = read_run(folder / f"run-{cohort}")
        found = run.estimates(target)
        table = pd.DataFrame({"scan": [key.scan for key in run.keys]})
        for name in ("mean", "sd", "lower", "upper", "probability"):
            table[name] = getattr(found, name)
        table.insert(1, "label", table["scan"].map(labels))
        table.insert(0, "cohort", cohort)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def is_done(cell: Cell, work: Path) -> bool:
    """Whether the outputs of a cell of these settings are there."""
    path = cell.folder(work) / FACTS
    return path.is_file() and json.loads(path.read_text())["settings"] == cell.settings()


def make_cells(given: argparse.Namespace, checkpoint: Path) -> list[Cell]:
    """Those of all tasks, starts, numbers of labels and seeds."""
    weights = sha256_file(checkpoint / ENCODER_NAME)[:16]
    return [
        Cell(
            task=task, start=start, labels=labels, seed=seed, labelled=given.labelled, folds=given.folds,
            size=given.size,
            steps=given.steps or PRESETS["small"].steps_of(TASKS[f"body-{task}"].output, start == "pretrained", 2),
            judged=(given.test, given.local), weights=weights if start == "pretrained" else "random",
        )
        for seed in range(given.seeds) for labels in given.labels for task in given.tasks for start in STARTS
    ]  # fmt: skip


# -- tables ------------------------------------------------------------------------------------------------------------


def recalibrated(cases: pd.DataFrame) -> pd.DataFrame:
    """The outputs at the second site with intervals fitted again on its local labels."""
    local, test = (cases[cases["cohort"] == name] for name in ("local-second", "test-second"))
    label, mean, sd = (local[name].to_numpy(float) for name in ("label", "mean", "sd"))
    calibration, _ = fit_target(label, mean, np.square(sd), binary=False, method="conformal", note="local scans")
    half = half_width_of(calibration, LEVEL)
    width = np.nan if half is None else half * np.sqrt(calibration.factor) * test["sd"]
    return test.assign(lower=test["mean"] - width, upper=test["mean"] + width, cohort="recalibrated")


def values(cases: Sequence[pd.DataFrame], cohort: str, metric: str) -> np.ndarray:
    """(seeds, 1 + replicates) of a metric over the people of a cohort."""
    rows = []
    for table in cases:
        own = table[table["cohort"] == cohort].sort_values("scan")
        weights = np.concatenate(list(bootstrap_weights(own["scan"].to_numpy(str), REPLICATES, 0)))
        if metric in ("coverage", "width"):
            inside = (own["label"] >= own["lower"]) & (own["label"] <= own["upper"])
            covered = inside.where(own["lower"].notna()).astype(float)
            each = covered if metric == "coverage" else own["upper"] - own["lower"]
            rows.append(weights @ each.to_numpy() / weights.sum(axis=1))
        else:
            rows.append(resampled(metric, own["label"].to_numpy(float), own["mean"].to_numpy(float), weights))
    return np.stack(rows)


def report(given: argparse.Namespace, cells: Sequence[Cell], work: Path, checkpoint: Path) -> str:
    """The tables."""
    cases = {cell: pd.read_csv(cell.folder(work) / CASES) for cell in cells}
    every = [table.assign(task=c.task, start=c.start, labels=c.labels, seed=c.seed) for c, table in cases.items()]
    pd.concat(every, ignore_index=True).to_csv(work / CASES, index=False)
    lines = [
        f"{given.test} people, scanned at both sites; {given.seeds} seeds; 95 % intervals over people and seeds.", "",
        f"| task | metric | labels | site | {' | '.join((*STARTS, ' - '.join(STARTS)))} | |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    covered = [
        "", f"| task | labels | start | covered by {100 * LEVEL:g} % intervals, in domain | second site | after "
        f"recalibration on {given.local} | times wider |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    reached: dict[str, float] = {}
    for task in given.tasks:
        binary = TASKS[f"body-{task}"].output == "class"
        for labels in given.labels:
            own = {s: [cases[c] for c in cells if (c.task, c.labels, c.start) == (task, labels, s)] for s in STARTS}
            for metric in ("auroc",) if binary else ("r2", "mae"):
                for cohort in JUDGED[:2]:
                    found = {start: values(own[start], cohort, metric) for start in STARTS}
                    difference = found["pretrained"] - found["scratch"]
                    texts = " | ".join(map(interval, (*found.values(), difference)))
                    site = cohort.removeprefix("test-")
                    lines.append(
                        f"| {task} | {SHOWN[metric]} | {labels} | {site} | {texts} | {verdict(difference, metric)} |"
                    )
                    if cohort == JUDGED[0] and metric != "mae":
                        reached[task] = float(found["pretrained"][:, 0].mean())
            covered += [] if binary else [coverage_row(task, labels, start, own[start]) for start in STARTS]
    probed = probe_rows(given, work, checkpoint, reached)
    return "\n".join([*lines, *covered, "", *probed, "", *budgets(given, cells, work)])


def coverage_row(task: str, labels: int, start: str, cases: Sequence[pd.DataFrame]) -> str:
    """Coverage in domain, at the second site, and there after recalibration."""
    again = [recalibrated(table) for table in cases]
    parts = [values(cases, "test-ukb", "coverage"), values(cases, "test-second", "coverage")]
    parts.append(values(again, "recalibrated", "coverage"))
    wider = values(again, "recalibrated", "width")[:, 0] / values(cases, "test-second", "width")[:, 0]
    ratio = "–" if np.isnan(wider).all() else f"{np.nanmedian(wider):.2f}"
    return f"| {task} | {labels} | {start} | {' | '.join(map(interval, parts))} | {ratio} |"


def probe_rows(given: argparse.Namespace, work: Path, checkpoint: Path, reached: dict[str, float]) -> list[str]:
    """What a linear layer reads from frozen features, against the modules of most labels."""
    table = work / "features.csv"
    inputs = tuple(str(work / name) for name in ("labelled-ukb", "test-ukb"))
    run_embed(EmbedConfig(inputs=inputs, module=str(checkpoint), out=table, workers=0, overwrite=True))
    lines = [f"| task | metric | probe, {round(0.4 * (given.labelled + given.test))} labels | finetuned, "
             f"{given.labels[-1]} labels | share |", "|---|---|---|---|---|"]  # fmt: skip
    for task in given.tasks:
        config = ProbeConfig(embeddings=table, labels=work / TRUTH, target=TARGETS[task], out=work / f"probe-{task}")
        found = run_probe(config).metrics
        metric = "r2" if "r2" in found else "auroc"
        value = found[metric]
        share = f"{100 * value.value / reached[task]:.0f} %" if metric == "r2" and reached[task] > 0 else ""
        lines.append(f"| {task} | {SHOWN[metric]} | {in_words(value)} | {reached[task]:.3f} | {share} |")
    return lines


def budgets(given: argparse.Namespace, cells: Sequence[Cell], work: Path) -> list[str]:
    """Steps and median seconds of an adaptation."""
    lines = ["| task | start | networks x steps | from the checkpoint | s to adapt |", "|---|---|---|---|---|"]
    for task in given.tasks:
        for start in STARTS:
            own = [cell for cell in cells if (cell.task, cell.start) == (task, start)]
            facts = [json.loads((cell.folder(work) / FACTS).read_text()) for cell in own]
            seconds, share = (float(np.median([f[name] for f in facts])) for name in ("adapt_s", "transferred"))
            lines.append(
                f"| {task} | {start} | {own[0].folds} x {own[0].steps} | {100 * share:.0f} % | {seconds:.0f} |"
            )
    return lines


def parse() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = partial(str.split, sep=",")
    parser.add_argument("--work", type=Path, help="folder that keeps everything [default: a temporary one]")
    parser.add_argument("--tasks", type=listed, default=["vat"], help=f"of {','.join(NAMES)}, or all")
    parser.add_argument("--labels", type=lambda text: [int(n) for n in text.split(",")], default=[6], help="ascending")
    parser.add_argument("--seeds", type=int, default=1, help="adaptations of each task, start and number of labels")
    parser.add_argument("--labelled", type=int, default=10, help="people of whom the labels are drawn")
    parser.add_argument("--test", type=int, default=10, help="people to judge by, at both sites")
    parser.add_argument("--local", type=int, default=20, help="labelled scans of the second site, to recalibrate")
    parser.add_argument("--pool", type=int, default=10, help="people without labels, if something is pretrained")
    parser.add_argument("--pretrained", metavar="FOLDER", help="existing checkpoint [default: pretrain one]")
    parser.add_argument("--objective", default="contrastive", help="of pretraining")
    parser.add_argument("--pretrain-steps", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4, help="of pretraining")
    parser.add_argument("--steps", type=int, default=4, help="of each network; 0: the preset's")
    parser.add_argument("--folds", type=int, default=2, help="networks of a module")
    parser.add_argument("--size", choices=["small", "full"], default="small", help="of the scanner's matrix")
    parser.add_argument("--jobs", type=int, default=1, help="scans and cells at a time, one thread each")
    given = parser.parse_args()
    given.tasks = list(NAMES) if given.tasks == ["all"] else given.tasks
    if unknown := set(given.tasks) - set(NAMES):
        parser.error(f"--tasks: got {', '.join(unknown)}, expected some of {','.join(NAMES)}, or all")
    return given


def main() -> None:
    """Project, pretrain, adapt, predict, compare."""
    given = parse()
    work = given.work or Path(tempfile.mkdtemp(prefix="ukb-infer-study-"))
    write_bodies(given, work)
    checkpoint = pretrain(given, work)
    cells = make_cells(given, checkpoint)
    todo = [cell for cell in cells if not is_done(cell, work)]
    print(f"{len(cells)} cells, {len(cells) - len(todo)} of them done before", flush=True)
    run_all(partial(run_cell, work=work, checkpoint=checkpoint.absolute()), todo, given.jobs)
    text = report(given, cells, work, checkpoint)
    (work / "tables.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
