"""Rebuild models/phantom-demo from scratch: phantoms, projections, folds, training, calibration, table.

With --reference-only, only its reference of ordinary scans (docs/outliers.md) is fitted anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ukb_infer.demo.ensemble import DemoConfig, make_demo, refit_reference


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
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--reference-only", action="store_true")
    args = parser.parse_args()
    config = DemoConfig(args.training, args.calibration, args.evaluation, args.members, args.iterations, args.workers)
    if args.reference_only:
        refit_reference(args.out, args.work, config)
        return
    make_demo(args.out, args.work, config, overwrite=args.overwrite)


if __name__ == "__main__":
    main()
