"""Several processes that work on one task after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from ..errors import HandgradError

Result = TypeVar("Result")

# Of a worker process.
_job: Callable[[int], Any]
_stopped: Event


@contextmanager
def run(job: Callable[[int], Result], tasks: Sequence[int], workers: int) -> Iterator[Iterator[Result]]:
    """Give job(task) for each task, in the order of the tasks, in a `with` block.

    With several processes, each of them receives a copy of `job`. An exception in one of them or in the `with` block
    ends all of them after their current task. They also end if this process is killed.

    Parameters
    ----------
    job : callable
        A function of an integer that can be pickled.
    tasks : sequence of int
        The tasks.
    workers : int
        Number of processes. 1: this process.

    Raises
    ------
    HandgradError
        If a process was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield map(job, tasks)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ExitStack() as stack:
            with _deferring_signals():
                stopped = context.Event()
                executor = ProcessPoolExecutor(workers, context, _prepare, (job, stopped))
                stack.callback(executor.shutdown, cancel_futures=True)
                stack.callback(stopped.set)  # for the tasks that the processes have received, but not begun
                futures = deque(executor.submit(_call, task) for task in tasks)
            yield _results(futures)
    except BrokenProcessPool as error:
        raise HandgradError(
            f"one of {workers} processes was killed, perhaps because the memory is full: use fewer processes"
        ) from error


@contextmanager
def _deferring_signals() -> Iterator[None]:
    """Defer Ctrl-C, SIGTERM and SIGHUP to the end of the `with` block. Processes that start in it never get Ctrl-C.

    An exception while a process starts would leave it without a part of what it reads first.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield  # a thread receives no signals, and Windows has no masks
        return
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {each: signal.signal(each, lambda number, frame: received.append(number)) for each in signals}
    resource_tracker.ensure_running()  # a process of Python, which unblocks Ctrl-C when it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # which processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each, handler in handlers.items():
            signal.signal(each, handler or signal.SIG_DFL)
        for number in received:
            signal.raise_signal(number)


def _results(futures: deque[Future[Any]]) -> Iterator[Any]:
    while futures:
        yield futures.popleft().result()


def _prepare(job: Callable[[int], Any], stopped: Event) -> None:
    """Prepare a worker process: it leaves interrupts to the main process, and ends with it."""
    global _job, _stopped
    _job, _stopped = job, stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(task: int) -> Any:
    return None if _stopped.is_set() else _job(task)
