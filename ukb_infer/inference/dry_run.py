"""``predict --dry-run``: what a run would do and how long it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.engine import Engine
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.jobs import make_job
from ukb_infer.inference.plan import Plan, count_words, empty_summary, left_to_do, seconds_of, still_to_do, time_words
from ukb_infer.inference.work import process_scan
from ukb_infer.runs.columns import OutputSpec
from ukb_infer.runs.summary import RunSummary


def dry_run(
    config: PredictConfig, plan: Plan, engine: Engine, spec: OutputSpec, identity: dict[str, Any]
) -> RunSummary:
    """Report what ``predict`` would do, writing nothing; time is measured on one scan and one batch.

    Args:
        config: of the run.
        plan: its scans.
        engine: the loaded modules.
        spec: layout of the tables.
        identity: settings that affect the estimates.
    """
    todo = left_to_do(config, plan, identity, lambda journal: still_to_do(plan, journal, verify=config.verify))
    megabytes = len(plan.included) * (len(engine.targets) * 24 + 4 * 12 * len(spec.targets)) / 1e6
    if config.projections is not None:
        megabytes += 0.2 * len(plan.included)
    notes = (
        count_words(plan, todo),
        f"{len(spec.targets)} targets from {', '.join(m.manifest.name for m in engine.modules)} on {engine.device} "
        f"({engine.precision}, batches of {engine.batch_size}, {config.workers} workers)",
        _expected_time(config, todo, engine),
        f"about {max(1.0, megabytes):.0f} MB in {config.out}; nothing was written",
    )
    return empty_summary(config, plan, notes, engine.warnings)


def _expected_time(config: PredictConfig, todo: Sequence[ScanInput], engine: Engine) -> str:
    """Expected time of the rest, in words."""
    readable = [s for s in todo if s.problem is None]
    if not readable:
        return "nothing to read"
    job = make_job(replace(config, projections=None), readable[len(readable) // 2], engine.modules[0].manifest)
    blank = [np.zeros(engine.recipe.shape, engine.recipe.dtype)] * engine.batch_size
    project = seconds_of(lambda: process_scan(job)) / max(1, config.workers)
    infer = seconds_of(lambda: engine.predict(blank)) / engine.batch_size
    each = max(project, infer) if engine.device.type == "cuda" else project + infer
    return time_words(each * len(readable), len(readable), "one scan and one batch")
