"""Do the flags find wrong estimates? Synthetic bodies, ordinary and with every artefact, predicted as a user would.

    python examples/flag_study.py --work WORK --count 1000 --each 20

Everything is done by the commands ``phantom`` and ``predict`` with the module ``phantom-demo``. The error of an
estimate is counted in standard deviations of the population. Printed are the share of the worst 1 % of errors whose
scan is flagged, by flag, and the coverage of the 95 % intervals before and after flagged scans are dropped. Synthetic
bodies: nothing here says anything about people.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ukb_infer.phantom import ANOMALIES
from ukb_infer.targets import TARGETS

SEED = 31
ARTEFACTS = [reason.value for reason, anomaly in ANOMALIES.items() if anomaly.effect]
#: Flags that say that a scan needs a look; notes on repairs and on files do not.
LOOK = {
    *ARTEFACTS, "out_of_distribution", "implausible_estimates", "mean_outside_limits", "surface_not_fat", "asymmetric"
}  # fmt: skip
NAMES = tuple(name for name, target in TARGETS.items() if target.kind == "continuous")


def command(*arguments: object) -> None:
    """Run ``ukb-infer`` as a user would; a run with failed scans is fine."""
    done = subprocess.run([sys.executable, "-m", "ukb_infer", *map(str, arguments)], stdout=subprocess.DEVNULL)
    if done.returncode not in (0, 3):
        raise SystemExit(f"ukb-infer {arguments[0]} ended with exit code {done.returncode}")


def make_scans(work: Path, count: int, each: int, size: str) -> pd.DataFrame:
    """Links to all scans under names of their own in WORK/scans; their true values, with the artefact of each."""
    (work / "scans").mkdir(parents=True, exist_ok=True)
    truth, number = [], 0
    for seed, kind in enumerate(("", *ARTEFACTS), SEED):
        folder = work / (kind or "ordinary")
        anomalies = [part for _ in range(each) for part in ("--anomaly", kind)] if kind else []
        if not (folder / "truth.csv").exists():
            command(
                "phantom", "--out", folder, "--count", each if kind else count, "--seed", seed, "--size", size,
                "--workers", 2, "--overwrite", *anomalies,
            )  # fmt: skip
        for row in pd.read_csv(folder / "truth.csv", dtype={"eid": str}).to_dict("records"):
            number += 1
            link = work / "scans" / f"{number:07d}_20201_2_0.zip"
            if not link.is_symlink():
                link.symlink_to((folder / f"{row['scan']}.zip").resolve())
            truth.append(row | {"scan": link.stem, "kind": kind or "ordinary"})
    return pd.DataFrame(truth).set_index("scan")


def report(run: Path, truth: pd.DataFrame) -> str:
    """The tables of docs/quality.md."""
    estimates = pd.read_csv(run / "estimates.csv", dtype={"eid": str}).set_index("scan")
    scans = pd.read_csv(run / "scans.csv", dtype=str, keep_default_na=False).set_index("scan").loc[estimates.index]
    codes = scans["reasons"].str.split(";").map(lambda found: LOOK & set(found))
    flagged = codes.map(bool).to_numpy()
    truth = truth.loc[estimates.index]
    kinds, values = truth["kind"], truth[list(NAMES)].to_numpy(float)
    mean, low, high = (
        estimates[[f"{n}_{end}" for n in NAMES]].to_numpy() for end in ("mean", "ci95_lower", "ci95_upper")
    )
    error = np.abs(mean - values) / values[(kinds == "ordinary").to_numpy()].std(axis=0)
    inside = (values >= low) & (values <= high)
    worst = error >= np.quantile(error, 0.99)
    hit = worst.any(axis=1)
    ordinary = (kinds == "ordinary").to_numpy()
    lines = [
        f"{len(truth)} scans, {len(NAMES)} targets; of the {worst.sum()} worst errors (1 %) "
        f"{100 * (worst & flagged[:, None]).sum() / worst.sum():.1f} % are in flagged scans "
        f"({hit.sum()} scans, {100 * flagged[hit].mean():.1f} % of them flagged)",
        f"coverage of 95 % intervals: ordinary scans {100 * inside[ordinary].mean():.1f} %, "
        f"all {100 * inside.mean():.1f} %, all without the flagged {100 * inside[~flagged].mean():.1f} %",
        "",
        "| scans | number | flagged | share of the worst errors | covered | flags |",
        "|---|---|---|---|---|---|",
    ]
    for kind in kinds.unique():
        chosen = (kinds == kind).to_numpy()
        counts = pd.Series([c for found in codes[chosen] for c in found], dtype=object).value_counts()
        words = ", ".join(f"{code} {100 * n / chosen.sum():.0f} %" for code, n in counts.head(4).items())
        shares = (flagged[chosen].mean(), worst[chosen].sum() / worst.sum(), inside[chosen].mean())
        lines.append(f"| {kind} | {chosen.sum()} | {' | '.join(f'{100 * x:.1f} %' for x in shares)} | {words} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="working folder [default: a temporary one]")
    parser.add_argument("--count", type=int, default=4, help="ordinary scans")
    parser.add_argument("--each", type=int, default=1, help="scans with each artefact")
    parser.add_argument("--size", default="small", choices=["small", "full"])
    given = parser.parse_args(arguments)
    work = given.work or Path(tempfile.mkdtemp())
    truth = make_scans(work, given.count, given.each, given.size)
    command("predict", work / "scans", "--out", work / "run", "--modules", "phantom-demo", "--overwrite")
    print(report(work / "run", truth))


if __name__ == "__main__":
    main()
