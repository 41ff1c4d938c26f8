"""Process scans in worker processes or on a cluster, retrying storage failures, until asked to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ukb_infer.execution import Failure, run_in_workers
from ukb_infer.inference.config import CommonConfig
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.work import Outcome, ScanJob, failed, from_failure, process_scan
from ukb_infer.reasons import Reason

#: Consecutive storage failures after which the storage counts as lost.
STORAGE_GONE_AFTER = 16


class StopOnTerminate:
    """Context in which SIGTERM stops the run after its batch instead of ending the process."""

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> StopOnTerminate:
        """Install the handler, in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, *_: object) -> None:
        self.requested = True

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.requested

    def __exit__(self, *_: object) -> None:
        """Restore the previous handler."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


def outcomes(
    jobs: Sequence[ScanJob], config: CommonConfig, stop: Callable[[], bool]
) -> Iterator[tuple[ScanInput, Outcome]]:
    """Process scans; each is returned at most once, in order of completion.

    Storage failures are retried with growing waits; after many in a row, the rest waits too. Scans that still fail at
    the end are returned as failed; scans not reached are not returned.

    Args:
        jobs: to process.
        config: workers or scheduler, time limit, waits.
        stop: polled; True ends the work.
    """
    left = {job.scan.key.scan: job for job in jobs}
    for job in jobs:
        if job.scan.problem is not None:
            del left[job.scan.key.scan]
            yield job.scan, failed(job.scan.problem).changed(fingerprint=job.scan.fingerprint)
    tried: dict[str, Outcome] = {}
    in_a_row = [0]

    def pause_or_stop() -> bool:
        return stop() or in_a_row[0] >= STORAGE_GONE_AFTER

    for wait_s in (0.0, *config.retry_waits_s):
        _pause(wait_s, stop)
        tried.clear()
        in_a_row[0] = 0
        for job, outcome in _one_pass(list(left.values()), config, pause_or_stop):
            if outcome.result.reasons == (Reason.STORAGE_FAILED,):
                in_a_row[0] += 1
                tried[job.scan.key.scan] = outcome
                continue
            in_a_row[0] = 0
            del left[job.scan.key.scan]
            yield job.scan, outcome
        if not left or stop():
            return
    for name, outcome in tried.items():
        yield left[name].scan, outcome


def _pause(seconds: float, stop: Callable[[], bool]) -> None:
    """Wait, unless the run should stop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop():
        time.sleep(min(0.2, max(0.0, end - time.monotonic())))


def _one_pass(
    jobs: Sequence[ScanJob], config: CommonConfig, stop: Callable[[], bool]
) -> Iterator[tuple[ScanJob, Outcome]]:
    """Process every job once, locally or on a cluster."""
    if not jobs:
        return
    if config.scheduler:
        from ukb_infer.execution.cluster import run_on_cluster

        is_file = config.scheduler.endswith(".toml")
        scheduler = str(config.at(config.scheduler)) if is_file else config.scheduler
        results = run_on_cluster(process_scan, jobs, scheduler=scheduler, timeout_s=config.timeout_s, should_stop=stop)
    else:
        results = run_in_workers(
            process_scan, jobs, workers=config.workers, timeout_s=config.timeout_s, should_stop=stop
        )
    for index, result in results:
        yield jobs[index], from_failure(result) if isinstance(result, Failure) else result
