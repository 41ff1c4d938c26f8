"""Phantoms at two visits, from which a module learns how its errors go together."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ukb_infer.imaging.recipes import DEFAULT_RECIPE, RECIPES
from ukb_infer.modules import InferenceModule, load_module, read_manifest
from ukb_infer.modules.visits import VISITS_NAME, VisitErrors, Visits, write_visits
from ukb_infer.phantom.population import Subject, sample_subject
from ukb_infer.storage import save_array
from ukb_infer.targets import TARGETS

#: Seed of the pairs that a module learns from, and their number.
SEED, PAIRS = 404, 2600
_CHUNK = 100
#: Projections and true values of both visits.
Scanned = tuple[NDArray[np.uint8], NDArray[np.float64]]


@dataclass(frozen=True)
class VisitPairs:
    """Estimates at both visits of N phantoms.

    Attributes:
        names: of the T targets.
        means: (2, N, T); ``sds``: likewise; ``true``: values, likewise.
    """

    names: tuple[str, ...]
    means: NDArray[np.float64]
    sds: NDArray[np.float64]
    true: NDArray[np.float64]


def second_visit(first: Subject) -> Subject:
    """The same body two to six years later: older, fatter or thinner, lying otherwise in the scanner."""
    rng = np.random.default_rng([first.seed, first.index, 2])
    other = sample_subject(first.seed, 100_000 + first.index)
    fatter = float(np.exp(rng.normal(0, 0.1)))
    pulse, grip = (0.7 * a + 0.7 * b for a, b in zip(first.noise[:2], other.noise[:2], strict=True))
    return replace(
        first, index=other.index, age_years=first.age_years + rng.uniform(2, 6), height_mm=first.height_mm - 2.0,
        adiposity=first.adiposity * fatter, visceral=first.visceral * fatter * float(np.exp(rng.normal(0, 0.1))),
        liver_fat=min(0.42, first.liver_fat * float(np.exp(rng.normal(0, 0.3)))),
        muscle=first.muscle * float(np.exp(rng.normal(-0.01, 0.02))), leg_spread=other.leg_spread,
        arm_gap_mm=other.arm_gap_mm, offset_x_mm=other.offset_x_mm, offset_z_mm=other.offset_z_mm,
        lean_x=other.lean_x,
        noise=(pulse, grip, *first.noise[2:]),
    )  # fmt: skip


def _scan_twice(job: tuple[int, int]) -> Scanned:
    """Projections (2, 3, 256, 256) and true values (2, 72) of a phantom, by seed and index."""
    from ukb_infer.phantom.sampling import render
    from ukb_infer.phantom.true_values import truths

    first = sample_subject(*job)
    bodies = first, second_visit(first)
    images = [RECIPES[DEFAULT_RECIPE].project(render(body, "small").stations) for body in bodies]
    return np.stack(images), np.array([list(truths(body).values()) for body in bodies])


def make_visit_pairs(
    module: Path, work: Path, *, seed: int, count: int, workers: int = 2, say: Callable[[str], None] = print
) -> VisitPairs:
    """Estimates of a module for phantoms that are scanned twice, kept in a folder; chunks of this module are reused.

    Args:
        module: folder.
        work: folder for the estimates, outside the repository.
        seed: of the phantoms.
        count: pairs.
        workers: processes.
        say: receives progress lines.
    """
    work.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(module)
    names = manifest.target_names
    loaded, parts = None, []
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for start in range(1, count + 1, _CHUNK):
            size = min(_CHUNK, count + 1 - start)
            path = work / f"visits-{manifest.hash[:8]}-{seed}-{start:06d}-{size}.npy"
            if not path.exists():
                loaded = loaded or load_module(module)
                made = pool.map(_scan_twice, [(seed, k) for k in range(start, start + size)], chunksize=4)
                _save_estimates(path, loaded, made, names)
                say(f"visits: {start + size - 1} of {count} pairs")
            parts.append(np.load(path))
    means, sds, true = np.concatenate(parts, axis=2)  # (3, 2, N, T)
    return VisitPairs(names, means, sds, true)


def _save_estimates(path: Path, module: InferenceModule, made: Sequence[Scanned], names: Sequence[str]) -> None:
    """Save (3, 2, N, T) means, sds and true values."""
    from ukb_infer.training.ensemble import predict_in_batches

    order = [list(TARGETS).index(name) for name in names]
    found = []
    for visit in range(2):
        mixture = predict_in_batches(module, np.stack([images[visit] for images, _ in made]))
        true = np.stack([labels[visit][order] for _, labels in made])
        found.append([mixture.mean, np.sqrt(mixture.total_variance), true])
    save_array(path, np.moveaxis(np.array(found), 0, 1))


def fit_demo_visits(
    module: Path, work: Path, *, pairs: int = PAIRS, workers: int = 2, say: Callable[[str], None] = print
) -> Visits:
    """Write the module's ``visits.json`` from phantoms that it has not seen.

    Args:
        module: folder.
        work: as for :func:`make_visit_pairs`.
        pairs: of visits.
        workers: processes.
        say: receives progress lines.
    """
    found = make_visit_pairs(module, work, seed=SEED, count=pairs, workers=workers, say=say)
    targets: dict[str, VisitErrors] = {}
    for k, name in enumerate(found.names):
        if not TARGETS[name].is_binary:
            errors = VisitErrors.estimate(found.means[:, :, k], found.sds[:, :, k], found.true[:, :, k])
            if errors:
                targets[name] = errors
    visits = Visits(
        modules=(read_manifest(module).made_by,), targets=targets,
        fitted_on=f"{pairs} pairs of visits of synthetic phantoms that no member saw (seed {SEED})",
    )  # fmt: skip
    write_visits(module / VISITS_NAME, visits)
    return visits
