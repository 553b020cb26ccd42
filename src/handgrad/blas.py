"""BLAS threads: one thread for small matrix products, which is faster than two.

A second thread must be woken and waited for; if another program uses its core, the wait is long. Measured on two cores:
a step of 784-100-10 with batch size 10 takes 60 us with one thread and 75 us with two. A step of 784-30-10 with batch
size 64 takes 115 us and 105 us, but 115 us and 3,400 us while another program runs.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .errors import MissingExtraError, optional
from .network import Network

SMALL = 4_000_000  # floating-point operations of the largest product of a step: 40 us on one core


def blas_threads(network: Network, batch_size: int) -> AbstractContextManager[Any]:
    """Limit BLAS to one thread in a `with` block if the largest product of a training step is small.

    The limit needs threadpoolctl, of the extra `app`. Without it, the number of threads does not change.
    """
    largest = max((2 * batch_size * W.size for W, _ in network.weights), default=0)
    return nullcontext() if largest > SMALL else if_available(one_blas_thread)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Limit BLAS to one thread in a `with` block.

    Raises MissingExtraError if threadpoolctl, of the extra `app`, is not installed.
    """
    return _limited(_libraries(), 1)


def at_most(threads: int) -> AbstractContextManager[Any]:
    """Limit BLAS to a number of threads in a `with` block, unless it uses fewer.

    Raises MissingExtraError if threadpoolctl, of the extra `app`, is not installed.
    """
    current = max(
        (library["num_threads"] for library in _libraries().info() if library["user_api"] == "blas"), default=1
    )
    return _limited(_libraries(), min(threads, current))


def if_available(limit: Callable[[], AbstractContextManager[Any]]) -> AbstractContextManager[Any]:
    """Return limit(), or a `with` block without a limit if threadpoolctl is not installed."""
    try:
        return limit()
    except MissingExtraError:
        return nullcontext()


_lock = threading.Lock()
_active: list[Any] = []  # the limit that the first block has set, once for each active block


@contextmanager
def _limited(libraries: Any, threads: int) -> Iterator[None]:
    """Limit BLAS until the last of several concurrent blocks ends. The limit is that of the first one."""
    with _lock:
        _take_control(libraries)
        _active.append(_active[0] if _active else libraries.limit(limits=threads, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _active.pop()
            if not _active:
                _take_control(libraries)
                limit.restore_original_limits()


def _take_control(libraries: Any) -> None:
    """Let this thread set the limit: in threadpoolctl, only the first thread that has set one can do so."""
    for library in libraries.lib_controllers:
        release = getattr(library, "clear_controlling_thread", None)  # not in older versions, where every thread can
        if release is not None:
            release(force=True)


@functools.cache
def _libraries() -> Any:
    """The loaded libraries with thread pools. Searching for them takes a millisecond."""
    return optional("threadpoolctl").ThreadpoolController()
