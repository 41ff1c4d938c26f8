"""Do the intervals of `ukb-infer changes` cover the true change? Phantoms scanned twice, and simulated visits.

    python examples/changes_study.py --work WORK --full

Phantoms: every body is made again some years later: a little older, fatter or thinner, lying otherwise in the scanner.
The demonstration ensemble estimates both visits. Half of the pairs give the correlation of the errors, by the command's
own function, and the intervals of the other half are compared with the true changes; then the halves change places.
Simulated: two targets whose errors have known correlations and differ in size between people. Without --full there are
few pairs, and the coverage is meaningless. Synthetic bodies: this says nothing about people.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.epidemiology.changes import ChangesConfig, run_changes
from ukb_infer.targets import TARGETS

SEED = 1414
#: Errors of the simulated targets: correlation of both visits.
SIMULATED = {"weight": 0.7, "liverVolume": 0.2}


def scan_twice(index: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Projections (2, 3, 256, 256) and true values (2, 72) of a phantom at two visits."""
    from ukb_infer.imaging.recipes import RECIPES
    from ukb_infer.phantom.population import sample_subject
    from ukb_infer.phantom.sampling import render
    from ukb_infer.phantom.true_values import truths

    rng = np.random.default_rng([SEED, index])
    first, other = sample_subject(SEED, index), sample_subject(SEED, 100_000 + index)
    fatter = float(np.exp(rng.normal(0, 0.1)))
    second = replace(
        first, index=other.index, age_years=first.age_years + rng.uniform(2, 6), height_mm=first.height_mm - 2.0,
        adiposity=first.adiposity * fatter, visceral=first.visceral * fatter * float(np.exp(rng.normal(0, 0.1))),
        liver_fat=min(0.42, first.liver_fat * float(np.exp(rng.normal(0, 0.3)))),
        muscle=first.muscle * float(np.exp(rng.normal(-0.01, 0.02))), leg_spread=other.leg_spread,
        arm_gap_mm=other.arm_gap_mm, offset_x_mm=other.offset_x_mm, offset_z_mm=other.offset_z_mm,
        lean_x=other.lean_x,
        noise=(*(0.7 * a + 0.7 * b for a, b in zip(first.noise[:2], other.noise[:2], strict=True)), *first.noise[2:]),
    )  # fmt: skip
    images = [RECIPES["mimir-1"].project(render(body, "small").stations) for body in (first, second)]
    return np.stack(images), np.array([list(truths(body).values()) for body in (first, second)])


def phantom_visits(count: int, work: Path) -> dict[str, NDArray[np.float64]]:
    """Estimates, sds and true values, (2, N, targets) each, kept in the working folder."""
    from ukb_infer.modules import load_module
    from ukb_infer.training.ensemble import predict_in_batches

    kept = work / f"visits-{count}.npz"
    if not kept.exists():
        module = load_module("phantom-demo")
        names = list(module.manifest.target_names)
        order = [list(TARGETS).index(name) for name in names]
        means, sds, true = [], [], []
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            made = list(pool.imap(scan_twice, range(1, count + 1), chunksize=4))
        for visit in range(2):
            found = predict_in_batches(module, np.stack([images[visit] for images, _ in made]))
            means.append(found.mean)
            sds.append(np.sqrt(found.aleatoric + found.epistemic))
            true.append(np.stack([labels[visit][order] for _, labels in made]))
        np.savez(kept, means=means, sds=sds, true=true, names=names)
    return dict(np.load(kept))


def simulated_visits(count: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """The same for two targets with known correlations of errors."""
    shape = (2, count, len(SIMULATED))
    centre = np.array([75.0, 1.5])
    true = centre * (1 + 0.2 * rng.normal(size=shape[1:]) + 0.05 * rng.normal(size=shape))
    sds = 0.05 * centre * np.exp(rng.normal(0, 0.3, shape))
    correlation = np.array(list(SIMULATED.values()))
    errors = np.sqrt(correlation) * rng.normal(size=shape[1:]) + np.sqrt(1 - correlation) * rng.normal(size=shape)
    return {"means": true + sds * errors, "sds": sds, "true": true, "names": np.array(list(SIMULATED))}


def write_run(folder: Path, found: dict[str, NDArray[np.float64]], rows: slice) -> pd.DataFrame:
    """A run folder with both visits, and its labels; returns the true changes."""
    folder.mkdir()
    names = [name for name in map(str, found["names"]) if not TARGETS[name].is_binary]
    places = [list(map(str, found["names"])).index(name) for name in names]
    means, sds, true = (found[key][:, rows][:, :, places] for key in ("means", "sds", "true"))
    eids = [f"0{k:07d}" for k in range(means.shape[1])]
    parts, labels = [], []
    for visit in range(2):
        keys = {"eid": eids, "instance": visit + 2, "array": 0, "scan": [f"{e}_20201_{visit + 2}_0" for e in eids]}
        columns = {}
        for k, name in enumerate(names):
            mean, sd = means[visit, :, k], sds[visit, :, k]
            columns |= {f"{name}_mean": mean, f"{name}_sd": sd}
            columns |= {f"{name}_ci95_lower": mean - 1.96 * sd, f"{name}_ci95_upper": mean + 1.96 * sd}
        parts.append(pd.DataFrame(keys | columns))
        labels.append(pd.DataFrame({"scan": keys["scan"]} | {n: true[visit, :, k] for k, n in enumerate(names)}))
    pd.concat(parts).to_csv(folder / "estimates.csv", index=False)
    pd.concat(labels).to_csv(folder / "labels.csv", index=False)
    facts = {"schema_version": 1, "level": 0.95, "level_name": "ci95", "targets": [{"name": name} for name in names]}
    (folder / "run.json").write_text(json.dumps(facts))
    return pd.DataFrame(true[1] - true[0], columns=names)


def coverage(found: dict[str, NDArray[np.float64]], work: Path) -> pd.DataFrame:
    """Per target: percent of true changes in the interval with and without correlation, widths, correlation."""
    half = found["means"].shape[1] // 2
    true = {"a": write_run(work / "a", found, slice(0, half)), "b": write_run(work / "b", found, slice(half, None))}
    parts = []
    for learned, other in (("a", "b"), ("b", "a")):
        saved = work / f"visits_{learned}.json"
        run_changes(ChangesConfig(run=work / learned, labels=work / learned / "labels.csv", save_correlations=saved,
                                  quality="all"), lambda _: None)  # fmt: skip
        known = json.loads(saved.read_text())["targets"]
        columns = {"correlation": {name: errors["correlation"] for name, errors in known.items()}}
        for given in (str(saved), ""):
            run_changes(ChangesConfig(run=work / other, correlations=given, quality="all"), lambda _: None)
            table, ending = pd.read_csv(work / other / "changes.csv"), "" if given else "0"
            for name, change in true[other].items():
                low, high = table[f"{name}_change_lower"], table[f"{name}_change_upper"]
                columns.setdefault(f"covered{ending}", {})[name] = 100.0 * change.between(low, high).mean()
                columns.setdefault(f"width{ending}", {})[name] = (high - low).median()
        parts.append(pd.DataFrame(columns))
    frame = sum(parts) / 2
    return frame.assign(width=frame["width"] / frame["width0"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="1,200 phantoms twice, 40,000 simulated pairs")
    parser.add_argument("--pairs", type=int, default=0, help="phantoms, if not 1,200")
    parser.add_argument("--work", type=Path, help="folder that keeps the phantoms' estimates")
    arguments = parser.parse_args()
    pairs = arguments.pairs or (1200 if arguments.full else 44)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        kinds = {"simulated": simulated_visits(40_000 if arguments.full else 400, np.random.default_rng(SEED)),
                 "phantoms": phantom_visits(pairs, work)}  # fmt: skip
        print("\n| visits | pairs | targets | correlation of errors | covered, % (lowest and highest target) | "
              "width, uncorrelated = 1 | covered if taken as uncorrelated, % |")  # fmt: skip
        print("|---|---|---|---|---|---|---|")
        for kind, found in kinds.items():
            folder = Path(temporary) / kind
            folder.mkdir()
            table = coverage(found, folder)
            r = table["correlation"]
            print(f"| {kind} | {found['means'].shape[1]} | {len(table)} | {r.min():.2f} to {r.max():.2f} | "
                  f"{table['covered'].mean():.1f} ({table['covered'].min():.1f}–{table['covered'].max():.1f}) | "
                  f"{table['width'].mean():.2f} | {table['covered0'].mean():.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
