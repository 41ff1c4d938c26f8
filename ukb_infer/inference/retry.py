"""``retry``: forget failures and repeat the run's command, from its working directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ukb_infer.errors import NotARunError, RunError, UsageError
from ukb_infer.execution import Journal, RunLock
from ukb_infer.execution.lock import LockMode
from ukb_infer.inference.config import PredictConfig, ProjectConfig, StitchConfig
from ukb_infer.reasons import Reason
from ukb_infer.runs.summary import Progress, RunSummary
from ukb_infer.text import suggest


def run_retry(
    folder: Path, codes: Sequence[str] = (), progress: Progress | None = None, *, lock: LockMode = "auto"
) -> tuple[int, RunSummary]:
    """Forget failures and repeat the run's command.

    Args:
        folder: of the run.
        codes: reason codes; failed scans with one of them are processed again. Empty for all failures.
        progress: receives the progress.
        lock: how the folder is locked.

    Returns:
        Number of failures forgotten, and the summary of the run.

    Raises:
        UsageError: an unknown code.
        RunError: not a run, or a merged one.
    """
    known = [r.value for r in Reason]
    for code in codes:
        if code not in known:
            raise UsageError(f"unknown reason {code!r}{suggest(code, known)}", field="codes")
    wanted = frozenset(map(Reason, codes or known))
    if not folder.is_dir():
        raise NotARunError(f"{folder} is not a run; expected a folder written by `predict`, `project` or `stitch`")
    with RunLock(folder, lock) as held, Journal(folder, read_only=True, locks=held.locks_work) as journal:
        command = journal.get("command")
        if command is None:
            raise RunError(f"{folder} was merged and has no command to repeat; retry the shards, then merge again")
        repeat = _repetition(folder.absolute(), command, (journal.get("identity") or {}).get("shard") or "")
        chosen = [
            row.scan
            for _, row in journal.results()
            if row is not None and row.result.status == "failed" and wanted.intersection(row.result.reasons)
        ]
    with RunLock(folder, lock) as held, Journal(folder, locks=held.locks_work) as journal:
        journal.forget(chosen)
    return len(chosen), repeat(progress)


def _repetition(folder: Path, command: dict[str, Any], shard: str) -> Callable[[Progress | None], RunSummary]:
    """The command of a run, with its working directory; works outside its job array too."""
    plain = command["config"] | {"out": str(folder), "overwrite": False, "dry_run": False, "shard": shard}
    base = Path(command["cwd"])
    if not base.is_dir():
        raise RunError(
            f"{folder}: the command was given in {base}, which no longer exists; run it by hand, its inputs are "
            f"{', '.join(plain['inputs'][:3])}"
        )
    if command["name"] == "project":
        from ukb_infer.inference.project import run_project

        return partial(run_project, ProjectConfig.from_journal(plain, base))
    if command["name"] == "stitch":
        from ukb_infer.inference.stitch import run_stitch

        return partial(run_stitch, StitchConfig.from_journal(plain, base))
    if command["name"] != "predict":
        raise RunError(f"{folder} was written by `{command['name']}`, which retries by itself: repeat that command")
    from ukb_infer.inference.predict import run_predict

    return partial(run_predict, PredictConfig.from_journal(plain, base))
