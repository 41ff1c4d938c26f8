"""Build the demonstration module ``phantom-demo`` from scratch."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer.demo.phantoms import PhantomSet, make_phantom_set
from ukb_infer.demo.visits import PAIRS, fit_demo_visits
from ukb_infer.demo.visits import SEED as VISITS_SEED
from ukb_infer.evaluation import TargetPredictions, evaluate_target
from ukb_infer.modules import InferenceModule, ModuleManifest, load_module, save_module
from ukb_infer.modules.module import add_outliers
from ukb_infer.modules.outliers import MIN_SCANS, OutlierReference, fit_reference
from ukb_infer.networks import InputScaling
from ukb_infer.phantom import ANATOMY_DETERMINED
from ukb_infer.regression import Mixture, prediction_interval
from ukb_infer.storage import atomic_write_text
from ukb_infer.targets import TARGETS
from ukb_infer.training.calibrate import fit_module
from ukb_infer.training.config import TrainConfig, make_config
from ukb_infer.training.dataset import LabelledImages
from ukb_infer.training.ensemble import Standardization, make_manifest, predict_in_batches, train_members

WARNING = "Demonstration on synthetic bodies: it was trained on computer-made phantoms and knows nothing about people."
COMMAND = "python scripts/make_phantom_demo.py --work WORK --out models/phantom-demo --overwrite"
#: Seeds of the three disjoint sets of phantoms.
TRAINING_SEED, CALIBRATION_SEED, EVALUATION_SEED = 101, 202, 303
#: Phantoms of the calibration set that show the module ordinary scans.
REFERENCE_SCANS = 1000
UNSEEN = "synthetic phantoms that no member saw"


@dataclass(frozen=True)
class DemoConfig:
    """Size of the demonstration.

    Attributes:
        training: phantoms for training; ``calibration``: phantoms that no member saw; ``evaluation``: fresh ones.
        members: networks.
        iterations: of each member.
        workers: processes.
        visits: pairs of visits of further phantoms, which show how the errors of two visits go together; 0 for none.
    """

    training: int = 5000
    calibration: int = 4000
    evaluation: int = 200
    members: int = 5
    iterations: int = 3000
    workers: int = 2
    visits: int = PAIRS

    def train_config(self) -> TrainConfig:
        """Configuration of the members: small networks on averaged pixels, fast on a CPU."""
        return make_config(
            "fast",
            members=self.members,
            folds=max(2, self.members),
            iterations=self.iterations,
            validate_every=max(1, min(250, self.iterations)),
            warmup_mse=min(300, self.iterations // 4),
            scaling=InputScaling(1.0 / 64.0, -1.0, (64, 64)),
        )


def _make_set(
    name: str, seed: int, count: int, config: DemoConfig, work: Path, say: Callable[[str], None]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        if done % 500 < more:
            say(f"{name}: {done} of {count} phantoms")

    say(f"{name}: {count} phantoms, seed {seed}")
    return make_phantom_set(
        PhantomSet(seed, count), work / f"{name}-{count}", workers=config.workers, progress=progress
    )


@dataclass(frozen=True)
class DemoRow:
    """Evaluation of one target on fresh phantoms, natural units."""

    name: str
    r2: float
    mae: float
    coverage95: float
    mean_width95: float


def _seconds_before(work: Path) -> float:
    """Time spent by earlier calls on this folder, as far as they finished, s."""
    path = work / "seconds.txt"
    return float(path.read_text()) if path.exists() else 0.0


def evaluate(module: InferenceModule, predictions: Mixture, labels: NDArray[np.float64]) -> list[DemoRow]:
    """R², MAE, coverage and width of the 95 % interval of every target.

    Args:
        module: that predicted.
        predictions: (N, T) in natural units.
        labels: (N, T) in natural units.
    """
    rows = []
    for k, target in enumerate(module.manifest.targets):
        mean, sd = predictions.mean[:, k], np.sqrt(predictions.total_variance[:, k])
        half = module.half_width(k, 0.95)
        low, high = prediction_interval(mean, sd, np.nan if half is None else half, target.lower, target.upper)
        people = np.arange(len(mean)).astype(str)
        data = TargetPredictions(labels[:, k], mean, sd, low, high, 0.95, people)
        found = {name: metric.value for name, metric in evaluate_target(data, replicates=0).items()}
        rows.append(DemoRow(target.name, *(found[name] for name in ("r2", "mae", "coverage", "mean_width"))))
    return rows


def summarize(rows: list[DemoRow]) -> tuple[float, int]:
    """Median R² over the targets the anatomy determines, and targets whose 95 % interval covers 92-98 %."""
    median = float(np.median([r.r2 for r in rows if r.name in ANATOMY_DETERMINED]))
    return median, sum(0.92 <= r.coverage95 <= 0.98 for r in rows)


def _readme(config: DemoConfig, rows: list[DemoRow], seconds: float) -> str:
    median, covered = summarize(rows)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, no GPU"
    lines = [
        "# phantom-demo",
        "",
        f"**{WARNING}** It exists so that `ukb-infer` can be tried and tested without participants' data.",
        "Do not use it on scans of people: the estimates would be meaningless.",
        "",
        f"{config.members} MobileNetV3-small networks on projections averaged to 64 x 64, each trained on "
        f"{config.training} phantoms except its own fold (seed {TRAINING_SEED}; every fifth with the small matrix), "
        f"{config.iterations} iterations. Calibrated on {config.calibration} phantoms that no member saw "
        f"(seed {CALIBRATION_SEED}): coverage-matching variance factor, then conformal half widths. "
        "Its reference of ordinary scans ([outliers](../../docs/outliers.md)) comes from the first "
        f"{REFERENCE_SCANS} of them. How its errors at two visits go together "
        f"([changes](../../docs/reference-curves.md)) comes from {config.visits} phantoms scanned twice "
        f"(seed {VISITS_SEED}).",
        "",
        f"Made by `{COMMAND}` in {seconds / 60:.0f} minutes on {machine}.",
        "",
        f"## On {config.evaluation} fresh phantoms (seed {EVALUATION_SEED})",
        "",
        f"Median R² over the {len(ANATOMY_DETERMINED)} targets that the anatomy determines: **{median:.3f}**. "
        f"95 % intervals cover 92-98 % of the true values for **{covered} of {len(rows)}** targets.",
        "",
        "| target | unit | R² | MAE | covered by the 95 % interval | mean interval width |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        unit = TARGETS[row.name].unit
        lines.append(
            f"| {row.name} | {unit} | {row.r2:.3f} | {row.mae:.3g} | {100 * row.coverage95:.1f} % "
            f"| {row.mean_width95:.3g} |"
        )
    lines += [
        "",
        "By design, part of pulse rate, grip strength, diabetes, age and bone mass is not visible in any image.",
        "",
    ]
    return "\n".join(lines)


def _reference(module: InferenceModule, ordinary: NDArray[Any]) -> tuple[OutlierReference, str]:
    """Outlier reference of the calibrated module, and what it was fitted on."""
    return fit_reference(module, ordinary)[0], f"{len(ordinary)} {UNSEEN}"


def refit_reference(
    out: Path, work: Path, config: DemoConfig, *, scans: int = REFERENCE_SCANS, say: Callable[[str], None] = print
) -> ModuleManifest:
    """Fit the outlier reference of an existing demonstration module anew; nothing else of it changes.

    Args:
        out: the module's folder.
        work: working folder; an interrupted call resumes there.
        config: sizes.
        scans: phantoms of the calibration set, the first ones.
        say: receives progress lines.
    """
    ordinary, _ = _make_set("calibration", CALIBRATION_SEED, scans, config, work, say)
    return add_outliers(out, *_reference(load_module(out), ordinary))


def make_demo(
    out: Path, work: Path, config: DemoConfig, *, overwrite: bool, say: Callable[[str], None] = print
) -> ModuleManifest:
    """Phantoms, projections, folds, training, calibration, evaluation table, module.

    Args:
        out: the module's folder.
        work: working folder; an interrupted call resumes there.
        config: sizes.
        overwrite: replace an existing module.
        say: receives progress lines.

    Returns:
        The manifest of the finished module.
    """
    started = time.monotonic() - _seconds_before(work)
    images, labels = _make_set("training", TRAINING_SEED, config.training, config, work, say)
    targets = tuple(TARGETS)
    standardization = Standardization.fit(labels, targets)
    data = LabelledImages(images, labels, np.array([f"{k:07d}" for k in range(1, len(images) + 1)]), targets)
    networks = train_members(
        config.train_config(), data, standardization, work / "members", processes=config.workers,
        images_path=work / f"training-{config.training}" / "images.npy",
    )  # fmt: skip
    manifest = make_manifest(
        "phantom-demo", "1.0.0", config.train_config(), targets, standardization,
        intended_use="Trying and testing ukb_infer on its own phantoms.",
        provenance=f"Trained on {config.training} synthetic phantoms by `{COMMAND}`.", warning=WARNING,
    )  # fmt: skip
    draft = work / "draft"
    save_module(draft, manifest, networks, half=True, overwrite=True)
    module = load_module(draft)
    images, labels = _make_set("calibration", CALIBRATION_SEED, config.calibration, config, work, say)
    manifest, _ = fit_module(manifest, predict_in_batches(module, images), labels, note=UNSEEN)
    save_module(draft, manifest, networks, half=True, overwrite=True)
    module = load_module(draft)
    outliers = _reference(module, images[:REFERENCE_SCANS]) if len(images) >= MIN_SCANS else None
    images, labels = _make_set("evaluation", EVALUATION_SEED, config.evaluation, config, work, say)
    rows = evaluate(module, predict_in_batches(module, images), labels)
    median, covered = summarize(rows)
    say(f"median R2 {median:.3f}; 95 % intervals within 92-98 %: {covered} of {len(rows)} targets")
    seconds = time.monotonic() - started
    atomic_write_text(work / "seconds.txt", f"{seconds:.0f}\n")
    readme = _readme(config, rows, seconds)
    extra = {"README.md": readme}
    manifest = save_module(out, manifest, networks, half=True, overwrite=overwrite, extra=extra, outliers=outliers)
    if config.visits:
        fit_demo_visits(out, work / "visits", pairs=config.visits, workers=config.workers, say=say)
    return manifest
