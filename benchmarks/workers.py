"""Worker processes with one peer each, so that the thread pools of the libraries do not disturb each other.

A worker has a fixed number of threads. It is set by environment variables before NumPy is imported, for JAX by the
processors that the process may use, and for PyTorch by `set_num_threads`. While one worker is timed, the others wait.
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
PAUSE = 0.05  # seconds; after a product, the second thread of OpenBLAS keeps a core busy for 0.04 s


class PeerError(Exception):
    """An exception of a peer in its worker, with the traceback as text."""


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A process with one peer. `call` runs a method of `Server` in it and returns the result."""

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

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of `Server`. Raises PeerError if it raises an exception or if the process ended."""
        try:
            self.pipe.send((method, arguments))
            succeeded, result = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise PeerError(f"the process of {self.peer} ended with exit code {self.process.exitcode}") from error
        if not succeeded:
            raise PeerError(result)
        return result

    def timed(self, method: str, *arguments: Any) -> float:
        """Call a method that measures seconds, then wait until the threads of the worker sleep."""
        seconds: float = self.call(method, *arguments)
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
    """One worker for each peer and number of threads, started when needed, ended with the `with` block."""

    def __init__(self) -> None:
        self._workers: dict[tuple[str, int], Worker] = {}

    def get(self, peer: str, threads: int) -> Worker:
        """Return the worker of a peer with this number of threads."""
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


class Server:
    """The methods that a worker can run."""

    def __init__(self, peer: str, threads: int) -> None:
        self.kind, self.threads = PEERS[peer], threads
        self.peer: Peer | None = None

    def prepare(self, task: Task, form: str) -> None:
        """Create the peer for a task."""
        self.peer = None  # free its memory first
        self.peer = self.kind(task, form, self.threads)
        self.start: Floats = task.network().parameters.copy()
        self.batches = task.case.batches

    def forget(self) -> None:
        """Free all memory."""
        self.peer = None
        floats.cache_clear()

    def train(self, count: int) -> Floats:
        """Return the weights after `count` steps from the initial weights."""
        peer = self._at_start()
        peer.steps(count)
        return peer.parameters()

    def train_epoch(self, count: int, seed: int) -> Floats:
        """Return the weights after an epoch of `count` examples from the initial weights."""
        peer = self._at_start()
        peer.epoch(count, seed)
        return peer.parameters()

    def steps(self, count: int) -> float:
        """Return the seconds per step of `count` steps, after a pass over the batches that is not timed."""
        peer = self._at_start()
        peer.steps(min(count, self.batches))
        begin = time.perf_counter()
        peer.steps(count)
        return (time.perf_counter() - begin) / count

    def epoch(self, count: int, seed: int) -> float:
        """Return the seconds per example of an epoch of `count` examples, after some steps that are not timed."""
        peer = self._at_start()
        peer.steps(min(self.batches, count // peer.batch))
        begin = time.perf_counter()
        peer.epoch(count, seed)
        return (time.perf_counter() - begin) / count

    def predict(self, count: int) -> float:
        """Return the seconds of a prediction for `count` images, the best within a tenth of a second."""
        peer = self._at_start()
        images = peer.images(count)
        peer.predict(images)
        best, end = math.inf, time.perf_counter() + 0.1
        while (begin := time.perf_counter()) < end:
            peer.predict(images)
            best = min(best, time.perf_counter() - begin)
        return best

    def predictions(self, count: int) -> NDArray[np.integer[Any]]:
        """Return the predicted classes of `count` images."""
        peer = self._at_start()
        return np.asarray(peer.predict(peer.images(count)))

    def reference(self, task: Task, count: int, epsilon_inside: bool, seed: int | None) -> Floats:
        """See `peers.reference`."""
        return reference(task, count, epsilon_inside, seed)

    def peak(self, sizes: Sequence[int] = (2048,), times: int = 3) -> float:
        """Return the FLOP/s of NumPy's matmul for square float32 matrices, the best of `times` products."""
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
        """Return the loaded thread pools, if threadpoolctl is installed."""
        with suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("threadpoolctl")
            from threadpoolctl import threadpool_info

            keys = ("internal_api", "version", "threading_layer", "architecture", "num_threads")
            return [{key: pool.get(key) for key in keys} for pool in threadpool_info()]
        return []

    def _at_start(self) -> Peer:
        if self.peer is None:
            raise RuntimeError("call prepare first")
        self.peer.load(self.start)
        return self.peer


def _serve(pipe: Connection, peer: str, threads: int) -> None:
    """Run the worker process until the pipe is closed."""
    if peer.startswith("jax") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # XLA starts one thread per processor
    server = Server(peer, threads)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            method, arguments = pipe.recv()
            try:
                result = True, getattr(server, method)(*arguments)
            except Exception:
                result = False, traceback.format_exc()
            pipe.send(result)
