"""A slow training that a test kills and resumes: interrupted.py DIRECTORY. It prints its epoch and the norm of θ."""

import os
import sys
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

from handgrad import Adam, Callback, Checkpoint, Network, Trainer
from handgrad.callbacks import resume

EPOCHS = 12


class Slow(Callback):
    """Makes the training last a second, so that it can be killed."""

    def on_batch_end(self, trainer):
        time.sleep(0.01)


def main():
    directory, comm, rng = Path(sys.argv[1]), MPI.COMM_WORLD, np.random.default_rng(0)
    checkpoint = directory / "checkpoint.safetensors"
    x, y = rng.standard_normal((80, 20)), rng.integers(0, 4, 80)
    network = Network([20, 16, 4], loss="cross_entropy", dropout=0.1, rng=0, dtype=np.float64)
    callbacks = [Checkpoint(checkpoint), Slow()]
    trainer = Trainer(network, Adam(0.01), batch_size=8, callbacks=callbacks, rng=0, comm=comm)
    if comm.Get_rank() == 0 and checkpoint.exists():
        resume(trainer, checkpoint)
    comm.Barrier()
    (directory / f"{comm.Get_rank()}.pid").write_text(str(os.getpid()))
    trainer.fit(x, y, until_epoch=EPOCHS)
    if comm.Get_rank() == 0:
        print(trainer.epoch, float(np.linalg.norm(network.parameters)))


main()
