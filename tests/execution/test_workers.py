"""The pool of workers: results, exceptions, deaths, hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ukb_infer.execution import Failure, run_in_workers


def _square(x: int) -> int:
    return x * x


def _trouble(x: int) -> int:
    if x == 3:
        raise ValueError("three")
    if x == 5:
        os._exit(9)
    return x


def _sleep_at_two(x: int) -> int:
    if x == 2:
        time.sleep(60)
    return x


def _die_once(path: str) -> str:
    marker = Path(path)
    if not marker.exists():
        marker.write_text("x")
        os._exit(1)
    return "second time"


def _die_idle(x: int) -> int:
    if x == 0:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return x


def _die_while_sending(path: str) -> bytes:
    """A result that no pipe holds at once; its worker is killed before anybody has read it."""
    if not path or Path(path).exists():
        return b""
    Path(path).write_text("x")
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return bytes(50_000_000)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_item_comes_back_once(workers: int) -> None:
    results = list(run_in_workers(_square, range(20), workers=workers))
    assert sorted(results) == [(k, k * k) for k in range(20)]


def _process_of(_: int) -> int:
    return os.getpid()


def test_few_items_need_no_workers_and_the_rest_of_many_get_them() -> None:
    here = os.getpid()
    few = list(run_in_workers(_process_of, range(4), workers=2, alone_s=1000.0))
    assert few == [(k, here) for k in range(4)]
    many = dict(run_in_workers(_process_of, range(4), workers=1, alone_s=1e-9))
    assert many[0] == here
    assert {many[k] != here for k in (1, 2, 3)} == {True}


def test_no_items_is_no_work() -> None:
    assert list(run_in_workers(_square, [], workers=2)) == []


def test_one_bad_item_costs_no_other() -> None:
    results = dict(run_in_workers(_trouble, range(8), workers=2))
    assert {k: v for k, v in results.items() if not isinstance(v, Failure)} == {k: k for k in (0, 1, 2, 4, 6, 7)}
    assert results[3] == Failure("raised", "ValueError: three")
    died = results[5]
    assert isinstance(died, Failure)
    assert died.kind == "died"


def test_an_item_whose_worker_died_by_chance_is_tried_again(tmp_path: Path) -> None:
    assert list(run_in_workers(_die_once, [str(tmp_path / "m")], workers=1)) == [(0, "second time")]


def test_a_worker_that_dies_between_two_items_is_replaced() -> None:
    stream = run_in_workers(_die_idle, range(6), workers=1)
    results = [next(stream)]
    time.sleep(2)  # busy elsewhere, as the command is with a batch; the worker is done with what it had, and dies
    assert sorted([*results, *stream]) == [(k, k) for k in range(6)]


def test_a_worker_killed_while_it_sends_its_result_harms_no_other(tmp_path: Path) -> None:
    marker = tmp_path / "m"
    stream = run_in_workers(_die_while_sending, ["", str(marker), "", ""], workers=1)
    results = [next(stream)]
    while not marker.exists():
        time.sleep(0.05)
    time.sleep(2)
    assert sorted([*results, *stream]) == [(k, b"") for k in range(4)]


def test_a_hanging_item_is_stopped() -> None:
    results = dict(run_in_workers(_sleep_at_two, range(5), workers=2, timeout_s=3.0))
    assert {k for k, v in results.items() if v == k} == {0, 1, 3, 4}
    hung = results[2]
    assert isinstance(hung, Failure)
    assert hung.kind == "timed_out"


def test_stopping_early_leaves_no_process_behind() -> None:
    import multiprocessing

    stream = run_in_workers(_square, range(100), workers=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def _is_interrupt_blocked(_: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_leaves_workers_alone_from_their_first_moment_and_reaches_the_caller() -> None:
    """A traceback of each worker's imports would bury the message of the command."""
    assert list(run_in_workers(_is_interrupt_blocked, [0], workers=1)) == [(0, True)]
    assert not _is_interrupt_blocked(0)
