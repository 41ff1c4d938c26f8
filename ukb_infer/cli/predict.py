"""``ukb-infer predict``."""

from __future__ import annotations

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay, print_summary


def predict(
    inputs: options.Inputs,
    out: options.Out,
    modules: options.Modules = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 0,
    workers: options.Workers = None,
    level: options.Level = 0.95,
    targets: options.Targets = "",
    root: options.Root = None,
    exclude: options.Exclude = None,
    projections: options.Projections = None,
    precision: options.Precision = "auto",
    backend: options.Backend = "auto",
    uncertainty: options.Uncertainty = "total",
    prediction_sets: options.PredictionSets = False,
    ood_threshold: options.OodThreshold = 99.8,
    strict: options.Strict = False,
    allow_missing_stations: options.AllowMissing = False,
    expected_stations: options.Expected = 6,
    timeout_s: options.Timeout = 600.0,
    parquet: options.Parquet = False,
    report: options.Report = False,
    quality: options.Quality = None,
    require_quality: options.RequireQuality = None,
    swaps: options.Swaps = "flag",
    shard: options.Shard = "",
    scheduler: options.Scheduler = "",
    verify: options.Verify = False,
    lock: options.Lock = "auto",
    dry_run: options.DryRun = False, overwrite: options.Overwrite = False, log_ids: options.LogIds = False,
) -> None:  # fmt: skip
    """Estimate all targets of every scan, with intervals.

    Writes estimates.csv, scans.csv, quality.csv, dictionary.csv and run.json to --out. To resume an interrupted run,
    repeat the command; SIGTERM finishes the current batch first. Exit code 0: all scans used; 3: some or all failed
    (see scans.csv); 2: wrong usage; 1: the run failed; 75: stopped or storage lost, run the same command again.

    Example:
        ukb-infer predict /data/20201 --out run --modules my-module --workers 8

        ukb-infer predict subjects.bulk --root /data --out run --exclude w12345_20260101.csv --ci 0.9
    """
    from ukb_infer.inference.config import PredictConfig, default_workers
    from ukb_infer.records import ReadingOptions

    config = PredictConfig(
        inputs=tuple(inputs), out=out, root=root, exclude=tuple(exclude or ()), timeout_s=timeout_s, quality=quality,
        require_quality=require_quality, reading=ReadingOptions(expected_stations, allow_missing_stations, strict),
        workers=default_workers() if workers is None else workers, modules=tuple(modules or ()), device=device,
        targets=options.split_names(targets), projections=projections, batch_size=batch_size, level=level,
        prediction_sets=prediction_sets, parquet=parquet, ood_threshold=ood_threshold, verify=verify, shard=shard,
        backend=backend, precision=precision, uncertainty=uncertainty, lock=lock, swaps=swaps,  # type: ignore[arg-type]
        scheduler=scheduler, dry_run=dry_run, overwrite=overwrite, log_ids=log_ids,
    )  # fmt: skip
    with ProgressDisplay("predict") as progress:
        from ukb_infer.inference.predict import run_predict

        summary = run_predict(config, progress)
    print_summary(summary)
    if report and not dry_run:
        from ukb_infer.cli.report import write
        from ukb_infer.report.report import ReportConfig
        from ukb_infer.runs.files import REPORT

        write(ReportConfig(run=out, out=out / REPORT, projections=projections))
    raise typer.Exit(summary.exit_code)
