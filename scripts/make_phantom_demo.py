"""Rebuild models/phantom-demo from scratch: phantoms, projections, folds, training, calibration, table.

With --only-reference, only its reference of ordinary scans (docs/outliers.md) is fitted anew; with --only-visits, only
how its errors at two visits go together (docs/reference-curves.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ukb_infer.demo.ensemble import DemoConfig, make_demo, refit_reference
from ukb_infer.demo.visits import fit_demo_visits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="working folder (about 1.5 GB); a repeated call resumes"
    )
    parser.add_argument("--out", type=Path, default=Path("models/phantom-demo"))
    parser.add_argument("--training", type=int, default=DemoConfig.training)
    parser.add_argument("--calibration", type=int, default=DemoConfig.calibration)
    parser.add_argument("--evaluation", type=int, default=DemoConfig.evaluation)
    parser.add_argument("--members", type=int, default=DemoConfig.members)
    parser.add_argument("--iterations", type=int, default=DemoConfig.iterations)
    parser.add_argument("--workers", type=int, default=DemoConfig.workers)
    parser.add_argument("--visits", type=int, default=DemoConfig.visits, help="pairs of visits; 0: none")
    parser.add_argument("--only-visits", action="store_true", help="make visits.json of the existing module")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--only-reference", action="store_true", help="fit the outliers of the existing module")
    args = parser.parse_args()
    if args.only_visits:
        fit_demo_visits(args.out, args.work / "visits", pairs=args.visits, workers=args.workers)
        return
    config = DemoConfig(
        args.training, args.calibration, args.evaluation, args.members, args.iterations, args.workers, args.visits
    )
    if args.only_reference:
        refit_reference(args.out, args.work, config)
        return
    make_demo(args.out, args.work, config, overwrite=args.overwrite)


if __name__ == "__main__":
    main()
