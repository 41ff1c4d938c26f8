"""``predict --dry-run``: what a run would do and how long it would take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ukb_infer.execution import Journal
from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.engine import Engine
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.plan import Plan, empty_summary, seconds_of, still_to_do
from ukb_infer.inference.work import Job, process_scan
from ukb_infer.runs.columns import OutputSpec
from ukb_infer.runs.files import holds_run
from ukb_infer.runs.summary import RunSummary
from ukb_infer.text import format_duration


def dry_run(config: PredictConfig, plan: Plan, engine: Engine, spec: OutputSpec) -> RunSummary:
    """Report what ``predict`` would do, writing nothing; time is measured on one scan and one batch.

    Args:
        config: of the run.
        plan: its scans.
        engine: the loaded modules.
        spec: layout of the tables.
    """
    kinds: dict[str, int] = {}
    for scan in plan.included:
        name = scan.problem.value if scan.problem is not None else str(scan.kind)
        kinds[name] = kinds.get(name, 0) + 1
    todo = plan.included
    if holds_run(config.out):
        with Journal(config.out, read_only=True) as journal:
            todo = still_to_do(plan, journal, verify=config.verify)
    megabytes = len(plan.included) * (len(engine.targets) * 24 + 4 * 12 * len(spec.targets)) / 1e6
    if config.projections is not None:
        megabytes += 0.2 * len(plan.included)
    notes = (
        f"{len(plan.included)} scans ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}), "
        f"{len(plan.excluded)} excluded, {len(plan.included) - len(todo)} already finished",
        f"{len(spec.targets)} targets from {', '.join(m.manifest.name for m in engine.modules)} on {engine.device} "
        f"({engine.precision}, batches of {engine.batch_size}, {config.workers} workers)",
        _expected_time(config, todo, engine),
        f"about {megabytes:.1f} MB in {config.out}; nothing was written",
    )
    return empty_summary(config, plan, notes, engine.warnings)


def _expected_time(config: PredictConfig, todo: Sequence[ScanInput], engine: Engine) -> str:
    """Expected time of the rest, in words."""
    readable = [s for s in todo if s.problem is None]
    if not readable:
        return "nothing to read"
    job = Job(readable[len(readable) // 2], config.reading, engine.recipe.name)
    blank = [np.zeros(engine.recipe.shape, engine.recipe.dtype)] * engine.batch_size
    project = seconds_of(lambda: process_scan(job)) / max(1, config.workers)
    infer = seconds_of(lambda: engine.predict(blank)) / engine.batch_size
    each = max(project, infer) if engine.device.type == "cuda" else project + infer
    return (
        f"about {format_duration(each * len(readable))} for {len(readable)} scans, measured on one scan and one batch"
    )
