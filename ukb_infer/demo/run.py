"""The demonstration: phantoms, the shipped ensemble, estimates next to true values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.predict import run_predict
from ukb_infer.modules.find import DEMO
from ukb_infer.phantom import write_cohort
from ukb_infer.runs.files import DICTIONARY, ESTIMATES
from ukb_infer.runs.read import read_estimates
from ukb_infer.runs.summary import Progress
from ukb_infer.targets import TARGETS

#: Targets of the printed table; all 72 are in the files.
SHOWN = (
    "age", "height", "weight", "waist", "liverVolume", "AtlasLiverFat", "kidneyParenchymalVolume", "AtlasVatVolume",
    "AtlasAsatVolume", "AtlasTotalThighMuscleVolume", "DxaTotalTissueFatPercentage", "gripStrengthRight", "pulseRate",
)  # fmt: skip
BANNER = "DEMONSTRATION on synthetic bodies. Nothing here says anything about people."


def run_demo(out: Path, count: int, seed: int, workers: int, progress: Progress | None = None) -> Iterator[str]:
    """Write phantoms, predict them with the shipped ensemble and compare.

    Args:
        out: folder; scans go to ``scans``, results to ``run``. A repeated call starts over.
        count: scans.
        seed: of the phantoms.
        workers: processes.
        progress: called with the progress of the prediction.

    Yields:
        Lines for the user.
    """
    yield BANNER
    scans, run = out / "scans", out / "run"
    yield f"Writing {count} synthetic scans as UK Biobank-like DICOM zips to {scans} ..."
    for old in scans.glob("0*_20201_2_0.zip"):
        old.unlink()
    truth_path = write_cohort(scans, count, seed, workers=workers, overwrite=True)
    yield f"Running: ukb-infer predict {scans} --out {run} --modules {DEMO}"
    summary = run_predict(
        PredictConfig(inputs=(str(scans),), out=run, modules=(DEMO,), workers=workers, overwrite=True), progress
    )
    truth = pd.read_csv(truth_path, dtype={"eid": str})
    estimates = read_estimates(run, long=True)
    yield from _table(estimates, truth)
    yield ""
    yield f"Scans and true values: {scans}"
    yield f"Estimates of all {len(TARGETS)} targets: {run / ESTIMATES} (columns explained in {DICTIONARY})"
    yield f"{summary.counts['ok']} ok, {summary.counts['flagged']} flagged, {summary.counts['failed']} failed; {BANNER}"


def _table(estimates: pd.DataFrame, truth: pd.DataFrame) -> Iterator[str]:
    true = truth.melt(id_vars=["scan"], value_vars=list(TARGETS), var_name="target", value_name="truth")
    joined = estimates.merge(true, on=["scan", "target"])
    joined = joined[joined["lower"].notna()]  # binary targets have a probability instead of an interval
    joined["inside"] = (joined["truth"] >= joined["lower"]) & (joined["truth"] <= joined["upper"])
    for scan, rows in joined.groupby("scan"):
        yield ""
        yield f"{scan}"
        yield f"  {'target':30} {'estimate':>10} {'95 % interval':>21} {'true value':>11}  unit"
        by_target = rows.set_index("target")
        for name in SHOWN:
            if name not in by_target.index:
                continue
            row = by_target.loc[name]
            interval = f"[{row['lower']:8.2f}, {row['upper']:8.2f}]"
            mark = " " if row["inside"] else "*"
            yield f"  {name:30} {row['mean']:10.2f} {interval:>21} {row['truth']:10.2f}{mark}  {row['unit']}"
    share = 100.0 * joined["inside"].mean()
    yield ""
    yield f"* outside the interval. Of all {len(joined)} intervals, {share:.1f} % cover the true value (95 % expected)."
