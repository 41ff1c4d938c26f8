"""``ukb-infer predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay, print_summary


def predict(
    inputs: options.Inputs,
    out: options.Out,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--modules",
            metavar="NAME",
            help="Module by name or path, may be repeated [default: all in UKB_INFER_MODULES].",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", help="Scans a batch; 0 takes 8 on a CPU and 64 on CUDA.")
    ] = 0,
    workers: options.Workers = None,
    ci: Annotated[
        float, typer.Option("--ci", metavar="LEVEL", help="Level of the prediction intervals, e.g. 0.95.")
    ] = 0.95,
    targets: Annotated[
        str, typer.Option("--targets", metavar="A,B,...", help="Targets to write [default: all the modules have].")
    ] = "",
    root: options.Root = None,
    exclude: options.Exclude = None,
    projections: Annotated[
        Path | None, typer.Option("--projections", metavar="FOLDER", help="Also keep the projections in this folder.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16 or fp16; auto is fp32 on a CPU, fp16 on CUDA.")
    ] = "auto",
    backend: Annotated[
        str, typer.Option(help="torch or openvino on a CPU; auto takes OpenVINO where it is installed and pays.")
    ] = "auto",
    uncertainty: Annotated[
        str, typer.Option(help="total, or full for its aleatoric and epistemic parts as well.")
    ] = "total",
    strict: options.Strict = False,
    allow_missing_stations: options.AllowMissing = False,
    expected_stations: options.Expected = 6,
    timeout: options.Timeout = 600.0,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write the tables as Parquet too.")] = False,
    shard: options.Shard = "",
    scheduler: options.Scheduler = "",
    verify: options.Verify = False,
    lock: options.Lock = "auto",
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    log_ids: options.LogIds = False,
) -> None:
    """Estimate all targets of every scan, with prediction intervals.

    Writes estimates.csv, scans.csv, dictionary.csv and run.json to --out. Interrupted runs are continued by the same
    command; SIGTERM finishes the batch first. Exit code 0: all scans used; 3: some or all failed (see scans.csv); 2:
    wrong usage; 1: the run could not be done; 75: stopped or storage lost, run the same command again.

    Example:
        ukb-infer predict /data/20201 --out run --modules my-module --workers 8

        ukb-infer predict subjects.bulk --root /data --out run --exclude w12345_20260101.csv --ci 0.9
    """
    from ukb_infer.inference.config import PredictConfig, default_workers
    from ukb_infer.records import ReadingOptions

    config = PredictConfig(
        inputs=tuple(inputs),
        out=out,
        root=root,
        reading=ReadingOptions(expected_stations, allow_missing_stations, strict),
        workers=default_workers() if workers is None else workers,
        timeout_s=timeout,
        exclude=tuple(exclude or ()),
        overwrite=overwrite,
        dry_run=dry_run,
        log_ids=log_ids,
        shard=shard,
        scheduler=scheduler,
        verify=verify,
        lock=lock,  # type: ignore[arg-type]
        modules=tuple(modules or ()),
        device=device,
        batch_size=batch_size,
        level=ci,
        targets=tuple(t.strip() for t in targets.split(",") if t.strip()),
        projections=projections,
        precision=precision,  # type: ignore[arg-type]
        uncertainty=uncertainty,  # type: ignore[arg-type]
        parquet=parquet,
        backend=backend,  # type: ignore[arg-type]
    )
    from ukb_infer.inference.predicting import run_predict

    progress = ProgressDisplay("predict")
    try:
        summary = run_predict(config, progress)
    finally:
        progress.close()
    print_summary(summary)
    raise typer.Exit(summary.exit_code)
