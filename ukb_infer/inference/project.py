"""``project``: from scans to cached projections."""

from __future__ import annotations

from ukb_infer.inference.config import ProjectConfig
from ukb_infer.inference.scan_files import FileRun, run_scan_files
from ukb_infer.inference.work import Job
from ukb_infer.runs.files import projection_files
from ukb_infer.runs.summary import Progress, RunSummary


def run_project(config: ProjectConfig, progress: Progress | None = None) -> RunSummary:
    """Project every scan, resuming an existing run.

    Args:
        config: of the run.
        progress: receives the progress.

    Returns:
        Counts, reasons and the exit code.

    Raises:
        UsageError: contradictory options, two files with the same key, or another run in ``out``.
        RunError: no inputs, an unusable folder, a locked run.
    """
    out = config.out.absolute()
    run = FileRun(
        name="project",
        config=config,
        identity=config.identity(),
        job=lambda scan: Job(
            scan,
            config.reading,
            config.recipe,
            out,
            config.png,
            config.verify,
            config.swaps,
            out if config.keep_uncorrected else None,
        ),
        try_job=lambda scan: Job(scan, config.reading, config.recipe, swaps=config.swaps),
        files=lambda key: projection_files(config.out, key.scan)[:1],
        all_files=lambda key: projection_files(config.out, key.scan),
        megabytes=0.2,
    )
    return run_scan_files(run, progress)
