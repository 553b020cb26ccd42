"""Fixtures of several processes: mpiexec, and a communicator of threads in one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def mpiexec():
    """A function that runs a Python program, or arguments of python, in n processes: the finished process.

    The tests are skipped if mpi4py or mpiexec is missing, and fail if HANDGRAD_REQUIRE_MPI is set.
    """
    missing = pytest.fail if os.environ.get("HANDGRAD_REQUIRE_MPI") else pytest.skip
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        missing("mpi4py is not installed: pip install 'handgrad[mpi]'")
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    launcher = shutil.which("mpiexec", path=path)
    if launcher is None:
        missing("mpiexec was not found: pip install 'handgrad[mpi]'")

    def mpiexec(n: int, *arguments: object, cwd: Path, start: bool = False, **variables: str):
        options = {"cwd": cwd, "text": True, "env": environment(cwd, **variables)}
        command = [launcher, "-n", str(n), sys.executable, "-W", "error", *map(str, arguments)]
        if start:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)

    return mpiexec


def environment(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a process that finds no MNIST. As root, Open MPI wants two variables."""
    kept = {k: v for k, v in os.environ.items() if k not in ("HANDGRAD_DATA", "KERAS_HOME")}
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return (
        kept
        | root
        | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "OPENBLAS_NUM_THREADS": "1"}
        | variables
    )


class ThreadComm:
    """A communicator of threads: the smallest object that a Trainer accepts."""

    def __init__(self, rank: int, arrays: list, barrier: threading.Barrier) -> None:
        self.rank, self.arrays, self.barrier = rank, arrays, barrier

    def Get_rank(self):  # noqa: N802
        return self.rank

    def Get_size(self):  # noqa: N802
        return len(self.arrays)

    def Allreduce(self, sendbuf, recvbuf):  # noqa: N802
        assert sendbuf is None
        self.arrays[self.rank] = recvbuf.copy()
        self.barrier.wait(30)
        total = sum(self.arrays[1:], start=self.arrays[0])
        self.barrier.wait(30)
        recvbuf[...] = total

    def Bcast(self, buf, root=0):  # noqa: N802
        self.arrays[self.rank] = buf
        self.barrier.wait(30)
        if self.rank != root:
            buf[...] = self.arrays[root]
        self.barrier.wait(30)


def run_ranks(size, function):
    """Call function(comm) in one thread for each rank, and return the results. An exception in one ends all."""
    barrier, arrays = threading.Barrier(size), [np.empty(0)] * size

    def run(rank):
        try:
            return function(ThreadComm(rank, arrays, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
    errors = [future.exception() for future in futures]
    real = [error for error in errors if error is not None and not isinstance(error, threading.BrokenBarrierError)]
    if real:
        raise real[0]
    return [future.result() for future in futures]


@pytest.fixture(scope="session")
def ranks():
    """The function run_ranks(size, function)."""
    return run_ranks
