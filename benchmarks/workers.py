"""Processes that each hold one peer and do what they are asked, so that no thread pool disturbs another's.

A worker is started with its number of threads: in the environment before NumPy is imported, by the processors that it
may use for JAX, by PyTorch's own call for PyTorch. While one is timed the others wait for their pipes.
"""

from __future__ import annotations

import importlib.metadata
import math
import multiprocessing
import os
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .peers import PEERS, Floats, Peer, Task, floats, reference

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")
PAUSE = 0.05  # seconds; for 0.04 s after a product OpenBLAS's second thread keeps a core busy, waiting for the next


class PeerError(Exception):
    """What a peer raised in its worker, its traceback as text."""


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A process with one peer, `ask`ed to call a method of `Station`'s, and answering with what that returns."""

    def __init__(self, peer: str, threads: int) -> None:
        self.peer, self.threads = peer, threads
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, peer, threads), daemon=True)
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(dict.fromkeys(THREADS, str(threads)))
        try:
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """The method's answer. Raises PeerError with what the peer raised."""
        try:
            self.pipe.send((method, arguments))
            done, answer = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise PeerError(f"the process of {self.peer} died, exit code {self.process.exitcode}") from error
        if not done:
            raise PeerError(answer)
        return answer

    def timed(self, method: str, *arguments: Any) -> float:
        """What `ask` gives; then a pause until the worker's threads have gone to sleep."""
        seconds: float = self.ask(method, *arguments)
        if self.threads > 1:
            time.sleep(PAUSE)
        return seconds

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self.pipe.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Workers:
    """One worker for each peer and number of threads, started when first asked for, ended with the `with` block."""

    def __init__(self) -> None:
        self._workers: dict[tuple[str, int], Worker] = {}

    def get(self, peer: str, threads: int) -> Worker:
        """The worker."""
        key = peer, threads
        if key not in self._workers or not self._workers[key].process.is_alive():
            self._workers[key] = Worker(peer, threads)
        return self._workers[key]

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.close()


class Station:
    """What a worker can be asked."""

    def __init__(self, peer: str, threads: int) -> None:
        self.kind, self.threads = PEERS[peer], threads
        self.peer: Peer | None = None

    def prepare(self, task: Task, form: str) -> None:
        """Make the peer for a task."""
        self.peer = None  # what it held goes before the next one comes
        self.peer = self.kind(task, form, self.threads)
        self.start: Floats = task.network().parameters.copy()
        self.around = task.case.batches

    def forget(self) -> None:
        """Hold nothing."""
        self.peer = None
        floats.cache_clear()

    def train(self, count: int) -> Floats:
        """The weights after `count` steps from the start."""
        peer = self._at_start()
        peer.steps(count)
        return peer.parameters()

    def train_epoch(self, count: int, seed: int) -> Floats:
        """The weights after an epoch of `count` examples from the start."""
        peer = self._at_start()
        peer.epoch(count, seed)
        return peer.parameters()

    def steps(self, count: int) -> float:
        """Seconds a step, over `count` steps; once round the batches goes before, untimed."""
        peer = self._at_start()
        peer.steps(min(count, self.around))
        begin = time.perf_counter()
        peer.steps(count)
        return (time.perf_counter() - begin) / count

    def epoch(self, count: int, seed: int) -> float:
        """Seconds an example, over an epoch of `count`; some steps go before, untimed."""
        peer = self._at_start()
        peer.steps(min(self.around, count // peer.batch))
        begin = time.perf_counter()
        peer.epoch(count, seed)
        return (time.perf_counter() - begin) / count

    def predict(self, count: int) -> float:
        """Seconds of a call for the classes of `count` pictures: the best of as many as fill a tenth of a second."""
        peer = self._at_start()
        pictures = peer.pictures(count)
        peer.predict(pictures)
        best, end = math.inf, time.perf_counter() + 0.1
        while (begin := time.perf_counter()) < end:
            peer.predict(pictures)
            best = min(best, time.perf_counter() - begin)
        return best

    def answers(self, count: int) -> NDArray[np.integer[Any]]:
        """The classes of `count` pictures."""
        peer = self._at_start()
        return np.asarray(peer.predict(peer.pictures(count)))

    def reference(self, task: Task, count: int, epsilon_inside: bool, seed: int | None) -> Floats:
        """See `peers.reference`."""
        return reference(task, count, epsilon_inside, seed)

    def peak(self, sizes: Sequence[int] = (2048,), times: int = 3) -> float:
        """FLOP/s of the best of `times` products of two square float32 matrices, NumPy's matmul."""
        best = 0.0
        for n in sizes:
            a, b = np.ones((n, n), np.float32), np.ones((n, n), np.float32)
            c = a @ b
            for _ in range(times):
                begin = time.perf_counter()
                np.matmul(a, b, out=c)
                best = max(best, 2 * n**3 / (time.perf_counter() - begin))
        return best

    def blas(self) -> list[dict[str, Any]]:
        """The thread pools that are loaded, where threadpoolctl, which scikit-learn brings, can tell."""
        with suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("threadpoolctl")
            from threadpoolctl import threadpool_info

            keys = ("internal_api", "version", "threading_layer", "architecture", "num_threads")
            return [{key: pool.get(key) for key in keys} for pool in threadpool_info()]
        return []

    def _at_start(self) -> Peer:
        if self.peer is None:
            raise RuntimeError("prepare comes first")
        self.peer.load(self.start)
        return self.peer


def _serve(pipe: Connection, peer: str, threads: int) -> None:
    """The worker's process: answer until the pipe is closed."""
    if peer.startswith("jax") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # XLA has a thread for each processor
    station = Station(peer, threads)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            method, arguments = pipe.recv()
            try:
                answer = True, getattr(station, method)(*arguments)
            except Exception:
                answer = False, traceback.format_exc()
            pipe.send(answer)
