"""Trainings that several processes must end with the weights of one process. Also the program that mpiexec runs."""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path

import numpy as np

from handgrad import (
    EMA,
    SGD,
    Adam,
    AdamW,
    Augmentation,
    EarlyStopping,
    Lookahead,
    Momentum,
    Muon,
    Nesterov,
    Network,
    Trainer,
)
from handgrad.errors import HandgradWarning

# float64 in most of them: Adam divides one rounding error by another where the gradient is 0, as that of a bias before
# a BatchNorm is.
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((205, 20)), rng.integers(0, 4, 205)
IMAGES = rng.integers(0, 256, (120, 28, 28), dtype=np.uint8)
WEIGHTS = rng.uniform(0.5, 2, 205)


def train(
    comm,
    optimizer,
    *,
    images=False,
    weighted=False,
    epochs=2,
    hidden=(24, 16),
    frozen=(),
    dtype=np.float64,
    seed=0,
    **options,
):
    """Train one network. Of several processes, only rank 0 has the right seed; the others receive its state."""
    seed += 0 if comm is None or comm.Get_rank() == 0 else 100
    parts = {name: options.pop(name) for name in ("batch_norm", "dropout", "lr_scale") if name in options}
    scale = parts.pop("lr_scale", 1.0)
    network = Network(
        [784 if images else 20, *hidden, 10 if images else 4],
        activation="relu",
        loss="cross_entropy",
        rng=seed,
        dtype=dtype,
        **parts,
    )
    network.layers[0].lr_scale = scale
    for i in frozen:
        network.layers[i].trainable = False
    trainer = Trainer(network, optimizer, **{"batch_size": 33, "rng": seed, "comm": comm} | options)
    x, y = (IMAGES, np.arange(120) % 10) if images else (X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandgradWarning)  # random labels
        trainer.fit(x, y, epochs=epochs, validation=0.2, sample_weight=WEIGHTS if weighted else None)
    return trainer


def soft_teacher():
    return Network([20, 30, 4], loss="cross_entropy", rng=5, dtype=np.float64)


# 164 of 205 examples are for training. The last batch has 32 rows for batches of 33, and 2 rows, fewer than the ranks,
# for batches of 54 and of 6.
CONFIGURATIONS = {
    "sgd": lambda comm: train(comm, SGD(0.1), dropout=0.2, weighted=True),
    "momentum": lambda comm: train(comm, Momentum(0.05, clip_norm=0.5), batch_norm=True, weighted=True),
    "nesterov": lambda comm: train(comm, Nesterov(0.05, l2=1e-3, l1=1e-4), batch_norm=True, dropout=0.3, batch_size=54),
    "adam": lambda comm: train(comm, Adam(0.01), batch_norm=True, dropout=0.2, callbacks=[EMA(0.9)], lr_scale=0.5),
    "adamw": lambda comm: train(comm, AdamW(0.01), dropout=0.5, batch_size=6, epochs=1, schedule="one_cycle"),
    "muon": lambda comm: train(comm, Muon(0.02, max_norm=2.0), dropout=0.1, teacher=soft_teacher(), batch_size=54),
    "lookahead": lambda comm: train(comm, Lookahead(Adam(0.01), 3), callbacks=[EarlyStopping(patience=1)], epochs=4),
    "float32": lambda comm: train(comm, Momentum(0.05), batch_norm=True, dropout=0.2, dtype=np.float32),
    "frozen": lambda comm: train(comm, Momentum(0.05), batch_norm=True, dropout=0.2, frozen=(0, 5)),
    "augmentation": lambda comm: train(
        comm, Nesterov(0.02), images=True, augment=Augmentation(28, 28, rotation=10, shift=2), dropout=0.2, epochs=2
    ),
}


def main() -> None:
    """Train each configuration and write the weights of rank 0; fail if the ranks have different bits."""
    from mpi4py import MPI

    comm, results = MPI.COMM_WORLD, {}
    for name, configuration in CONFIGURATIONS.items():
        trainer = configuration(comm)
        results[name] = trainer.network.parameters
        results[f"{name}.loss"] = trainer.history["loss"]
        results[f"{name}.val_loss"] = trainer.history["val_loss"]
        hashes = comm.allgather(hashlib.sha256(trainer.network.parameters.tobytes()).hexdigest())
        assert len(set(hashes)) == 1, f"{name}: the ranks have different weights"
    if comm.Get_rank() == 0:
        np.savez(Path(sys.argv[1]), **results)


if __name__ == "__main__":
    main()
