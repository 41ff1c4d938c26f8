"""Work on an existing Dask cluster, or on one started through a batch system by dask-jobqueue.

Needs the extra ``cluster``. Dask itself moves the work of a lost worker to another. Here the number of items in flight
is bounded, results are streamed back, and an item that loses its worker repeatedly becomes a failure.
"""

from __future__ import annotations

import logging
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution.workers import Failure
from ukb_infer.text import suggest

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Batch systems of dask-jobqueue that a TOML file may name.
KINDS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
#: Items in flight per thread of the cluster: enough to keep every thread busy.
IN_FLIGHT = 3
#: An item may queue behind others in flight, so it gets this many times the limit.
TIMEOUT_FACTOR = IN_FLIGHT + 1
#: How often lost workers are replaced by new jobs, in dask's words.
RESUBMIT_EVERY = "20s"
_LOOK_UP_S = 0.5
_LOG = logging.getLogger(__name__)


def run_on_cluster(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    scheduler: str,
    timeout_s: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Result | Failure]]:
    """Apply a function to items on a cluster, yielding results as they come.

    Args:
        function: importable on the workers, which need this package and the same file paths.
        items: what to work on.
        scheduler: address (``tcp://host:8786``), or a TOML file: ``kind``, ``jobs``, ``[options]`` of dask-jobqueue.
        timeout_s: time limit for one item, s; queueing in a worker is allowed for.
        should_stop: polled; True ends the work, leaving items without result.

    Yields:
        (index of the item, result or :class:`Failure`), in order of completion; every index at most once.

    Raises:
        UsageError: the extra is missing, or the file is invalid.
        RunError: the scheduler cannot be reached, or is lost.
    """
    try:
        import distributed
    except ImportError as error:
        raise UsageError('`scheduler` needs Dask: pip install "ukb-infer[cluster]"') from error
    with ExitStack() as stack:
        client = stack.enter_context(_connect(distributed, scheduler, stack))
        try:
            yield from _stream(distributed, client, function, items, timeout_s, should_stop)
        except (OSError, distributed.comm.CommClosedError, distributed.client.FuturesCancelledError) as error:
            raise RunError(
                f"`scheduler` {scheduler}: the connection was lost ({type(error).__name__}); run the same command "
                "again; finished work is kept"
            ) from error


def _connect(distributed: Any, scheduler: str, stack: ExitStack) -> Any:
    target: Any = scheduler
    if scheduler.endswith(".toml"):
        target = stack.enter_context(_start_cluster(Path(scheduler)))
    try:
        return distributed.Client(target, timeout=30, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise RunError(
            f"`scheduler` {scheduler}: cannot be reached ({error}); start one with `dask scheduler`, or check the "
            "address"
        ) from error


def read_cluster_file(path: Path) -> tuple[str, int, dict[str, Any]]:
    """Kind, number of jobs and options of a cluster file.

    Raises:
        UsageError: unreadable or misspelled.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"`scheduler` {path}: cannot be read as TOML ({error})") from error
    for key in content:
        if key not in ("kind", "jobs", "options"):
            raise UsageError(f"`scheduler` {path}: unknown key {key!r}{suggest(key, ('kind', 'jobs', 'options'))}")
    kind, jobs, options = content.get("kind"), content.get("jobs", 1), content.get("options", {})
    if kind not in KINDS:
        raise UsageError(f"`scheduler` {path}: kind is {kind!r}, expected {', '.join(KINDS)}")
    if type(jobs) is not int or jobs < 1 or not isinstance(options, dict):
        raise UsageError(f"`scheduler` {path}: expected jobs = a number of at least 1, and a table [options]")
    return kind, jobs, options


def _start_cluster(path: Path) -> Any:
    kind, jobs, options = read_cluster_file(path)
    try:
        import dask_jobqueue
    except ImportError as error:
        raise UsageError('`scheduler` FILE needs dask-jobqueue: pip install "ukb-infer[cluster]"') from error
    try:
        cluster = getattr(dask_jobqueue, KINDS[kind])(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"`scheduler` {path}: [options] are not valid for dask-jobqueue ({error})") from error
    cluster.scale(jobs=jobs)
    # Replaces lost workers (time limit, preemption); not jobs that end before they have one, which may be wrong.
    cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs, interval=RESUBMIT_EVERY)
    return cluster


def _stream(
    distributed: Any,
    client: Any,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    timeout_s: float | None,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[int, Result | Failure]]:
    flying: dict[Any, tuple[int, float]] = {}
    upcoming = 0
    waiting = False
    try:
        while (upcoming < len(items) or flying) and not should_stop():
            threads = sum(client.nthreads().values())
            if not threads:  # they may queue in the batch system for hours: no item's time runs
                if not waiting:
                    _LOG.warning("the cluster has no workers; waiting for them")
                waiting = True
                flying = {future: (index, time.monotonic()) for future, (index, _) in flying.items()}
                time.sleep(_LOOK_UP_S)
                continue
            waiting = False
            for index in range(upcoming, min(len(items), upcoming + max(0, IN_FLIGHT * threads - len(flying)))):
                flying[client.submit(function, items[index], pure=False)] = (index, time.monotonic())
                upcoming = index + 1
            for future in _finished(distributed, client, list(flying)):
                index, _ = flying.pop(future)
                yield index, _result(distributed, future)
                future.release()
            for future, (index, started) in list(flying.items()):
                if timeout_s is not None and time.monotonic() - started > TIMEOUT_FACTOR * timeout_s:
                    del flying[future]
                    future.cancel(force=True)
                    yield (
                        index,
                        Failure("timed_out", f"no result after {TIMEOUT_FACTOR * timeout_s:g} s in the cluster"),
                    )
    finally:
        client.cancel(list(flying), force=True)


def _finished(distributed: Any, client: Any, futures: list[Any]) -> list[Any]:
    """Futures that are done, after waiting for at least one or for half a second."""
    try:
        with client.as_current():
            return list(distributed.wait(futures, timeout=_LOOK_UP_S, return_when="FIRST_COMPLETED").done)
    except (TimeoutError, distributed.TimeoutError):
        return []


def _result(distributed: Any, future: Any) -> Any:
    """Result of a finished future, or why there is none."""
    if future.status == "cancelled":
        raise RunError("the cluster dropped the work (the scheduler was restarted); run the same command again")
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, distributed.KilledWorker):
        return Failure("died", "its worker on the cluster was lost several times")
    return Failure("raised", f"{type(error).__name__}: {error}")
