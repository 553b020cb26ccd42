"""Threads of one process as the ranks of data-parallel training.

NumPy releases Python's global lock while it computes, so that two threads with half of the rows each use two cores: for
the matrix products, and also for the operations between them and for augmentation, which are not parallel otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from numpy.typing import NDArray

from ..blas import one_blas_thread
from ..errors import MissingExtraError

Result = TypeVar("Result")


class ThreadCommunicator:
    """The communicator of one thread, see `handgrad.distributed.Communicator`."""

    def __init__(self, rank: int, arrays: list[NDArray[Any] | None], barrier: threading.Barrier) -> None:
        self.rank, self._arrays, self._barrier = rank, arrays, barrier  # arrays: one of each thread

    def Get_rank(self) -> int:  # noqa: N802
        """Return the number of this thread, 0 ... size - 1."""
        return self.rank

    def Get_size(self) -> int:  # noqa: N802
        """Return the number of threads."""
        return len(self._arrays)

    def Allreduce(self, sendbuf: None, recvbuf: NDArray[Any]) -> None:  # noqa: N802
        """Replace an array by its sum over the threads, added in the order of the ranks. Each thread adds one part."""
        parts = self._exchange(recvbuf)
        size, p = parts[0].size, len(parts)
        own = slice(self.rank * size // p, (self.rank + 1) * size // p)
        total = parts[0][own]
        for part in parts[1:]:
            total += part[own]
        for part in parts[1:]:
            part[own] = total
        self._barrier.wait()

    def Bcast(self, buf: NDArray[Any], root: int = 0) -> None:  # noqa: N802
        """Replace an array by that of the thread `root`."""
        parts = self._exchange(buf)
        if self.rank != root:
            parts[self.rank][:] = parts[root]
        self._barrier.wait()

    def _exchange(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """The arrays of all threads, as vectors that share their memory."""
        self._arrays[self.rank] = array
        self._barrier.wait()
        return [part.reshape(-1) for part in self._arrays if part is not None]


def run_threads(size: int, function: Callable[[ThreadCommunicator], Result]) -> list[Result]:
    """Call function(comm) in `size` threads, rank 0 in the current one, and return the results in the order of ranks.

    Meanwhile BLAS has one thread, if threadpoolctl is installed. An exception in one thread ends the others at their
    next exchange, and is raised.
    """
    barrier, arrays = threading.Barrier(size), [None] * size
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = function(ThreadCommunicator(rank, arrays, barrier))  # type: ignore[arg-type]
        except threading.BrokenBarrierError:  # of another thread, which has failed
            pass
        except BaseException as error:  # KeyboardInterrupt too
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank {rank}") for rank in range(1, size)]
    with _one_blas_thread():
        try:
            for thread in threads:
                thread.start()
            run(0)
        except BaseException:  # KeyboardInterrupt, between the calls
            barrier.abort()
            raise
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(size)]


def _one_blas_thread() -> AbstractContextManager[Any]:
    try:
        return one_blas_thread()
    except MissingExtraError:
        return nullcontext()
