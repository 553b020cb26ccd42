"""Train a network on several processes: mpiexec -n 4 python -m mpi4py train.py."""

import argparse

from mpi4py import MPI

from handgrad import Adam, Checkpoint, Network, Trainer, save
from handgrad.data import load

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--examples", type=int, default=50_000)
options = parser.parse_args()
comm = MPI.COMM_WORLD

# Every process reads the whole training set and uses its own rows of each batch.
(x, y), validation, test = load("mnist").split(10_000)
network = Network([784, 512, 512, 10], activation="relu", loss="cross_entropy", dropout=0.2, rng=0)
trainer = Trainer(
    network,
    Adam(1e-3),
    batch_size=256,
    schedule="cosine",
    callbacks=[Checkpoint("checkpoint.safetensors")],  # written by the process with rank 0
    rng=0,
    comm=comm,
)
trainer.fit(x[: options.examples], y[: options.examples], epochs=options.epochs, validation=validation)

# All processes have the same weights: one of them writes the model.
if comm.Get_rank() == 0:
    save(network, "model.safetensors")
    print(f"{comm.Get_size()} processes: test accuracy {network.evaluate(*test).accuracy:.2%}")
