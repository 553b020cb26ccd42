"""Threads of one process as the ranks of data-parallel training.

NumPy releases Python's global lock while it computes, so that two threads with half of the rows each use two cores: for
the matrix products, and also for the operations between them and for augmentation, which are not parallel otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from numpy.typing import NDArray

from ..blas import if_available, one_blas_thread
from ..errors import HandgradError

Result = TypeVar("Result")


class ThreadCommunicator:
    """The communicator of one thread, see `handgrad.distributed.Communicator`. Arrays must be contiguous."""

    def __init__(self, rank: int, group: _Group) -> None:
        self._rank, self._group = rank, group

    def Get_rank(self) -> int:  # noqa: N802
        """Return the number of this thread, 0 ... size - 1."""
        return self._rank

    def Get_size(self) -> int:  # noqa: N802
        """Return the number of threads."""
        return len(self._group.arrays)

    def Allreduce(self, sendbuf: None, recvbuf: NDArray[Any]) -> None:  # noqa: N802
        """Replace an array by its sum over the threads, added in the order of the ranks. Each thread adds one part.

        A thread changes its array only after the exchange, so that another one that is interrupted keeps its own.
        """
        vectors = self._exchange(recvbuf)
        size, p = vectors[0].size, len(vectors)
        parts = [slice(rank * size // p, (rank + 1) * size // p) for rank in range(p)]
        own = parts[self._rank]
        total = vectors[0][own].copy()
        for vector in vectors[1:]:
            total += vector[own]
        self._group.totals[self._rank] = total
        self._group.wait(self._rank)
        for part, other in zip(parts, self._group.totals, strict=True):
            vectors[self._rank][part] = other

    def Bcast(self, buf: NDArray[Any], root: int = 0) -> None:  # noqa: N802
        """Replace an array by that of the thread `root`."""
        vectors = self._exchange(buf)
        if self._rank != root:
            vectors[self._rank][:] = vectors[root]
        self._group.wait(self._rank)

    def _exchange(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """The arrays of all threads, as vectors that share their memory."""
        if not array.flags.c_contiguous:
            raise ValueError("the array is not contiguous")
        self._group.arrays[self._rank] = array
        self._group.wait(self._rank)
        return [other.reshape(-1) for other in self._group.arrays]


class _OtherThreadError(Exception):
    """Another thread has ended, so that an exchange cannot be finished."""


class _Group:
    """The array of each thread, its part of the sum, and a queue for each ordered pair of threads.

    Unlike `threading.Barrier`, whose lock is in Python code, a `SimpleQueue` remains usable if a signal handler raises
    an exception while a thread waits. The end of a thread is one more item: the exchanges before it are finished.
    """

    def __init__(self, size: int) -> None:
        self.arrays: list[Any] = [None] * size
        self.totals: list[Any] = [None] * size
        self._queues: list[list[SimpleQueue[bool]]] = [[SimpleQueue() for _ in range(size)] for _ in range(size)]

    def wait(self, rank: int) -> None:
        """Wait until all threads call this method. Raises _OtherThreadError if one of them cannot."""
        self._put(rank, True)
        for other in range(len(self.arrays)):
            if other != rank and not self._queues[other][rank].get():
                raise _OtherThreadError

    def end(self, rank: int) -> None:
        """Tell the other threads that this one has ended. It does not affect the exchanges before."""
        self._put(rank, False)

    def _put(self, rank: int, item: bool) -> None:
        for other, queue in enumerate(self._queues[rank]):
            if other != rank:
                queue.put(item)


def run_threads(size: int, function: Callable[[ThreadCommunicator], Result]) -> list[Result]:
    """Call function(comm) in `size` threads, rank 0 in the current one, and return the results in the order of ranks.

    Meanwhile BLAS has one thread, if threadpoolctl is installed. An exception in one thread ends the others at their
    next exchange, and is raised; of several, that of the lowest rank. Raises HandgradError if a thread returns while
    others wait for an exchange with it.
    """
    group, results, errors = _Group(size), dict[int, Result](), dict[int, BaseException]()

    def run(rank: int) -> None:
        try:
            results[rank] = function(ThreadCommunicator(rank, group))
        except _OtherThreadError:
            pass
        except BaseException as error:  # KeyboardInterrupt too
            errors[rank] = error
        finally:
            group.end(rank)

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank {rank}") for rank in range(1, size)]
    try:
        with if_available(one_blas_thread):
            try:
                for thread in threads:
                    thread.start()
                run(0)
            finally:  # also after an exception of a signal handler between these calls
                group.end(0)
                for thread in threads:
                    if thread.is_alive():
                        thread.join()
        if errors:
            raise errors[min(errors)]
    finally:
        errors.clear()  # they refer to this frame, which would keep everything alive until the next garbage collection
    if len(results) < size:
        raise HandgradError(f"thread {min(results)} ended while other threads waited for it: a callback has stopped it")
    return [results[rank] for rank in range(size)]
