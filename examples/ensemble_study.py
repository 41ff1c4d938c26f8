"""Ensembles, intervals and the amount of data, measured on phantoms.

Three questions, one table each: how much better an ensemble of five is than single networks; whether the predicted sd
matches the spread that no image explains (known for phantoms); how errors shrink with the number of labelled scans.

Without options it runs in a minute, too small to mean anything. ensemble_study.md was made by:

    python examples/ensemble_study.py --sizes 100,300,1000,2000 --test 1000 --iterations 1000 --members 5 \
        --work STUDY --out examples/ensemble_study.md
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ukb_infer.demo.phantoms import PhantomSet, make_phantom_set
from ukb_infer.evaluation import TargetPredictions, evaluate_target
from ukb_infer.modules import InferenceModule
from ukb_infer.networks import InputScaling
from ukb_infer.phantom import ANATOMY_DETERMINED, irreducible_sd
from ukb_infer.regression import Mixture, gaussian_quantile
from ukb_infer.targets import TARGETS
from ukb_infer.training.config import TrainConfig, make_config
from ukb_infer.training.dataset import LabelledImages
from ukb_infer.training.ensemble import Standardization, make_manifest, predict_in_batches, train_members

TRAINING_SEED, TEST_SEED = 606, 707
CONTINUOUS = [name for name, spec in TARGETS.items() if not spec.is_binary]
PULSE, GRIP = "pulseRate", "gripStrengthRight"


def train(images_path: Path, labels: np.ndarray, size: int, config: TrainConfig, work: Path) -> list[InferenceModule]:
    """Train an ensemble on the first ``size`` phantoms; returns it, then each member as a module of its own."""
    names = tuple(CONTINUOUS)
    people = np.array([f"{k:07d}" for k in range(1, size + 1)])
    images = np.load(images_path, mmap_mode="r")[:size]
    part = work / f"first-{size}.npy"
    if not part.exists():
        np.save(part, images)
    standardization = Standardization.fit(labels[:size], names)
    data = LabelledImages(images, labels[:size], people, names)
    networks = train_members(
        config, data, standardization, work / f"members-{size}", images_path=part, processes=2, threads=1, show=False
    )
    manifest = make_manifest(
        f"study-{size}", "0", config, names, standardization, intended_use="", provenance="", warning="phantoms"
    )
    cpu = torch.device("cpu")
    return [InferenceModule(manifest, chosen, cpu) for chosen in (networks, *([n] for n in networks))]


def judge(predicted: Mixture, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Metrics of every continuous target: MAE in sd of the labels, 95 % coverage, AUCE, sparsification error, NLL."""
    people = np.array([str(k) for k in range(len(labels))])
    results = {}
    for place, name in enumerate(CONTINUOUS):
        mean, sd = predicted.mean[:, place], np.sqrt(predicted.total_variance[:, place])
        half = gaussian_quantile(0.95) * sd
        data = TargetPredictions(labels[:, place], mean, sd, mean - half, mean + half, 0.95, people)
        found = {metric: m.value for metric, m in evaluate_target(data, replicates=0).items()}
        results[name] = found | {"scaled_mae": found["mae"] / float(labels[:, place].std())}
    return results


def over_targets(results: list[dict[str, dict[str, float]]], metric: str, names: list[str]) -> float:
    """Median over targets of the mean over networks."""
    return float(np.median([np.mean([r[name][metric] for r in results]) for name in names]))


def report(sizes: list[int], judged: dict[int, list], spreads: dict[str, float], settings: str) -> str:
    """The three tables."""
    determined = [name for name in CONTINUOUS if name in ANATOMY_DETERMINED]
    last = judged[sizes[-1]]
    single, ensemble = last[1:], last[:1]
    lines = [
        "# Ensembles, intervals and the amount of data, on phantoms",
        "",
        "Synthetic bodies only: this says nothing about accuracy on people.",
        "",
        settings,
        "",
        f"## Ensemble against single networks, {sizes[-1]} labelled scans",
        "",
        f"Median over {len(CONTINUOUS)} continuous targets; single: mean of the members. Uncalibrated.",
        "",
        "| | single network | ensemble |",
        "|---|---|---|",
    ]
    rows = (
        ("MAE, in sd of the label", "scaled_mae", ".4f"),
        ("covered by the 95 % interval", "coverage", ".3f"),
        ("AUCE (0: calibrated)", "auce", ".3f"),
        ("sparsification error (0: sd ranks the errors)", "sparsification_error", ".3f"),
        ("NLL, natural units", "nll", ".3f"),
    )
    for text, metric, form in rows:
        values = [over_targets(r, metric, CONTINUOUS) for r in (single, ensemble)]
        lines.append(f"| {text} | {values[0]:{form}} | {values[1]:{form}} |")
    better = sum(ensemble[0][name]["mae"] < np.mean([r[name]["mae"] for r in single]) for name in CONTINUOUS)
    lines += [
        "",
        f"The ensemble's MAE is below its members' mean for {better} of {len(CONTINUOUS)} targets.",
        "",
        "## Spread that no image explains",
        "",
        "Part of these targets is random with known sd, independent of the body.",
        "",
        "| target | known irreducible sd | mean predicted sd | RMSE |",
        "|---|---|---|---|",
    ]
    for name in (PULSE, GRIP):
        unit = TARGETS[name].unit
        rmse = ensemble[0][name]["rmse"]
        lines.append(f"| {name} | {irreducible_sd(name):.2f} {unit} | {spreads[name]:.2f} {unit} | {rmse:.2f} {unit} |")
    lines += [
        "",
        "## Error by number of labelled scans",
        "",
        f"Median over the {len(determined)} continuous targets that the anatomy determines; ensembles, uncalibrated. "
        "All sizes are trained for the same number of iterations, so that for the larger sizes the training length, "
        "not the number of labels, limits the error.",
        "",
        "| labelled scans | MAE, in sd of the label | R² | covered by the 95 % interval |",
        "|---|---|---|---|",
    ]
    for size in sizes:
        mae, r2, coverage = (over_targets(judged[size][:1], m, determined) for m in ("scaled_mae", "r2", "coverage"))
        lines.append(f"| {size} | {mae:.4f} | {r2:.3f} | {coverage:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse, train, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="12,24", help="labelled scans, ascending")
    parser.add_argument("--test", type=int, default=16, help="fresh phantoms for the evaluation")
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument(
        "--work", type=Path, default=None, help="folder of phantoms and checkpoints; a repeated call resumes"
    )
    parser.add_argument("--out", type=Path, default=None, help="file of the tables [default: print them]")
    given = parser.parse_args()
    started = time.monotonic()
    work = given.work or Path(tempfile.mkdtemp(prefix="ukb-infer-study-"))
    sizes = [int(s) for s in given.sizes.split(",")]
    config = make_config(
        "fast", members=given.members, iterations=given.iterations, validate_every=max(1, given.iterations // 4),
        warmup_mse=given.iterations // 10, scaling=InputScaling(1.0 / 64.0, -1.0, (64, 64)),
    )  # fmt: skip
    _, labels = make_phantom_set(PhantomSet(TRAINING_SEED, sizes[-1]), work / "training")
    images, truths = make_phantom_set(PhantomSet(TEST_SEED, given.test), work / "test")
    chosen = [list(TARGETS).index(name) for name in CONTINUOUS]
    labels, truths = labels[:, chosen], truths[:, chosen]
    judged, spreads = {}, {}
    for size in sizes:
        modules = train(work / "training/images.npy", labels, size, config, work)
        predicted = [predict_in_batches(m, images) for m in modules]
        judged[size] = [judge(p, truths) for p in predicted]
        places = {name: CONTINUOUS.index(name) for name in (PULSE, GRIP)}
        spreads = {n: float(np.sqrt(predicted[0].total_variance[:, k]).mean()) for n, k in places.items()}
    minutes = (time.monotonic() - started) / 60
    settings = (
        f"{given.members} MobileNetV3-small networks per ensemble, 64 x 64 pixels, {given.iterations} iterations each, "
        f"evaluated on {given.test} fresh phantoms (seeds {TRAINING_SEED} and {TEST_SEED}); "
        f"{minutes:.0f} minutes on {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, no GPU."
    )
    text = report(sizes, judged, spreads, settings)
    if given.out is None:
        print(text)
    else:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
