"""Few labels, unseen sites: does pretraining help? On synthetic heads, the tasks of FOMO25 and one of our own, sex.

Every arm learns from the same few labelled heads of some sites and is judged on heads of other sites. An arm is

- the name of a checkpoint: an objective (`mae`, `hybrid`, `contrastive`), or an objective with what varied in its
  pretraining (`mae-none`, `mae-spatial`, `mae-intensity`). It is pretrained here, unless --pretrained gives a folder;
- `scratch`: random weights, the same few heads; `in-domain`: random weights, many labelled heads of the unseen sites;
- `untrained`: random weights, anew by seed, adapted like a checkpoint (each contrast seen alone, head fitted first, few
  steps), which tells what the recipe brings without pretraining;
- any of them with another augmentation while adapting, e.g. `mae:none`, `scratch:all`.

WORK keeps heads, checkpoints and one folder per task, arm and seed with the outputs of every case; the same command
goes on where it stopped, and more arms or seeds are added to what is there. WORK/cases.csv holds all outputs.

Without options it runs in a minute, too small to mean anything. A real one takes hours:

    python examples/fewshot_study.py --work STUDY --seeds 5 --shots 24 --many 120 --test 120 --pool 500 \
        --steps 0 --folds 5 --pretrain-steps 6000 --arms mae,hybrid,untrained,scratch,in-domain --jobs 2
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ukb_infer.evaluation.metrics import MetricValue, bootstrap_weights, over_seeds, resampled, summarize
from ukb_infer.imaging.datasets import index_dataset, write_images
from ukb_infer.networks import EncoderSpec, Pretrained, build_encoder, load_pretrained, save_pretrained
from ukb_infer.networks.pretrained import ENCODER_NAME, FACTS_NAME
from ukb_infer.phantom.heads.cohort import write_heads
from ukb_infer.storage import atomic_write_text, sha256_file
from ukb_infer.tasks.adapt import run_adapt
from ukb_infer.tasks.predict import run_benchmark_predict
from ukb_infer.tasks.registry import TASKS
from ukb_infer.tasks.suites import ScoreConfig, run_score, worst_estimates
from ukb_infer.tasks.task import Task, TaskTarget
from ukb_infer.training.finetune.config import PRESETS
from ukb_infer.training.pretrain.config import PretrainRequest, make_pretrain_config
from ukb_infer.training.pretrain.pretrain import run_pretrain

NAMES = ("infarct", "meningioma", "brain-age", "sex")
#: A task of our own, as a TOML file would give it: 1 is male, on the heads of brain age.
SEX = Task(
    name="sex", title="Sex from T1 and T2", dimension=3, inputs=(("t1",), ("t2",)), output="class",
    targets=(TaskTarget(name="sex", lower=0.0, upper=1.0),), metrics=("auroc",),
)  # fmt: skip
#: Seeds of the cohorts; layouts with the same seed share no head either.
SEEDS = {"few": 101, "many": 102, "test": 103, "pool": 104}
#: The few are drawn, anew by every seed, from so many times as many heads.
DRAWN_FROM = 3
REPLICATES = 2000
#: Metrics of which less is better.
ERRORS = ("mae",)
#: Metrics as tables name them.
SHOWN = {"auroc": "AUROC", "dice": "Dice", "nsd": "NSD", "mae": "MAE", "r": "r", "r2": "R²"}
UNTRAINED = "untrained"
CONTROLS = ("scratch", UNTRAINED, "in-domain")
FACTS = "cell.json"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One adaptation and its outputs for the unseen heads.

    Attributes:
        task: of :data:`NAMES`; ``arm``, ``seed``: see above.
        shots: labelled heads; ``steps``: of each of ``folds`` networks.
        checkpoint: folder, or None for random weights; ``weights``: hash of its encoder.
        learned: facts of the cohort learned from; ``judged``: of that of the test.
    """

    task: str
    arm: str
    seed: int
    shots: int
    steps: int
    folds: int
    checkpoint: str | None
    weights: str
    learned: str
    judged: str

    def folder(self, work: Path) -> Path:
        return work / "cells" / self.task / self.arm.replace(":", "+") / f"seed{self.seed}"

    def settings(self) -> dict[str, Any]:
        """What makes outputs of another cell useless; a checkpoint may be moved."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "checkpoint"}


def task_of(name: str) -> Task:
    """The task of a name on the command line."""
    return SEX if name == SEX.name else TASKS[f"fomo25-{name}"]


def make_heads(
    folder: Path, layout: str, count: int, seed: int, sites: Sequence[str], given: argparse.Namespace
) -> str:
    """Write a cohort unless it is there, whole or not at all; returns what it is."""
    facts = f"{layout} {count} heads, seed {seed}, {'+'.join(sites)}, {given.size}"
    marker = folder / "study.txt"
    if not marker.is_file() or marker.read_text() != facts:
        partial_folder = folder.with_name(f"{folder.name}.partial")
        for old in (partial_folder, folder):
            shutil.rmtree(old, ignore_errors=True)
        write_heads(
            partial_folder, "brain-age" if layout == SEX.name else layout, count, seed, sites=sites, size=given.size,
            workers=given.jobs,
        )  # fmt: skip
        if layout == SEX.name:
            people = pd.read_csv(partial_folder / "participants.tsv", sep="\t", index_col="participant_id")
            for path in (partial_folder / "labels").rglob("label.txt"):
                name = path.relative_to(partial_folder / "labels").parts[0]
                path.write_text(f"{int(people.loc[name, 'sex'] == 'M')}\n")
        (partial_folder / "study.txt").write_text(facts)
        partial_folder.replace(folder)
    return facts


def checkpoints(given: argparse.Namespace, work: Path) -> dict[str, Path]:
    """Folder of every checkpoint that an arm names, pretrained if need be."""
    found = {name: Path(folder) for name, _, folder in (text.partition("=") for text in given.pretrained)}
    for name, folder in found.items():
        settings, preset = load_pretrained(folder).settings, PRESETS["small"]
        if (settings.get("spacing_mm"), tuple(settings.get("size") or ())) != (preset.spacing_mm, preset.size):
            raise SystemExit(f"{name}: the box of {folder} is not that of the other arms, {preset.size} voxels")
    wanted = dict.fromkeys(arm.partition(":")[0] for arm in given.arms)
    for name in wanted:
        if name not in found and name not in CONTROLS:
            found[name] = pretrain(name, given, work)
    return found


def pretrain(name: str, given: argparse.Namespace, work: Path) -> Path:
    """Pretrain on the pool of the sites that have labels; goes on where it stopped."""
    out, table = work / "checkpoints" / name, work / "pool" / "images.csv"
    if (out / FACTS_NAME).is_file():
        check_steps(out, given.pretrain_steps)
        return out
    make_heads(work / "pool" / "heads", "fomo60k", given.pool, SEEDS["pool"], given.sites, given)
    if not table.is_file():
        write_images(index_dataset(table.parent / "heads", validation=0.1, seed=0), table)
    objective, _, augment = name.partition("-")
    config = make_pretrain_config(
        3, objective, steps=given.pretrain_steps, batch_size=given.batch_size, augment=augment or "all"
    )
    request = PretrainRequest(
        data=table, out=out, config=config, workers=0, threads=given.jobs, warning="Made from synthetic phantoms."
    )
    started = time.monotonic()
    run_pretrain(request, show=False)
    print(f"pretrained {name} in {time.monotonic() - started:.0f} s", flush=True)
    return out


def write_untrained(folder: Path, seed: int) -> Path:
    """A checkpoint whose encoder never saw an image."""
    preset, spec = PRESETS["small"], EncoderSpec(dim=3, channels=1)
    torch.manual_seed(seed)
    state = build_encoder(spec).state_dict()
    settings = {"spacing_mm": preset.spacing_mm, "size": list(preset.size)}
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"objective": "none", "steps": 0, "images": 0, "participants": 0}
    save_pretrained(folder, Pretrained(spec=spec, settings=settings, state=state, facts=facts))
    return folder


def check_steps(checkpoint: Path, steps: int) -> None:
    """Refuse a checkpoint of an earlier call with other steps."""
    if (found := load_pretrained(checkpoint).facts["steps"]) != steps:
        raise SystemExit(f"{checkpoint} has {found} steps, not {steps}; give --pretrain-steps {found}, or remove it")


def make_cells(given: argparse.Namespace, work: Path) -> list[Cell]:
    """Heads, checkpoints and the cells of all tasks, arms and seeds; a seed of all arms comes before the next."""
    found, cells = checkpoints(given, work), []
    for task in given.tasks:
        shots = given.shots[NAMES.index(task)]
        few = make_heads(work / f"{task}-few", task, DRAWN_FROM * shots, SEEDS["few"], given.sites, given)
        test = make_heads(work / f"{task}-test", task, given.test, SEEDS["test"], given.unseen, given)
        many = ""
        if any(arm.startswith("in-domain") for arm in given.arms):
            many = make_heads(work / f"{task}-many", task, given.many, SEEDS["many"], given.unseen, given)
        for arm, seed in itertools.product(given.arms, range(given.seeds)):
            name = arm.partition(":")[0]
            folder = found.get(name)
            if name == UNTRAINED:
                folder = write_untrained(work / "checkpoints" / f"{UNTRAINED}-{seed}", seed)
            steps = given.steps or PRESETS["small"].steps_of(task_of(task).output, folder is not None, 3)
            cells.append(
                Cell(
                    task=task, arm=arm, seed=seed, shots=given.many if name == "in-domain" else shots, steps=steps,
                    folds=given.folds, checkpoint=None if folder is None else str(folder.absolute()),
                    weights="random" if folder is None else sha256_file(folder / ENCODER_NAME)[:16],
                    learned=many if name == "in-domain" else few, judged=test,
                )
            )  # fmt: skip
    return sorted(cells, key=lambda cell: cell.seed)


def facts_of(cell: Cell, work: Path) -> dict[str, Any] | None:
    """What is known of a finished cell of the same settings."""
    path = cell.folder(work) / FACTS
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found if found["settings"] == cell.settings() else None


def run_cell(cell: Cell, work: Path, keep: bool) -> str:
    """Adapt, predict, score; only the tables are kept."""
    folder, task = cell.folder(work), task_of(cell.task)
    started_file = folder / "started.json"
    wanted = json.dumps(cell.settings())
    if not started_file.is_file() or started_file.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started_file.write_text(wanted)
    name, _, augment = cell.arm.partition(":")
    data, module, said = work / f"{cell.task}-{'many' if name == 'in-domain' else 'few'}", folder / "module", []
    times = [time.monotonic()]
    manifest = run_adapt(
        task, data, module, say=said.append, show=False, shots=cell.shots, seed=cell.seed, steps=cell.steps,
        folds=cell.folds, augment=augment or "auto", processes=1, threads=1, overwrite=True,
        pretrained=None if cell.checkpoint is None else Path(cell.checkpoint),
    )  # fmt: skip
    times.append(time.monotonic())
    test = work / f"{cell.task}-test"
    predicted = run_benchmark_predict(str(module), test, folder / "outputs")
    times.append(time.monotonic())
    config = ScoreConfig(
        predictions=folder / "outputs", labels=test, out=folder / "scores", suite="fomo25", replicates=0,
        task="fomo25-infarct" if task == SEX else task.name,  # scored like any class
    )  # fmt: skip
    run_score(config)
    assert manifest is not None
    adapted, predicting = np.diff(times).tolist()
    facts = {
        "settings": cell.settings(), "transferred": manifest.training["transferred"],
        "adapt_s": round(adapted, 1), "case_s": round(predicting / len(predicted.cases), 2), "said": said,
    }  # fmt: skip
    atomic_write_text(folder / FACTS, json.dumps(facts, indent=1) + "\n")
    if not keep:
        for name in ("module", "module.work", "outputs"):
            shutil.rmtree(folder / name)
    found = next(line for line in said if line.startswith("out of fold"))
    return f"{cell.task}, {cell.arm}, seed {cell.seed}: {found}; {adapted:.0f} s"


def run_all(work_on: Callable[[Any], str], todo: Sequence[Any], jobs: int) -> None:
    """Do everything that is not done, several at a time, and print what each says, if anything."""
    told: Iterator[str]
    if jobs == 1 or len(todo) < 2:
        told = map(work_on, todo)
    else:
        pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
        told = pool.map(work_on, todo)
    for line in filter(None, told):
        print(line, flush=True)


# -- tables ------------------------------------------------------------------------------------------------------------


def read_cases(cells: Sequence[Cell], work: Path) -> pd.DataFrame:
    """Outputs of all cases: task, arm, seed, participant, site, status, and label and estimate or dice and nsd."""
    tables = []
    for cell in cells:
        table = pd.read_csv(cell.folder(work) / "scores" / "cases.csv")
        people = pd.read_csv(work / f"{cell.task}-test" / "participants.tsv", sep="\t", index_col="participant_id")
        table.insert(1, "site", table["participant"].map(people["site"]))
        for name in ("seed", "arm", "task"):
            table.insert(0, name, getattr(cell, name))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def replicates(cases: pd.DataFrame, task: str, arm: str, metric: str) -> np.ndarray:
    """(seeds, 1 + replicates) of a metric: first of all cases, then of cases drawn alike for every arm and seed."""
    own = cases[(cases["task"] == task) & (cases["arm"] == arm)]

    def by_seed(column: str) -> np.ndarray:
        return own.pivot(index="seed", columns="participant", values=column).sort_index(axis=1).to_numpy(float)

    names = np.array(sorted(own["participant"].unique()))
    weights = np.concatenate(list(bootstrap_weights(names, REPLICATES, 0)))
    if metric in ("dice", "nsd"):
        return by_seed(metric) @ weights.T / weights.sum(axis=1)
    output = task_of(task).output
    pairs = zip(by_seed("label"), by_seed("estimate"), strict=True)
    return np.stack([resampled(metric, label, worst_estimates(label, one, output), weights) for label, one in pairs])


def interval(rows: np.ndarray) -> str:
    """Mean over seeds with its 95 % interval over cases and seeds."""
    return in_words(summarize(over_seeds(rows, 0)))


def in_words(found: MetricValue) -> str:
    """A value with its interval, as far as they are defined."""
    if np.isnan(found.value):
        return "–"
    return f"{found.value:.3f}" + ("" if np.isnan(found.low) else f" ({found.low:.3f} to {found.high:.3f})")


def verdict(rows: np.ndarray, metric: str) -> str:
    """Whether the interval of a difference excludes 0, and on which side."""
    found = summarize(over_seeds(rows, 0))
    sign = -1.0 if metric in ERRORS else 1.0
    worst, best = sorted((sign * found.low, sign * found.high))
    return "better" if worst > 0 else "worse" if best < 0 else "not shown"


def report(given: argparse.Namespace, cells: Sequence[Cell], work: Path) -> str:
    """The tables."""
    cases = read_cases(cells, work)
    cases.to_csv(work / "cases.csv", index=False)
    pairs = [(task, metric) for task in given.tasks for metric in task_of(task).metrics]
    rows = {(t, m, arm): replicates(cases, t, arm, m) for t, m in pairs for arm in given.arms}
    missing = int((cases["status"] != "ok").sum())
    lines = [
        f"Sites {', '.join(given.sites)}; judged on {given.test} heads of {', '.join(given.unseen)}; "
        f"{given.seeds} seeds; 95 % intervals over cases and seeds ({REPLICATES} paired draws); "
        f"{missing} outputs missing.", "",
        f"| task | metric | {' | '.join(given.arms)} |", "|---|---|" + "---|" * len(given.arms),
        *(f"| {t} | {SHOWN[m]} | {' | '.join(interval(rows[t, m, a]) for a in given.arms)} |" for t, m in pairs), "",
        "| task | metric | difference | value | |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for task, metric in pairs:
        for control in [arm for arm in given.arms if arm in CONTROLS]:
            for arm in [arm for arm in given.arms if arm not in CONTROLS]:
                found = rows[task, metric, arm] - rows[task, metric, control]
                name = f"{arm} - {control}"
                lines.append(f"| {task} | {SHOWN[metric]} | {name} | {interval(found)} | {verdict(found, metric)} |")
    return "\n".join([*lines, "", *budgets(given, cells, work)])


def budgets(given: argparse.Namespace, cells: Sequence[Cell], work: Path) -> list[str]:
    """Labels, steps and seconds of every task and arm, and what the checkpoints are."""
    lines = ["| task | arm | labels | networks x steps | from the checkpoint | s to adapt | s a case |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for task in given.tasks:
        for arm in given.arms:
            own = [cell for cell in cells if (cell.task, cell.arm) == (task, arm)]
            facts = [found for cell in own if (found := facts_of(cell, work)) is not None]
            share, adapted, case = (
                float(np.median([found[name] for found in facts])) for name in ("transferred", "adapt_s", "case_s")
            )
            counts = f"{own[0].shots} | {own[0].folds} x {own[0].steps}"
            lines.append(f"| {task} | {arm} | {counts} | {100 * share:.0f} % | {adapted:.0f} | {case:.2f} |")
    lines += ["", "| checkpoint | objective | steps | images | heads |", "|---|---|---|---|---|"]
    for checkpoint, folder in {c.arm.partition(":")[0]: c.checkpoint for c in cells if c.checkpoint}.items():
        known = load_pretrained(Path(str(folder))).facts
        counts = (known.get(key, "") for key in ("objective", "steps", "images", "participants"))
        lines.append(f"| {checkpoint} | {' | '.join(map(str, counts))} |")
    return lines


def parse() -> argparse.Namespace:
    """Options."""

    def listed(text: str) -> list[str]:
        return text.split(",")

    def numbers(text: str) -> list[int]:
        found = [int(part) for part in text.split(",")]
        return found * len(NAMES) if len(found) == 1 else found

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder that keeps everything [default: a temporary one]")
    parser.add_argument("--tasks", type=listed, default=list(NAMES), help=f"of {','.join(NAMES)}")
    parser.add_argument("--arms", type=listed, default=["mae", *CONTROLS], help="see above")
    parser.add_argument("--seeds", type=int, default=1, help="adaptations of each task and arm")
    parser.add_argument(
        "--shots", type=numbers, default=[2] * len(NAMES), help="labelled heads of the tasks, or one number"
    )
    parser.add_argument("--many", type=int, default=6, help="labelled heads of the arm in-domain")
    parser.add_argument("--test", type=int, default=4, help="heads of unseen sites")
    parser.add_argument("--sites", type=listed, default=["site_a", "site_b", "site_c"], help="with the few labels")
    parser.add_argument("--unseen", type=listed, default=["site_f", "site_g"], help="sites of the test")
    parser.add_argument("--size", choices=["small", "full"], default="small", help="of the synthetic heads' files")
    parser.add_argument("--steps", type=int, default=2, help="of each network; 0: the preset's")
    parser.add_argument("--folds", type=int, default=2, help="networks of a module")
    parser.add_argument("--pretrained", action="append", default=[], metavar="NAME=FOLDER", help="existing checkpoint")
    parser.add_argument("--pool", type=int, default=6, help="unlabelled heads, if something is pretrained")
    parser.add_argument("--pretrain-steps", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4, help="of pretraining")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, one thread each")
    parser.add_argument("--keep", action="store_true", help="keep modules and outputs, some 30 MB a cell")
    given = parser.parse_args()
    if unknown := set(given.tasks) - set(NAMES):
        parser.error(f"--tasks: got {', '.join(unknown)}, expected some of {','.join(NAMES)}")
    if len(given.shots) != len(NAMES):
        parser.error(f"--shots: got {len(given.shots)} numbers, expected one, or {len(NAMES)} for {','.join(NAMES)}")
    return given


def main() -> None:
    """Write heads, pretrain, adapt, predict, score, compare."""
    given = parse()
    work = given.work or Path(tempfile.mkdtemp(prefix="ukb-infer-study-"))
    work.mkdir(parents=True, exist_ok=True)
    cells = make_cells(given, work)
    todo = [cell for cell in cells if facts_of(cell, work) is None]
    print(f"{len(cells)} cells, {len(cells) - len(todo)} of them done before", flush=True)
    run_all(partial(run_cell, work=work, keep=given.keep), todo, given.jobs)
    text = report(given, cells, work)
    (work / "tables.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
