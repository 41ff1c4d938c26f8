"""From scans to a finding: a table and a figure, in about two minutes on two cores.

    python examples/epidemiology.py --work WORK

Synthetic scans are written and predicted with the demonstration ensemble. The kidneys' volume is then "measured" in
some participants chosen at random, and its association with age and sex is estimated in every way that measurements and
estimates allow. As these are phantoms, the coefficients that measuring everybody would give are known and printed
beside. Synthetic bodies: this says nothing about people.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import ukb_infer
from ukb_infer.epidemiology.associate import AssociateConfig, run_associate
from ukb_infer.epidemiology.cohort import Sources
from ukb_infer.phantom import write_cohort

SEED = 1616
TARGET, COVARIATES = "kidneyParenchymalVolume", ["age", "sex"]


def main() -> None:
    """Run all steps and print what they did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for scans, run and results [default: a new temporary one]")
    parser.add_argument("--scans", type=int, default=200, help="synthetic participants; a third of them are measured")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="ukb-infer-epidemiology-"))
    started = time.monotonic()

    def say(words: str) -> None:
        print(f"[{time.monotonic() - started:3.0f} s] {words}", flush=True)

    # 1. Scans. With your own data, this is the folder of field 20201.
    table = write_cohort(
        work / "scans", given.scans, SEED, size="small", workers=given.workers, overwrite=(work / "scans").exists()
    )
    truth = pd.read_csv(table, dtype={"eid": str})
    say(f"wrote {len(truth)} synthetic scans to {work / 'scans'}")

    # 2. Estimates, one row per scan.
    frame = ukb_infer.predict(
        work / "scans", out=work / "run", modules="phantom-demo", device="cpu", workers=given.workers
    )
    say(f"predicted {len(frame)} scans with phantom-demo, tables in {work / 'run'}")

    # 3. What an export of the biobank would hold: phenotypes of everybody, measurements of a random part.
    truth[["eid", *COVARIATES]].to_csv(work / "phenotypes.csv", index=False)
    measured = truth.sample(len(truth) // 3, random_state=SEED)
    measured[["eid", TARGET]].to_csv(work / "labels.csv", index=False)
    say(f"measured {TARGET} in {len(measured)} of them")

    # 4. The association. On the command line:
    #    ukb-infer associate run --labels labels.csv --phenotypes phenotypes.csv --model "..." --trained-on none --out o
    sources = Sources(
        run=work / "run", labels=work / "labels.csv", phenotypes=work / "phenotypes.csv", trained_on="none"
    )
    model = f"{TARGET} ~ {' + '.join(COVARIATES)}"
    result = run_associate(AssociateConfig(sources=sources, model=model, out=work / "association"), say)
    found = result.associations
    say(f"estimated {model}; to be reported: {found.recommended}")

    # 5. The table, with what measuring everybody would have given.
    design = np.column_stack([np.ones(len(truth)), truth[COVARIATES]])
    known = dict(zip(found.table()["term"].unique(), np.linalg.lstsq(design, truth[TARGET])[0], strict=True))
    rows = found.table()[lambda t: t["estimator"].isin(["labels_only", "naive", found.recommended])]
    rows = rows.assign(everybody_measured=rows["term"].map(known))[lambda t: t["term"] != "Intercept"]
    print(rows[["term", "estimator", "estimate", "lower", "upper", "n_effective", "everybody_measured"]]
          .to_string(index=False, float_format="{:.4g}".format, na_rep="-"))  # fmt: skip
    for path in result.files:
        say(f"wrote {path}")


if __name__ == "__main__":
    main()
