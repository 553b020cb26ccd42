"""MPI: find the communicator of a program that mpiexec or srun has started, end all processes after an error."""

from __future__ import annotations

import os
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..blas import at_most, if_available
from ..errors import HandgradError, MissingExtraError

if TYPE_CHECKING:
    from .data_parallel import Communicator

# Variables of the launchers: Open MPI, then MPICH, Intel MPI and others, then a step of Slurm.
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
INSTALL = "run pip install 'handgrad[mpi]', or pip install mpi4py and load the MPI library of the cluster"
REPORT_SECONDS = 1.0  # that the other ranks wait before they report an error, which rank 0 may report for all of them
FORWARD_SECONDS = 0.2  # for the launcher to forward what was printed: at an abort, it drops what it has not yet read
WAIT_SECONDS = 0.01  # between two looks at whether the others are ready


def launched_size(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes that mpiexec or srun has started, 1 without them."""
    return _first_number(environment, SIZES, 1)


def launched_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Return the rank that mpiexec or srun has given to this process, 0 without them."""
    return _first_number(environment, RANKS, 0) if launched_size(environment) > 1 else 0


def _first_number(environment: Mapping[str, str], names: tuple[str, ...], default: int) -> int:
    return next((int(environment[name]) for name in names if environment.get(name, "").isdecimal()), default)


def world() -> Any:
    """Return MPI.COMM_WORLD if mpiexec or srun has started several processes, and None otherwise.

    Raises
    ------
    MissingExtraError
        If mpi4py is not installed.
    HandgradError
        If mpi4py finds no MPI library, or another one than that of the launcher.
    """
    size = launched_size()
    if size == 1:
        return None
    os.environ.setdefault("MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1")  # MPICH: the line of the error says enough
    try:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of mpi4py, for another launcher, which `check_launcher` reports
            from mpi4py import MPI
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{size} processes were started, but mpi4py is not installed: {INSTALL}") from error
    except (ImportError, RuntimeError) as error:  # RuntimeError: "cannot load MPI library", in several lines
        reason = str(error).partition("\n")[0]
        raise HandgradError(
            f"{size} processes were started, but mpi4py finds no MPI library ({reason}): {INSTALL}"
        ) from error
    check_launcher(MPI.COMM_WORLD)
    return MPI.COMM_WORLD


def check_launcher(comm: object) -> None:
    """Raise HandgradError if the launcher belongs to another MPI than the library: each process would train alone."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not isinstance(comm, mpi.Comm):
        return
    size, launched = mpi.COMM_WORLD.Get_size(), launched_size()
    if size == 1 < launched:
        library = " ".join(mpi.Get_library_version().rstrip("\0").partition("\n")[0].split())
        raise HandgradError(
            f"the launcher has started {launched} processes, but each one is alone in MPI: mpi4py has loaded another "
            f"MPI ({library}) than that of the launcher; use the mpiexec of that library"
        )


@contextmanager
def abort_on_error(comm: Any, report: Callable[[str], None] | None = None) -> Iterator[None]:
    """End all processes if an exception leaves the `with` block of one of them. Without it, the others wait for ever.

    `python -m mpi4py program.py` does the same for a whole program.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm or None
        The communicator. None: do nothing.
    report : callable, optional
        Prints the message of a HandgradError; by default on stderr.
    """
    if comm is None:
        yield
        return
    try:
        yield
    except SystemExit as end:
        if end.code not in (None, 0):
            _abort(comm, end.code if isinstance(end.code, int) else 1)
        raise
    except KeyboardInterrupt:
        _abort(comm, 130)
    except BaseException as error:
        rank, expected = comm.Get_rank(), isinstance(error, HandgradError)
        if rank:
            time.sleep(REPORT_SECONDS)  # most errors are the same on every rank: rank 0 has ended all by then
        if not expected:
            traceback.print_exception(error)
        message = f"rank {rank}: {error if expected else type(error).__name__}"
        if report is None:
            print(f"handgrad: {message}", file=sys.stderr)
        else:
            report(message)
        _abort(comm, 2 if expected else 1)


def wait_for_all(comm: Any) -> None:
    """Wait until all processes call this function, without using the core as MPI's Barrier does.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm or None
        The communicator. None: do nothing.
    """
    if comm is not None:
        request = comm.Ibarrier()
        while not request.Test():
            time.sleep(WAIT_SECONDS)


def _abort(comm: Any, code: int) -> None:
    """End all processes with this exit code, after what was printed."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    time.sleep(FORWARD_SECONDS)
    comm.Abort(code)


@contextmanager
def limited_threads(comm: Communicator) -> Iterator[None]:
    """Within the `with` block, limit BLAS to the cores of this machine divided by the number of ranks on it.

    Otherwise every rank would use all cores: two ranks with two threads each on two cores take 2.5 times as long. The
    limit needs threadpoolctl. Without it, set OPENBLAS_NUM_THREADS.
    """
    threads = threads_per_rank(comm)
    with if_available(lambda: at_most(threads)):
        yield


def threads_per_rank(comm: Communicator) -> int:
    """Return the number of cores for each rank of this machine, at least 1. All ranks must call it.

    If the launcher has bound the ranks of a machine to different cores, these are the cores of the rank.
    """
    try:
        cores = sorted(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        cores = list(range(os.cpu_count() or 1))
    machine, own = (float(zlib.crc32(text.encode())) for text in (_machine(), str(cores)))
    table = np.zeros((comm.Get_size(), 2))
    table[comm.Get_rank()] = machine, own
    comm.Allreduce(None, table)
    neighbours = table[table[:, 0] == machine]
    sharing = int((neighbours[:, 1] == own).sum())
    return max(1, len(cores) // sharing)


def _machine() -> str:
    import platform

    return platform.node()
