"""Fixtures of several ranks: processes of mpiexec, and threads."""

from __future__ import annotations

import faulthandler
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

from handgrad.distributed.threads import run_threads

SECONDS = 300  # more than any test takes


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


@pytest.fixture(autouse=True)
def no_deadlock(request):
    """Threads that wait for each other for ever end the tests with their tracebacks, on the terminal."""
    terminal = request.config.stash[fault_handler_stderr_fd_key]
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=terminal)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def ranks():
    """The function run_threads(size, function), which calls function(comm) in one thread for each rank."""
    return run_threads
