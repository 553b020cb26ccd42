"""Five hidden layers with 1,000 units: Glorot and Bengio (2010), table 1, the column of MNIST.

    python -m reproductions.glorot

The paper trains with 1,000 units per layer, softmax with cross-entropy, plain SGD with a batch size of 10, and 50,000
digits. The learning rate and the number of epochs were chosen with a validation set. The initial weights are
W ~ U(-r, r) with r = 1 / √n_in, or r = √(6 / (n_in + n_out)) in the rows marked N, and b = 0.

We use the network and the initialization of the paper, but a shorter training: batch size 50, momentum 0.9, and a
cosine schedule over six epochs. The learning rates were chosen with the validation set: 0.015 for tanh, the best of
0.005, 0.015 and 0.05 for tanh N after five epochs on 50,000 digits (`--tune --images 50000 --epochs 5`), and 0.05 for
softsign, half of the best value for batch size 100 after six epochs on 10,000 digits. The test set is evaluated once
per seed.

Sigmoids are trained with Adam. With momentum and a learning rate of 0.1, 0.3, 1 or 3, they learn nothing in twelve
epochs on 10,000 digits: after five sigmoid layers, the outputs for two digits hardly differ and the gradient is tiny.
The step size of Adam does not depend on the size of the gradient (error after six epochs on 10,000 digits: 40 % for
lr 3e-4, 45 % for 1e-4, 89 % for 1e-3).

handgrad has no softsign. This script defines it, and `check_gradient` checks its derivative before the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from handgrad import Adam, Dense, Layer, Momentum, Network, Optimizer, Sigmoid, Tanh, check_gradient
from handgrad.arrays import Array

from .tables import Metrics, Row, Run, Table, errors, main


class Softsign(Layer):
    """a = z / (1 + |z|)"""

    def forward(self, z: Array) -> Array:
        self.d = 1 / (1 + np.abs(z))
        return z * self.d

    def backward(self, da: Array) -> Array:
        return da * self.d * self.d  # da/dz = 1 / (1 + |z|)²


ACTIVATIONS: dict[str, Callable[[], Layer]] = {"tanh": Tanh, "softsign": Softsign, "sigmoid": Sigmoid}
USUAL = {"hidden": [1000] * 5, "batch_size": 50, "momentum": 0.9, "epochs": 6, "images": 50_000}


def initial_network(settings: dict[str, Any], rng: np.random.SeedSequence) -> Network:
    """Create the network with the initialization of its row."""
    activation, sizes = ACTIVATIONS[settings["activation"]], [784, *settings["hidden"]]
    hidden = [part for pair in pairwise(sizes) for part in (Dense(*pair, "xavier_uniform"), activation())]
    layers = [*hidden, Dense(sizes[-1], 10, "xavier_uniform")]
    network = Network(layers, loss="cross_entropy", rng=rng)
    if not settings["normalized"]:
        for W, _ in network.weights:
            n_out, n_in = W.shape
            W *= math.sqrt((n_in + n_out) / (6 * n_in))  # from √(6 / (n_in + n_out)) to 1 / √n_in
    return network


def train(settings: dict[str, Any], seed: int) -> Metrics:
    """Do one run. Returns the error after the last epoch and the training error."""
    check_gradient(Softsign(), np.random.default_rng(seed).standard_normal((5, 7)))
    rng, lr, momentum = np.random.SeedSequence(seed), settings["lr"], settings["momentum"]
    optimizer: Optimizer = Adam(lr) if momentum is None else Momentum(lr, momentum)
    return errors(initial_network(settings, rng), optimizer, settings, rng)


RUNS = {
    "softsign": Run({"activation": "softsign", "normalized": False, "lr": 0.05, **USUAL}, 2),
    "softsign N": Run({"activation": "softsign", "normalized": True, "lr": 0.05, **USUAL}, 2),
    "tanh": Run({"activation": "tanh", "normalized": False, "lr": 0.015, **USUAL}, 2),
    "tanh N": Run({"activation": "tanh", "normalized": True, "lr": 0.015, **USUAL}, 2),
    "sigmoid, Adam": Run({"activation": "sigmoid", "normalized": False, "lr": 3e-4, **USUAL, "momentum": None}, 2),
}

PAPER = {"softsign": 0.0164, "softsign N": 0.0172, "tanh": 0.0176, "tanh N": 0.0164, "sigmoid, Adam": 0.0221}
ROWS = [Row(f"784-5x1000-10, {name}", "test error, last epoch", error, name, "error") for name, error in PAPER.items()]

TABLE = Table(
    "glorot",
    "Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks (2010), table 1; "
    "6 epochs, batch size 50, momentum 0.9.",
    train,
    RUNS,
    ROWS,
    least=0.0015,  # as in simard.py
    most=0.003,
    rates=(0.005, 0.015, 0.05),
)

if __name__ == "__main__":
    main(TABLE, __doc__)
