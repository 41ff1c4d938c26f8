"""A small pool of worker processes that survives workers that die or hang.

The standard pools lose everything when one worker dies and cannot stop a worker that hangs. Here every worker has its
own pipe: a dead worker is replaced and its item retried once, alone; one that exceeds the time limit is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Literal, TypeVar

from ukb_infer.console import prepare_streams

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Attempts at an item whose worker dies.
ATTEMPTS = 2
#: Items a worker holds: one in work and one to continue with while the caller is busy.
DEPTH = 2
#: While waiting, check this often whether to stop, s.
LOOK_UP_S = 0.5
_STOP = None


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@dataclass(frozen=True)
class Failure:
    """Why an item has no result: its worker died or took too long, or the function raised (``error``)."""

    kind: Literal["died", "timed_out", "raised"]
    detail: str


@dataclass
class _Worker:
    """A process, its items (the first is in work), and the start time of the first."""

    process: BaseProcess
    pipe: Connection
    items: deque[int] = field(default_factory=deque)
    started: float = 0.0


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    """Loop of a worker: receive an item, send back (True, result) or (False, text)."""
    prepare_streams()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker per core
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group: the command decides what to finish
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        if message is _STOP:
            return
        try:
            answer = (True, function(message[0]))
        except Exception as error:
            answer = (False, f"{type(error).__name__}: {error}")
        pipe.send(answer)


class _Pool(Generic[Item, Result]):
    def __init__(self, function: Callable[[Item], Result], workers: int, timeout_s: float | None) -> None:
        self.function, self.timeout_s = function, timeout_s
        self.context = multiprocessing.get_context("spawn")
        self.workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        here, there = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(self.function, there), daemon=True)
        # Ctrl-C reaches the whole group, and a worker that is still importing would leave a traceback: block it there.
        resource_tracker.ensure_running()  # its start would unblock it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        return _Worker(process, here)

    def give(self, worker: _Worker, index: int, item: Item) -> None:
        """Send an item to a worker.

        Args:
            worker: gets the item after those it has.
            index: of the item, returned with its result.
            item: what the function takes.
        """
        if not worker.items:
            worker.started = time.monotonic()
        worker.items.append(index)
        with contextlib.suppress(OSError):  # it died between two items: collect() sees the closed pipe
            worker.pipe.send((item,))

    def collect(self) -> Iterator[tuple[int, Result | Failure, list[int]]]:
        """Wait for an event, the next time limit or half a second; return what happened.

        Yields:
            (item, its result or failure, items of the same worker that it never started).
        """
        busy = {w.pipe: w for w in self.workers if w.items}
        limit: float = LOOK_UP_S
        if self.timeout_s is not None and busy:
            oldest = min(w.started for w in busy.values())
            limit = min(LOOK_UP_S, max(0.05, oldest + self.timeout_s - time.monotonic()))
        for ready in wait(list(busy), limit):
            worker = busy[ready]  # type: ignore[index]
            yield self._receive(worker)
        now = time.monotonic()
        for worker in list(self.workers):
            if self.timeout_s is not None and worker.items and now - worker.started > self.timeout_s:
                index = worker.items.popleft()
                self._replace(worker)
                yield index, Failure("timed_out", f"no result after {self.timeout_s:g} s"), list(worker.items)

    def _receive(self, worker: _Worker) -> tuple[int, Result | Failure, list[int]]:
        try:
            fine, value = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(5.0)
            code = worker.process.exitcode
            self._replace(worker)
            index = worker.items.popleft()
            return index, Failure("died", f"the worker process ended with exit code {code}"), list(worker.items)
        index = worker.items.popleft()
        worker.started = time.monotonic()
        return index, value if fine else Failure("raised", value), []

    def _replace(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join(5.0)
        worker.pipe.close()
        self.workers[self.workers.index(worker)] = self._start()

    def close(self) -> None:
        for worker in self.workers:
            try:
                worker.pipe.send(_STOP)
            except OSError:
                continue
        for worker in self.workers:
            worker.process.join(1.0)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(5.0)
            worker.pipe.close()


def run_in_workers(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    timeout_s: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    alone_s: float = 0.0,
) -> Iterator[tuple[int, Result | Failure]]:
    """Apply a function to items in worker processes, yielding results as they come.

    Args:
        function: importable at top level; its result must pickle.
        items: what to work on; each must pickle.
        workers: processes; 0 works in this process, item by item.
        timeout_s: time limit for one item, s; its worker is killed then.
        should_stop: polled; True ends the work, leaving items without result.
        alone_s: begin in this process, and start the workers only if items are left after this time: for few items
            their start takes longer than the work. Meant for functions that neither die nor hang.

    Yields:
        (index of the item, result or :class:`Failure`), in order of completion.
    """
    limit, done = time.monotonic() + (alone_s if workers else float("inf")), 0
    if workers == 0 or alone_s:
        for index, result in _run_here(function, items, should_stop):
            yield index, result
            done = index + 1
            if time.monotonic() > limit:
                break
        else:
            return
    rest = _run_in_pool(function, items[done:], workers, timeout_s, should_stop)
    yield from ((done + index, result) for index, result in rest)


def _run_in_pool(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, timeout_s: float | None,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[int, Result | Failure]]:  # fmt: skip
    if not items:
        return
    pool: _Pool[Item, Result] = _Pool(function, max(1, min(workers, len(items))), timeout_s)
    waiting, lonely = deque(range(len(items))), deque[int]()
    attempts = [0] * len(items)
    try:
        while waiting or lonely or any(w.items for w in pool.workers):
            if should_stop():
                return
            _hand_out(pool, items, waiting, lonely)
            for index, result, unbegun in pool.collect():
                waiting.extendleft(reversed(unbegun))
                attempts[index] += 1
                if isinstance(result, Failure) and result.kind == "died" and attempts[index] < ATTEMPTS:
                    lonely.append(index)
                else:
                    yield index, result
    finally:
        pool.close()


def _hand_out(pool: _Pool[Item, Result], items: Sequence[Item], waiting: deque[int], lonely: deque[int]) -> None:
    """Give items to workers; one whose worker died waits until it can run alone."""
    if lonely:
        if not any(w.items for w in pool.workers):
            index = lonely.popleft()
            pool.give(pool.workers[0], index, items[index])
        return
    for depth in range(1, DEPTH + 1):
        for worker in pool.workers:
            if waiting and len(worker.items) < depth:
                index = waiting.popleft()
                pool.give(worker, index, items[index])


def _run_here(
    function: Callable[[Item], Result], items: Sequence[Item], should_stop: Callable[[], bool]
) -> Iterator[tuple[int, Result | Failure]]:
    for index, item in enumerate(items):
        if should_stop():
            return
        try:
            yield index, function(item)
        except Exception as error:
            yield index, Failure("raised", f"{type(error).__name__}: {error}")
