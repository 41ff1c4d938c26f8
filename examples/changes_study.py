"""Do the intervals of `ukb-infer changes` cover the true change? Phantoms scanned twice, and simulated visits.

    python examples/changes_study.py --work WORK --full

Phantoms: bodies that the demonstration has not seen, made again some years later, a little older, fatter or thinner,
lying otherwise in the scanner. The demonstration ensemble estimates both visits, and `changes` takes the correlation of
its errors from the module, which learned it from other phantoms. Simulated: two targets whose errors have known
correlations and differ in size between people; half of the pairs give the correlation by their labels, the other half
is judged, then the halves change places. Without --full there are few pairs, and the coverage is meaningless. Synthetic
bodies: this says nothing about people.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ukb_infer.demo.visits import VisitPairs, make_visit_pairs
from ukb_infer.epidemiology.changes import ChangesConfig, run_changes
from ukb_infer.modules import find_module, read_manifest
from ukb_infer.modules.visits import VISITS_NAME, read_visits
from ukb_infer.targets import TARGETS

#: Of the fresh phantoms; the module learned from another.
SEED = 1414
#: Errors of the simulated targets: correlation of both visits.
SIMULATED = {"weight": 0.7, "liverVolume": 0.2}


def simulated_visits(count: int, rng: np.random.Generator) -> VisitPairs:
    """Visits of two targets with known correlations of errors."""
    shape = (2, count, len(SIMULATED))
    centre = np.array([75.0, 1.5])
    true = centre * (1 + 0.2 * rng.normal(size=shape[1:]) + 0.05 * rng.normal(size=shape))
    sds = 0.05 * centre * np.exp(rng.normal(0, 0.3, shape))
    correlation = np.array(list(SIMULATED.values()))
    errors = np.sqrt(correlation) * rng.normal(size=shape[1:]) + np.sqrt(1 - correlation) * rng.normal(size=shape)
    return VisitPairs(tuple(SIMULATED), true + sds * errors, sds, true)


def write_run(folder: Path, found: VisitPairs, rows: slice, modules: list[dict[str, str]]) -> pd.DataFrame:
    """A run folder with both visits, and its labels; returns the true changes."""
    folder.mkdir()
    names = [name for name in found.names if not TARGETS[name].is_binary]
    places = [found.names.index(name) for name in names]
    means, sds, true = (values[:, rows][:, :, places] for values in (found.means, found.sds, found.true))
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
    targets = [{"name": name} for name in names]
    facts = {"schema_version": 1, "level": 0.95, "level_name": "ci95", "targets": targets, "modules": modules}
    (folder / "run.json").write_text(json.dumps(facts))
    return pd.DataFrame(true[1] - true[0], columns=names)


def judge(folder: Path, true: pd.DataFrame, correlations: str) -> pd.DataFrame:
    """Per target: percent of true changes in the interval, and widths; with an ending 0: taken as uncorrelated."""
    columns = {}
    for given, ending in ((correlations, ""), ("0", "0")):
        run_changes(ChangesConfig(run=folder, correlations=given, quality="all"), lambda _: None)
        table = pd.read_csv(folder / "changes.csv")
        for name, change in true.items():
            low, high = table[f"{name}_change_lower"], table[f"{name}_change_upper"]
            columns.setdefault(f"covered{ending}", {})[name] = 100.0 * change.between(low, high).mean()
            columns.setdefault(f"width{ending}", {})[name] = (high - low).median()
    frame = pd.DataFrame(columns)
    return frame.assign(width=frame["width"] / frame["width0"])


def by_halves(found: VisitPairs, work: Path) -> pd.DataFrame:
    """Each half judged by the correlations that the labels of the other give; means over both."""
    half = found.means.shape[1] // 2
    true = {
        "a": write_run(work / "a", found, slice(0, half), []),
        "b": write_run(work / "b", found, slice(half, None), []),
    }
    parts = []
    for learned, other in (("a", "b"), ("b", "a")):
        saved = work / f"visits_{learned}.json"
        run_changes(ChangesConfig(run=work / learned, labels=work / learned / "labels.csv", save_correlations=saved,
                                  quality="all"), lambda _: None)  # fmt: skip
        known = {name: errors.correlation for name, errors in read_visits(saved).targets.items()}
        parts.append(judge(work / other, true[other], str(saved)).assign(correlation=known))
    return sum(parts) / 2


def by_module(found: VisitPairs, work: Path, module: Path) -> pd.DataFrame:
    """All pairs judged by the correlations that the module has."""
    made = read_manifest(module).made_by
    modules = [{"name": made.name, "sha256": made.sha256}]
    true = write_run(work / "a", found, slice(None), modules)
    known = {name: errors.correlation for name, errors in read_visits(module / VISITS_NAME).targets.items()}
    return judge(work / "a", true, "").assign(correlation=known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="2,000 phantoms twice, 40,000 simulated pairs")
    parser.add_argument("--pairs", type=int, default=0, help="phantoms, if not 2,000")
    parser.add_argument("--work", type=Path, help="folder that keeps the phantoms' estimates")
    arguments = parser.parse_args()
    pairs = arguments.pairs or (2000 if arguments.full else 44)
    with tempfile.TemporaryDirectory() as temporary:
        folder, module = Path(temporary), find_module("phantom-demo")
        print("\n| visits | pairs | targets | correlation of errors | covered, % (lowest and highest target) | "
              "width, uncorrelated = 1 | covered if taken as uncorrelated, % |")  # fmt: skip
        print("|---|---|---|---|---|---|---|")
        for kind in ("simulated", "phantoms"):
            (work := folder / kind).mkdir()
            if kind == "simulated":
                found = simulated_visits(40_000 if arguments.full else 400, np.random.default_rng(SEED))
                table = by_halves(found, work)
            else:
                kept = (arguments.work or folder) / "visits"
                found = make_visit_pairs(module, kept, seed=SEED, count=pairs, say=lambda _: None)
                table = by_module(found, work, module)
            r = table["correlation"]
            print(f"| {kind} | {found.means.shape[1]} | {len(table)} | {r.min():.2f} to {r.max():.2f} | "
                  f"{table['covered'].mean():.1f} ({table['covered'].min():.1f}–{table['covered'].max():.1f}) | "
                  f"{table['width'].mean():.2f} | {table['covered0'].mean():.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
