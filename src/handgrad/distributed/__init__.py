"""Several processes and machines: data-parallel training with MPI.

    from mpi4py import MPI

    trainer = Trainer(network, Adam(1e-3), batch_size=256, comm=MPI.COMM_WORLD)

Started with `mpiexec -n 4 python -m mpi4py train.py`, four processes train one network. `handgrad train` needs no
program: `mpiexec -n 4 handgrad train --recipe quick`. handgrad does not need mpi4py for this: `comm` is any object with
the methods of `Communicator`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import submodule
from .data_parallel import Communicator, DataParallel
from .mpi import abort_on_error, launched_rank, launched_size, world

__all__ = ["Communicator", "DataParallel", "abort_on_error", "launched_rank", "launched_size", "world"]

if not TYPE_CHECKING:  # modules that few programs need

    def __getattr__(name: str) -> Any:
        return submodule(__name__, name)
