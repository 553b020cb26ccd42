"""Threads: how many BLAS takes for a product of matrices. For small ones one is faster than two.

A second thread must be woken and waited for, and where another program has its core, waited for long. Measured on two
cores: a step of [784, 100, 10] on batches of 10 takes 60 us with one thread and 75 us with two; one of [784, 30, 10] on
batches of 64 takes 115 us and 105 us, but where another program is running 115 us and 3,400 us.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from .errors import optional
from .network import Network

Made = TypeVar("Made")

SMALL = 4_000_000  # multiplications and additions in the largest product of a step: 40 us of one core


def blas_threads(network: Network, batch_size: int) -> AbstractContextManager[Any]:
    """Within it BLAS takes one thread if the largest product of a training step is small, else as many as it likes.

    Raises MissingExtraError where threadpoolctl, of the extra app, is not installed.
    """
    largest = max((2 * batch_size * W.size for W, _ in network.weights), default=0)
    return nullcontext() if largest > SMALL else _one_thread(_libraries())


_lock = threading.Lock()
_inside: list[Any] = []  # the limit that the first one in has set, once for each that is in


@contextmanager
def _one_thread(libraries: Any) -> Iterator[None]:
    """BLAS with one thread, until the last of those within it is out: several Python threads may train at once."""
    with _lock:
        _inside.append(_inside[0] if _inside else libraries.limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _inside.pop()
            if not _inside:
                limit.restore_original_limits()


@functools.cache
def _libraries() -> Any:
    """The libraries with threads of their own that are loaded: to look for them takes a millisecond."""
    return optional("threadpoolctl").ThreadpoolController()


def one_ahead(make: Callable[[int], Made], count: int) -> Iterator[Made]:
    """make(0), make(1), ..., make(count - 1), each made in a thread of its own while the one before it is used."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as background:
        coming = background.submit(make, 0)
        for number in range(count):
            block = coming.result()
            if number + 1 < count:
                coming = background.submit(make, number + 1)
            yield block
