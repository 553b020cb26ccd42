"""The program of each rank in the benchmarks of several processes: it times Allreduce and the steps of a training.

    mpiexec -n 2 python -m benchmarks.ranks '[{"allreduce": 1000, "repeats": 100}]' [--high-priority]

The first argument is a list of jobs in JSON. Rank 0 prints one list of results. All ranks run on one kernel, also on
the emulated hosts of `benchmarks.hosts`, and read the same clock. Therefore times of different ranks can be compared.

    step        from the first rank that begins a step to the last rank that ends it
    exchange    from the first rank that calls Allreduce to the last rank that returns; in a step, from the last rank
    compute     CPU time of a rank in a step outside of Allreduce, the largest of the ranks

A step and an exchange are short only if all ranks run at the same time. With other programs on the machine, this is
rare for steps of more than a few milliseconds. With --high-priority, which needs root and Linux, other programs wait
while a job is timed. CPU time does not contain the time of other programs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from handgrad import SGD, Network, Trainer
from handgrad.arrays import Array, aligned_empty
from handgrad.distributed import world
from handgrad.errors import HandgradWarning

from .hosts import search_path

QUIET = 10  # percentile
CACHE = 4_000_000  # bytes, more than the second-level cache of a core
HIGH = "--high-priority" in sys.argv
AUTOGROUP = Path("/proc/self/autogroup")  # Linux: the processes of a session, which share the cores with other sessions


@contextmanager
def priority() -> Iterator[None]:
    """Let other programs wait during a `with` block, with --high-priority."""
    if HIGH:
        AUTOGROUP.write_text("-20")
    try:
        yield
    finally:
        if HIGH:
            AUTOGROUP.write_text("0")


def clocks() -> tuple[float, float]:
    """Return the time of all ranks, and the CPU time of this one."""
    return time.perf_counter(), time.thread_time()


class TimedComm:
    """A communicator that notes when Allreduce begins and ends."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self.Get_rank, self.Get_size, self.Bcast = comm.Get_rank, comm.Get_size, comm.Bcast
        self.begin = self.end = (0.0, 0.0)
        self.calls: list[tuple[int, float, float]] = []

    def Allreduce(self, sendbuf: None, recvbuf: Array) -> None:  # noqa: N802
        """Sum an array over the ranks."""
        self.begin = clocks()
        self.comm.Allreduce(sendbuf, recvbuf)
        self.end = clocks()
        self.calls.append((recvbuf.size, self.begin[0], self.end[0]))


class TimedSGD(SGD):
    """SGD that notes the clocks at the begin of a step, of its Allreduce, at the end of both."""

    def __init__(self, lr: float, comm: TimedComm) -> None:
        super().__init__(lr)
        self.comm = comm
        self.notes: list[tuple[tuple[float, float], ...]] = []

    def train_step(self, *arguments: Any, **options: Any) -> Array:
        """Take a step."""
        begin = self.comm.begin = self.comm.end = clocks()
        z = super().train_step(*arguments, **options)
        self.notes.append((begin, self.comm.begin, self.comm.end, clocks()))
        return z


class Alone:
    """The communicator of one process."""

    def Get_rank(self) -> int:  # noqa: N802
        """Return 0."""
        return 0

    def Get_size(self) -> int:  # noqa: N802
        """Return 1."""
        return 1

    def Allreduce(self, sendbuf: None, recvbuf: Array) -> None:  # noqa: N802
        """Do nothing."""

    def Bcast(self, buf: Array, root: int = 0) -> None:  # noqa: N802
        """Do nothing."""

    def Barrier(self) -> None:  # noqa: N802
        """Do nothing."""

    def gather(self, value: Any) -> list[Any]:
        """Return the value of the only rank."""
        return [value]


def summary(seconds: Any) -> dict[str, float]:
    """Return what describes a distribution: the minimum, a low percentile and the median."""
    if not len(seconds):
        return {"min": 0.0, "quiet": 0.0, "median": 0.0}
    low, middle = np.percentile(seconds, [QUIET, 50])
    return {"min": float(np.min(seconds)), "quiet": float(low), "median": float(middle)}


def allreduce(comm: Any, floats: int, repeats: int) -> dict[str, Any]:
    """Time the sum of a vector over the ranks. As in a step, it was just written, and the caches hold other data."""
    other = np.zeros(CACHE // 4, np.float32)
    vector, notes = aligned_empty(floats, np.float32), np.empty((repeats, 2))
    vector.fill(0)
    with priority():
        for i in range(repeats):
            other += 1
            vector.fill(0)
            comm.Barrier()
            notes[i, 0] = time.perf_counter()
            comm.Allreduce(None, vector)
            notes[i, 1] = time.perf_counter()
    table = np.array(comm.gather(notes) or [notes])  # (ranks, repeats, 2)
    return {"exchange": summary(table[:, :, 1].max(axis=0) - table[:, :, 0].min(axis=0))}


def train(comm: Any, sizes: list[int], batch: int, steps: int, sync_every: int | None = None) -> dict[str, Any]:
    """Time the steps of a training on random images, the first ones of each kind excluded."""
    timed, rng = TimedComm(comm), np.random.default_rng(0)
    x = rng.random((batch * steps, sizes[0]), np.float32)
    y = rng.integers(0, sizes[-1], len(x))
    network = Network(sizes, activation="relu", loss="cross_entropy", rng=0)
    optimizer = TimedSGD(1e-3, timed)
    trainer = Trainer(network, optimizer, batch_size=batch, comm=timed, sync_every=sync_every, rng=0)
    with priority():
        trainer.fit(x, y, epochs=1, progress=False)
    notes = optimizer.notes[min(5, steps // 4) :]
    table = np.array(comm.gather(notes) or [notes])  # (ranks, steps, 4, 2)
    wall, cpu = table[..., 0], table[..., 1]
    compute = cpu[:, :, 3] - cpu[:, :, 0] - (cpu[:, :, 2] - cpu[:, :, 1])
    result = {
        "step": summary(wall[:, :, 3].max(axis=0) - wall[:, :, 0].min(axis=0)),
        "exchange": summary(wall[:, :, 2].max(axis=0) - wall[:, :, 1].max(axis=0)),
        "compute": summary(compute.max(axis=0)),
    }
    if sync_every is not None:  # θ is exchanged after every `sync_every` steps, and not within a step
        calls = [(begin, end) for size, begin, end in timed.calls if size == network.parameters.size]
        averages = np.array(comm.gather(calls) or [calls])
        result["exchange"] = summary(averages[:, :, 1].max(axis=0) - averages[:, :, 0].max(axis=0))
    if comm.Get_size() == 1:
        result["update"] = update(network, 20)
    return result


def update(network: Network, repeats: int) -> dict[str, float]:
    """Time the update θ - lr dθ."""
    optimizer, seconds = SGD(1e-6), []
    for _ in range(repeats):
        begin = time.thread_time()
        optimizer.step(network)
        seconds.append(time.thread_time() - begin)
    return summary(seconds[1:])


def addition(floats: int, repeats: int) -> dict[str, Any]:
    """Time the addition of two vectors, γ n."""
    a, b, seconds = np.zeros(floats, np.float32), np.ones(floats, np.float32), []
    for _ in range(repeats):
        begin = time.thread_time()
        np.add(a, b, out=a)
        seconds.append(time.thread_time() - begin)
    return {"addition": summary(seconds)}


def launch(ranks: int, jobs: Sequence[Mapping[str, Any]], high_priority: bool = False) -> list[dict[str, Any]]:
    """Run jobs in several processes on this machine, with one BLAS thread each, and return their results."""
    command = [sys.executable, *program(jobs, high_priority)]
    if ranks > 1:
        command = ["mpiexec", "-n", str(ranks), *command]
    environment = {**os.environ, "PATH": search_path(), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, start_new_session=True)
    if done.returncode:
        raise RuntimeError(f"mpiexec ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return list(json.loads(done.stdout))


def program(jobs: Sequence[Mapping[str, Any]], high_priority: bool) -> list[str]:
    """Return the arguments of Python that run jobs in a rank."""
    return ["-m", "benchmarks.ranks", json.dumps(jobs), *["--high-priority"] * high_priority]


def main() -> None:
    """Run the jobs of the command line."""
    comm = world() or Alone()
    warnings.simplefilter("ignore", HandgradWarning)  # random labels cannot be learned
    results = []
    for job in json.loads(sys.argv[1]):
        if "allreduce" in job:
            results.append(allreduce(comm, job["allreduce"], job["repeats"]))
        elif "addition" in job:
            results.append(addition(job["addition"], job["repeats"]))
        else:
            results.append(train(comm, **job))
    if comm.Get_rank() == 0:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
