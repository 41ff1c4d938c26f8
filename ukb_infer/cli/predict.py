"""``ukb-infer predict``."""

from __future__ import annotations

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay, finish
from ukb_infer.cli.shared import shares


@shares(options.ScanOptions)
def predict(
    *,
    shared: options.ScanOptions,
    modules: options.Modules = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 0,
    level: options.Level = 0.95,
    targets: options.Targets = None,
    projections: options.Projections = None,
    precision: options.Precision = "auto",
    backend: options.Backend = "auto",
    uncertainty: options.Uncertainty = "total",
    prediction_sets: options.PredictionSets = False,
    ood_threshold: options.OodThreshold = 99.8,
    parquet: options.Parquet = False,
    report: options.Report = False,
) -> None:
    """Estimate all targets of every scan, with intervals.

    Writes estimates.csv, scans.csv, quality.csv, dictionary.csv and run.json to --out. To resume an interrupted run,
    repeat the command; SIGTERM finishes the current batch first. Exit code 0: all scans used; 3: some or all failed
    (see scans.csv); 2: the command must be changed; 1: the run failed; 75: stopped or storage lost, run the same
    command again.

    Example:
        ukb-infer predict /data/20201 --out run --modules my-module --workers 8

        ukb-infer predict subjects.bulk --root /data --out run --exclude w12345_20260101.csv --ci 0.9
    """
    from ukb_infer.inference.config import PredictConfig

    config = PredictConfig(
        modules=tuple(modules or ()), device=device, batch_size=batch_size, level=level,
        targets=options.split_names(targets), projections=projections, prediction_sets=prediction_sets,
        parquet=parquet, ood_threshold=ood_threshold, backend=backend, precision=precision,  # type: ignore[arg-type]
        uncertainty=uncertainty, **shared.settings(),  # type: ignore[arg-type]
    )  # fmt: skip
    with ProgressDisplay("predict") as progress:
        from ukb_infer.inference.predict import run_predict

        summary = run_predict(config, progress)
    if report and not summary.dry_run and not summary.again:
        from ukb_infer.cli.report import write
        from ukb_infer.report.report import ReportConfig
        from ukb_infer.runs.files import REPORT

        write(ReportConfig(run=config.out, out=config.out / REPORT, projections=projections))
    finish(summary)
